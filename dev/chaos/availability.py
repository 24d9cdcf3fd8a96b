"""Two replicas of which one leads: what becomes of the service, and of the API server, when the leader fails.

Each experiment lets namespaces be born all the while, so that the leader always has something in hand, fails it in one
way, and then asks the audit log: when did the other replica lead, and has anything been written by the first since?
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from dev.audit import AuditLog, Request
from dev.chaos.arena import Arena
from dev.chaos.book import Finding, experiment
from dev.cluster import Cluster
from dev.faults import Delay, FaultProxy, Rule, fault_proxy
from dev.operator_process import NAMESPACE, OperatorProcess
from dev.processes import tail
from dev.replicas import OPERATOR_USER, double_writes, make_pods, replica
from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors

#: Seconds between two births.
_PULSE = 0.5
#: Seconds that the writes take during which a leader is stopped.
_IN_HAND = 1.0
#: Seconds that the old leader has to end after what failed it is over.
_TO_END = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Handover:
    """What came of one failure of a leader.

    Attributes:
        seconds: from the failure until the other replica had the Lease.
        served: seconds from the failure until the first namespace was served that was born after it.
        exit_code: of the old leader; negative where a signal ended it.
        double: writes by the old leader after the other one led.
        writes: of both, in all, that were looked at.
    """

    seconds: float
    served: float
    exit_code: int
    double: int
    writes: int


@dataclasses.dataclass
class Pair:
    """Two replicas, each with its own way to the API server.

    Attributes:
        cluster: of both.
        client: an administrator's.
        replicas: both processes.
        ways: the proxy before the API server of each.
        id: names of this pair's objects begin with it.
    """

    cluster: Cluster
    client: api.Client
    replicas: tuple[OperatorProcess, OperatorProcess]
    ways: tuple[FaultProxy, FaultProxy]
    id: str
    leader: int = 0
    _born: int = 0

    @property
    def old(self) -> OperatorProcess:
        """The one that leads when an experiment begins."""
        return self.replicas[self.leader]

    @property
    def way(self) -> FaultProxy:
        """Its way to the API server."""
        return self.ways[self.leader]

    async def begin(self) -> None:
        """Let both run and one of them lead."""
        for each in self.replicas:
            if not each.running:
                await each.start()

        async def one_leads() -> bool:
            for number, each in enumerate(self.replicas):
                if "regcred_leader 1.0" in await each.metrics():
                    self.leader = number
                    return await each.ready()
            return False

        await eventually(one_leads, f"a leader\n{tail(self.replicas[0].log)}", seconds=90)

    async def born(self) -> str:
        """Create a namespace that wants a Secret."""
        self._born += 1
        name = f"{self.id}-{self._born}"
        await self.client.request(
            "POST", "/api/v1/namespaces", body={"metadata": {"name": name, "labels": {"pair": self.id}}}
        )
        return name

    async def served(self, name: str) -> bool:
        """Whether a namespace has its Secret."""
        try:
            await self.client.get(f"/api/v1/namespaces/{name}/secrets/regcred")
        except errors.ApiError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def births(self) -> AsyncIterator[None]:
        """Let namespaces be born within a block."""

        async def go_on() -> None:
            while True:
                with contextlib.suppress(errors.ApiError):
                    await self.born()
                await asyncio.sleep(_PULSE)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def clean(self) -> None:
        """Delete what was born."""
        await self.client.close()
        await self.cluster.kubectl("delete", "crcred", self.id, "--ignore-not-found", "--wait=false")
        await self.cluster.kubectl("delete", "secret", "-n", NAMESPACE, f"{self.id}-login", "--ignore-not-found")
        await self.cluster.kubectl("delete", "namespace", "-l", f"pair={self.id}", "--wait=false")
        await self.cluster.kubectl(
            "delete", "pod", "-n", NAMESPACE, *(each.pod for each in self.replicas), "--wait=false", "--force"
        )


@contextlib.asynccontextmanager
async def pair(cluster: Cluster, folder: Path, *flags: str, password: str = "") -> AsyncIterator[Pair]:
    """Two replicas on a cluster in which `install` was called and no other operator runs.

    Args:
        cluster: ours, with an audit log.
        folder: for their logs.
        flags: of both.
        password: that is handed out; any by default.
    """
    made = f"pair-{uuid.uuid4().hex[:6]}"
    names = (f"{made}-a", f"{made}-b")
    async with contextlib.AsyncExitStack() as stack:
        await make_pods(cluster, *names)
        ways = (
            await stack.enter_async_context(fault_proxy(cluster.url, ca_file=cluster.ca_file)),
            await stack.enter_async_context(fault_proxy(cluster.url, ca_file=cluster.ca_file)),
        )
        first, second = (
            replica(way.cluster(cluster, name), folder / f"{name}.log", name, *flags)
            for way, name in zip(ways, names, strict=True)
        )
        client = api.Client(api.login(str(cluster.admin_kubeconfig)))
        both = Pair(cluster, client, (first, second), ways, made)
        stack.push_async_callback(both.clean)
        await cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/basic-auth",
                "metadata": {"name": f"{made}-login", "namespace": NAMESPACE},
                "stringData": {"username": "alice", "password": password or made},
            },
            {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "ClusterRegistryCredential",
                "metadata": {"name": made},
                "spec": {
                    "registries": [
                        {"server": "registry.example.test", "login": {"secretRef": {"name": f"{made}-login"}}}
                    ],
                    "namespaces": {"selector": {"matchLabels": {"pair": made}}},
                },
            },
        )
        for each in (first, second):
            stack.push_async_callback(each.stop)
        yield both


async def terminated(both: Pair) -> Handover:
    """SIGTERM: the Lease is freed, and the other one leads within seconds."""
    return await _handover(both, lambda: _signalled(both, signal.SIGTERM))


async def killed(both: Pair) -> Handover:
    """SIGKILL: the other one leads when the Lease has run out."""
    return await _handover(both, lambda: _signalled(both, signal.SIGKILL))


async def frozen(both: Pair) -> Handover:
    """SIGSTOP amid its work until the other one leads and has written, then SIGCONT: it ends without another write.

    The answers to what it has asked for arrive while it sleeps: when it wakes, its next writes are but a step away.
    """
    with contextlib.ExitStack() as stack:

        async def stop() -> None:
            rule = stack.enter_context(both.way.fault(Delay(_IN_HAND), verb="patch", resource="secrets"))
            await eventually(lambda: _hit(rule), "the leader to write a Secret", seconds=60, every=0.01)
            await _signalled(both, signal.SIGSTOP)

        return await _handover(both, stop, lambda: _signalled(both, signal.SIGCONT))


async def partitioned(both: Pair) -> Handover:
    """No way to the API server, connections refused: the leader ends before its Lease can be taken."""
    with contextlib.ExitStack() as stack:
        return await _handover(both, lambda: _entered(stack, both.way.partition()))


async def swallowed(both: Pair) -> Handover:
    """A way to the API server that swallows everything: the leader ends as well, though nothing is ever refused."""
    with contextlib.ExitStack() as stack:
        return await _handover(both, lambda: _entered(stack, both.way.black_hole()))


async def _signalled(both: Pair, number: signal.Signals) -> None:
    os.kill(both.old.pid, number)


async def _hit(rule: Rule) -> bool:
    return rule.hits > 0


async def _entered(stack: contextlib.ExitStack, fault: contextlib.AbstractContextManager[object]) -> None:
    stack.enter_context(fault)


async def _handover(
    both: Pair, fail: Callable[[], Awaitable[None]], wake: Callable[[], Awaitable[None]] | None = None
) -> Handover:
    assert both.cluster.audit_log is not None, "the audit log is the judge"  # noqa: S101
    await both.begin()
    old, new = both.old, both.replicas[1 - both.leader]
    audit = AuditLog(both.cluster.audit_log)
    # The kubelet would start the new leader again, should the machine be too busy for its Lease.
    async with new.kept(), both.births():
        await eventually(lambda: _wrote(audit, old.pod), "the leader to be at work", seconds=120)
        await fail()
        began, moment = time.monotonic(), _now()
        probe = await both.born()
        await eventually(
            lambda: both.served(probe), f"{probe} to be served\n{tail(new.log)}", seconds=120, every=0.05
        )
        served = time.monotonic() - began
        await eventually(lambda: _wrote(audit, new.pod), "the other one to be at work", seconds=120)
        if wake is not None:
            await wake()
        async with asyncio.timeout(_TO_END):
            code = await old.ended()
        # Whatever the old one has sent is in the log by now: it is gone, and the other one has gone on.
        last = await both.born()
        await eventually(lambda: both.served(last), f"{last} to be served\n{tail(new.log)}", seconds=180)
    requests = list(audit.requests(OPERATOR_USER))
    taken = next(
        row.at
        for row in requests
        if row.pod == new.pod and row.resource == "leases" and row.is_write and row.code < 400 and row.at > moment
    )
    return Handover(
        seconds=_parsed(taken) - _parsed(moment),
        served=served,
        exit_code=code,
        double=len(double_writes(requests)),
        writes=sum(1 for row in requests if row.is_write and row.code < 400),
    )


async def _wrote(audit: AuditLog, pod: str) -> bool:
    return any(_secret_of(row, pod) for row in audit.requests(OPERATOR_USER))


def _secret_of(row: Request, pod: str) -> bool:
    return row.pod == pod and row.resource == "secrets" and row.is_write and row.code < 400


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parsed(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


# The book's entries.


async def _found(arena: Arena, fail: Callable[[Pair], Awaitable[Handover]], code: int) -> Finding:
    flags = ("--lease-duration=6", "--lease-deadline=4") if arena.quick else ()
    async with pair(arena.cluster, arena.folder, *flags, password=arena.evidence.canary()) as both:
        arena.evidence.logs += [each.log for each in both.replicas]
        seen = await fail(both)
    return Finding(
        seen.double == 0 and seen.exit_code == code,
        f"{seen.double} double writes among {seen.writes}; the first ended with exit code {seen.exit_code}",
        f"Lease taken after {seen.seconds:.1f} s, the next namespace served after {seen.served:.1f} s",
    )


@experiment(
    9,
    "leader-terminated",
    title="The leader of two replicas gets SIGTERM amid its work",
    expected="It frees the Lease and ends with 0; the other one leads within seconds; no double write",
)
async def leader_terminated(arena: Arena) -> Finding:
    """Hand over in good order."""
    return await _found(arena, terminated, 0)


@experiment(
    9,
    "leader-killed",
    title="The leader gets SIGKILL amid its work",
    expected="The other one leads when the Lease has run out; no double write",
)
async def leader_killed(arena: Arena) -> Finding:
    """Hand over by death."""
    return await _found(arena, killed, -signal.SIGKILL)


@experiment(
    9,
    "leader-frozen",
    title="The leader gets SIGSTOP amid its writes and wakes when the other one leads",
    expected="It ends before it writes anything more",
)
async def leader_frozen(arena: Arena) -> Finding:
    """Let a leader sleep through the loss of its Lease."""
    return await _found(arena, frozen, 1)


@experiment(
    9,
    "leader-cut-off",
    title="The leader is cut off from the API server, the other one is not",
    expected="It ends by itself before its Lease can be taken; no double write",
)
async def leader_cut_off(arena: Arena) -> Finding:
    """Partition the leader."""
    return await _found(arena, partitioned, 1)


@experiment(
    9,
    "leader-unheard",
    title="All that the leader sends vanishes, and nothing is ever refused",
    expected="It ends by itself before its Lease can be taken; no double write",
)
async def leader_unheard(arena: Arena) -> Finding:
    """Swallow what the leader sends."""
    return await _found(arena, swallowed, 1)
