"""A registry that answers as it is told, under any host name, over TLS and behind a proxy.

The verification meets it as it would meet the real one: it dials the proxy of its environment, asks for
`ghcr.io:443` and finds this registry, with a certificate for that name.
"""

import asyncio
import base64
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Mapping

import aiohttp.web

from dev.certificates import Authority

MANIFEST = "application/vnd.oci.image.index.v1+json"
HOSTS = (
    *("r.io", "auth.r.io", "evil.example", "ghcr.io", "registry-1.docker.io", "auth.docker.io"),
    *("1.dkr.ecr.eu-west-1.amazonaws.com", "europe-docker.pkg.dev", "127.0.0.1", "localhost"),
)


@dataclasses.dataclass(frozen=True)
class Reply:
    """One answer: status, body, headers."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"Content-Type": MANIFEST})


@dataclasses.dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    url: str
    authorization: str
    form: Mapping[str, str]


def bearer(realm: str = "https://r.io/token", extra: str = ',service="r.io",scope="repository:a/b:pull"') -> Reply:
    """The usual challenge of a registry with a token endpoint."""
    return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"{extra}'})


BASIC = Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
TOKEN = Reply(200, b'{"token":"the-token","expires_in":60}')
OK = Reply(200)


@dataclasses.dataclass
class FakeRegistry:
    """Answers by kind of request, and a record of the requests.

    Attributes:
        answers: `anonymous`, `basic` and `bearer` for the manifest by authorization, `post` and `get` for the
            token endpoint, `body` for a GET of the manifest where HEAD gets another.
        seen: every request.
        proxied: what the proxy was asked for, with the login it was sent.
        tunnels: connections to the proxy, open or done.
        port: of the registry itself.
        proxy: address of the proxy.
        ca: PEM of the authority.
    """

    answers: dict[str, Reply] = dataclasses.field(default_factory=dict)
    seen: list[Seen] = dataclasses.field(default_factory=list)
    proxied: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    tunnels: list[asyncio.Task[None]] = dataclasses.field(default_factory=list)
    port: int = 0
    proxy: str = ""
    ca: str = ""

    def told(self, **answers: Reply) -> None:
        """Forget everything and answer so."""
        self.answers, self.seen, self.proxied = answers, [], []

    @property
    def logins(self) -> list[str]:
        """Whatever was sent as a login, in order."""
        return [
            base64.b64decode(seen.authorization.removeprefix("Basic ")).decode()
            if seen.authorization.startswith("Basic ")
            else f"{seen.form['username']}:{seen.form['password']}"
            for seen in self.seen
            if seen.authorization.startswith("Basic ") or "password" in seen.form
        ]

    async def answer(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """Find the reply for a request."""
        authorization = request.headers.get("Authorization", "")
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.seen.append(Seen(request.method, f"{request.host}{request.path_qs}", authorization, form))
        if "/manifests/" not in request.path:
            kind = request.method.lower()
        elif request.method == "GET" and "body" in self.answers:
            kind = "body"
        else:
            kind = authorization.partition(" ")[0].lower() or "anonymous"
        reply = self.answers.get(kind, Reply(404))
        return aiohttp.web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to serve a connection to the proxy."""
        self.tunnels.append(asyncio.create_task(self.tunnel(reader, writer)))

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one CONNECT: whatever is asked for is here."""
        async with _closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            login = [
                line.partition(" ")[2] for line in head.splitlines() if line.startswith("Proxy-Authorization")
            ]
            self.proxied.append((head.split(" ")[1], "".join(login)))
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.port)
            async with _closing(inner_writer):
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def start_fake_registry(folder, *, tls: bool = True) -> AsyncIterator[FakeRegistry]:
    """Run the registry and its proxy on loopback."""
    fake = FakeRegistry()
    context = None
    if tls:
        authority = Authority("fake-authority")
        fake.ca = authority.certificate
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.server("fake", HOSTS).write(folder, "fake"))
    application = aiohttp.web.Application()
    application.router.add_route("*", "/{tail:.*}", fake.answer)
    runner = aiohttp.web.AppRunner(application, access_log=None)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    fake.port = runner.addresses[0][1]
    proxy = await asyncio.start_server(fake.connected, "127.0.0.1", 0)
    fake.proxy = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        proxy.close()
        for tunnel in fake.tunnels:
            tunnel.cancel()
        await asyncio.gather(*fake.tunnels, return_exceptions=True)
        await runner.cleanup()
