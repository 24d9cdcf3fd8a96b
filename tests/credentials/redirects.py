"""Does a request carry what it holds along a redirect?  Asked of a server that redirects, and of one that lies in wait."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from dev.certificates import Authority
from dev.clouds.local import Fault, LocalServer

STATUSES = (301, 302, 303, 307, 308)


class Thief(LocalServer):
    """Takes down whatever is sent to it."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.taken: list[str] = []
        self.route("*", "/{path:.*}", "taken", self._take)

    async def _take(self, request: web.Request) -> web.Response:
        self.taken.append(f"{request.method} {dict(request.headers)} {await request.text()}")
        return web.json_response({})


@dataclasses.dataclass(frozen=True, slots=True)
class Redirecting:
    """Where a request goes, and whom to trust there.

    Attributes:
        url: answers with a redirect to somebody else.
        ca: PEM of the authority of both.
    """

    url: str
    ca: str


async def carried_along(status: int, send: Callable[[Redirecting], Awaitable[Any]]) -> tuple[Any, list[str]]:
    """Let `send` meet a redirect; return what it returned, and every request that reached the redirect's target."""
    authority = Authority("redirects")
    async with Thief(authority) as thief, Thief(authority) as first:
        first.fail("taken", Fault(status, headers={"Location": f"{thief.origin}/stolen"}))
        answer = await send(Redirecting(f"{first.origin}/token", authority.certificate))
        assert first.calls["taken"] == 1
        return answer, thief.taken
