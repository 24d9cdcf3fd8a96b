"""The login provider: which login comes out of which Secret, and what is said about the ones that cannot be used."""

import asyncio
import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Mapping

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import dockerconfig
from regcred.api import providers as api
from regcred.credentials import provider
from regcred.credentials.providers import login

SECRET = "hunter2-very-secret"
HUB = dockerconfig.DOCKER_HUB


@dataclasses.dataclass
class Cluster:
    """A cluster of Secrets in memory; the other two doors of the protocol stay shut."""

    secrets: Mapping[str, Mapping[str, bytes]]

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        if name not in self.secrets:
            raise provider.InvalidSpec("SourceMissing", "missing", field="login.secretRef.name")
        return self.secrets[name]

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        raise AssertionError(name)

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        raise AssertionError(service_account, audience, seconds)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(kind: str, **data: str | bytes) -> dict[str, bytes]:
    return {"": kind.encode()} | {
        key: value.encode() if isinstance(value, str) else value for key, value in data.items()
    }


def config(auths: object, key: str = ".dockerconfigjson", kind: str = "kubernetes.io/dockerconfigjson") -> dict:
    return secret(kind, **{key: json.dumps({"auths": auths})})


def ask(source: Mapping[str, bytes] | None, server: str = "r.io", *aliases: str) -> provider.Ask:
    return provider.Ask(
        server=server,
        servers=(server, *aliases),
        config=api.LoginBlock(secret_ref={"name": "source"}),
        tenant=True,
        ambient=False,
        namespace="shop",
        ca_bundle="",
        cluster=Cluster({} if source is None else {"source": source}),
    )


async def fetch(source: Mapping[str, bytes], server: str = "r.io", *aliases: str) -> provider.Grant:
    return await login.LoginProvider().fetch(ask(source, server, *aliases))


async def refusal(source: Mapping[str, bytes], server: str = "r.io", *aliases: str) -> str:
    with pytest.raises(provider.InvalidSpec) as caught:
        await fetch(source, server, *aliases)
    error = caught.value
    assert (error.reason, error.field) == ("SourceInvalid", "login.secretRef.name")
    assert error.message.startswith("Secret shop/source ")
    assert error.message.endswith(".")
    assert error.__context__ is None
    assert SECRET not in error.message
    return error.message


U_P = dockerconfig.Login("u", "p")
ENTRY = {"auth": b64("u:p")}


def test_is_a_provider() -> None:
    """The provider follows the protocol, and no host name leads to it."""
    built = login.LoginProvider()
    assert isinstance(built, provider.Provider)
    assert built.name == "login"
    assert not built.serves("docker.io")


def test_key_and_sources() -> None:
    """Asks for one server of one Secret are one fetch, which begins anew when that Secret changes."""
    built = login.LoginProvider()
    assert built.key(ask(None)) == "login:shop/source:r.io"
    assert built.key(ask(None, "*")) == "login:shop/source:*"
    assert built.sources(ask(None)) == (provider.SourceRef("shop", "source"),)


async def test_missing_secret() -> None:
    """The cluster's own error comes through unchanged."""
    with pytest.raises(provider.InvalidSpec) as caught:
        await login.LoginProvider().fetch(ask(None))
    assert caught.value.reason == "SourceMissing"


@pytest.mark.parametrize(
    "source",
    [
        secret("kubernetes.io/basic-auth", username="u", password="p"),
        secret("Opaque", username="u", password="p"),
        secret("", username="u", password="p"),
        secret("Opaque", username="u", password="p", **{".dockerconfigjson": "junk"}),
        config({"r.io": ENTRY}),
        config({"https://R.io/v2/": ENTRY}),
        config({"r.io": ENTRY, "q.io": {"auth": "junk"}}),
        config({"r.io": ENTRY}, ".dockercfg", "kubernetes.io/dockercfg"),
        config({"r.io": ENTRY}, ".dockerconfigjson", "Opaque"),
        config({"r.io": ENTRY}, "config.json", "Opaque"),
        secret("kubernetes.io/dockercfg", **{".dockercfg": json.dumps({"r.io": ENTRY})}),
        secret("kubernetes.io/dockerconfigjson", **{".dockerconfigjson": json.dumps({"r.io": ENTRY})}),
    ],
)
async def test_each_kind_of_source(source: dict[str, bytes]) -> None:
    """A login is found in each type of Secret, whichever shape stands under whichever key."""
    before = dt.datetime.now(dt.UTC)
    grant = await fetch(source)
    assert grant.logins == {provider.ANY_SERVER: U_P}
    assert grant.identity == "u"
    assert grant.expires_at is None
    assert before <= grant.issued_at <= dt.datetime.now(dt.UTC)
    assert tuple(grant.notes) == ()


