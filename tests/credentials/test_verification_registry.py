"""Verdicts about real registries, which skopeo's pulls with the very bytes we would publish agree with."""

from pathlib import Path

import pytest

from dev.registry import Registry
from regcred import dockerconfig
from regcred.credentials import guard, verification
from regcred.credentials.verification import Outcome


async def verify(registry: Registry, image: str, login: dockerconfig.Login, **options) -> verification.Verdict:
    repository, _, reference = image.partition("@") if "@" in image else image.partition(":")
    ca_bundle = registry.ca_file.read_text() if registry.ca_file else ""
    async with guard.open_session(tenant=options.get("tenant", False)) as session:
        return await verification.verify(
            session, registry.host, repository, reference, login, ca_bundle=ca_bundle, **options
        )


async def pulls(registry: Registry, image: str, login: dockerconfig.Login, folder: Path) -> bool:
    authfile = folder / "config.json"
    authfile.write_bytes(dockerconfig.serialise({registry.host: login}))
    code, _ = await registry.skopeo_inspect(image, authfile)
    return code == 0


@pytest.fixture(params=["registry", "token_registry"])
def either(request: pytest.FixtureRequest) -> Registry:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("words", "image", "with_htpasswd", "with_tokens"),
    [
        ("alice:s3cret", "private/app:1", Outcome.OK, Outcome.OK),
        ("alice:mistyped", "private/app:1", Outcome.BAD_CREDENTIALS, Outcome.BAD_CREDENTIALS),
        ("nobody:s3cret", "private/app:1", Outcome.BAD_CREDENTIALS, Outcome.BAD_CREDENTIALS),
        # The password file knows no rights: whoever is let in may pull everything.
        ("bob:hunter2", "private/app:1", Outcome.OK, Outcome.DENIED),
        ("alice:s3cret", "private/app:2", Outcome.NOT_FOUND, Outcome.NOT_FOUND),
        ("alice:s3cret", "private/none:1", Outcome.NOT_FOUND, Outcome.NOT_FOUND),
        ("alice:s3cret", "other/app:1", Outcome.NOT_FOUND, Outcome.DENIED),
        ("alice:mistyped", "private/none:1", Outcome.BAD_CREDENTIALS, Outcome.BAD_CREDENTIALS),
    ],
)
async def test_verdict_agrees_with_skopeo(
    either: Registry, tmp_path: Path, *, words: str, image: str, with_htpasswd: Outcome, with_tokens: Outcome
) -> None:
    """A right, wrong or rights-less login has its verdict, and is proven good exactly if skopeo can pull with it."""
    user, password = words.split(":")
    login = dockerconfig.Login(user, password)
    verdict = await verify(either, image, login)
    assert verdict.outcome is (with_tokens if either.tokens else with_htpasswd)
    assert (verdict.outcome.accepts is True) == await pulls(either, image, login, tmp_path)
    assert password not in verdict.message


async def test_replaced_password(either: Registry, tmp_path: Path) -> None:
    """A password that was replaced is bad from then on, as an expired one is."""
    before, after = dockerconfig.Login("alice", "s3cret"), dockerconfig.Login("alice", "renewed")
    either.set_password("alice", "renewed")
    try:
        for login, outcome in ((before, Outcome.BAD_CREDENTIALS), (after, Outcome.OK)):
            assert (await verify(either, "private/app:1", login)).outcome is outcome
            assert await pulls(either, "private/app:1", login, tmp_path) == (outcome is Outcome.OK)
    finally:
        either.set_password("alice", "s3cret")


async def test_by_digest(either: Registry) -> None:
    """An image is verified by digest as well as by tag."""
    digest = await either.push("private/app", "1")
    login = dockerconfig.Login("alice", "s3cret")
    assert (await verify(either, f"private/app@{digest}", login)).outcome is Outcome.OK
    assert (await verify(either, f"private/app@sha256:{'0' * 64}", login)).outcome is Outcome.NOT_FOUND


async def test_password_in_utf8(either: Registry, tmp_path: Path) -> None:
    """A password outside ASCII works for us as it works for skopeo."""
    either.set_password("alice", "pässwörd☃")
    try:
        login = dockerconfig.Login("alice", "pässwörd☃")
        assert (await verify(either, "private/app:1", login)).outcome is Outcome.OK
        assert await pulls(either, "private/app:1", login, tmp_path)
    finally:
        either.set_password("alice", "s3cret")


async def test_token_endpoint_with_a_wrong_clock(token_registry: Registry, tmp_path: Path) -> None:
    """When the registry refuses its own endpoint's tokens, nothing is said against the login."""
    assert token_registry.tokens
    login = dockerconfig.Login("alice", "s3cret")
    token_registry.tokens.expired = True
    try:
        assert (await verify(token_registry, "private/app:1", login)).outcome is Outcome.UNKNOWN
        assert not await pulls(token_registry, "private/app:1", login, tmp_path)
    finally:
        token_registry.tokens.expired = False


async def test_tenant_may_not(either: Registry) -> None:
    """A namespaced resource does not reach a registry on the operator's loopback."""
    verdict = await verify(either, "private/app:1", dockerconfig.Login("alice", "s3cret"), tenant=True)
    assert verdict.outcome is Outcome.UNREACHABLE
