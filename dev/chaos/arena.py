"""Where experiments happen: a control plane with regcred's manifests, the fault proxy before it, and the operator."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from dev.bench import desk
from dev.chaos.evidence import Evidence
from dev.controlplane import ControlPlane, NotOursError, start_control_plane
from dev.faults import FaultProxy, fault_proxy
from dev.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess, install
from dev.scratch import scratch_folder
from dev.waiting import eventually
from dev.world import Json, World
from regcred.cluster import client as api
from regcred.cluster import errors

USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
#: An entry of somebody else, in every account of every experiment.
THEIRS = "theirs"
#: Seconds that the logins of the background resource live: it is renewed all through the run.
_LIFE = 600
BACKGROUND = "background"


class Corner(World):
    """A corner of the arena; every default account in it holds an entry of somebody else."""

    def __init__(self, cluster: ControlPlane, operator: OperatorProcess, evidence: Evidence) -> None:
        super().__init__(cluster, operator)
        self.password = evidence.canary()
        self._evidence = evidence

    async def settle(self, *names: str) -> list[str]:
        """Create namespaces whose default accounts hold an entry of somebody else."""
        full = await self.namespaces(*names)
        await asyncio.gather(*(self._claim(name) for name in full))
        return full

    async def _claim(self, namespace: str) -> None:
        """Create the default account with an entry, or put it in where the cluster was faster.

        The cluster's controllers take up to half a minute where the API server was away, which is not ours to measure.
        """
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"

        async def claimed() -> Any:
            theirs = [{"name": THEIRS}]
            with contextlib.suppress(errors.Conflict):
                made = {"metadata": {"name": "default"}, "imagePullSecrets": theirs}
                return await self.api.request("POST", accounts, body=made)
            with contextlib.suppress(errors.NotFound, errors.Conflict):
                body = await self.api.get(f"{accounts}/default")
                body["imagePullSecrets"] = theirs + (body.get("imagePullSecrets") or [])
                return await self.api.request("PUT", f"{accounts}/default", body=body)
            return None

        body = await eventually(claimed, f"the default account of {namespace}", seconds=60, every=0.05)
        self._evidence.planted[namespace, "default"] = body["metadata"]["uid"]

    async def serve(self, *names: str) -> list[str]:
        """Settle namespaces, declare the corner's own login for all that it has, and wait until they hold it."""
        full = await self.settle(*names)
        await self.offer()
        await self.all_served(full)
        return full

    async def offer(self, **spec: Any) -> None:
        """Declare the corner's own login, for all namespaces that it has if nothing else is said."""
        await self.source()
        await self.declare(self.entry(), **spec)

    async def login(self, username: str, password: str, *, name: str = "", namespace: str = NAMESPACE) -> str:
        """Create or change a source, whose password is looked for at the end wherever it may not be."""
        self._evidence.look_for(password)
        return await super().login(username, password, name=name, namespace=namespace)

    async def source(self, password: str = "", *, name: str = "") -> str:
        """Create or change a source whose password is a canary, the corner's own by default; return its name."""
        return await self.login("robot", password or self.password, name=name)

    def entry(self, server: str = "registry.example.com", *, source: str = "") -> Json:
        """Return a registry entry with a login from a source: the corner's own if no other is named."""
        return {"server": server, "login": {"secretRef": {"name": source or f"{self.id}-login"}}}

    async def all_served(
        self, namespaces: Sequence[str], password: str = "", *, server: str = "", seconds: float = 90.0
    ) -> float:
        """Wait until all namespaces hold this password and their accounts list it; return the seconds it took.

        Args:
            namespaces: to be looked at.
            password: the corner's own if no other is named.
            server: that must be served with it; any if none is named.
            seconds: to wait at the most.
        """
        began = time.monotonic()
        wanted = ("robot", password or self.password)

        async def one(namespace: str) -> bool:
            auths = await self.auths(namespace)
            listed = await self.pull_secrets(namespace) or []
            return wanted in ([auths.get(server)] if server else auths.values()) and listed.count("regcred") == 1

        async def check() -> bool:
            return all(await asyncio.gather(*(one(namespace) for namespace in namespaces)))

        await eventually(check, f"{len(namespaces)} namespaces to be served", seconds=seconds, every=0.1)
        return time.monotonic() - began

    async def clean(self) -> None:
        """Count what was lost, and delete what the experiment has made."""
        await self._evidence.count_lost(self.api)
        await super().clean()


