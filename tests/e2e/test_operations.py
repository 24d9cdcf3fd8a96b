"""The operator's own life: crashes, restarts, rest, writes that never happen, bad resources."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from dev.audit import AuditLog, Request
from dev.cluster import Cluster
from dev.operator_process import NAMESPACE, OperatorProcess
from dev.waiting import eventually
from tests.e2e.conftest import OPERATOR_USER, Entry, World

BAD_RESOURCES = sorted((Path(__file__).parent.parent / "bad_resources").glob("*.yaml"))


async def test_killed_during_distribution_it_converges_after_a_restart(world: World, entry: Entry) -> None:
    """SIGKILL amid 200 namespaces, and a resource deleted while it is down: all is served, nothing is orphaned."""
    goes = await world.namespaces(*(f"goes-{number}" for number in range(5)))
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source), name=f"{world.id}-goes", namespaces={"names": [f"{world.id}-goes-*"]})
    await world.served(*goes)
    many = await world.namespaces(*(f"many-{number}" for number in range(200)))
    await world.declare(entry(source), name=f"{world.id}-many", namespaces={"names": [f"{world.id}-many-*"]})

    async def some() -> bool:
        found = await world.cluster.get("secrets", "-A", "--field-selector", "metadata.name=regcred")
        done = sum(1 for body in found["items"] if "-many-" in body["metadata"]["namespace"])
        return done >= 1

    await eventually(some, "the distribution to have begun", every=0.01)
    world.operator.kill()
    await world.operator.ended()
    await world.cluster.kubectl("delete", "crcred", f"{world.id}-goes")
    await world.operator.start()
    await world.ready(f"{world.id}-many")
    # Accounts that a controller makes may come late.
    await world.served(*many)
    await world.bare(*goes)

    async def gone() -> bool:
        return not [namespace for namespace in goes if await world.secret(namespace)]

    await eventually(gone, "the Secrets of the deleted resource to go", seconds=60)
    found = await world.cluster.get("secrets", "-A", "--field-selector", "metadata.name=regcred")
    holders = {body["metadata"]["namespace"] for body in found["items"]}
    assert {namespace for namespace in holders if namespace.startswith(world.id)} == set(many)


@pytest.mark.parametrize("seconds", [10, pytest.param(120, marks=pytest.mark.slow)])
async def test_at_rest_nothing_is_written_and_a_restart_writes_nothing(
    world: World, entry: Entry, audit: AuditLog, seconds: int
) -> None:
    """Without a change there is no write but the Lease; with a restart without a change neither."""
    namespaces = await world.namespaces("a", "b")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.ready()
    await world.served(*namespaces)
    quiet = audit

    async def rest() -> bool:
        # What earlier tests have left behind may still be cleaned up: rest begins when a second brings no write.
        nonlocal quiet
        assert world.cluster.audit_log is not None
        quiet = AuditLog(world.cluster.audit_log)
        await asyncio.sleep(1)
        return not _but_lease(quiet.writes(OPERATOR_USER))

    await eventually(rest, "rest")
    await asyncio.sleep(seconds)
    assert _but_lease(quiet.writes(OPERATOR_USER)) == []
    assert await world.operator.stop() == 0
    await world.operator.start()
    await asyncio.sleep(3)
    assert _but_lease(quiet.writes(OPERATOR_USER)) == []


def _but_lease(writes: list[Request]) -> list[Request]:
    return [request for request in writes if request.resource != "leases"]


@pytest.mark.parametrize("path", BAD_RESOURCES, ids=lambda path: path.stem)
async def test_bad_resource_is_refused_or_stalls(world: World, path: Path) -> None:
    """Each mistake is refused by the API server, or ends Stalled with a message that names field and remedy."""
    text = path.read_text(encoding="utf-8")
    expected = text.splitlines()[0].removeprefix("# expect:").strip()
    body = yaml.safe_load(text)
    namespaced = body["kind"] == "RegistryCredential"
    where = ("-n", "default") if namespaced else ()
    name = f"{world.id}-bad"
    body["metadata"] = {**body["metadata"], "name": name, **({"namespace": "default"} if namespaced else {})}
    kind = "rcred" if namespaced else "crcred"
    applied = await world.cluster.kubectl_run("apply", "-f", "-", stdin=yaml.safe_dump(body), check=False)
    if applied.returncode != 0:
        assert "is invalid" in applied.stderr or "error validating" in applied.stderr
        return
    try:
        told = await world.ready(name, "default" if namespaced else "", status="False", reason="InvalidSpec")
        stalled = next(row for row in told["status"]["conditions"] if row["type"] == "Stalled")
        assert expected in stalled["message"]
        assert "spec." in stalled["message"]
    finally:
        await world.cluster.kubectl("delete", kind, name, *where)


async def test_bad_resource_touches_no_other(world: World, entry: Entry) -> None:
    """A resource that turns bad keeps what it has brought, says Stalled, and its neighbour goes on."""
    (namespace,) = await world.namespaces("a")
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source))
    await world.served(namespace)
    await world.declare(entry(source), entry(source, server="docker.io"), entry(source, server="index.docker.io"))
    await world.ready(status="False", reason="InvalidSpec")
    assert set((await world.auths(namespace)).values()) == {("alice", "s3cret")}
    (late,) = await world.namespaces("late")
    await world.declare(entry(source), name=f"{world.id}-good", namespaces={"names": [late]})
    await world.ready(f"{world.id}-good")
    await world.served(late)


async def test_second_replica_takes_over(installed: Cluster, world: World, entry: Entry, tmp_path: Path) -> None:
    """A second replica waits, is ready meanwhile, and works within seconds of the first one's orderly end."""
    second = OperatorProcess(installed, tmp_path / "second.log", identity="replica-b")
    try:
        await second.start()
        assert not any("Listed" in line["msg"] for line in second.lines())
        await world.operator.stop()
        (namespace,) = await world.namespaces("a")
        await world.declare(entry(await world.login("alice", "s3cret")))
        await world.served(namespace)
        assert any("Acquired the Lease" in line["msg"] for line in second.lines())
    finally:
        await second.stop()


