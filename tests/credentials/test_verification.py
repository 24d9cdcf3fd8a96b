"""What the registry's own handshake shows about a login: every answer's verdict, and where a login is not sent."""

import asyncio

import aiohttp
import pytest

from regcred import dockerconfig
from regcred.credentials import guard, verification
from regcred.credentials.verification import Outcome
from tests.credentials import fake_registry
from tests.credentials.fake_registry import BASIC, OK, TOKEN, FakeRegistry, Reply, bearer

PASSWORD = "hunter2-very-secret"
LOGIN = dockerconfig.Login("alice", PASSWORD)
PAGE = Reply(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"})


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory):
    async with fake_registry.start_fake_registry(tmp_path_factory.mktemp("fake")) as fake:
        yield fake


@pytest.fixture
def fake(running: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", running.proxy)
    running.told()
    return running


async def verify(
    fake: FakeRegistry, server: str = "r.io", repository: str = "a/b", **options
) -> verification.Verdict:
    options = {"ca_bundle": fake.ca, "timeout": 10.0, "reference": "1"} | options
    async with guard.open_session(tenant=options.get("tenant", False)) as session:
        verdict = await verification.verify(
            session, server, repository, options.pop("reference"), options.pop("login", LOGIN), **options
        )
    assert PASSWORD not in repr(verdict)
    assert "the-token" not in repr(verdict)
    assert verdict.message.endswith(".")
    return verdict


def test_outcomes_tell_what_they_prove() -> None:
    """Only a pull proves a login good, only a refusal proves it bad, and each outcome has its own reason."""
    assert {outcome: outcome.accepts for outcome in Outcome} == {
        Outcome.OK: True,
        Outcome.ANONYMOUS_OK: None,
        Outcome.NOT_FOUND: None,
        Outcome.DENIED: False,
        Outcome.BAD_CREDENTIALS: False,
        Outcome.UNREACHABLE: None,
        Outcome.UNKNOWN: None,
    }
    assert len({outcome.reason for outcome in Outcome}) == len(Outcome)
    assert all(outcome.reason.isalnum() and outcome.reason[0].isupper() for outcome in Outcome)


FORBIDDEN = Reply(403, b'{"errors":[{"code":"DENIED"}]}')
EXPIRED = Reply(403, b"Your authorization token has expired. Reauthenticate and try again.")
SCOPE = Reply(401, headers={"WWW-Authenticate": 'Bearer realm="https://r.io/token",error="insufficient_scope"'})
STALE = Reply(401, headers={"WWW-Authenticate": 'Bearer realm="https://r.io/token",error="invalid_token"'})

TABLE = [
    ({"anonymous": OK}, Outcome.ANONYMOUS_OK),
    ({"anonymous": Reply(404)}, Outcome.NOT_FOUND),
    ({"anonymous": Reply(403)}, Outcome.UNKNOWN),
    ({"anonymous": Reply(302, headers={"Location": "https://evil.example/"})}, Outcome.UNKNOWN),
    ({"anonymous": Reply(429)}, Outcome.UNKNOWN),
    ({"anonymous": Reply(503)}, Outcome.UNKNOWN),
    ({"anonymous": PAGE}, Outcome.UNKNOWN),
    ({"anonymous": Reply(401)}, Outcome.UNKNOWN),
    ({"anonymous": Reply(401, headers={"WWW-Authenticate": "Negotiate"})}, Outcome.UNKNOWN),
    ({"anonymous": Reply(405), "body": OK}, Outcome.ANONYMOUS_OK),
    ({"anonymous": BASIC, "basic": OK}, Outcome.OK),
    ({"anonymous": BASIC, "basic": Reply(307, headers={"Location": "https://evil.example/"})}, Outcome.OK),
    ({"anonymous": BASIC, "basic": PAGE}, Outcome.UNKNOWN),
    ({"anonymous": BASIC, "basic": BASIC}, Outcome.BAD_CREDENTIALS),
    ({"anonymous": BASIC, "basic": Reply(403), "body": FORBIDDEN}, Outcome.DENIED),
    ({"anonymous": BASIC, "basic": Reply(403), "body": EXPIRED}, Outcome.BAD_CREDENTIALS),
    (
        {"anonymous": BASIC, "basic": Reply(400), "body": Reply(400, b"authorization token is invalid")},
        Outcome.BAD_CREDENTIALS,
    ),
    ({"anonymous": BASIC, "basic": Reply(400)}, Outcome.UNKNOWN),
    ({"anonymous": BASIC, "basic": Reply(404)}, Outcome.NOT_FOUND),
    ({"anonymous": BASIC, "basic": Reply(429)}, Outcome.UNKNOWN),
    ({"anonymous": BASIC, "basic": Reply(500)}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": OK}, Outcome.OK),
    ({"anonymous": bearer(), "post": Reply(200, b'{"access_token":"the-token"}'), "bearer": OK}, Outcome.OK),
    ({"anonymous": bearer(), "post": Reply(400), "get": TOKEN, "bearer": OK}, Outcome.OK),
    ({"anonymous": bearer(), "post": Reply(401), "get": TOKEN, "bearer": OK}, Outcome.OK),
    ({"anonymous": bearer(), "post": Reply(404), "get": TOKEN, "bearer": OK}, Outcome.OK),
    ({"anonymous": bearer(), "post": Reply(405), "get": TOKEN, "bearer": OK}, Outcome.OK),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": SCOPE}, Outcome.DENIED),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": Reply(401)}, Outcome.DENIED),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": FORBIDDEN}, Outcome.DENIED),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": EXPIRED}, Outcome.BAD_CREDENTIALS),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": STALE}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": Reply(404)}, Outcome.NOT_FOUND),
    ({"anonymous": bearer(), "post": TOKEN, "bearer": Reply(502)}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(401), "get": Reply(401)}, Outcome.BAD_CREDENTIALS),
    ({"anonymous": bearer(), "post": Reply(404), "get": FORBIDDEN}, Outcome.DENIED),
    ({"anonymous": bearer(), "post": FORBIDDEN}, Outcome.DENIED),
    (
        {"anonymous": bearer(), "post": Reply(404), "get": Reply(403, b"HTTP Basic: Access denied")},
        Outcome.BAD_CREDENTIALS,
    ),
    ({"anonymous": bearer(), "post": Reply(400), "get": Reply(400)}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(429)}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(500)}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(302, headers={"Location": "https://evil.example/"})}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": PAGE}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(200, b"[]")}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(200, b'{"token":""}')}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(200, b'{"token":"a\\r\\nX: y"}')}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(200, b"[" * 60_000)}, Outcome.UNKNOWN),
    ({"anonymous": bearer(), "post": Reply(200, b'{"token":"' + b"x" * 100_000 + b'"}')}, Outcome.UNKNOWN),
]


