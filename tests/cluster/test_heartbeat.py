"""A part that is stuck is told from one that waits or rests."""

from __future__ import annotations

from regcred.cluster.heartbeat import LIMIT, Heartbeat


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_moves_or_rests_is_not_stuck():
    """A part counts as stuck only while it is at work, and only after the limit."""
    clock = Clock()
    part = Heartbeat(clock=clock)
    assert part.stuck() is None
    part.beat()
    clock.now = LIMIT
    assert part.stuck() is None
    clock.now = LIMIT + 1
    assert part.stuck() == ("", LIMIT + 1)
    part.beat()
    assert part.stuck() is None
    part.rest()
    clock.now *= 10
    assert part.stuck() is None


def test_the_piece_of_work_that_stands_still_the_longest_is_named():
    """One stuck worker among many that move is found."""
    clock = Clock()
    part = Heartbeat(limit=10, clock=clock)
    part.beat("a")
    clock.now = 5
    part.beat("b")
    clock.now = 11
    part.beat("c")
    assert part.stuck() == ("a", 11)
    part.rest("a")
    assert part.stuck() is None
