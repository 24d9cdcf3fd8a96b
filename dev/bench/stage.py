"""A cluster with the operator's manifests, a population of namespaces, and the two who are compared on it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from dev.bench import bare, desk, sightings, trail
from dev.cluster import Cluster
from dev.controlplane import ControlPlane, start_control_plane
from dev.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess, install
from dev.processes import tail
from dev.scratch import scratch_folder
from dev.waiting import eventually

Json = bare.Json
Accounts = dict[str, list[Json]]

OPERATOR = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
BARE = f"system:serviceaccount:{NAMESPACE}:bench"
LABEL = "regcred-bench"
#: A default account and two more in every namespace.
MORE_ACCOUNTS = ("builder", "deployer")
_RESOURCES = "/apis/regcred.io/v1alpha1/clusterregistrycredentials"
_OWNERS = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
_OWNER_COUNT = 20
#: Seconds without a write after which a wave counts as over.
_QUIET = 1.0


@dataclasses.dataclass(slots=True)
class Stage:
    """What the scenarios share.

    Attributes:
        cluster: where everything happens.
        client: the bare client, an account with all rights.
        operator: regcred.
        evidence: what the API server says that was done.
        calls: a file with a line for each time the provider was asked.
        owners: owner references for the Secrets of the bare client.
    """

    cluster: Cluster
    client: bare.Client
    operator: OperatorProcess
    evidence: trail.Evidence
    calls: Path
    owners: list[Json]

    def mark(self) -> int:
        """Return where the evidence of what happens from now on begins."""
        return len(self.evidence.read())

    def since(self, mark: int) -> Sequence[trail.Request]:
        """Return what happened since a mark."""
        return self.evidence.read()[mark:]

    def asked(self) -> int:
        """Return how often the provider was asked so far."""
        return len(self.calls.read_text(encoding="utf-8").splitlines()) if self.calls.exists() else 0

    async def start(self) -> float:
        """Start the operator, and return the seconds until it leads and is ready."""
        began = time.monotonic()
        await self.operator.start(ready=False)

        async def leads() -> bool:
            if not await self.operator.ready():
                return False
            told = await self.operator.metrics()
            # One that waits for the Lease is ready too.
            return (
                "regcred_leader 1.0" in told and "regcred_queue_depth 0.0" in told and await self.operator.ready()
            )

        await eventually(leads, f"the operator to lead\n{tail(self.operator.log)}", seconds=180, every=0.02)
        return time.monotonic() - began

    async def stop(self) -> None:
        """Stop the operator in good order: it frees its Lease."""
        await self.operator.stop()

    async def populate(self, names: Sequence[str], group: str, *, more: Sequence[str] = MORE_ACCOUNTS) -> None:
        """Create namespaces with their accounts, and wait until the controllers are done with them."""

        async def one(name: str) -> None:
            body = {"metadata": {"name": name, "labels": {LABEL: group}}}
            await self.client.send("POST", "/api/v1/namespaces", encoded(body))
            for account in more:
                await self.client.send(
                    "POST", f"/api/v1/namespaces/{name}/serviceaccounts", encoded({"metadata": {"name": account}})
                )

        await bare.spread(names, one)
        before: list[str] = []

        async def calm() -> bool:
            nonlocal before
            accounts = await self.accounts(names)
            known = [account for each in accounts.values() for account in each]
            versions = [account["metadata"]["resourceVersion"] for account in known]
            tokens = self.cluster.version < (1, 24) and self.cluster.controllers
            complete = len(known) == len(names) * (1 + len(more)) and all(
                account.get("secrets") or not tokens for account in known
            )
            same, before = versions == before, versions
            return complete and same

        await eventually(calm, "the controllers to be done with the new namespaces", seconds=900, every=1.0)

    async def accounts(self, names: Iterable[str]) -> Accounts:
        """Return the accounts of namespaces as they are."""
        found: Accounts = {name: [] for name in names}
        for account in await self.client.pages("/api/v1/serviceaccounts"):
            if (each := found.get(account["metadata"]["namespace"])) is not None:
                each.append(account)
        return found

    async def declare(
        self, names: Sequence[str], namespaces: Json, accounts: Sequence[str], start: int = 0
    ) -> None:
        """Create resources with one registry each, numbered from `start`, all at once."""

        async def one(numbered: tuple[int, str]) -> None:
            number, name = numbered
            body = {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "ClusterRegistryCredential",
                "metadata": {"name": name},
                "spec": {
                    "registries": [desk.entry(number)],
                    "namespaces": namespaces,
                    "serviceAccounts": list(accounts),
                },
            }
            await self.client.send("POST", _RESOURCES, encoded(body))

        await bare.spread(enumerate(names, start), one)

    async def refresh(self, name: str) -> None:
        """Ask for a renewal of one resource."""
        wanted = str(time.time_ns())
        body = {"metadata": {"annotations": {"regcred.io/refresh-requested-at": wanted}}}
        await self.client.send("PATCH", f"{_RESOURCES}/{name}", encoded(body), bare.MERGE)

    async def resources(self) -> list[Json]:
        """Return every resource."""
        return await self.client.pages(_RESOURCES)

    async def forget(self, names: Sequence[str], namespaces: Sequence[str]) -> None:
        """Delete resources, and wait until the operator has cleaned up after them."""
        mark = self.mark()
        standing = {row["metadata"]["namespace"] for row in await self.secrets()} & set(namespaces)
        for name in names:
            await self.client.send("DELETE", f"{_RESOURCES}/{name}")

        async def gone() -> bool:
            return not standing & {row["metadata"]["namespace"] for row in await self.secrets()}

        await eventually(gone, f"the Secrets to be gone\n{tail(self.operator.log)}", seconds=300, every=0.5)
        await self.quiet(mark)

    async def secrets(self) -> list[Json]:
        """Return the metadata of the operator's Secrets."""
        return await self.client.pages("/api/v1/secrets?fieldSelector=metadata.name%3Dregcred", bare.METADATA_LIST)

    async def sample(self, resources: int) -> Json:
        """Return a Secret that regcred has written for so many resources; the operator runs."""
        namespace = f"bench-sample-{resources}"
        await self.populate([namespace], "sample", more=())
        names = [f"sample-{number:02d}" for number in range(resources)]
        await self.declare(names, {"names": [namespace]}, ["default"])
        path = f"/api/v1/namespaces/{namespace}/secrets/regcred"

        async def whole() -> Json | None:
            with contextlib.suppress(bare.Refused):
                found = await self.client.send("GET", path)
                if len(found["metadata"].get("ownerReferences", ())) == resources:
                    return found
            return None

        found = await eventually(whole, f"the sample\n{tail(self.operator.log)}", seconds=60)
        assert found is not None  # noqa: S101 - `eventually` raises instead
        await self.forget(names, [namespace])
        return found

    async def served(self, mark: int, secrets: set[str], accounts: set[trail.Key]) -> None:
        """Wait until the operator has written these Secrets and accounts since a mark, and then nothing more."""

        async def all_written() -> bool:
            if self.evidence.busy():
                return False
            requests = trail.by(self.since(mark), OPERATOR)
            return secrets <= {row.namespace for row in trail.written(requests, "secrets", "regcred")} and (
                accounts <= set(trail.entries(requests, OPERATOR))
            )

        what = f"{len(secrets)} Secrets and {len(accounts)} accounts to be written"
        await eventually(all_written, f"{what}\n{tail(self.operator.log)}", seconds=900, every=0.25)
        await self.quiet(mark)

    async def quiet(self, mark: int, user: str = OPERATOR) -> None:
        """Wait until nothing more is written."""
        before = -1

        async def still() -> bool:
            nonlocal before
            count = sum(
                1
                for row in self.since(mark)
                if row.user == user and row.resource in ("secrets", "serviceaccounts")
            )
            same, before = count == before, count
            return same

        await eventually(still, "the writes to end", seconds=120, every=_QUIET)

    @contextlib.asynccontextmanager
    async def following(self, writer: bare.Writer, wanted: Callable[[str, str], bool]) -> AsyncIterator[None]:
        """Let the bare client serve accounts as they are born."""
        listed = await self.client.send("GET", "/api/v1/serviceaccounts?limit=1")
        task = asyncio.create_task(writer.follow(wanted, listed["metadata"]["resourceVersion"]))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Set the stage on a control plane of its own, or on the cluster that KUBECONFIG_UNDER_TEST names."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(start_control_plane())
        folder = stack.enter_context(scratch_folder("bench"))
        await install(cluster)
        if isinstance(cluster, ControlPlane) and cluster.controllers:
            await cluster.restart_controller_manager()
        await cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bench", "namespace": NAMESPACE}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "regcred-bench"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "cluster-admin",
                },
                "subjects": [{"kind": "ServiceAccount", "name": "bench", "namespace": NAMESPACE}],
            },
        )
        client = bare.Client(await cluster.kubeconfig_for_service_account(NAMESPACE, "bench"))
        stack.push_async_callback(client.close)
        desk.install(folder)
        calls = folder / "calls"
        operator = OperatorProcess(
            cluster,
            folder / "regcred.log",
            environment={
                "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT / "operator"), str(ROOT))),
                desk.CALLS: str(calls),
            },
        )
        stack.push_async_callback(operator.stop)
        evidence: trail.Evidence
        if cluster.audit_log is not None:
            evidence = trail.Audit(cluster.audit_log)
        else:
            evidence = await stack.enter_async_context(sightings.watching(client, OPERATOR, BARE))
        if not isinstance(cluster, ControlPlane):
            stack.push_async_callback(_clean, client)
        yield Stage(cluster, client, operator, evidence, calls, await _owners(client))


async def _owners(client: bare.Client) -> list[Json]:
    """Create cluster-scoped objects for the bare client's Secrets to be owned by, and return references to them."""
    made = []
    for number in range(_OWNER_COUNT):
        name = f"regcred-bench-{number:02d}"
        with contextlib.suppress(bare.Refused):
            await client.send("POST", _OWNERS, encoded({"metadata": {"name": name}, "rules": []}))
        found = await client.send("GET", f"{_OWNERS}/{name}")
        made.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "name": name,
                "uid": found["metadata"]["uid"],
            }
        )
    return made


async def _clean(client: bare.Client) -> None:
    """Leave a cluster that is not ours without the population."""

    async def delete(path: str) -> None:
        with contextlib.suppress(bare.Refused):
            await client.send("DELETE", path)

    found = await client.pages(f"/api/v1/namespaces?labelSelector={LABEL}", bare.METADATA_LIST)
    await bare.spread([f"/api/v1/namespaces/{row['metadata']['name']}" for row in found], delete)
    await bare.spread([f"{_OWNERS}/regcred-bench-{number:02d}" for number in range(_OWNER_COUNT)], delete)


def encoded(body: Json) -> bytes:
    """Return a body as it is sent."""
    return json.dumps(body).encode()