@pytest.mark.parametrize(("answers", "outcome"), TABLE)
async def test_verdict(fake: FakeRegistry, answers: dict[str, Reply], outcome: Outcome) -> None:
    """Each way a registry can answer has its verdict, and the login goes nowhere but to the registry."""
    fake.told(**answers)
    verdict = await verify(fake)
    assert verdict.outcome is outcome
    assert not fake.seen[0].authorization
    assert {seen.url.partition("/")[0] for seen in fake.seen} == {"r.io"}
    assert set(fake.logins) <= {f"alice:{PASSWORD}"}


@pytest.mark.parametrize(
    ("server", "realm", "answers", "outcome"),
    [
        ("ghcr.io", "https://ghcr.io/token", {"post": Reply(404), "get": FORBIDDEN}, Outcome.BAD_CREDENTIALS),
        ("europe-docker.pkg.dev", "https://europe-docker.pkg.dev/v2/token", {"get": FORBIDDEN}, Outcome.DENIED),
        (dockerconfig.DOCKER_HUB, "https://auth.docker.io/token", {"post": TOKEN, "bearer": OK}, Outcome.OK),
        (
            dockerconfig.DOCKER_HUB,
            "https://auth.docker.io/token",
            {"post": TOKEN, "bearer": SCOPE},
            Outcome.DENIED,
        ),
        ("docker.io/a/", "https://auth.docker.io/token", {"get": Reply(401)}, Outcome.BAD_CREDENTIALS),
    ],
)
async def test_vendors(
    fake: FakeRegistry, server: str, realm: str, answers: dict[str, Reply], outcome: Outcome
) -> None:
    """What a vendor's registry answers is taken as that vendor means it."""
    fake.told(anonymous=bearer(realm, ',service="s"'), **answers)
    assert (await verify(fake, server)).outcome is outcome


@pytest.mark.parametrize(
    ("server", "repository", "reference", "url"),
    [
        ("r.io", "a/b", "1", "r.io/v2/a/b/manifests/1"),
        ("r.io", "app", "1", "r.io/v2/app/manifests/1"),
        ("r.io/a/", "a/b", "1", "r.io/v2/a/b/manifests/1"),
        ("r.io", "a/b", f"sha256:{'a' * 64}", f"r.io/v2/a/b/manifests/sha256:{'a' * 64}"),
        (dockerconfig.DOCKER_HUB, "app", "1", "registry-1.docker.io/v2/library/app/manifests/1"),
        (dockerconfig.DOCKER_HUB, "a/b", "1", "registry-1.docker.io/v2/a/b/manifests/1"),
        ("docker.io/a/", "a/b", "1", "registry-1.docker.io/v2/a/b/manifests/1"),
    ],
)
async def test_what_is_asked_for(
    fake: FakeRegistry, server: str, repository: str, reference: str, url: str
) -> None:
    """The manifest is asked for with HEAD, where a container runtime would pull it."""
    fake.told(anonymous=OK)
    await verify(fake, server, repository, reference=reference)
    assert [(seen.method, seen.url) for seen in fake.seen] == [("HEAD", url)]


