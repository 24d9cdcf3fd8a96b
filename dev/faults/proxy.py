"""The proxy: ends TLS, forwards with the caller's own Authorization, and damages what its rules name."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import multidict
from aiohttp import web

from dev.certificates import Authority
from dev.cluster import Cluster
from dev.faults.actions import Action, Answer, Cut, Delay, Drip, Garbage, Huge, Silence, Stale
from dev.faults.rules import Ask, Rule, Seen, read_ask
from dev.ports import free_port
from dev.scratch import scratch_folder

#: Headers that are about one connection, and those that aiohttp makes anew.
_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers", "upgrade"),
        *("transfer-encoding", "content-length"),
    }
)
_CHUNK = 64 * 1024
_KEPT = 200_000


@dataclasses.dataclass(slots=True, eq=False)
class _Stream:
    """A watch under way."""

    ask: Ask
    request: web.Request
    silent: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Memory:
    """An answer as it was."""

    status: int
    headers: multidict.CIMultiDict[str]
    body: bytes


class FaultProxy:
    """Stands before one server; made by `fault_proxy`.

    Attributes:
        url: where it listens.
        ca_file: who vouches for it; None where it speaks plain HTTP.
        seen: the last requests, oldest first.
        counts: how many requests there were, by verb and resource (by method and path for other servers).
    """

    def __init__(self, upstream: str, trust: ssl.SSLContext | None, url: str, ca_file: Path | None) -> None:
        self.url = url
        self.ca_file = ca_file
        self.seen: collections.deque[Seen] = collections.deque(maxlen=_KEPT)
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._upstream = upstream.rstrip("/")
        self._trust = trust
        self._rules: list[Rule] = []
        self._streams: set[_Stream] = set()
        self._memory: dict[tuple[str, str], _Memory] | None = None
        self._closing = asyncio.Event()
        self._session: aiohttp.ClientSession

    # What experiments say.

    @property
    def host(self) -> str:
        """Host and port."""
        return self.url.split("://", 1)[1]

    def add(self, action: Action, **match: Any) -> Rule:
        """Let a fault happen from now on; `match` are attributes of `Rule`.  Newer rules go before older ones."""
        rule = Rule(action, **match)
        self._rules.insert(0, rule)
        if isinstance(action, Silence):
            for stream in self._streams:
                if not stream.silent and rule.takes(stream.ask):
                    rule.hits += 1
                    stream.silent = True
        return rule

    def remove(self, rule: Rule) -> None:
        """Let a fault happen no more.  A connection that was silenced stays so."""
        if rule in self._rules:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Let nothing happen any more."""
        self._rules.clear()

    @contextlib.contextmanager
    def fault(self, action: Action, **match: Any) -> Iterator[Rule]:
        """Let a fault happen within a block."""
        rule = self.add(action, **match)
        try:
            yield rule
        finally:
            self.remove(rule)

    @contextlib.contextmanager
    def partition(self) -> Iterator[Rule]:
        """Let nothing through within a block: streams break, every connection is reset, the server hears nothing."""
        with self.fault(Cut(forwarded=False)) as rule:
            self.sever()
            yield rule

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[Rule]:
        """Swallow everything within a block: nothing is refused, and nothing is answered."""
        with self.fault(Silence()) as rule:
            yield rule

    def sever(self) -> int:
        """Break every stream that is under way, and return how many there were."""
        streams = list(self._streams)
        for stream in streams:
            _abort(stream.request)
        return len(streams)

    def remember(self) -> None:
        """Keep the first answer to every GET and LIST from now on, for `Stale`."""
        self._memory = {}

    def since(self, moment: float) -> list[Seen]:
        """Return what came by since a monotonic time."""
        return [each for each in self.seen if each.at >= moment]

    def cluster(self, cluster: Cluster, name: str = "proxied") -> Cluster:
        """Return a cluster as it is reached through the proxy; its administrator still goes straight to it."""
        folder = cluster.folder / name
        folder.mkdir(exist_ok=True)
        fields = {field.name: getattr(cluster, field.name) for field in dataclasses.fields(Cluster)}
        return Cluster(**{**fields, "folder": folder, "url": self.url, "ca_file": self.ca_file})

    # What it does.

    async def open(self) -> None:
        """Begin."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._trust or False, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def close(self) -> None:
        """End, with everything that hangs in it."""
        self._closing.set()
        self.sever()
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass on one request, or do to it what a rule says."""
        ask = read_ask(request.method, request.path, request.query)
        self.counts[(ask.verb, ask.resource) if ask.resource else (ask.method, ask.path)] += 1
        began = time.monotonic()
        rule = next((rule for rule in self._rules if rule.takes(ask)), None)
        if rule is not None:
            rule.hits += 1
        fault = type(rule.action).__name__ if rule is not None else ""
        status = 0
        try:
            answer = await self._around(request, ask, rule.action if rule is not None else None)
            status = answer.status
            return answer
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            # The server is away, or one of the two hung up amid the answer: the other sees a broken connection.
            _abort(request)
            return web.Response(status=502)
        finally:
            self.seen.append(Seen(began, ask, status, fault))

    async def _around(self, request: web.Request, ask: Ask, action: Action | None) -> web.StreamResponse:
        body = await request.read()
        match action:
            case Answer():
                headers = dict(action.headers)
                if action.retry_after is not None:
                    headers["Retry-After"] = str(action.retry_after)
                headers.setdefault("Content-Type", "application/json")
                return web.Response(status=action.status, body=action.content(), headers=headers)
            case Garbage():
                return web.Response(status=action.status, body=action.body, content_type=action.content_type)
            case Huge():
                return await _huge(request, action)
            case Stale() if (known := (self._memory or {}).get(_key(request))) is not None:
                return web.Response(status=known.status, headers=known.headers, body=known.body)
            case Cut(forwarded=False):
                return _abort(request)
            case Silence() if ask.verb != "watch" and not action.forwarded:
                await self._closing.wait()
                return _abort(request)
            case Delay():
                await asyncio.sleep(action.seconds)
        return await self._forward(request, ask, body, action)

    async def _forward(
        self, request: web.Request, ask: Ask, body: bytes, action: Action | None
    ) -> web.StreamResponse:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP]
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=[(name, value) for name, value in headers if name.lower() != "host"],
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            kept = multidict.CIMultiDict(
                (name, value) for name, value in answer.headers.items() if name.lower() not in _HOP
            )
            if ask.verb == "watch" and answer.status == 200:
                return await self._stream(request, ask, answer, kept, action)
            content = await answer.read()
        if isinstance(action, Silence):
            await self._closing.wait()
        if isinstance(action, Silence) or (isinstance(action, Cut) and action.after is None):
            return _abort(request)
        if ask.verb in ("get", "list") and self._memory is not None:
            self._memory.setdefault(_key(request), _Memory(answer.status, kept, content))
        if isinstance(action, Cut | Drip):
            return await _damaged(request, answer.status, kept, content, action)
        return web.Response(status=answer.status, headers=kept, body=content)

    async def _stream(
        self,
        request: web.Request,
        ask: Ask,
        answer: aiohttp.ClientResponse,
        headers: Mapping[str, str],
        action: Action | None,
    ) -> web.StreamResponse:
        """Pass a watch on, part by part."""
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        if isinstance(action, Cut) and action.after is None:
            return _abort(request)
        await response.prepare(request)
        stream = _Stream(ask, request, silent=isinstance(action, Silence))
        self._streams.add(stream)
        passed = 0
        try:
            async for chunk in answer.content.iter_any():
                if stream.silent:
                    continue
                if isinstance(action, Delay):
                    await asyncio.sleep(action.seconds)
                if isinstance(action, Cut) and action.after is not None and passed + len(chunk) > action.after:
                    await response.write(chunk[: action.after - passed])
                    return _abort(request)
                passed += len(chunk)
                for part in _parts(chunk, action):
                    await response.write(part)
                    if isinstance(action, Drip):
                        await asyncio.sleep(action.pause)
            if stream.silent:
                # The server has ended it; the other side is never told.
                await self._closing.wait()
        finally:
            self._streams.discard(stream)
        await response.write_eof()
        return response


