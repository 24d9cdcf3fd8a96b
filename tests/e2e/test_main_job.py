"""The main job: declare a registry, and every chosen namespace can pull from it."""

from __future__ import annotations

from pathlib import Path

from dev.registry import Registry
from dev.waiting import eventually
from tests.e2e.conftest import Entry, World, write_bytes


async def test_synced_bytes_pull_from_the_private_registry(
    world: World, registry: Registry, entry: Entry, tmp_path: Path
) -> None:
    """Skopeo reads the private image with exactly the bytes of a synced Secret in three namespaces, and not without."""
    namespaces = await world.namespaces("a", "b", "c")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.ready()
    for namespace in namespaces:
        body = await world.secret(namespace)
        assert body is not None
        code, told = await registry.skopeo_inspect(
            "private/app:1", write_bytes(tmp_path / f"{namespace}.json", body)
        )
        assert code == 0, told
    code, told = await registry.skopeo_inspect("private/app:1", None)
    assert code != 0, told


async def test_secret_and_account_are_as_the_contract_says(world: World, entry: Entry) -> None:
    """The Secret carries type, label, annotations and owner; the default account lists it; nothing else does."""
    (namespace,) = await world.namespaces("a")
    await world.cluster.kubectl("create", "serviceaccount", "other", "-n", namespace)
    await world.declare(entry(await world.login("alice", "s3cret")))
    status = (await world.ready())["status"]
    body = await world.secret(namespace)
    assert body is not None
    assert body["type"] == "kubernetes.io/dockerconfigjson"
    assert body["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "regcred"}
    assert set(body["metadata"]["annotations"]) == {
        "regcred.io/contributors",
        "regcred.io/servers",
        "regcred.io/revision",
    }
    assert [owner["name"] for owner in body["metadata"]["ownerReferences"]] == [world.id]
    assert list(body["data"]) == [".dockerconfigjson"]
    assert await world.pull_secrets(namespace) == ["regcred"]
    assert await world.pull_secrets(namespace, "other") == []
    assert status["namespaces"] == {"matched": 1, "synced": 1, "failed": 0, "conflicted": 0}
    assert status["serviceAccounts"] == {"matched": 1, "attached": 1}
    assert status["summary"]["registries"] == "1/1"
    assert status["summary"]["expiresAt"] == "never"
    assert status["registries"][0]["identity"] == "alice"


async def test_namespace_born_later_is_served(world: World, entry: Entry) -> None:
    """A namespace and an account that appear after the resource are served without any further change."""
    await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")), serviceAccounts=["default", "build-*"])
    await world.ready()
    (late,) = await world.namespaces("late")
    await world.served(late)
    await world.cluster.kubectl("create", "serviceaccount", "build-1", "-n", late)

    async def listed() -> bool:
        return await world.pull_secrets(late, "build-1") == ["regcred"]

    await eventually(listed, "the new account to list the Secret")


async def test_changed_source_reaches_every_target_in_place(world: World, entry: Entry) -> None:
    """A new password in the source Secret is in every target within seconds, and each keeps its UID."""
    namespaces = await world.namespaces("a", "b")
    source = await world.login("alice", "old-password")
    await world.declare(entry(source))
    await world.served(*namespaces, login=("alice", "old-password"))
    before = [(await world.secret(namespace) or {})["metadata"]["uid"] for namespace in namespaces]
    await world.login("alice", "new-password", name=source)
    await world.served(*namespaces, login=("alice", "new-password"))
    after = [(await world.secret(namespace) or {})["metadata"]["uid"] for namespace in namespaces]
    assert after == before


async def test_kubectl_wait_and_the_printed_columns_tell_the_truth(world: World, entry: Entry) -> None:
    """`kubectl wait` returns when it is Ready, and the columns show what holds."""
    await world.namespaces("a", "b")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.cluster.kubectl("wait", f"crcred/{world.id}", "--for=condition=Ready", "--timeout=30s")
    printed = await world.cluster.kubectl("get", "crcred", world.id)
    head, row = (line.split() for line in printed.strip().splitlines())
    assert head == ["NAME", "READY", "REGISTRIES", "NAMESPACES", "EXPIRES", "REFRESHED", "AGE"]
    assert row[:5] == [world.id, "True", "1/1", "2/2", "never"]
    assert {event["reason"] for event in await world.events()} == {"Ready"}


async def test_tenant_resource_serves_its_own_namespace_only(world: World, entry: Entry) -> None:
    """A namespaced resource reads its own namespace's Secret, once its owner allows it, and serves only there."""
    mine, other = await world.namespaces("mine", "other")
    source = await world.login("alice", "s3cret", name="tenant-login", namespace=mine)
    await world.declare(entry(source), name="own", namespace=mine)
    told = await world.ready("own", mine, status="False", reason="Forbidden")
    message = told["status"]["registries"][0]["message"]
    command = message.split("with: ", 1)[1]
    for part in command.split(" && "):
        words = part.split()
        assert words[0] == "kubectl"
        await world.cluster.kubectl(*words[1:])
    await world.ready("own", mine)
    assert set((await world.auths(mine)).values()) == {("alice", "s3cret")}
    assert await world.secret(other) is None