@pytest.mark.parametrize(
    ("auths", "server", "aliases", "user"),
    [
        (("r.io", "*.io", "r.io/team/"), "r.io", (), "r.io"),
        (("*.io", "q.io"), "r.io", (), "*.io"),
        (("*.io", "r*.io"), "r.io", (), "r*.io"),
        (("r.io", "r.io/team"), "r.io/team/", (), "r.io/team"),
        (("r.io", "r.io/team/"), "r.io/team/", (), "r.io/team/"),
        (("r.io",), "r.io/team/", (), "r.io"),
        (("docker.io",), HUB, (), "docker.io"),
        (("docker.io", "docker.io/org/"), "docker.io/org/", (), "docker.io/org/"),
        (("docker.io",), "docker.io/org/", (), "docker.io"),
        (("q.io",), "r.io", ("q.io",), "q.io"),
        (("*.io", "q.com"), "r.io", ("q.com",), "q.com"),
    ],
)
async def test_picks_what_the_kubelet_would(auths, server: str, aliases, user: str) -> None:
    """For a named server the entry of that name is used, else the one the kubelet would try first."""
    source = config({entry: {"username": entry, "password": "p"} for entry in auths})
    assert (await fetch(source, server, *aliases)).identity == user


@pytest.mark.parametrize("server", ["r.io", "r.io:443", "*.io", "registry-1.r.io", HUB])
async def test_no_entry_for_the_server(server: str) -> None:
    """When no entry serves the server, the message names those there are."""
    message = await refusal(config({"q.io": ENTRY, "r.io/team/": ENTRY}), server)
    assert f"holds no login for {server}, only for: q.io, r.io/team/" in message


async def test_entry_for_the_server_is_bad() -> None:
    """When the server's own entry is unusable, its own fault is reported."""
    message = await refusal(config({"r.io": {"identitytoken": SECRET}, "q.io": ENTRY}))
    assert "cannot be used for r.io: the entry holds only an identity token" in message


async def test_all_entries() -> None:
    """Server * takes every usable entry, under canonical names, and notes the others."""
    source = config({"R.io": ENTRY, "docker.io": ENTRY, "q.io": {}, "http://x.io": ENTRY})
    grant = await fetch(source, "*")
    assert grant.logins == {"r.io": U_P, HUB: U_P}
    assert grant.identity == "2 logins"
    assert sorted(note.partition(":")[0] for note in grant.notes) == ["http", "q.io"]
    assert (await fetch(config({"r.io": ENTRY}), "*")).identity == "1 login"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (config({}), "it has no entry"),
        (config({"r.io": {}}), "r.io: the entry is empty"),
        (secret("Opaque", **{"config.json": '{"credsStore":"desktop"}'}), "credsStore"),
        (secret("Opaque", username="u", password="p"), "name the server"),
    ],
)
async def test_no_usable_entry(source: dict[str, bytes], says: str) -> None:
    """Server * with nothing usable behind it is refused with the reason."""
    assert says in await refusal(source, "*")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