def _key(request: web.Request) -> tuple[str, str]:
    return request.raw_path, request.headers.get("Accept", "")


def _parts(content: bytes, action: Action | None) -> Iterator[bytes]:
    size = action.size if isinstance(action, Drip) else _CHUNK
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _abort(request: web.Request) -> web.Response:
    """Break a connection, in whatever state it is."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _gone(request: web.Request) -> bool:
    """Whether nobody listens any more."""
    return request.transport is None or request.transport.is_closing()


async def _damaged(
    request: web.Request, status: int, headers: Mapping[str, str], content: bytes, action: Cut | Drip
) -> web.StreamResponse:
    """Send an answer in part only, or very slowly."""
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(content))})
    await response.prepare(request)
    if isinstance(action, Cut):
        await response.write(content[: action.after])
        return _abort(request)
    for part in _parts(content, action):
        if _gone(request):
            return response
        await response.write(part)
        await asyncio.sleep(action.pause)
    await response.write_eof()
    return response


async def _huge(request: web.Request, action: Huge) -> web.StreamResponse:
    response = web.StreamResponse(status=action.status, headers={"Content-Type": action.content_type})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b'{"huge": "')
    for _ in range(action.size // _CHUNK):
        # One who has read enough has closed the connection.
        if _gone(request):
            return response
        await response.write(b"x" * _CHUNK)
    await response.write(b'"}')
    await response.write_eof()
    return response


@contextlib.asynccontextmanager
async def fault_proxy(
    upstream: str, *, ca_file: Path | None = None, tls: bool = True, port: int = 0
) -> AsyncIterator[FaultProxy]:
    """A running proxy before `upstream`.

    Args:
        upstream: address of the real server.
        ca_file: who vouches for it.
        tls: whether the proxy speaks TLS, by an authority of its own.
        port: where it listens on loopback; 0 for any free one.
    """
    with scratch_folder("faults") as folder:
        context: ssl.SSLContext | None = None
        authority_file: Path | None = None
        if tls:
            authority = Authority("regcred-faults")
            authority_file = folder / "ca.crt"
            authority_file.write_text(authority.certificate)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*authority.server("faults").write(folder, "faults"))
        trust = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        port = port or free_port()
        proxy = FaultProxy(upstream, trust, f"{'https' if tls else 'http'}://127.0.0.1:{port}", authority_file)
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
        await proxy.open()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        try:
            yield proxy
        finally:
            await proxy.close()
            await runner.cleanup()