@dataclasses.dataclass(slots=True)
class Arena:
    """What every experiment gets.

    Attributes:
        cluster: the control plane, reached directly.
        proxy: between the operator and the API server; no rule stands when an experiment begins.
        folder: for logs.
        evidence: what the totals are made of.
        quick: a short variant for the tests: silences and outages of seconds.
    """

    cluster: ControlPlane
    proxy: FaultProxy
    folder: Path
    evidence: Evidence
    quick: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def process(self, *flags: str, direct: bool = False, elect: bool = False, **more: Any) -> OperatorProcess:
        """Return an operator, not started yet; it goes through the proxy, and works without a Lease."""
        log = self.folder / f"regcred-{secrets.token_hex(4)}.log"
        self.evidence.logs.append(log)
        environment = {**self.environment, **more.pop("environment", {})}
        return OperatorProcess(
            self.cluster if direct else self.proxy.cluster(self.cluster),
            log,
            "--log-level=DEBUG",
            *(() if elect else ("--no-leader-election",)),
            *flags,
            environment=environment,
            **more,
        )

    @contextlib.asynccontextmanager
    async def work(
        self, *flags: str, start: bool = True, **more: Any
    ) -> AsyncIterator[tuple[Corner, OperatorProcess]]:
        """Run the operator within a block, and have a corner of the cluster for it."""
        operator = self.process(*flags, **more)
        corner = Corner(self.cluster, operator, self.evidence)
        try:
            if start:
                await operator.start()
            yield corner, operator
            if operator.running:
                self.evidence.metrics.append(await operator.metrics())
        finally:
            self.proxy.clear()
            try:
                await corner.clean()
            finally:
                await operator.stop()


@contextlib.asynccontextmanager
async def arena(*, quick: bool = False) -> AsyncIterator[Arena]:
    """Set up the arena on a control plane of its own."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(start_control_plane(audited=USER))
        if not isinstance(cluster, ControlPlane):
            raise NotOursError("fault experiments stop and break the control plane: not one that was given to us")
        await install(cluster)
        # The garbage collector then knows our kinds, 30 s sooner.
        await cluster.restart_controller_manager()
        folder = stack.enter_context(scratch_folder("chaos"))
        proxy = await stack.enter_async_context(fault_proxy(cluster.url, ca_file=cluster.ca_file))
        client = api.Client(api.login(str(cluster.admin_kubeconfig)))
        stack.push_async_callback(client.close)
        desk.install(folder)
        evidence = Evidence(cluster, client, USER)
        watching = await evidence.begin()
        stack.push_async_callback(_end, watching)
        paths = (str(folder), str(ROOT / "operator"), str(ROOT))
        environment = {"PYTHONPATH": os.pathsep.join(paths), desk.CALLS: str(folder / "calls")}
        made = Arena(cluster, proxy, folder, evidence, quick, environment)
        await _background(cluster)
        yield made


async def _background(cluster: ControlPlane) -> None:
    """Declare what is served and renewed all through the run, whatever else happens."""
    entry = desk.entry(1)
    plugin = {"name": desk.NAME, "config": {"size": 256, "seconds": _LIFE}}
    await cluster.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": f"{BACKGROUND}-{number}", "labels": {"chaos": BACKGROUND}},
            }
            for number in range(3)
        ),
        {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "ClusterRegistryCredential",
            "metadata": {"name": BACKGROUND},
            "spec": {
                "registries": [{**entry, "plugin": plugin}],
                "namespaces": {"selector": {"matchLabels": {"chaos": BACKGROUND}}},
            },
        },
    )


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def timed(check: Callable[[], Awaitable[Any]], what: str, *, seconds: float = 60.0) -> float:
    """Wait until a condition holds, and return the seconds it took."""
    began = time.monotonic()
    await eventually(check, what, seconds=seconds, every=0.05)
    return time.monotonic() - began


def series(times: Sequence[float]) -> str:
    """Return the middle and the greatest of some durations, as people read them."""
    ordered = sorted(times)
    if not ordered:
        return "none"
    return f"p50 {ordered[len(ordered) // 2]:.1f} s, max {ordered[-1]:.1f} s"
