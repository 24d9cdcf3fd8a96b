"""Holds names back for a moment while more is coming that concerns them, so that one pass serves all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds that a name is held back at the most.
LONGEST = 0.5


class Gather:
    """Names that wait for company.

    Args:
        release: takes the names when they have waited enough.
        expecting: whether there is something to wait for.
    """

    def __init__(self, release: Callable[[set[str]], None], expecting: Callable[[], bool]) -> None:
        self._release = release
        self._expecting = expecting
        self._names: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether a name waits."""
        return bool(self._names)

    def add(self, names: set[str]) -> None:
        """Let names wait, unless nothing is expected any more; then they go, and all that have waited with them."""
        self._names |= names
        if not self._names:
            return
        if not self._expecting():
            self._go()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LONGEST, self._go)

    def close(self) -> None:
        """Forget every name."""
        self._names.clear()
        self._stop()

    def _go(self) -> None:
        self._stop()
        names, self._names = self._names, set()
        self._release(names)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
