"""Asks for source Secrets again and again where there are too many to watch each.

A tenant allows the operator to read single Secrets by name, so each of them needs a watch, and each watch a connection:
thousands of them cost more memory than everything else.  What changes now and then can be asked for.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Iterable

from regcred.cluster import client as api
from regcred.cluster import errors

#: Seconds between two questions about one Secret, where there are few; and questions a second, where there are many.
_EVERY = 30.0
_RATE = 20.0
#: Seconds within which what is new is asked for the first time.
_FIRST = 5.0

#: Told that the source (namespace, name) is now of a resource version, or gone.
OnSource = Callable[[str, str, str | None], None]


class Poller:
    """Follows single Secrets by asking for their metadata.

    Args:
        client: the API client.
        on_source: told about each change.
        every: seconds between two questions about one Secret, at the least; half a minute where it is not said.
    """

    def __init__(self, client: api.Client, on_source: OnSource, *, every: float | None = None) -> None:
        self._client = client
        self._on_source = on_source
        self._every = _EVERY if every is None else every
        #: What is followed, and the version that was told last; "" where nothing was told yet.
        self._told: dict[tuple[str, str], str | None] = {}
        self._due: list[tuple[float, tuple[str, str]]] = []
        self._at: dict[tuple[str, str], float] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._told)

    def need(self, sources: Iterable[tuple[str, str]]) -> None:
        """Follow these Secrets, pairs of namespace and name, and no others."""
        wanted = set(sources)
        now = asyncio.get_running_loop().time()
        for source in wanted - self._told.keys():
            self._told[source] = ""
            self._plan(source, now + random.uniform(0.0, _FIRST))
            self._wake.set()
        for source in self._told.keys() - wanted:
            # Its place in the line is passed over when its turn comes.
            del self._told[source], self._at[source]

    def _plan(self, source: tuple[str, str], at: float) -> None:
        self._at[source] = at
        heapq.heappush(self._due, (at, source))

    async def run(self) -> None:
        """Ask for what is due, one after the other, for ever; ends only by cancellation."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if not self._due or self._due[0][0] > loop.time():
                try:
                    async with asyncio.timeout_at(self._due[0][0] if self._due else None):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            at, source = heapq.heappop(self._due)
            if self._at.get(source) != at:
                continue
            await self._ask(source)
            if self._at.get(source) == at:
                pause = max(self._every, len(self._told) / _RATE) * random.uniform(0.9, 1.1)
                self._plan(source, loop.time() + pause)

    async def _ask(self, source: tuple[str, str]) -> None:
        namespace, name = source
        version: str | None
        try:
            body = await self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}", accept=api.METADATA)
        except errors.NotFound:
            version = None
        except errors.ApiError:
            return  # whoever reads the Secret says so; here it is asked for again
        else:
            version = str(body["metadata"].get("resourceVersion") or "")
        if source in self._told and self._told[source] != version:
            self._told[source] = version
            self._on_source(namespace, name, version)
