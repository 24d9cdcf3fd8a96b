"""`status`, `refresh`, `plan`, `test` and `uninstall` on the real control plane, with the operator at work."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev.audit import AuditLog
from dev.cluster import Cluster
from dev.operator_process import NAMESPACE, OperatorProcess, install
from dev.registry import Registry
from dev.waiting import eventually
from tests.e2e.commands_support import Json, Stage, dump, explain, login, regcred
from tests.e2e.conftest import Entry, World

ADMIN = "dev-admin"


def resource(name: str, *registries: Json, namespace: str = "", **spec: object) -> Json:
    """A resource as it stands in a file."""
    return {
        "apiVersion": "regcred.io/v1alpha1",
        "kind": "RegistryCredential" if namespace else "ClusterRegistryCredential",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {"registries": list(registries), **spec},
    }


async def test_status_puts_the_worst_first(world: World, entry: Entry) -> None:
    """A resource whose source is missing stands before a good one; the exit code tells that one is not ready."""
    good, bad = f"{world.id}-a-good", f"{world.id}-b-bad"
    await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")), name=good)
    await world.declare(entry(f"{world.id}-none"), name=bad, namespaces={"names": [f"{world.id}-x"]})
    await world.ready(good)
    await world.ready(bad, status="False", reason="SourceMissing")
    code, text = await regcred(world, "status", "-o", "json")
    rows = [row for row in json.loads(text) if world.id in row["resource"]]
    assert code == 1
    assert [(row["state"], row["resource"].rpartition("/")[2]) for row in rows] == [
        ("Stalled", bad),
        ("Ready", good),
    ]
    assert "does not exist" in rows[0]["message"]
    code, text = await regcred(world, "status")
    assert code == 1
    assert text.index(bad) < text.index(good)
    assert "STATE" in text
    assert "s3cret" not in text


async def test_status_can_be_watched(world: World, entry: Entry) -> None:
    """--watch goes on until it is ended, and shows what has become of a resource meanwhile."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "regcred", "status", "--watch", "--interval=0.2"),
        f"--kubeconfig={world.cluster.admin_kubeconfig}",
        stdout=asyncio.subprocess.PIPE,
        env=world.cluster.environment | {"PYTHONPATH": "operator", "COLUMNS": "200", "TTY_COMPATIBLE": "1"},
    )
    assert process.stdout is not None
    try:
        await world.declare(entry(await world.login("alice", "s3cret")))
        seen = b""
        async with asyncio.timeout(90):
            while not re.search(rb"Ready[^\n]*" + world.id.encode(), seen):
                chunk = await process.stdout.read(4096)
                assert chunk, seen
                seen += chunk
    finally:
        process.kill()
        await process.wait()


async def test_refresh_waits_for_what_comes_of_it(world: World, entry: Entry, registry: Registry) -> None:
    """Without a change it is handled and ready; with a source that is gone it ends with 1 and says why."""
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source))
    await world.ready()
    code, text = await regcred(world, "refresh", world.id, "--wait", "-o", "json")
    told = json.loads(text)
    assert (code, told["ready"]) == (0, "True")
    assert told["registries"][0]["server"] == registry.host
    body = await world.resource()
    assert body["metadata"]["annotations"]["regcred.io/refresh-requested-at"] == told["refreshRequestedAt"]
    await world.cluster.kubectl("delete", "secret", "-n", NAMESPACE, source)
    code, text = await regcred(world, "refresh", world.id, "--wait")
    assert code == 1
    assert "SourceMissing" in text
    code, text = await regcred(world, "refresh", "no-such-resource")
    assert code == 3
    assert "There is no ClusterRegistryCredential no-such-resource" in text


