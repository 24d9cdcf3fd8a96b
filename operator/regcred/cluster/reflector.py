"""Keeps a store equal to a collection of the API server: a paged list, then a watch from there.

A watch can die without a word, and a list can miss what happened before the watch began; the order here allows
neither.  Bookmarks keep the resource version young, silence ends a stream, an expired version leads to a new
list, and a list replaces the store whole, so that what was deleted meanwhile is noticed.

Silence alone proves nothing: servers before 1.21 send no bookmark where nothing has happened in a collection since
its watch began.  So the first silence leads to a new list, and where that brings no news the next ones lead to a new
stream from the same version only, which tells of whatever was missed.  Thousands of objects are not listed for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from regcred.cluster import client as api
from regcred.cluster import errors, heartbeat

_log = logging.getLogger(__name__)

#: Seconds without an event after which a watch counts as dead.  Bookmarks come once in a minute, or in a minute and a
#: quarter.  Source: kubernetes `storage/cacher`.
SILENCE = 85.0
#: A full list now and then, whatever the watch says: the last line of defence against a missed event.
_RELIST_EVERY = 3 * 3600.0
#: The longest pause between attempts, and where RBAC or a missing kind is in the way, in seconds.
_CEILING = 10.0
_PATIENT_CEILING = 30.0
#: A stream or a list that ends within as many seconds did not do any good.
_BRIEF = 5.0
#: Streams in a row that may fail before everything is listed anew.
_STREAMS = 5
#: Of so many silent streams in a row one leads to a new list, where the last such list brought no news.
_QUIET = 8


class Store(Protocol):
    """What a reflector fills.  All calls come from the event loop and do not wait."""

    def upsert(self, body: dict[str, Any]) -> bool:
        """Take in one object as it is now, and return whether that is news."""

    def remove(self, body: dict[str, Any]) -> None:
        """Forget one object."""

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> bool:
        """Forget every object that is not among `seen`, and return whether there was such.

        Args:
            seen: (namespace, name) of all that the list held.
            version: the list's resource version: what is newer in the store stays.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Collection:
    """What to reflect.

    Attributes:
        title: for logs and metrics, such as `namespaces`.
        path: of the collection.
        params: field or label selectors.
        metadata: take the metadata of the objects only.
        cached: the first list may come from the API server's watch cache, which may lag a little.
    """

    title: str
    path: str
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metadata: bool = False
    cached: bool = False


