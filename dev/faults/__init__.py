"""Faults on demand between two parties that are both real.

    async with fault_proxy(cluster.url, ca_file=cluster.ca_file) as proxy:
        operator = OperatorProcess(proxy.cluster(cluster), log)
        await operator.start()
        with proxy.fault(Silence(), verb="watch", resource="namespaces"):
            ...

A fake server could only fail in the ways that its author thinks of, at places that he chose.  Here the API server, the
registry or the provider is the real one, and what a rule names is damaged on its way.
"""

from dev.faults.actions import Answer, Cut, Delay, Drip, Garbage, Huge, Silence, Stale
from dev.faults.proxy import FaultProxy, fault_proxy
from dev.faults.rules import Ask, Rule, Seen, read_ask

__all__ = [
    "Answer",
    "Ask",
    "Cut",
    "Delay",
    "Drip",
    "FaultProxy",
    "Garbage",
    "Huge",
    "Rule",
    "Seen",
    "Silence",
    "Stale",
    "fault_proxy",
    "read_ask",
]
