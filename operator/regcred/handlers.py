"""kopf's side: it watches our two kinds and hands every event over, a few lines each.

Only `on.event` is used: it writes nothing to the watched object, no annotation and no finalizer.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Collection, Iterator
from typing import Any, Protocol

import aiohttp
import kopf

from regcred.api import names, resource
from regcred.cluster import client as api

#: Seconds that kopf's parts have to end, each time that they are told to.
_END = 3.0
_KOPF = str(pathlib.Path(kopf.__file__).parent)


class Sink(Protocol):
    """Who is told."""

    def upsert(self, resource: resource.Resource) -> bool:
        """Take in a resource as it is now, and return whether that is something to act on."""

    def remove(self, uid: str) -> None:
        """Take in that a resource is gone."""


class Backoff:
    """Seconds between kopf's tries of one request: growing to 30, for ever.

    kopf iterates it anew for each request, and its operator ends where it ends: a control plane that is away for an
    hour must not end the process.
    """

    def __iter__(self) -> Iterator[float]:
        pause = 0.5
        while True:
            yield pause
            pause = min(pause * 2, 30.0)


def registry(sink: Sink, access: api.Login) -> kopf.OperatorRegistry:
    """Return kopf's handlers: both kinds, and the login."""
    handlers = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=8, ssl=access.ssl),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=[_authorise],
        )
        return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

    async def _authorise(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers.update(await access.headers())
        response = await handler(request)
        if response.status == 401:
            response.close()
            request.headers.update(await access.headers(fresh=True))
            response = await handler(request)
        return response

    async def tell(event: Any, **_: Any) -> None:
        body = event["object"]
        if event["type"] == "DELETED":
            sink.remove(body["metadata"]["uid"])
        else:
            sink.upsert(resource.parse(body))

    kopf.on.login(registry=handlers)(login)
    for plural in (names.CLUSTER_PLURAL, names.NAMESPACED_PLURAL):
        kopf.on.event(names.GROUP, names.VERSION, plural, registry=handlers, id=f"event-{plural}")(tell)
    return handlers


def settings(silence: float) -> kopf.OperatorSettings:
    """Return kopf's settings: alone, small, patient, and writing nothing.

    Args:
        silence: seconds without an event after which a watch is opened anew.
    """
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.networking.error_backoffs = Backoff()
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.watching.connect_timeout = 10
    chosen.watching.inactivity_timeout = silence
    chosen.queueing.exit_timeout = 5
    # We start kopf again where it has ended by itself: it must not kill the process for that some minutes later.
    chosen.process.ultimate_exiting_timeout = None
    # Never used by event handlers; set all the same, so that no other operator's mark is ever touched.
    chosen.persistence.finalizer = f"{names.GROUP}/none"
    return chosen


async def serve(
    handlers: kopf.OperatorRegistry, chosen: kopf.OperatorSettings, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Run kopf until `stop` is set or one of its parts ends by itself, and leave nothing of it behind.

    This stands in for `kopf.operator`.  Where a part fails, that one cancels every task which began after it, those of
    others included, and then waits for all of them without an end.

    Raises:
        Exception: of the part that has failed.
    """
    parts = await kopf.spawn_tasks(
        standalone=True, clusterwide=True, registry=handlers, settings=chosen, stop_flag=stop, ready_flag=ready
    )
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(parts)
        # What its parts have begun, and did not end with them.
        await _end([task for task in asyncio.all_tasks() if _is_kopfs(task)])
    for part in done:
        if part.cancelled():
            raise RuntimeError("a part of kopf was cancelled")
        part.result()


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END)


def _is_kopfs(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_KOPF)
