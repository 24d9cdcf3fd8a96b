"""Where a request that a tenant asks for may go, and what every request is bounded by."""

import ipaddress
import socket
import ssl

import aiohttp.web
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from regcred.credentials import guard
from tests.credentials import redirects

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("0.0.0.0", True),  # noqa: S104
        ("0.1.2.3", True),
        ("169.254.169.254", True),
        ("169.254.170.23", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("::", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("fd00:ec2::23", True),
        ("fd20:ce::254", True),
        ("ff02::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::169.254.169.254", True),
        ("2002:7f00:1::", True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("8.8.8.8", False),
        ("fd00::1", False),
        ("2606:4700::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("r.io", False),
        ("", False),
    ],
)
def test_addresses(address: str, *, refused: bool) -> None:
    """Loopback, link-local and the clouds' platform services are refused, in every spelling; private ranges not."""
    assert guard.is_refused(address) is refused


@given(st.ip_addresses(v=4))
def test_ipv6_spellings_agree(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address inside an IPv6 one is judged as itself."""
    for spelling in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert guard.is_refused(spelling) == guard.is_refused(str(address))


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "a.localhost", "[::1]", "127.0.0.1"])
def test_names(host: str) -> None:
    """Names of this machine are refused before anything is resolved."""
    assert guard.names_refused(host)
    assert not guard.names_refused("r.io")


async def ask(url: str, *, tenant: bool) -> guard.Answer:
    async with guard.open_session(tenant=tenant) as session:
        return await guard.send(
            session, "GET", yarl.URL(url), what="The registry", tls=ssl.create_default_context(), timeout=10
        )


@pytest.fixture
async def page(unused_tcp_port: int):
    async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        if request.path == "/big":
            return aiohttp.web.Response(body=b"x" * 500_000)
        return aiohttp.web.json_response(dict(request.headers))

    application = aiohttp.web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = aiohttp.web.AppRunner(application)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    yield f"127.0.0.1:{unused_tcp_port}"
    await runner.cleanup()


async def test_answer_is_bounded(page: str) -> None:
    """Of a long answer only the beginning is read."""
    answer = await ask(f"http://{page}/big", tenant=False)
    assert (answer.status, len(answer.body)) == (200, guard.MAX_BODY)
    assert "xxx" not in repr(answer)


@pytest.mark.parametrize("status", redirects.STATUSES)
async def test_redirect_is_not_followed(status: int) -> None:
    """A redirect is an answer."""

    async def send(to: redirects.Redirecting) -> guard.Answer:
        async with guard.open_session() as session:
            tls = ssl.create_default_context(cadata=to.ca)
            options = {"what": "The registry", "tls": tls, "timeout": 10, "form": [("password", "x")]}
            return await guard.send(session, "POST", yarl.URL(to.url), **options)

    answer, taken = await redirects.carried_along(status, send)
    assert answer.status == status
    assert taken == []


async def test_netrc_is_not_sent(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A login that somebody keeps in ~/.netrc is not sent to registries."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login alice password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    answer = await ask(f"http://{page}/", tenant=False)
    assert answer.status == 200
    assert b"Authorization" not in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "127.1", "0"])
async def test_tenant_does_not_reach_loopback(page: str, host: str) -> None:
    """A tenant's request to this machine is not sent, however it is written."""
    port = page.partition(":")[2]
    with pytest.raises(guard.NoAnswer):
        await ask(f"http://{host}:{port}/", tenant=True)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "127.0.0.1"], ["::1"]])
async def test_tenant_does_not_reach_loopback_by_name(
    page: str, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to a refused address, alone or among others, is not contacted for a tenant."""
    real = socket.getaddrinfo

    def resolve(host, port, *more, **options):
        if host != "trick.example":
            return real(host, port, *more, **options)
        return [entry for address in addresses for entry in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = page.partition(":")[2]
    with pytest.raises(guard.NoAnswer, match="link-local or loopback") as caught:
        await ask(f"http://trick.example:{port}/", tenant=True)
    assert caught.value.__context__ is None
    if addresses == ["127.0.0.1"]:
        assert (await ask(f"http://trick.example:{port}/", tenant=False)).status == 200


async def test_tenant_does_not_reach_loopback_by_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is not asked for a name that we see leading to a refused address, even if it is on loopback itself."""
    monkeypatch.setenv("https_proxy", "localhost:9")
    async with guard.open_session(tenant=True) as session:
        assert isinstance(session.connector, guard.Connector)
        assert not await session.connector.resolver.refuses("localhost", 443)  # the proxy itself
        monkeypatch.delenv("https_proxy")
        assert await session.connector.resolver.refuses("localhost", 443)
        assert not await session.connector.resolver.refuses("nowhere.invalid", 443)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://r.io", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://r.io", "http://p:3128"),
        ({"https_proxy": "p:3128"}, "https://r.io", "http://p:3128"),
        ({"HTTPS_PROXY": "http://u:p@p:3128"}, "https://r.io", "http://u:p@p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://r.io", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "r.io"}, "https://r.io", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".io"}, "https://a.r.io", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "r.io:5000"}, "https://r.io:5000", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "q.io"}, "https://r.io", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "HTTP_PROXY": "http://p:3128"}, "http://127.0.0.1:5000", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://localhost:5000", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://[::1]:5000", None),
    ],
)
def test_proxies(environment, url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are used, but for what it excepts and for loopback."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert guard.proxy_for(yarl.URL(url)) == (yarl.URL(proxy) if proxy else None)
