"""Pods that lost the race are evicted once, and no others ever are: on the real control plane, by the operator itself.

What a kubelet writes about a pod is written by the test, and so is what the disruption controller writes about a budget.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.audit import AuditLog
from dev.cluster import Cluster
from dev.operator_process import ROOT, OperatorProcess
from dev.registry import Registry
from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors
from tests.e2e.commands_support import Stage
from tests.e2e.conftest import OPERATOR_USER, World
from tests.e2e.fenced import writes
from tests.e2e.rights import unused
from tests.manifests.fence_support import refusals

DENIED = "Back-off pulling image: ErrImagePull: failed to authorize: 401 Unauthorized"
RBAC = ROOT / "manifests" / "components" / "restart-stuck" / "rbac.yaml"
Json = dict[str, Any]


class Race(Stage):
    """A namespace `<id>-a` with pods of every sort from before the resource, all of which cannot pull."""

    def __init__(self, world: World, registry: Registry) -> None:
        super().__init__(world)
        self.image = f"{registry.host}/private/app:1"
        self.namespace = f"{world.id}-a"
        self.uids: dict[str, str] = {}
        self.entry: Json = {}
        self.audit = AuditLog(world.cluster.audit_log) if world.cluster.audit_log else None

    async def stuck(self, name: str, *, message: str = DENIED, sort: str = "container", **pod: Any) -> None:
        made = await self.pod(self.namespace, name, pod.pop("image", self.image), **pod)
        self.uids[name] = made["metadata"]["uid"]
        await self.waits(self.namespace, name, message, sort=sort)

    async def there(self, name: str) -> bool:
        """Whether the very same pod is there, and is not on its way out."""
        try:
            body = await self.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        except errors.NotFound:
            return False
        same: bool = body["metadata"]["uid"] == self.uids[name]
        return same and "deletionTimestamp" not in body["metadata"]

    async def gone(self, *names: str) -> None:
        async def check() -> bool:
            return not any([await self.there(name) for name in names])

        await eventually(check, f"{names} to be evicted", seconds=90)

    async def told(self, name: str) -> dict[str, str]:
        """Events of regcred about a pod: reason to message."""
        found = await self.api.request(
            "GET",
            f"/api/v1/namespaces/{self.namespace}/events",
            params={"fieldSelector": f"involvedObject.name={name},source=regcred"},
        )
        return {row["reason"]: row["message"] for row in found["items"]}

    async def budget(self, name: str, selector: str, **status: int) -> None:
        """A disruption budget, with the status that the controller would write."""
        group = await self.api.request("GET", "/apis/policy")
        version = group["preferredVersion"]["version"]
        path = f"/apis/policy/{version}/namespaces/{self.namespace}/poddisruptionbudgets"
        body = {
            "apiVersion": f"policy/{version}",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": selector}}},
        }
        await self.create(path, body)
        await self.status(path, name, **status)

    async def status(self, path: str, name: str, **status: int) -> None:
        if "namespaces" not in path:
            path = f"{path}/namespaces/{self.namespace}/poddisruptionbudgets"
        await self.api.request(
            "PATCH",
            f"{path}/{name}/status",
            body={"status": {"currentHealthy": 0, "observedGeneration": 1, **status}},
            content_type=api.MERGE,
        )


@pytest.fixture(scope="module")
async def race(installed: Cluster, shared_operator: OperatorProcess, registry: Registry) -> AsyncIterator[Race]:
    """The race, lost by every pod; the operator may evict, and is asked to by the first test."""
    if not shared_operator.running:
        await shared_operator.start()
    world = World(installed, shared_operator)
    made = Race(world, registry)
    await installed.kubectl("apply", "-f", RBAC)
    await world.namespaces("a")

    async def account() -> bool:
        return await world.pull_secrets(made.namespace) is not None

    await eventually(account, "the default account", seconds=60)
    for name in ("web", "setup", "bare-owner", "other", "budget", "list", "tag", "young"):
        await made.workload(made.namespace, name, made.image)
    await made.stuck("web-0", workload="web")
    await made.stuck(
        "setup-0", workload="setup", image="public.example.com/app", init=made.image, sort="initContainer"
    )
    await made.stuck("bare")
    await made.stuck("other-0", workload="other", image="quay.example.com/app:1")
    await made.stuck("budget-0", workload="budget")
    await made.stuck("list-0", workload="list", lists=("own",))
    await made.stuck("tag-0", workload="tag", message="Back-off pulling image: ErrImagePull: manifest unknown")
    await made.budget("never", "budget", disruptionsAllowed=0, desiredHealthy=1, expectedPods=1)
    source = await world.login("alice", "s3cret")
    made.entry = {"server": registry.host, "login": {"secretRef": {"name": source}}}
    await world.declare(made.entry)
    await world.served(made.namespace)
    yield made
    await world.clean()
    await installed.kubectl("delete", "-f", RBAC, "--wait=false", "--ignore-not-found")


async def test_nobody_is_evicted_unasked(race: Race) -> None:
    """Without restartStuck the operator does not even look at pods."""
    await race.world.ready()
    assert all([await race.there(name) for name in race.uids])
    if race.audit is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    assert [request for request in race.audit.requests(OPERATOR_USER) if request.resource == "pods"] == []


async def test_what_lost_the_race_is_evicted_and_nothing_else(race: Race, audit: AuditLog) -> None:
    """Pods with a controller go, init containers count; other causes, lists of their own and lone pods stay."""
    await race.world.declare(race.entry, pods={"restartStuck": True})
    await race.gone("web-0", "setup-0")

    async def told() -> bool:
        return "EvictedStuckPod" in await race.told("web-0")

    await eventually(told, "the eviction to be told", seconds=60)
    assert race.image in (await race.told("web-0"))["EvictedStuckPod"]

    async def held() -> bool:
        return "EvictionBlocked" in await race.told("budget-0")

    await eventually(held, "the budget to be told of", seconds=60)
    assert "never" in (await race.told("budget-0"))["EvictionBlocked"]
    evicted = [r for r in audit.requests(OPERATOR_USER) if r.resource == "pods" and r.verb == "create"]
    assert sorted(request.name for request in evicted) == ["setup-0", "web-0"]
    # The log of some servers does not hold what an eviction asks for; see tests/eviction/test_evictor.py.
    written = [write async for write in writes(race.api, audit) if write.subresource != "eviction"]
    assert [told for write in written for told in refusals(write)] == []
    for name in ("bare", "other-0", "budget-0", "list-0", "tag-0"):
        assert await race.there(name), name


async def test_once_and_only_once(race: Race, audit: AuditLog) -> None:
    """A successor that cannot pull either was created after the entry, and is left alone: no pod is evicted again."""
    made = await race.pod(race.namespace, "web-1", race.image, workload="web")
    assert made["spec"]["imagePullSecrets"] == [{"name": "regcred"}]
    race.uids["web-1"] = made["metadata"]["uid"]
    await race.waits(race.namespace, "web-1", DENIED)
    # One that somebody strips of its list: it looks like one that was there before, but is not.
    await race.stuck("young-0", workload="young", lists=("regcred-none",))
    # The operator has looked at both when it evicts the next one that it may.
    await race.workload(race.namespace, "marker", race.image, account="late")
    await race.create(f"/api/v1/namespaces/{race.namespace}/serviceaccounts", {"metadata": {"name": "late"}})
    await race.stuck("marker-0", workload="marker", account="late")
    await race.world.declare(
        race.entry,
        pods={"restartStuck": True},
        serviceAccounts=["default", "late"],
    )
    await race.gone("marker-0")
    evicted = [r for r in audit.requests(OPERATOR_USER) if r.resource == "pods" and r.verb == "create"]
    assert [request.name for request in evicted] == ["marker-0"]
    assert await race.there("web-1")
    assert await race.there("young-0")


async def test_a_budget_that_gives_way_lets_the_pod_go(race: Race) -> None:
    """When the budget allows a disruption, the pod that waited for it is evicted."""
    group = await race.api.request("GET", "/apis/policy")
    path = f"/apis/policy/{group['preferredVersion']['version']}"
    await race.status(path, "never", disruptionsAllowed=1, desiredHealthy=0, expectedPods=1)
    await race.gone("budget-0")


async def test_evictions_are_counted(race: Race) -> None:
    """The metric counts what was evicted and what had to wait."""
    text = await race.world.operator.metrics()
    values = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("regcred_pod_evictions_total")
    )
    assert float(values['regcred_pod_evictions_total{result="evicted"}']) >= 4
    assert float(values['regcred_pod_evictions_total{result="blocked"}']) >= 1


async def test_without_the_permission_it_says_so(race: Race, audit: AuditLog) -> None:
    """A resource that asks for it, and an operator that may not look at pods: an event names the component."""
    await race.world.cluster.kubectl("delete", "-f", RBAC)
    name = f"{race.world.id}-refused"
    # A watch that stands is not refused any more, so nobody asks until it has ended.
    await race.world.declare(race.entry, pods={"restartStuck": False})

    async def ended() -> bool:
        return any(row.resource == "pods" and row.verb == "watch" for row in audit.requests(OPERATOR_USER))

    await eventually(ended, "the watch of pods to end", seconds=60)
    await race.world.declare(race.entry, name=name, pods={"restartStuck": True})

    async def told() -> bool:
        return any(event["reason"] == "RestartStuckForbidden" for event in await race.world.events(name))

    await eventually(told, "the refusal to be told", seconds=60)


async def test_every_right_of_the_component_was_used(race: Race) -> None:
    """What was done here needs every single right that the component adds, and more only after they were taken away."""
    if race.audit is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    requests = list(race.audit.requests(OPERATOR_USER))
    assert unused("restart-stuck", requests) == set()
    refused = {(row.resource, row.subresource) for row in requests if row.code == 403}
    assert refused <= {("pods", "")}