async def test_token_requests(fake: FakeRegistry) -> None:
    """The token is asked for as containerd does: by OAuth2 first, then with the login in a header."""
    fake.told(anonymous=bearer(), post=Reply(405), get=TOKEN, bearer=OK)
    await verify(fake)
    anonymous, post, get, final = fake.seen
    assert (anonymous.method, anonymous.authorization) == ("HEAD", "")
    assert (post.url, post.form) == (
        "r.io/token",
        {
            "grant_type": "password",
            "service": "r.io",
            "scope": "repository:a/b:pull",
            "client_id": "regcred",
            "username": "alice",
            "password": PASSWORD,
        },
    )
    assert (get.url, get.authorization) == (
        "r.io/token?service=r.io&scope=repository:a/b:pull",
        f"Basic {LOGIN.auth}",
    )
    assert (final.method, final.authorization) == ("HEAD", "Bearer the-token")


async def test_scope_is_asked_for_without_being_offered(fake: FakeRegistry) -> None:
    """A challenge without scope or service still leads to a token for the repository."""
    fake.told(anonymous=bearer(extra=""), post=Reply(404), get=TOKEN, bearer=OK)
    assert (await verify(fake)).outcome is Outcome.OK
    assert fake.seen[2].url == "r.io/token?scope=repository:a/b:pull"


async def test_bearer_is_preferred(fake: FakeRegistry) -> None:
    """Of two challenges the one for a token is followed, as container runtimes do."""
    both = {"WWW-Authenticate": 'Basic realm="r", Bearer realm="https://r.io/token"'}
    fake.told(anonymous=Reply(401, headers=both), post=TOKEN, bearer=OK, basic=BASIC)
    assert (await verify(fake)).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("realm", "says"),
    [
        ("http://r.io/token", "without TLS"),
        ("https://evil.example/token", "another domain"),
        ("https://169.254.169.254/latest", "another domain"),
        ("https://alice:x@r.io/token", "no usable address"),
        ("ftp://r.io/token", "no usable address"),
        ("/token", "no usable address"),
        ("", "no usable address"),
        ("https://[", "no usable address"),
        ("https://r.io:99999/", "no usable address"),
    ],
)
async def test_realm_that_gets_no_login(fake: FakeRegistry, realm: str, says: str) -> None:
    """A token endpoint without TLS, of another domain or without an address gets no login."""
    fake.told(anonymous=bearer(realm), post=TOKEN, get=TOKEN, bearer=OK)
    verdict = await verify(fake)
    assert (verdict.outcome, says in verdict.message) == (Outcome.UNKNOWN, True)
    assert len(fake.seen) == 1


async def test_realm_of_the_same_domain_gets_it(fake: FakeRegistry) -> None:
    """A token endpoint beside the registry, in its domain, is trusted with the login."""
    fake.told(anonymous=bearer("https://auth.r.io/token"), post=TOKEN, bearer=OK)
    assert (await verify(fake)).outcome is Outcome.OK