async def test_plan_says_what_then_happens(
    world: World, entry: Entry, registry: Registry, tmp_path: Path, audit: AuditLog
) -> None:
    """What `plan` says of a new and of an edited resource is what the operator then does; planning writes nothing."""
    one, two = await world.namespaces("one", "two")
    conflict = f"{world.id}-three"
    stage = Stage(world)
    await stage.create("/api/v1/namespaces", {"metadata": {"name": conflict}})
    await stage.pull_secret(conflict, "regcred", login("quay.example.com", "somebody", "else"))
    await world.namespaces("three")

    async def accounts() -> bool:
        return None not in [await world.pull_secrets(name) for name in (one, two, conflict)]

    await eventually(accounts, "the default accounts", seconds=60)
    source = await world.login("alice", "s3cret")
    file = tmp_path / "resource.yaml"
    wanted = resource(world.id, entry(source), namespaces={"names": [one, conflict]})
    file.write_text(dump(wanted))
    before = [request for request in audit.requests(ADMIN) if request.is_write]
    code, text = await regcred(world, "plan", "-f", str(file), "-o", "json")
    assert [request for request in audit.requests(ADMIN) if request.is_write] == before
    planned = {change["namespace"]: change for change in json.loads(text)["changes"]}
    assert code == 1
    assert set(planned) == {one, conflict}
    assert planned[one]["secret"] == "create"
    assert planned[one]["serversAdded"] == [registry.host]
    assert planned[one]["accountsAttached"] == ["default"]
    assert planned[conflict]["secret"] == "conflict"
    await world.declare(entry(source), namespaces={"names": [one, conflict]})
    await world.served(one)
    await world.ready(status="False", reason="Conflict")

    edited = resource(world.id, entry(source), entry(source, server="quay.io"), namespaces={"names": [one, two]})
    file.write_text(dump(edited))
    code, text = await regcred(world, "plan", "-f", str(file), "-o", "json")
    planned = {change["namespace"]: change for change in json.loads(text)["changes"]}
    assert code == 0
    assert (planned[one]["secret"], planned[one]["serversAdded"]) == ("update", ["quay.io"])
    assert planned[one]["accountsAttached"] == []
    assert (planned[two]["secret"], planned[two]["serversAdded"]) == ("create", sorted([registry.host, "quay.io"]))

    gone = resource(world.id, entry(source), namespaces={"names": [two]})
    file.write_text(dump(gone))
    code, text = await regcred(world, "plan", "-f", str(file), "-o", "json")
    planned = {change["namespace"]: change for change in json.loads(text)["changes"]}
    assert (planned[one]["secret"], planned[one]["accountsDetached"]) == ("delete", ["default"])
    await world.declare(entry(source), namespaces={"names": [two]})
    await world.bare(one)
    await world.served(two)
    code, text = await regcred(world, "plan", "-f", str(file))
    assert (code, text.strip()) == (0, "Nothing would change.")


