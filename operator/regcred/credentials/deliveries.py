"""How logins that have arrived are kept and published: together where they belong together, and soon.

A login is kept in the cache before it is handed out, so that a crash loses none that a namespace has seen.  Where it
cannot be kept it is published all the same, and kept later.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterator

from regcred.cluster import errors
from regcred.credentials import schedule
from regcred.credentials.cache import Cache, Record
from regcred.credentials.fetches import Clock
from regcred.credentials.holdings import Holding

_log = logging.getLogger(__name__)

#: How long logins that have arrived wait for others that are on their way, in seconds.
GATHER = 3.0
#: How long a login waits to be kept before it is published all the same, in seconds.
_SAVE_TIMEOUT = 10.0


@dataclasses.dataclass(slots=True)
class _News:
    """Logins of one resource that have arrived and are not published yet.

    Attributes:
        holding: of the resource.
        deadline: monotonic time until which they wait for others.
        first: one of them is the first of its entry: it waits for its own resource only.
    """

    holding: Holding
    deadline: float
    first: bool = False


class Deliveries:
    """What is to be kept and published.

    Args:
        cache: where last good logins are kept.
        publish: called with the UIDs of resources whose logins or rows changed.
        clock: the time.
        wake: set whenever there is something to do.
    """

    def __init__(
        self, cache: Cache, publish: Callable[[frozenset[str]], None], clock: Clock, wake: asyncio.Event
    ) -> None:
        self._cache = cache
        self._publish = publish
        self._clock = clock
        self._wake = wake
        self._changed: set[str] = set()
        self._news: dict[str, _News] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # What could not be kept: when it is tried again (monotonic), and how often it was.
        self._unsaved: dict[str, tuple[Holding, float, int]] = {}

    def changed(self, uid: str) -> None:
        """Take in that the rows of a resource changed."""
        self._changed.add(uid)
        self._wake.set()

    def arrived(self, holding: Holding, *, first: bool = False) -> None:
        """Take in that there is something to keep and to publish; `first`: the first login of an entry."""
        news = self._news.setdefault(holding.uid, _News(holding, self._clock.monotonic() + GATHER))
        news.first = news.first or first
        self._wake.set()

    def drop(self, uid: str) -> None:
        """Forget about a resource; what is being kept is kept."""
        self._changed.discard(uid)
        self._news.pop(uid, None)
        self._unsaved.pop(uid, None)

    async def stop(self, uid: str) -> None:
        """End the keeping of a resource's logins, if it is under way."""
        task = self._tasks.get(uid)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def tasks(self) -> Iterator[asyncio.Task[None]]:
        """Return what is under way."""
        return iter(self._tasks.values())

    def pause(self) -> float | None:
        """Return the seconds until there is something to do; None where nothing is planned."""
        mono = self._clock.monotonic()
        ends = [news.deadline for uid, news in self._news.items() if uid not in self._tasks]
        ends += [at for uid, (_, at, _) in self._unsaved.items() if uid not in self._tasks]
        return max(min(ends) - mono, 0.0) if ends else None

    @property
    def waiting(self) -> bool:
        """Whether something has arrived."""
        return bool(self._news)

    def flush(self, awaits: Callable[[Holding, bool], bool]) -> None:
        """Keep and publish what there is.

        Args:
            awaits: whether something that belongs to the logins of a resource is on its way; its second argument
                says to look at this resource alone.
        """
        mono = self._clock.monotonic()
        for uid in [uid for uid, (_, at, _) in self._unsaved.items() if at <= mono and uid not in self._tasks]:
            holding = self._unsaved[uid][0]
            self._news.setdefault(uid, _News(holding, mono))
        for uid, news in list(self._news.items()):
            if uid in self._tasks or (mono < news.deadline and awaits(news.holding, news.first)):
                continue
            del self._news[uid]
            record = news.holding.record()
            if self._cache.keeps(record):
                news.holding.offer(record)
                self._changed.add(uid)
                self._unsaved.pop(uid, None)
            else:
                name = f"keep {news.holding.key}"
                self._tasks[uid] = asyncio.create_task(self._keep(news.holding, record), name=name)
        if self._changed:
            changed, self._changed = frozenset(self._changed), set()
            self._publish(changed)

    async def _keep(self, holding: Holding, record: Record) -> None:
        uid = holding.uid
        try:
            async with asyncio.timeout(_SAVE_TIMEOUT):
                await self._cache.save(record)
            self._unsaved.pop(uid, None)
        except (errors.ApiError, TimeoutError) as error:
            self._again(holding, str(error) or "no answer in time")
        except Exception as error:  # noqa: BLE001 - whatever it is, the login is good and pods wait for it
            self._again(holding, type(error).__name__)
        finally:
            del self._tasks[uid]
            self._wake.set()
        holding.offer(record)
        if not holding.gone:
            self._changed.add(uid)

    def _again(self, holding: Holding, why: str) -> None:
        _, _, attempt = self._unsaved.get(holding.uid, (holding, 0.0, 0))
        pause = schedule.retry_after(holding.uid, attempt + 1)
        if not holding.gone:
            self._unsaved[holding.uid] = (holding, self._clock.monotonic() + pause, attempt + 1)
        _log.warning("Could not keep the logins of %s, tried again: %s", holding.key, why)
