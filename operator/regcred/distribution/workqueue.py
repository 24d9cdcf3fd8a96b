"""A queue of names: each at most once in it and once in work, the urgent first, failures later and later.

What is not urgent takes only as many workers as its pace allows, so that there is always one for what is.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import random
from collections.abc import Callable

from regcred.distribution import pace

#: Seconds before the first retry of a failed name; doubled up to the ceiling.
_FLOOR = 1.0
_CEILING = 300.0


class Priority(enum.IntEnum):
    """How soon a name wants work: the lower goes first."""

    URGENT = 0  # something was born there, and its pods may start now
    FIRST = 1  # nothing of ours stands there yet
    NORMAL = 2  # what stands there is to be looked at


class WorkQueue:
    """Names that want work.

    A name that is added while in work comes back as soon as that work is done, so nothing that happened meanwhile
    is missed and no name is worked on twice at once.

    Args:
        paced: how many names that are not urgent may be in work at once.
    """

    def __init__(self, paced: pace.Pace | None = None) -> None:
        self.pace = paced or pace.Pace()
        self._lines: dict[Priority, collections.deque[str]] = {each: collections.deque() for each in Priority}
        #: Names that wait, that are in work, and that have to come back, each with its priority.
        self._waiting: dict[str, Priority] = {}
        self._working: dict[str, Priority] = {}
        self._again: dict[str, Priority] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._appointments: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._unhurried = 0
        self._getters: collections.deque[asyncio.Future[None]] = collections.deque()
        #: Whose turn it is to look.
        self._turn: asyncio.Future[None] | None = None
        self._changed = asyncio.Event()

    @property
    def depth(self) -> int:
        """How many names wait."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a name waits or is in work; one that waits for a retry does not count."""
        return bool(self._waiting or self._working)

    @property
    def retrying(self) -> int:
        """How many names wait for a retry."""
        return len(self._timers)

    def add(self, name: str, priority: Priority = Priority.NORMAL) -> None:
        """Ask for work on `name`; one that waits already may only move ahead."""
        if timer := self._timers.pop(name, None):
            timer.cancel()
        if name in self._working:
            self._again[name] = min(self._again.get(name, priority), priority)
        elif name not in self._waiting or priority < self._waiting[name]:
            # A place that it has in another line is passed over when its turn comes there.
            self._waiting[name] = priority
            self._lines[priority].append(name)
            self._wake()

    async def get(self) -> str:
        """Return the next name; `done` must follow."""
        while (name := self._next()) is None:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._getters.remove(getter)
                self._turned(getter)
                self._wake()
                raise
            self._turned(getter)
        self._wake()
        return name

    def _turned(self, getter: asyncio.Future[None]) -> None:
        if getter is self._turn:
            self._turn = None

    def _wake(self) -> None:
        """Let one of those that wait look, if there is something to take; it wakes the next.

        To wake all of them for each name would cost more than many a namespace's work.
        """
        may = self._lines[Priority.URGENT] or (self._waiting and self._unhurried < self.pace.limit)
        while may and self._turn is None and self._getters:
            getter = self._getters.popleft()
            if not getter.done():  # else it has been cancelled
                self._turn = getter
                getter.set_result(None)

    def _next(self) -> str | None:
        for priority, line in self._lines.items():
            if priority is not Priority.URGENT and self._unhurried >= self.pace.limit:
                return None
            while line:
                name = line.popleft()
                if self._waiting.get(name) is priority:
                    del self._waiting[name]
                    self._working[name] = priority
                    self._unhurried += priority is not Priority.URGENT
                    return name
        return None

    def done(self, name: str) -> None:
        """Say that the work on `name` is over."""
        if (priority := self._working.pop(name, None)) is not None:
            self._unhurried -= priority is not Priority.URGENT
        if name in self._again:
            self.add(name, self._again.pop(name))
        self._wake()
        self._changed.set()

    def succeeded(self, name: str) -> None:
        """Forget the failures of `name`."""
        self._failures.pop(name, None)

    def retry(self, name: str, *, after: float | None = None) -> float:
        """Ask for work on `name` later: each failure in a row doubles the wait.

        Args:
            name: what failed.
            after: seconds somebody asked to wait; the least.

        Returns:
            Seconds until then.
        """
        count = self._failures[name] = self._failures.get(name, 0) + 1
        pause: float = min(_FLOOR * 2 ** min(count - 1, 16), _CEILING) * random.uniform(0.75, 1.25)
        pause = max(pause, after or 0.0)
        _set(self._timers, name, pause, self.add)
        return pause

    def later(self, name: str, pause: float) -> float:
        """Ask for work on `name` in `pause` seconds, whatever is done about it until then."""
        _set(self._appointments, name, pause, self._keep)
        return pause

    def _keep(self, name: str) -> None:
        del self._appointments[name]
        self.add(name)

    async def changed(self) -> None:
        """Wait until some work is done, or was done since the last time."""
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Cancel every retry and appointment."""
        for timers in (self._timers, self._appointments):
            for timer in timers.values():
                timer.cancel()
            timers.clear()


def _set(timers: dict[str, asyncio.TimerHandle], name: str, pause: float, then: Callable[[str], object]) -> None:
    if timer := timers.pop(name, None):
        timer.cancel()
    timers[name] = asyncio.get_running_loop().call_later(pause, then, name)