async def test_plan_knows_imports_deletions_and_protection(world: World, tmp_path: Path) -> None:
    """The logins of an import are in the plan, so is what a deletion takes, and what the operator protects is left out."""
    one, two, apart = await world.namespaces("one", "two", "apart")
    source = f"{world.id}-config"
    stage = Stage(world)
    await stage.pull_secret(NAMESPACE, source, login("quay.io", "alice", "s3cret"))
    imported = {"server": "*", "login": {"secretRef": {"name": source}}}
    file = tmp_path / "resource.yaml"

    async def planned(body: Json, *flags: str) -> Json:
        file.write_text(dump(body))
        code, text = await regcred(world, "plan", "-f", str(file), "-o", "json", *flags)
        assert code == 0, text
        told: Json = json.loads(text)
        told["by"] = {change["namespace"]: change for change in told["changes"]}
        return told

    everywhere = resource(world.id, imported, namespaces={"names": [one, two]})
    told = await planned(everywhere)
    assert told["by"][one]["serversAdded"] == ["quay.io"]
    assert told["couldNotRead"] == []
    missing = {"server": "*", "login": {"secretRef": {"name": f"{world.id}-none"}}}
    told = await planned(resource(world.id, missing, namespaces={"names": [one]}))
    assert told["changes"] == []
    assert f"{world.id}-none" in told["couldNotRead"][0]
    file.write_text(dump(resource(world.id, missing, namespaces={"names": [one]})))
    assert "Not in this plan: " in (await regcred(world, "plan", "-f", str(file)))[1]

    await world.declare(imported, namespaces={"names": [one, two]})
    await world.served(one, two)
    assert (await planned(everywhere))["changes"] == []
    told = await planned(everywhere, "--delete")
    assert {name: (change["secret"], change["accountsDetached"]) for name, change in told["by"].items()} == {
        name: ("delete", ["default"]) for name in (one, two)
    }

    # What the operator was told stands in its Deployment; there is no controller here that would start it.
    labels = {"app.kubernetes.io/name": "regcred"}
    pod = {
        "containers": [{"name": "regcred", "image": "regcred", "args": ["run", f"--protected-namespaces={apart}"]}]
    }
    where = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    await stage.create(
        where,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": world.id, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )
    try:
        told = await planned(
            resource(f"{world.id}-b", imported, secretName="own", namespaces={"names": [one, apart]})
        )
        assert set(told["by"]) == {one}
        named = {"server": "quay.io", "login": {"secretRef": {"name": source}}}
        await world.declare(named, name=f"{world.id}-named", namespaces={"names": [one]})
        found = await explain(world, "image", "quay.io/a/b:1", "-n", apart)
        assert found["cause"] == "NamespaceProtected"
    finally:
        await stage.api.request("DELETE", f"{where}/{world.id}")
        await stage.api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/secrets/{source}")


async def test_plan_refuses_what_is_not_valid(world: World, tmp_path: Path) -> None:
    """A file with a mistake is told with its line, and nothing is planned."""
    file = tmp_path / "resource.yaml"
    file.write_text(
        dump(resource("bad", {"server": "Quay.io", "login": {"secretRef": {"name": "x"}}}, namespaces={}))
    )
    code, text = await regcred(world, "plan", "-f", str(file))
    assert code == 1
    assert "spec.registries[0].server" in text
    assert f"{file}:" in text


async def test_test_fetches_and_proves_and_shows_no_login(
    world: World, registry: Registry, entry: Entry, tmp_path: Path
) -> None:
    """A good login is fetched and proven, a wrong one refused, a missing source named; no password is printed."""
    good = await world.login("alice", "s3cret", name=f"{world.id}-good")
    bad = await world.login("alice", "not-this-one", name=f"{world.id}-wrong")
    verify = {"repository": "private/app", "reference": "1"}
    file = tmp_path / "resources.yaml"
    file.write_text(dump(resource("good", entry(good, verify=verify), namespaces={})))
    code, text = await regcred(world, "test", "-f", str(file), "-o", "json")
    (row,) = json.loads(text)
    assert (code, row["result"], row["user"], row["server"]) == (0, "Verified", "alice", registry.host)
    bodies = (
        resource("wrong", entry(bad, verify=verify), namespaces={}),
        resource("missing", entry(f"{world.id}-none"), namespaces={}),
    )
    code, text = await regcred(world, "test", "-f", "-", stdin=dump(*bodies))
    assert code == 1
    assert "BadCredentials" in text
    assert "SourceMissing" in text
    assert "not-this-one" not in text


async def test_uninstall_after_the_operator(world: World, entry: Entry) -> None:
    """With the operator at work, resources, Secrets and entries go; what is to be retained stays, and is told."""
    mine, kept = await world.namespaces("mine", "kept", labels={"test": "none"})
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source), name=f"{world.id}-goes", namespaces={"names": [mine]})
    await world.declare(
        entry(source), name=f"{world.id}-stays", namespaces={"names": [kept]}, deletionPolicy="Retain"
    )
    await world.served(mine, kept)
    code, text = await regcred(world, "uninstall", "--keep-operator", "--dry-run")
    assert code == 0
    assert f"Secret {mine}/regcred" in text
    assert await world.secret(mine) is not None
    code, text = await regcred(world, "uninstall", "--keep-operator", stdin="n\n")
    assert code == 1
    assert await world.secret(mine) is not None
    code, text = await regcred(world, "uninstall", "--keep-operator", "--yes")
    assert code == 0, text
    assert f"Left on purpose (deletionPolicy: Retain): Secret {kept}/regcred" in text
    await world.bare(mine)
    assert await world.auths(kept)
    assert await world.pull_secrets(kept) == ["regcred"]


@pytest.fixture
async def reinstalled(installed: Cluster, shared_operator: OperatorProcess) -> AsyncIterator[None]:
    """Installs regcred again afterwards, for the tests that follow."""
    yield
    await shared_operator.stop()
    shared_operator.forget_login()

    async def again() -> bool:
        # The namespace and the definitions may still be on their way out.
        try:
            await install(installed)
        except Exception:  # noqa: BLE001 - told by the deadline
            return False
        return True

    await eventually(again, "regcred to be installed again", seconds=90, every=1.0)


@pytest.mark.usefixtures("reinstalled")
async def test_uninstall_without_the_operator_leaves_nothing(world: World, entry: Entry) -> None:
    """Where the operator is gone already, the command cleans up by itself: definitions, permissions, entries, all."""
    (namespace,) = await world.namespaces("a")
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source))
    await world.served(namespace)
    account = await world.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    assert account["imagePullSecrets"] == [{"name": "regcred"}]
    await world.operator.stop()
    code, text = await regcred(world, "uninstall", "--yes", "--timeout=0")
    assert code == 0, text
    assert f"the namespace {NAMESPACE} with your Secrets {source}" in text
    assert await world.secret(namespace) is None
    assert await world.pull_secrets(namespace) == []
    for kinds in ("clusterroles", "clusterrolebindings", "crd"):
        assert "regcred" not in await world.cluster.kubectl("get", kinds, "-o", "name")
    left = await world.cluster.kubectl("get", "roles,rolebindings,leases,services,deployments", "-n", NAMESPACE)
    assert "regcred" not in left
    # Namespaces of earlier tests may still be on their way out; nothing else is found any more.
    code, text = await regcred(world, "uninstall", "--dry-run")
    assert code == 0
    assert namespace not in text
    assert "apis/" not in text
