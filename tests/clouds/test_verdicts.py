"""`verify` end to end: what a real registry, with a password file or behind a token endpoint, lets pull is published.

skopeo, with a docker config of the same login, has to come to the same end every time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dev.registry import Registry
from dev.token_server import PULL, User
from dev.waiting import eventually
from tests.clouds.hub import config_in, docker_config
from tests.e2e.conftest import World

IMAGE = "private/app:1"


@pytest.fixture(params=["registry", "token_registry"])
def either(request: pytest.FixtureRequest) -> Registry:
    """A registry with a password file, and one behind a token endpoint that knows rights."""
    return request.getfixturevalue(request.param)


def entry(registry: Registry, source: str) -> dict[str, Any]:
    """Return the entry that asks for a proof."""
    tls = {"tls": {"caBundle": registry.ca_file.read_text()}} if registry.ca_file else {}
    proof = {"repository": "private/app", "reference": "1"}
    return {"server": registry.host, "login": {"secretRef": {"name": source}}, "verify": proof, **tls}


async def skopeo_pulls(registry: Registry, folder: Path, username: str, password: str) -> bool:
    """Whether skopeo reads the image with this login."""
    authfile = folder / "config.json"
    authfile.write_bytes(docker_config([registry.host], username, password))
    return (await registry.skopeo_inspect(IMAGE, authfile))[0] == 0


@pytest.mark.parametrize(
    ("username", "password", "with_htpasswd", "with_tokens"),
    [
        ("alice", "s3cret", "", ""),
        ("alice", "mistyped-pw", "BadCredentials", "BadCredentials"),
        # A password file knows no rights: whoever is let in may pull everything.
        ("bob", "hunter2", "", "AccessDenied"),
    ],
    ids=["right", "wrong", "without rights"],
)
async def test_first_login(
    world: World,
    either: Registry,
    tmp_path: Path,
    *,
    username: str,
    password: str,
    with_htpasswd: str,
    with_tokens: str,
) -> None:
    """A login is published exactly if the registry lets it pull; else the status says why, and nothing is written."""
    reason = with_tokens if either.tokens else with_htpasswd
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(either, await world.login(username, password)))
    assert await skopeo_pulls(either, tmp_path, username, password) == (not reason)
    if not reason:
        await world.ready()
        assert (await world.condition("Verified"))["status"] == "True"
        body = await world.secret(namespace)
        assert body is not None
        assert config_in(body) == docker_config([either.host], username, password)
        return
    told = await world.ready(status="False", reason=reason)
    assert (await world.condition("Verified"))["reason"] == reason
    assert told["status"]["registries"][0]["reason"] == reason
    assert password not in str(told["status"])
    assert await world.secret(namespace) is None
    assert "regcred" not in (await world.pull_secrets(namespace) or [])


async def test_expired_login(world: World, either: Registry, tmp_path: Path) -> None:
    """A password that was replaced at the registry is found out by the next proof; the new one takes its place."""
    who, old, new = f"carol-{world.id}", "old-password", "new-password"
    either.users[who] = User(old, {"private/*": PULL})
    either.set_password(who, old)
    (namespace,) = await world.namespaces("a")
    source = await world.login(who, old)
    await world.declare(entry(either, source))
    await world.served(namespace, login=(who, old))
    assert await skopeo_pulls(either, tmp_path, who, old)

    either.set_password(who, new)
    await world.cluster.kubectl("annotate", "crcred", world.id, "regcred.io/refresh-requested-at=now")

    async def refused() -> bool:
        return (await world.condition("Verified")).get("reason") == "BadCredentials"

    await eventually(refused, "the replaced password to be found out")
    assert not await skopeo_pulls(either, tmp_path, who, old)
    body = await world.secret(namespace)
    assert body is not None
    assert config_in(body) == docker_config([either.host], who, old)

    await world.login(who, new, name=source)
    await world.served(namespace, login=(who, new))
    await world.ready()
    assert await skopeo_pulls(either, tmp_path, who, new)
