"""What the local token endpoints share: a server on a free port of loopback, counted calls, faults on demand.

They play the far side of an exchange, so what matters is that they refuse what the real one refuses, and that a
test can have each of its failures.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from aiohttp import web

from dev import scratch
from dev.certificates import Authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What an endpoint does in place of its work.

    Attributes:
        status: HTTP status.
        body: a dict is sent as JSON.
        headers: more headers.
        content_type: of a body that is no dict.
        hang: never answer.
        cut: close the connection without an answer.
    """

    status: int = 500
    body: Any = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content_type: str = "text/html"
    hang: bool = False
    cut: bool = False


class LocalServer:
    """An HTTP server on 127.0.0.1, with TLS by an authority of ours or without.

    Attributes:
        calls: calls of each endpoint, by its name.
        port: where it listens.
    """

    def __init__(self, authority: Authority | None = None) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.port = 0
        self._authority = authority
        self._faults: dict[str, list[Fault]] = {}
        self._names: dict[Any, str] = {}
        self._app = web.Application(middlewares=[self._around], client_max_size=1 << 20)
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    def route(self, method: str, path: str, name: str, handler: Handler) -> None:
        """Serve a path; `name` is what `calls` and `fail` know it by."""
        self._names[self._app.router.add_route(method, path, handler)] = name

    def fail(self, name: str, fault: Fault, times: int = 1) -> None:
        """Let the next `times` calls of an endpoint fail."""
        self._faults.setdefault(name, []).extend([fault] * times)

    def heal(self) -> None:
        """Forget faults that have not happened, and all counts."""
        self._faults.clear()
        self.calls.clear()

    @property
    def origin(self) -> str:
        """`https://127.0.0.1:PORT`, or http without an authority."""
        return f"{'https' if self._authority else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context())
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def _context(self) -> ssl.SSLContext | None:
        if self._authority is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with scratch.scratch_folder("tls") as folder:
            context.load_cert_chain(*self._authority.server("localhost").write(folder, "server"))
        return context

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = self._names.get(request.match_info.route, request.path)
        self.calls[name] += 1
        faults = self._faults.get(name)
        if not faults:
            return await handler(request)
        fault = faults.pop(0)
        await request.read()
        if fault.hang:
            await self._closing.wait()
        if (fault.cut or fault.hang) and request.transport is not None:
            request.transport.abort()
        text = json.dumps(fault.body) if isinstance(fault.body, dict) else fault.body
        return web.Response(
            status=fault.status,
            text=text,
            headers=dict(fault.headers),
            content_type="application/json" if isinstance(fault.body, dict) else fault.content_type,
        )