async def test_control_plane_outage_does_not_end_the_operator(
    owned_control_plane: Cluster, world: World, entry: Entry
) -> None:
    """The API server is away for a while: the operator waits (or loses its Lease and starts again) and goes on."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.served(namespace)
    async with world.operator.kept():
        await owned_control_plane.stop_apiserver()  # type: ignore[attr-defined]
        await asyncio.sleep(4)
        await owned_control_plane.start_apiserver()  # type: ignore[attr-defined]
        (late,) = await world.namespaces("late")
        await world.served(late)
    # An API server that takes long to come back costs the Lease, and that the process.
    assert world.operator.restarts <= 1


async def test_every_write_is_one_that_is_allowed(world: World, entry: Entry) -> None:
    """In the audit log of the whole session only our Secrets, statuses, accounts, events and the Lease are written."""
    await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.ready()
    if world.cluster.audit_log is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    whole = AuditLog(world.cluster.audit_log)
    whole._offset = 0
    seen = {
        (request.verb, request.resource, request.subresource, _which(request))
        for request in whole.writes(OPERATOR_USER)
    }
    allowed = {
        ("patch", "secrets", "", "regcred"),
        ("delete", "secrets", "", "regcred"),
        ("patch", "secrets", "", "cache"),
        ("delete", "secrets", "", "cache"),
        # With the component for another name, see test_component_rights.py.
        ("patch", "secrets", "", "registry-login"),
        ("delete", "secrets", "", "registry-login"),
        ("patch", "serviceaccounts", "", "any"),
        ("create", "serviceaccounts", "token", "any"),
        ("patch", "clusterregistrycredentials", "status", "any"),
        ("patch", "registrycredentials", "status", "any"),
        ("create", "events", "", "any"),
        ("create", "leases", "", "any"),
        ("update", "leases", "", "any"),
    }
    assert seen <= allowed, seen - allowed
    # What a Secret holds is left out: among so many random letters any word turns up.
    found = await world.cluster.get("ns,sa,secrets,crcred,rcred", "-A")
    told = [{**body["metadata"], "status": body.get("status")} for body in found["items"]]
    assert "kopf" not in json.dumps(told).lower()
    finalizers = {finalizer for meta in told for finalizer in meta.get("finalizers") or ()}
    assert not {name for name in finalizers if "regcred" in name}


def _which(request: Request) -> str:
    if request.resource != "secrets":
        return "any"
    if request.name.startswith("regcred-cache-") and request.namespace == NAMESPACE:
        return "cache"
    return request.name
