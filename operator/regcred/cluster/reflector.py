"""Keeps a store equal to a collection of the API server: a paged list, then a watch from there.

A watch can die without a word, and a list can miss what happened before the watch began; the order here allows
neither.  Bookmarks keep the resource version young, silence ends a stream, an expired version leads to a new
list, and a list replaces the store whole, so that what was deleted meanwhile is noticed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from regcred.cluster import client as api
from regcred.cluster import errors

_log = logging.getLogger(__name__)

#: A full list now and then, whatever the watch says: the last line of defence against a missed event.
_RELIST_EVERY = 3 * 3600.0


class Store(Protocol):
    """What a reflector fills.  All calls come from the event loop and do not wait."""

    def upsert(self, body: dict[str, Any]) -> None:
        """Take in one object as it is now."""

    def remove(self, body: dict[str, Any]) -> None:
        """Forget one object."""

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> None:
        """Forget every object that is not among `seen`, (namespace, name) pairs of a whole list.

        Args:
            seen: what the list held.
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
    """

    title: str
    path: str
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metadata: bool = False


class Reflector:
    """One collection kept in one store.

    Attributes:
        synced: set once the first list is in.
        error: the error of the last attempt, or None while all is well.
        heard_at: monotonic time of the last byte from the server.
        restarts: how often a list had to begin again.

    Args:
        client: the API client.
        collection: what to reflect.
        store: where to.
        on_state: called whenever `synced` or `error` changes.
    """

    def __init__(
        self,
        client: api.Client,
        collection: Collection,
        store: Store,
        *,
        on_state: Callable[[Reflector], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.collection = collection
        self.synced = asyncio.Event()
        self.error: errors.ApiError | None = None
        self.heard_at = time.monotonic()
        self.restarts = 0
        self._client = client
        self._store = store
        self._on_state = on_state or (lambda _: None)
        self._sleep = sleep

    async def run(self) -> None:
        """List and watch until cancelled; every error leads to another attempt."""
        failures = 0
        while True:
            try:
                version = await self._list()
                failures = 0
                await self._follow(version)
            except errors.Gone:
                _log.info("Relisting %s: the resource version expired", self.collection.title)
            except errors.ApiError as error:
                failures += 1
                self._state(error)
                # RBAC may be granted any moment: asked for less often than a server that is only slow.
                ceiling = 30.0 if isinstance(error, errors.Forbidden | errors.NotFound) else 10.0
                pause = min(ceiling, 0.25 * 2**failures) * random.uniform(0.5, 1.0)
                _log.log(
                    logging.WARNING if failures in (1, 10) else logging.DEBUG,
                    "Listing %s failed, next try in %.1f s: %s",
                    self.collection.title,
                    pause,
                    error,
                )
                await self._sleep(error.retry_after or pause)
            self.restarts += 1

    def _state(self, error: errors.ApiError | None) -> None:
        changed = error is None or type(error) is not type(self.error)
        self.error = error
        if changed:
            self._on_state(self)

    async def _list(self) -> str:
        seen: list[tuple[str, str]] = []
        version = ""
        collection = self.collection
        async for items, page_version in self._client.pages(
            collection.path, params=collection.params, metadata=collection.metadata
        ):
            self.heard_at, version = time.monotonic(), page_version
            for body in items:
                meta = body["metadata"]
                seen.append((meta.get("namespace", ""), meta["name"]))
                self._store.upsert(body)
            # A page of 500 is decoded in a few milliseconds: let others run between two of them.
            await asyncio.sleep(0)
        self._store.replace(seen, version)
        self.synced.set()
        self._state(None)
        return version

    async def _follow(self, version: str) -> None:
        """Watch, stream after stream, until a new list is due."""
        until = time.monotonic() + _RELIST_EVERY * random.uniform(0.9, 1.1)
        failures = 0
        while time.monotonic() < until:
            try:
                async for event in self._client.watch(
                    self.collection.path,
                    version,
                    params=self.collection.params,
                    metadata=self.collection.metadata,
                    lifetime=random.uniform(240, 360),
                ):
                    self.heard_at = time.monotonic()
                    failures = 0
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type in ("ADDED", "MODIFIED"):
                        self._store.upsert(event.object)
                    elif event.type == "DELETED":
                        self._store.remove(event.object)
                # A stream that ended in good order shows a live server, even if nothing happened.
                self.heard_at = time.monotonic()
            except errors.Unavailable as error:
                failures += 1
                if error.status == 0:
                    _log.debug("Watch of %s ended: %s", self.collection.title, error)
                if failures > 5:
                    raise
                pause = min(5.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0)
                await self._sleep(error.retry_after or pause)