async def test_newline_at_the_end(end: str) -> None:
    """A newline that `echo` left at the end is removed, and a note says so."""
    grant = await fetch(secret("Opaque", username="u", password=f"p{end}"))
    assert grant.logins == {provider.ANY_SERVER: U_P}
    assert list(grant.notes) == ["a newline at the end of password was removed"]
    grant = await fetch(config({"r.io": {"auth": b64(f"u:p{end}")}, "q.io": {"auth": b64("u:p\n")}}))
    assert grant.logins == {provider.ANY_SERVER: U_P}
    assert list(grant.notes) == ["a newline at the end of the login was removed"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (secret("Opaque", username="u"), "has no key password"),
        (secret("Opaque", password=SECRET), "has no key username"),
        (secret("Opaque"), "holds no login; add the keys username and password"),
        (secret("kubernetes.io/dockerconfigjson"), "holds no docker config; add the key .dockerconfigjson"),
        (secret("kubernetes.io/tls", username="u", password=SECRET), "of a type that holds no login"),
        (secret("Opaque", username="u", password=""), "the password is empty"),
        (secret("Opaque", username="\n", password=SECRET), "the user name is empty"),
        (secret("Opaque", username="u", password=f"{SECRET}\nmore"), "control character"),
        (secret("Opaque", username="u:v", password=SECRET), "colon"),
        (secret("Opaque", username="u", password=b"\xff\xfe" + SECRET.encode()), "not UTF-8"),
        (secret("Opaque", username=b64("alice"), password=b64(SECRET)), "base64 inside base64"),
        (secret("Opaque", username=b64("alice\n"), password=b64(f"{SECRET}\n")), "base64 inside base64"),
        (secret("kubernetes.io/dockerconfigjson", **{".dockerconfigjson": SECRET}), "not a JSON object"),
        (
            secret("Opaque", **{".dockerconfigjson": b64(json.dumps({"auths": {"r.io": ENTRY}}))}),
            "base64 inside base64",
        ),
        (config({"r.io": {"auth": b64(b64(f"u:{SECRET}"))}}), "base64 inside base64"),
    ],
)
async def test_source_that_cannot_be_used(source: dict[str, bytes], says: str) -> None:
    """What cannot be a login is refused, naming the Secret and what to do, never the value."""
    assert says in await refusal(source)


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("user", "pass"),
        ("AWS", b64("{" + '"payload":"x"' + "}")),
        ("alice", b64(SECRET)),
        (b64("alice"), SECRET),
        ("deploybt", "c29tZSByYW5kb20gYnl0ZXM"),
        ("00000000-0000-0000-0000-000000000000", "eyJhbGciOi.eyJhbGciOi.c2ln"),
        ("robot$ci", "Abcd1234Abcd1234"),
        ("_json_key", '{"type":"service_account"}'),
        ("_json_key_base64", b64('{"type":"service_account"}')),
    ],
)
async def test_real_logins_are_not_taken_for_base64(username: str, password: str) -> None:
    """User names and passwords that merely look like base64 are used as they are."""
    grant = await fetch(secret("Opaque", username=username, password=password))
    assert grant.logins == {provider.ANY_SERVER: dockerconfig.Login(username, password)}
    assert tuple(grant.notes) == ()


async def test_token_that_tells_its_end() -> None:
    """A password that is a token with an end of its own is noted, and nothing is assumed about the registry."""
    token = jwt.encode({"exp": 1_800_000_000}, "k" * 32)
    grant = await fetch(secret("Opaque", username="u", password=token))
    assert list(grant.notes) == [
        "the password is a token that says it ends at 2027-01-15T08:00:00Z; replace it before"
    ]
    assert grant.expires_at is None


@given(st.dictionaries(st.sampled_from(["", "username", "password", ".dockerconfigjson"]), st.binary(max_size=40)))
def test_any_bytes(data: dict[str, bytes]) -> None:
    """Whatever a Secret holds, the answer is a login that can be written or a refusal that says why."""
    try:
        grant = asyncio.run(login.LoginProvider().fetch(ask(data)))
    except provider.InvalidSpec as error:
        assert error.reason == "SourceInvalid"  # noqa: PT017 - one of two good ends
    else:
        assert dockerconfig.serialise({"r.io": grant.logins[provider.ANY_SERVER]})