class Reflector:
    """One collection kept in one store.

    Attributes:
        synced: set once the first list is in.
        error: the error of the last attempt, or None while all is well.
        heard_at: monotonic time when the server was last heard of.
        restarts: how often a list had to begin again.

    Args:
        client: the API client.
        collection: what to reflect.
        store: where to.
        on_state: called whenever `synced` or `error` changes.
        on_restart: called with `silent`, `expired` or `error` before a list has to begin again.
        sleep: waits between attempts.
        silence: seconds without an event after which a watch counts as dead.
    """

    def __init__(
        self,
        client: api.Client,
        collection: Collection,
        store: Store,
        *,
        on_state: Callable[[Reflector], None] | None = None,
        on_restart: Callable[[str], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        silence: float = SILENCE,
    ) -> None:
        self.collection = collection
        self.synced = asyncio.Event()
        self.error: errors.ApiError | None = None
        self.heard_at = time.monotonic()
        self.restarts = 0
        self.heartbeat = heartbeat.Heartbeat()
        self._client = client
        self._store = store
        self._on_state = on_state or (lambda _: None)
        self._on_restart = on_restart or (lambda _: None)
        self._sleep = sleep
        self._silence = silence
        #: Where the stream is; silent streams in a row; and whether the list that silence has led to brought news.
        self._version = ""
        self._silences = 0
        self._missed = False

    async def run(self) -> None:
        """List and watch until cancelled; every error leads to another attempt."""
        failures = expired = 0
        cached = self.collection.cached
        while True:
            began = time.monotonic()
            self.heartbeat.beat()
            try:
                if not self._version:
                    self._version = await self._list(cached=cached)
                cached = self.collection.cached
                failures = 0
                await self._follow()
                self._version = ""
            except TimeoutError:
                self._silences += 1
                if not self._missed and self._silences % _QUIET != 1:
                    _log.debug("Watching %s anew: silent for %.0f s", self.collection.title, self._silence)
                    continue
                # Bookmarks should have come: nothing that this connection has said or not said is trusted any more.
                _log.warning("Relisting %s: its watch was silent for %.0f s", self.collection.title, self._silence)
                self._on_restart("silent")
                self._version, cached = "", False
            except errors.Gone:
                # A cache from which one cannot watch on would hand out the same again.
                self._version, cached = "", False
                self._on_restart("expired")
                _log.info("Relisting %s: the resource version expired", self.collection.title)
                # A server that calls its newest version expired, or whose pages expire as we read, is not hammered.
                expired = expired + 1 if time.monotonic() - began < _BRIEF else 0
                if expired:
                    await self._sleep(_pause(expired, _CEILING))
            except errors.ApiError as error:
                failures += 1
                self._version = ""
                self._on_restart("error")
                self._failed(error, failures)
                # RBAC may be granted any moment: asked for less often than a server that is only slow.
                patient = isinstance(error, errors.Forbidden | errors.NotFound)
                pause = _pause(failures, _PATIENT_CEILING if patient else _CEILING)
                await self._sleep(max(pause, min(error.retry_after or 0.0, _PATIENT_CEILING)))
            self.restarts += 1

    def _failed(self, error: errors.ApiError, failures: int) -> None:
        if error.status:
            self.heard_at = time.monotonic()
        changed = type(error) is not type(self.error)
        self.error = error
        _log.log(
            logging.WARNING if failures in (1, 10) else logging.DEBUG,
            "Listing %s failed, tried again: %s",
            self.collection.title,
            error,
        )
        if changed:
            self._on_state(self)

    async def _list(self, *, cached: bool) -> str:
        seen: list[tuple[str, str]] = []
        version, news = "", False
        collection = self.collection
        async with contextlib.aclosing(
            (self._client.cached if cached else self._client.pages)(
                collection.path, params=collection.params, metadata=collection.metadata
            )
        ) as pages:
            async for items, page_version in pages:
                # Of several pages the first one says from where to watch: all of them are of that version, but the
                # pages of a server that has lost it are not.
                self.heard_at, version = time.monotonic(), version or page_version
                self.heartbeat.beat()
                for body in items:
                    meta = body["metadata"]
                    seen.append((meta.get("namespace", ""), meta["name"]))
                    news |= self._store.upsert(body)
                # A page of 500 is decoded in a few milliseconds: let others run between two of them.
                await asyncio.sleep(0)
        news |= self._store.replace(seen, version)
        self._missed = news and self._silences > 0
        _log.debug("Listed %d %s at version %s", len(seen), self.collection.title, version)
        changed = not self.synced.is_set() or self.error is not None
        self.synced.set()
        self.error = None
        if changed:
            self._on_state(self)
        return version

    async def _follow(self) -> None:
        """Watch, stream after stream, until a new list is due."""
        until = time.monotonic() + _RELIST_EVERY * random.uniform(0.9, 1.1)
        failures = 0
        while time.monotonic() < until:
            began = time.monotonic()
            self.heartbeat.beat()
            try:
                async with (
                    # Of whole events, not of bytes: a stream that drips is dead, too.
                    asyncio.timeout(self._silence) as silence,
                    contextlib.aclosing(self._watch(self._version)) as stream,
                ):
                    async for event in stream:
                        self.heard_at = time.monotonic()
                        self.heartbeat.beat()
                        silence.reschedule(asyncio.get_running_loop().time() + self._silence)
                        failures = self._silences = 0
                        self._version = event.object["metadata"]["resourceVersion"]
                        if event.type in ("ADDED", "MODIFIED"):
                            self._store.upsert(event.object)
                        elif event.type == "DELETED":
                            self._store.remove(event.object)
                # A stream that ended in good order shows a live server, even if nothing happened.
                self.heard_at = time.monotonic()
                if time.monotonic() - began >= _BRIEF:
                    failures = 0
                    continue
                # One that ends at once again and again is a proxy's doing.
                failures += 1
                _log.debug("Watch of %s ended after %.1f s", self.collection.title, time.monotonic() - began)
                pause = 0.0
            except errors.Unavailable as error:
                failures += 1
                _log.debug("Watch of %s ended: %s", self.collection.title, error)
                if failures > _STREAMS:
                    raise
                pause = min(error.retry_after or 0.0, _PATIENT_CEILING)
            await self._sleep(max(pause, _pause(failures, _CEILING, first=0.1)))

    def _watch(self, version: str) -> AsyncGenerator[api.WatchEvent, None]:
        return self._client.watch(
            self.collection.path,
            version,
            params=self.collection.params,
            metadata=self.collection.metadata,
            lifetime=random.uniform(240, 360),
            # Should nothing come at all, not even a head: the reflector's own limit is the shorter one.
            silence=self._silence * 1.25,
        )


def _pause(failures: int, ceiling: float, *, first: float = 0.5) -> float:
    """Return the seconds before another attempt, after `failures` in a row."""
    return min(ceiling, first * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
