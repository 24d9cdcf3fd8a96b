"""Two replicas of the operator, each with the token of a pod of its own, and what the audit log says of them.

On a local control plane nothing runs pods, so these pods never start: they lend their names to tokens, as the kubelet
does it, and the audit log then tells which replica has made a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from dev.audit import Request
from dev.cluster import Cluster
from dev.operator_process import ACCOUNT, NAMESPACE, OperatorProcess
from dev.processes import CommandError

OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"


async def make_pods(cluster: Cluster, *names: str) -> None:
    """Create the pods that tokens are bound to."""
    await cluster.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "schedulerName": "nobody",
                    "containers": [{"name": "regcred", "image": "regcred.invalid/regcred"}],
                },
            }
            for name in names
        )
    )


def replica(
    cluster: Cluster, log: Path, name: str, *flags: str, environment: Mapping[str, str] | None = None
) -> OperatorProcess:
    """A replica whose identity is the name of a pod that `make_pods` has made."""
    return OperatorProcess(cluster, log, *flags, environment=environment, identity=name, pod=name)


@dataclasses.dataclass(frozen=True, slots=True)
class DoubleWrite:
    """A write by a replica after another one had taken the Lease.

    Attributes:
        leader: who had the Lease.
        write: what came after.
    """

    leader: str
    write: Request


def double_writes(requests: Iterable[Request]) -> list[DoubleWrite]:
    """Return every write that arrived after another replica had its Lease stored.

    Args:
        requests: of all replicas, each with the name of its pod; in any order.
    """
    mine = [request for request in requests if request.is_write and request.code < 400]
    taken = sorted((row.at, row.pod) for row in mine if row.resource == "leases")
    writes = sorted((row for row in mine if row.resource != "leases"), key=lambda row: row.began)
    found, leader, place = [], "", 0
    for write in writes:
        while place < len(taken) and taken[place][0] <= write.began:
            leader = taken[place][1]
            place += 1
        if leader and write.pod != leader:
            found.append(DoubleWrite(leader, write))
    return found


class Supervised:
    """A replica that is started again when it ends, as the kubelet would.

    Attributes:
        process: the replica.
        exits: its exit codes so far: negative where a signal ended it.
        starts: how often it was started.
    """

    def __init__(self, process: OperatorProcess) -> None:
        self.process = process
        self.exits: list[int] = []
        self.starts = 0
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The replica's name."""
        return self.process.identity

    def start(self) -> None:
        """Begin to keep it running."""
        self._task = asyncio.create_task(self._keep(), name=f"replica {self.name}")

    async def stop(self) -> int | None:
        """End it in good order, for good; return its exit code."""
        self._ending = True
        code = await self.process.stop()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        return code

    async def leads(self) -> bool:
        """Whether it says that it leads."""
        if not self.process.running or not self.process.port():
            return False
        return "regcred_leader 1.0" in await self.process.metrics()

    async def _keep(self) -> None:
        while not self._ending:
            try:
                # Its token is asked for first, and the API server may be down.
                await self.process.start(ready=False)
            except CommandError:
                await asyncio.sleep(1)
                continue
            self.starts += 1
            self.exits.append(await self.process.ended())
            await asyncio.sleep(1)
