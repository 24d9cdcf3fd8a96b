"""How many namespaces may be in work at once, from how long the API server takes.  Pure.

A saturated server does not get more done when more is asked of it at once: everybody only waits longer, and with
them a new namespace whose pods start now.  So the number of requests in flight follows their latency, as TCP Vegas
does it: a little more while answers come at their usual speed, a good deal less when they begin to queue.
Source: Brakmo and Peterson, "TCP Vegas: End to End Congestion Avoidance on a Global Internet", 1995.
"""

from __future__ import annotations

#: Seconds that a request may take whatever the server's usual speed is.  What a new namespace needs is two requests,
#: one after the other: they are done in half a second at such a queue, be it twice as long at times.
_EASY = 0.1
#: How many times as long as usual answers may take before they count as queueing.
_QUEUEING = 2.0
#: What is left of the limit when they do.
_LESS = 0.75
#: How fast the usual speed is forgotten, where so few are in flight that it is not we who are in the way.
_FORGETTING = 1.05


class Pace:
    """A limit between `floor` and `ceiling`, begun at the floor, and quickly at the ceiling where nothing queues.

    Args:
        ceiling: the most at once.
        floor: the fewest at once; with fewer, the server waits for us between two of them.
    """

    def __init__(self, ceiling: int = 32, floor: int = 8) -> None:
        self._ceiling = float(ceiling)
        self._floor = float(min(floor, ceiling))
        self._limit = self._floor
        self._usual = float("inf")
        self._answers = 0
        self._queued = False

    @property
    def limit(self) -> int:
        """How many may be in work at once."""
        return int(self._limit)

    def answered(self, seconds: float, requests: int = 1) -> None:
        """Take in how long some requests took, one after the other.

        Args:
            seconds: for all of them, waits that the server asked for among them.
            requests: how many there were.
        """
        if requests < 1:
            return
        each = seconds / requests
        self._usual = min(self._usual * (_FORGETTING if self._limit == self._floor else 1.0), each)
        self._answers += 1
        if each > max(_EASY, _QUEUEING * self._usual):
            # One step for all that were in flight together, for they tell of the same queue.
            if self._answers >= self._limit:
                self._limit = max(self._floor, self._limit * _LESS)
                self._answers, self._queued = 0, True
        else:
            # Until the first queue each answer makes room for one more; then a whole round of them does.
            self._limit = min(self._ceiling, self._limit + (1.0 / self._limit if self._queued else 1.0))
