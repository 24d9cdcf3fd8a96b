"""The operator uses every right that a component adds: whichever is taken out of it, a test here fails."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dev.audit import AuditLog
from dev.operator_process import NAMESPACE, ROOT, OperatorProcess, install
from dev.processes import tail
from dev.waiting import NeverHappenedError, eventually
from tests.e2e.conftest import OPERATOR_USER, World
from tests.e2e.rights import Right, added, unused
from tests.manifests.manifests_support import OVERLAYS

CLOUD = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
Json = dict[str, Any]


async def tenants(world: World) -> Callable[[], Awaitable[None]]:
    """A tenant's Secret is read, followed and read again, and its account's token asked for, without its consent."""
    (namespace,) = await world.namespaces("tenant")
    await world.login("alice", "first", name="quay-robot", namespace=namespace)
    await world.cluster.kubectl("create", "serviceaccount", "puller", "-n", namespace)
    role = {"roleArn": "arn:aws:iam::123456789012:role/puller", "serviceAccountRef": {"name": "puller"}}
    await world.declare(
        {"server": "quay.example.com", "login": {"secretRef": {"name": "quay-robot"}}},
        {"server": CLOUD, "ecr": role},
        name="tenant",
        namespace=namespace,
    )
    await world.served(namespace, login=("alice", "first"))
    await world.login("alice", "second", name="quay-robot", namespace=namespace)
    await world.served(namespace, login=("alice", "second"))

    async def end() -> None:
        await world.cluster.kubectl("delete", "rcred", "tenant", "-n", namespace)

    return end


async def another_name(world: World) -> Callable[[], Awaitable[None]]:
    """A Secret of another name is made, followed, written anew beside what is retained in it, and deleted."""
    name = "registry-login"
    stays, leaves = await world.namespaces("stays", "leaves")
    source = await world.login("alice", "s3cret")
    kept, main, moved = (
        {"server": f"{server}.example.com", "login": {"secretRef": {"name": source}}}
        for server in ("kept", "main", "moved")
    )
    other = f"{world.id}-kept"
    await world.declare(kept, name=other, secretName=name, deletionPolicy="Retain", namespaces={"names": [stays]})
    await world.declare(main, secretName=name)

    def holds(namespace: str, *servers: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            return sorted(await world.auths(namespace, name)) == sorted(f"{each}.example.com" for each in servers)

        return check

    await eventually(holds(stays, "kept", "main"), "both logins", seconds=60)
    await eventually(holds(leaves, "main"), "the login", seconds=60)
    await world.cluster.kubectl("delete", "crcred", other)
    await world.declare(moved, secretName=name, namespaces={"names": [stays]})
    await eventually(holds(stays, "kept", "moved"), "the retained login", seconds=60)
    await world.bare(leaves, name=name)

    async def end() -> None:
        await world.cluster.kubectl("delete", "crcred", world.id)

    return end


#: Overlay to what is done with it.  The rights of `restart-stuck` are looked at in test_restart_stuck.py.
DEEDS = {"tenant-sources": tenants, "secret-name": another_name}


def test_every_component_with_rights_is_looked_at() -> None:
    """An overlay that gives the operator more than the base does is tried here or where pods are evicted."""
    assert {overlay for overlay in OVERLAYS if added(overlay)} == {*DEEDS, "restart-stuck"}
    listed = "".join((ROOT / "manifests/overlays" / name / "kustomization.yaml").read_text() for name in OVERLAYS)
    for component in (ROOT / "manifests" / "components").iterdir():
        assert f"components/{component.name}\n" in listed, f"{component.name} is in no overlay"


@pytest.fixture(params=sorted(DEEDS))
async def overlaid(
    request: pytest.FixtureRequest, world: World, tmp_path: Path
) -> AsyncIterator[tuple[str, World, AuditLog]]:
    """An operator at work with an overlay's rights, and the audit log since it began."""
    cluster, overlay = world.cluster, str(request.param)
    if cluster.audit_log is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    # While it leads, another one only stands by.
    await world.operator.stop()
    await cluster.kubectl("delete", "lease", "regcred", "-n", NAMESPACE, "--ignore-not-found")
    await install(cluster, ROOT / "manifests" / "overlays" / overlay)
    for right in added(overlay):
        await eventually(lambda right=right: known(world, right), f"{right} to be known", seconds=60)  # type: ignore[misc]
    world.operator = OperatorProcess(
        cluster,
        tmp_path / "regcred.log",
        identity=overlay,
        # Nobody answers there: the token is asked for, and then goes nowhere.
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"},
    )
    log = AuditLog(cluster.audit_log)
    await world.operator.start()
    try:
        yield overlay, world, log
    finally:
        await world.operator.stop()
        await install(cluster)
        for role in {right.role.partition("/")[2] for right in added(overlay)} - {"regcred-secrets"}:
            await cluster.kubectl("delete", "clusterrole,clusterrolebinding", role)


async def known(world: World, right: Right) -> bool:
    """Whether the API server grants it by now."""
    resource, _, subresource = right.resource.partition("/")
    spec = {
        "user": OPERATOR_USER,
        "resourceAttributes": {
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
            "subresource": subresource,
            "name": right.name,
        },
    }
    asked = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = await world.cluster.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(asked))
    allowed: bool = json.loads(answer)["status"]["allowed"]
    return allowed


async def test_every_right_of_a_component_is_used(overlaid: tuple[str, World, AuditLog]) -> None:
    """What a component is for cannot be done without any single right that it adds, and lacks none."""
    overlay, world, log = overlaid
    end = await DEEDS[overlay](world)
    left: set[Right] = set(added(overlay))

    async def used(*verbs: str) -> bool:
        left.intersection_update(unused(overlay, log.requests(OPERATOR_USER)))
        return not any(right.verb in verbs for right in left)

    try:
        await eventually(
            lambda: used("get", "list", "create", "patch", "delete"), "every right to be used", seconds=60
        )
        await end()
        await world.operator.stop()
        # A watch is logged when it ends.
        await eventually(lambda: used("watch"), "the end of the watches", seconds=60)
    except NeverHappenedError:
        raise AssertionError(f"not used: {left}\n{tail(world.operator.log)}") from None
    mine = [row for row in log.requests(OPERATOR_USER) if row.namespace.startswith(world.id)]
    assert [row for row in mine if row.code == 403] == []
