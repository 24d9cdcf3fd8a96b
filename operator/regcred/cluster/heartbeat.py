"""Tells a part that is stuck from one that waits: the liveness probe's evidence.

Everything that a part of the operator waits for has an end of its own (a request is tried four times, each with a
timeout; a silent watch is given up), however slow the API server is.  A part that is at work and has not moved for
much longer than the longest of these waits is stuck by a defect, and only a new process helps.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds: well above four tries of 30 s with the longest pause that a server may ask for between them.
LIMIT = 600.0


class Heartbeat:
    """When one part last moved.

    Args:
        limit: seconds without a move after which it counts as stuck.
        clock: monotonic seconds.
    """

    def __init__(self, limit: float = LIMIT, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._moved: dict[str, float] = {}

    def beat(self, what: str = "") -> None:
        """Say that the part moves; `what` tells its pieces of work apart."""
        self._moved[what] = self._clock()

    def rest(self, what: str = "") -> None:
        """Say that the part has nothing to do: it may then stand still for ever."""
        self._moved.pop(what, None)

    def stuck(self) -> tuple[str, float] | None:
        """Return the piece of work that has stood still the longest, and for how many seconds, where one is stuck."""
        if not self._moved:
            return None
        what, moved = min(self._moved.items(), key=lambda pair: pair[1])
        still = self._clock() - moved
        return (what, still) if still > self._limit else None
