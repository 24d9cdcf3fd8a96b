"""Fills the metrics from what the operator knows, whenever somebody asks for them.

The number of series is bounded: tenants may create any number of resources, so only cluster resources are counted one
by one, and of registries so many have series of their own, those in trouble first.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterator

from regcred import engine, telemetry
from regcred.api import conditions, names
from regcred.api import resource as api_resource
from regcred.credentials import keeper, provider

#: Registries that have series of their own, at the most.
LISTED = 1000
#: The conditions that are counted; a status that has not been written yet counts as Unknown.
_SUMMED = (conditions.READY, conditions.FETCHED, conditions.DISTRIBUTED, conditions.STALLED)
_STATUSES = ("True", "False", "Unknown")
_RESULTS = (
    (provider.Throttled, "throttled"),
    (provider.Denied, "denied"),
    (provider.InvalidSpec, "invalid"),
)

_Entry = tuple[api_resource.Resource, keeper.Row]


def collect(built: engine.Engine, watch_age: float) -> None:
    """Set every gauge.

    Args:
        built: the engine of a replica at work.
        watch_age: seconds since the quietest watch was heard of.
    """
    telemetry.QUEUE_DEPTH.set(built.queue.depth)
    telemetry.QUEUE_RETRYING.set(built.queue.retrying)
    telemetry.WATCH_AGE.set(watch_age)
    _resources(built)
    _namespaces(built)
    _entries(built)


def fetched(name: str, error: provider.ProviderError | None, seconds: float) -> None:
    """Count a fetch of the provider `name`, which took `seconds`."""
    result = "success" if error is None else "retryable"
    for kind, told in _RESULTS:
        if isinstance(error, kind):
            result = told
    telemetry.FETCHES.labels(name, result).inc()
    telemetry.FETCH_SECONDS.labels(name).observe(seconds)


def request(method: str, status: int) -> None:
    """Count an answer of the API server."""
    telemetry.REQUESTS.labels(method, str(status)).inc()


def _resources(built: engine.Engine) -> None:
    counts = collections.Counter(
        (parsed.kind, type_, _status(parsed, type_)) for parsed in built.resources.values() for type_ in _SUMMED
    )
    for kind in (names.CLUSTER_KIND, names.NAMESPACED_KIND):
        for type_ in _SUMMED:
            for status in _STATUSES:
                telemetry.RESOURCES.labels(kind, type_, status).set(counts[kind, type_, status])


def _status(parsed: api_resource.Resource, type_: str) -> str:
    found = conditions.find_condition(parsed.status.get("conditions"), type_)
    if found is None:
        # Stalled is there only while it is true.
        known = type_ == conditions.STALLED and parsed.status.get("conditions")
        return "False" if known else "Unknown"
    status = found.get("status")
    return status if status in _STATUSES else "Unknown"


def _namespaces(built: engine.Engine) -> None:
    telemetry.NAMESPACES.clear()
    telemetry.ACCOUNTS.clear()
    for uid, parsed in built.resources.items():
        facts = built.facts(uid) if parsed.cluster else None
        if facts is None:
            continue
        count = facts.count
        for state, number in (
            ("synced", count.synced),
            ("failed", count.failed),
            ("conflicted", count.conflicted),
            ("waiting", count.waiting),
        ):
            telemetry.NAMESPACES.labels(parsed.name, state).set(number)
        missing = count.accounts - count.attached - count.contended
        for state, number in (
            ("attached", count.attached),
            ("missing", max(missing, 0)),
            ("contended", count.contended),
        ):
            telemetry.ACCOUNTS.labels(parsed.name, state).set(number)


def _entries(built: engine.Engine) -> None:
    gauges = (telemetry.EXPIRY, telemetry.RENEWAL, telemetry.USABLE, telemetry.FAILING)
    for gauge in gauges:
        gauge.clear()
    every = list(_all(built))
    telemetry.UNLISTED.set(max(len(every) - LISTED, 0))
    for parsed, row in heapq.nsmallest(LISTED, every, key=_rank):
        where = (parsed.kind, parsed.namespace, parsed.name, row.server)
        if row.expires_at is not None:
            telemetry.EXPIRY.labels(*where).set(row.expires_at.timestamp())
        if row.next_at is not None:
            telemetry.RENEWAL.labels(*where).set(row.next_at.timestamp())
        telemetry.USABLE.labels(*where).set(row.usable)
        telemetry.FAILING.labels(*where).set(not row.settled and not row.pending)


def _all(built: engine.Engine) -> Iterator[_Entry]:
    for uid, parsed in built.resources.items():
        if parsed.spec is not None and not parsed.spec.suspend and not parsed.deleting:
            for row in built.rows(uid):
                yield parsed, row


def _rank(entry: _Entry) -> tuple[bool, bool, str, str, str]:
    parsed, row = entry
    well = row.usable and row.settled
    return not parsed.cluster, well, parsed.namespace, parsed.name, row.server
