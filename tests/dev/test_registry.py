"""The local registries let in whom they should, and tell a container tool no as real ones do."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from dev.registry import Registry, write_authfile

IMAGE = "private/app:1"


@pytest.fixture(params=["registry", "token_registry"])
def either(request: pytest.FixtureRequest) -> Registry:
    registry = request.getfixturevalue(request.param)
    assert isinstance(registry, Registry)
    return registry


def login(folder: Path, registry: Registry, name: str, password: str) -> Path:
    return write_authfile(folder / "config.json", registry.host, name, password)


async def test_right_password_pulls(either: Registry, tmp_path: Path) -> None:
    """With the right password skopeo inspects and pulls the image."""
    authfile = login(tmp_path, either, "alice", "s3cret")
    assert await either.skopeo_inspect(IMAGE, authfile) == (0, "")
    code, said = await either.skopeo_pull(IMAGE, authfile)
    assert code == 0, said


async def test_wrong_password_is_refused(either: Registry, tmp_path: Path) -> None:
    """With a wrong password skopeo is refused as unauthorised."""
    code, said = await either.skopeo_inspect(IMAGE, login(tmp_path, either, "alice", "wrong"))
    assert code != 0
    assert "unauthorized" in said or "invalid username/password" in said


async def test_nobody_is_refused(either: Registry) -> None:
    """Without a login nothing is pulled."""
    code, said = await either.skopeo_inspect(IMAGE, None)
    assert code != 0
    assert "unauthorized" in said or "authentication required" in said


async def test_login_of_another_host_does_not_count(either: Registry, tmp_path: Path) -> None:
    """A login stored for another host is not used."""
    authfile = write_authfile(tmp_path / "config.json", "registry.example", "alice", "s3cret")
    code, _ = await either.skopeo_inspect(IMAGE, authfile)
    assert code != 0


async def test_changed_password_counts_at_once(either: Registry, tmp_path: Path) -> None:
    """After a password change the old one is refused and the new one accepted."""
    either.set_password("carol", "first")
    either.set_password("carol", "second")
    code, _ = await either.skopeo_inspect(IMAGE, login(tmp_path, either, "carol", "first"))
    assert code != 0
    if either.tokens is None:  # a new user has no rights at the token server
        code, said = await either.skopeo_inspect(IMAGE, login(tmp_path, either, "carol", "second"))
        assert code == 0, said


async def test_outage_ends(either: Registry, tmp_path: Path) -> None:
    """A stopped registry refuses everybody, and started again it has its images and address as before."""
    authfile = login(tmp_path, either, "alice", "s3cret")
    await either.stop()
    code, _ = await either.skopeo_inspect(IMAGE, authfile)
    assert code != 0
    await either.start()
    assert await either.skopeo_inspect(IMAGE, authfile) == (0, "")


async def test_token_server_grants_per_repository(token_registry: Registry, tmp_path: Path) -> None:
    """A user with the right password but without rights gets a token that pulls nothing."""
    assert token_registry.tokens is not None
    code, _ = await token_registry.skopeo_inspect(IMAGE, login(tmp_path, token_registry, "bob", "hunter2"))
    assert code != 0
    assert token_registry.tokens.exchanges[-1].user == "bob"
    assert token_registry.tokens.exchanges[-1].status == 200


async def test_expired_token_is_refused(token_registry: Registry, tmp_path: Path) -> None:
    """The registry refuses a token that has ended."""
    tokens = token_registry.tokens
    assert tokens is not None
    tokens.expired = True
    try:
        code, _ = await token_registry.skopeo_inspect(IMAGE, login(tmp_path, token_registry, "alice", "s3cret"))
    finally:
        tokens.expired = False
    assert code != 0


def test_token_life_is_what_was_set(token_registry: Registry) -> None:
    """A token lives as long as the server was told."""
    tokens = token_registry.tokens
    assert tokens is not None
    claims = jwt.decode(
        tokens.token("alice", ("repository:private/app:pull",)), options={"verify_signature": False}
    )
    assert claims["exp"] - claims["iat"] == tokens.token_seconds
    assert claims["access"] == [{"type": "repository", "name": "private/app", "actions": ["pull"]}]
