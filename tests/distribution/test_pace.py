"""Requests in flight follow the server's latency: it is never flooded, and never left idle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.distribution.pace import Pace


def feed(paced, seconds, times):
    for _ in range(times):
        paced.answered(seconds)
    return paced.limit


def test_begins_low_and_grows_quickly():
    """A few requests tell how fast the server is; where nothing queues the ceiling is reached with as many more."""
    paced = Pace(ceiling=32)
    assert paced.limit == 8
    assert feed(paced, 0.02, 24) == 32


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1])
def test_quick_answers_hold_nothing_back(seconds):
    """Answers within 100 ms leave the limit at its ceiling, however they waver below."""
    paced = Pace(ceiling=32)
    feed(paced, 0.001, 100)
    assert feed(paced, seconds, 1000) == 32


def test_distant_server():
    """A server that is always slow is not queueing, only far away: nothing is held back."""
    paced = Pace(ceiling=32)
    assert feed(paced, 0.4, 2000) == 32


def test_saturated_server():
    """Where answers take as long as many wait, the limit settles where few wait."""
    paced = Pace(ceiling=32)
    # 80 requests a second are done, whatever is asked: Little's law tells how long each takes.
    limits = [paced.limit]
    for _ in range(20_000):
        paced.answered(paced.limit / 80)
        limits.append(paced.limit)
    assert max(limits[100:]) <= 20
    assert min(limits) >= 8


def test_recovers():
    """When the server is quick again, the limit is back at its ceiling soon."""
    paced = Pace(ceiling=32)
    feed(paced, 0.01, 50)
    assert feed(paced, 2.0, 60) < 16
    assert feed(paced, 0.01, 600) == 32


def test_a_server_may_become_slower_for_good():
    """Where few requests are no faster, it is not we who are in the way: a faster past does not hold down for ever."""
    paced = Pace(ceiling=32)
    feed(paced, 0.04, 50)
    assert feed(paced, 0.2, 60) < 32
    assert feed(paced, 0.2, 3000) == 32


def test_several_requests_in_a_row():
    """What counts is how long one of them took."""
    paced = Pace(ceiling=32)
    feed(paced, 0.02, 50)
    for _ in range(200):
        paced.answered(0.16, 4)
    assert paced.limit == 32
    paced.answered(1.0, 0)
    assert paced.limit == 32


@given(
    ceiling=st.integers(1, 100),
    seconds=st.lists(st.floats(0, 1000, allow_nan=False), max_size=300),
)
def test_bounds(ceiling, seconds):
    """Whatever the server does, at least one may work, and never more than the ceiling."""
    paced = Pace(ceiling=ceiling)
    for each in seconds:
        paced.answered(each)
        assert 1 <= paced.limit <= ceiling