async def test_proxy_of_the_environment(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go through the proxy, with its login, which the registry does not see."""
    monkeypatch.setenv("https_proxy", fake.proxy.replace("://", "://proxyuser:proxyword@"))
    fake.told(anonymous=BASIC, basic=OK)
    assert (await verify(fake)).outcome is Outcome.OK
    assert set(fake.proxied) == {("r.io:443", "Basic cHJveHl1c2VyOnByb3h5d29yZA==")}
    assert fake.logins == [f"alice:{PASSWORD}"]


async def test_untrusted_certificate(fake: FakeRegistry) -> None:
    """A registry whose certificate nobody vouches for gets nothing, and the message says what to configure."""
    fake.told(anonymous=BASIC, basic=OK)
    verdict = await verify(fake, ca_bundle="")
    assert verdict.outcome is Outcome.UNREACHABLE
    assert "tls.caBundle" in verdict.message
    assert not fake.seen


async def test_certificate_of_another_name(fake: FakeRegistry) -> None:
    """A certificate for another name does not do."""
    fake.told(anonymous=BASIC, basic=OK)
    assert (await verify(fake, "q.io")).outcome is Outcome.UNREACHABLE
    assert not fake.seen


@pytest.mark.parametrize("bundle", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_bad_bundle(fake: FakeRegistry, bundle: str) -> None:
    """A CA bundle that is none says so, and nothing is asked."""
    verdict = await verify(fake, ca_bundle=bundle)
    assert verdict.outcome is Outcome.UNREACHABLE
    assert "tls.caBundle" in verdict.message


@pytest.mark.parametrize(
    ("server", "repository", "reference"),
    [
        ("*.r.io", "a/b", "1"),
        ("r.io", "A/b", "1"),
        ("r.io", "a/b", "a b"),
        ("r.io", "", "1"),
        ("r.io", "../x", "1"),
    ],
)
async def test_nothing_to_ask(fake: FakeRegistry, server: str, repository: str, reference: str) -> None:
    """A wildcard server, or a repository that is no image name, is not asked about."""
    assert (await verify(fake, server, repository, reference=reference)).outcome is Outcome.UNKNOWN
    assert not fake.proxied


async def test_nobody_there(fake: FakeRegistry, unused_tcp_port: int) -> None:
    """A registry that cannot be reached says nothing about the login."""
    assert (await verify(fake, f"127.0.0.1:{unused_tcp_port}")).outcome is Outcome.UNREACHABLE


async def test_no_answer_in_time(fake: FakeRegistry) -> None:
    """A registry that accepts connections and stays silent is given up after the timeout."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    verdict = await verify(fake, f"127.0.0.1:{port}", timeout=0.2)
    server.close()
    for writer in held:
        writer.close()
        await writer.wait_closed()
    assert verdict.outcome is Outcome.UNREACHABLE
    assert "within 0.2 seconds" in verdict.message


@pytest.fixture
async def plain(tmp_path, fake: FakeRegistry):
    async with fake_registry.start_fake_registry(tmp_path, tls=False) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_without_tls(plain: FakeRegistry, host: str) -> None:
    """A registry on loopback that speaks no TLS is asked without, and so is its token endpoint."""
    server = f"{host}:{plain.port}"
    plain.told(anonymous=BASIC, basic=OK)
    assert (await verify(plain, server)).outcome is Outcome.OK
    plain.told(anonymous=bearer(f"http://{server}/token"), get=TOKEN, bearer=OK)
    assert (await verify(plain, server)).outcome is Outcome.OK


async def test_loopback_with_tls_stays_with_it(fake: FakeRegistry) -> None:
    """A registry on loopback that speaks TLS is not asked without, and its token endpoint neither."""
    server = f"127.0.0.1:{fake.port}"
    fake.told(anonymous=bearer(f"http://{server}/token"), get=TOKEN, bearer=OK)
    assert (await verify(fake, server)).outcome is Outcome.UNKNOWN
    assert (await verify(fake, server, ca_bundle="")).outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize("options", [{"insecure_hosts": ()}, {"ca_bundle": "given"}, {"tenant": True}])
async def test_no_way_around_tls(plain: FakeRegistry, fake: FakeRegistry, options) -> None:
    """Without permission, with a CA bundle, or for a tenant, no request leaves without TLS."""
    plain.told(anonymous=BASIC, basic=OK)
    if options.get("ca_bundle"):
        options = {"ca_bundle": fake.ca}
    assert (await verify(plain, f"127.0.0.1:{plain.port}", **options)).outcome is Outcome.UNREACHABLE
    assert not plain.seen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_tenant_and_loopback(fake: FakeRegistry, host: str) -> None:
    """A tenant's registry may not be on this machine."""
    fake.told(anonymous=OK)
    verdict = await verify(fake, f"{host}:{fake.port}", tenant=True)
    assert verdict.outcome is Outcome.UNREACHABLE
    assert "link-local or loopback" in verdict.message
    assert not fake.seen


async def test_tenant_behind_a_proxy(fake: FakeRegistry) -> None:
    """A tenant's registry is reached through a proxy, even where the proxy is on this machine."""
    fake.told(anonymous=BASIC, basic=OK)
    assert (await verify(fake, tenant=True)).outcome is Outcome.OK


@pytest.mark.parametrize("kind", ["none", "plain", "other"])
async def test_session_that_does_not_fit(fake: FakeRegistry, kind: str) -> None:
    """With a session that is not made for the asker, the handshake is as guarded as with its own."""
    fake.told(anonymous=OK)
    async with aiohttp.ClientSession() as plain, guard.open_session(tenant=False) as other:
        session = {"none": None, "plain": plain, "other": other}[kind]
        verdict = await verification.verify(
            session, f"127.0.0.1:{fake.port}", "a/b", "1", LOGIN, ca_bundle=fake.ca, tenant=True
        )
    assert verdict.outcome is Outcome.UNREACHABLE
    assert not fake.seen
