"""Names wait for what comes in a moment, together, and never for long."""

from __future__ import annotations

import asyncio

from dev.waiting import eventually
from regcred.distribution.gather import Gather


async def test_nothing_to_wait_for():
    """Where nothing is expected, names go at once, and nothing goes where there are none."""
    gone = []
    gather = Gather(gone.append, lambda: False)
    gather.add(set())
    gather.add({"a"})
    gather.add({"b"})
    assert gone == [{"a"}, {"b"}]
    assert not gather


async def test_company():
    """While something is expected names wait, and go together as soon as it is there."""
    gone, expected = [], [True]
    gather = Gather(gone.append, lambda: expected[0])
    gather.add({"a"})
    gather.add({"b", "a"})
    assert gone == []
    assert gather
    expected[0] = False
    gather.add(set())
    assert gone == [{"a", "b"}]
    assert not gather


async def test_not_for_ever():
    """What never comes holds nobody up: names go in the end all the same, and the next begin to wait anew."""
    gone = []
    gather = Gather(gone.append, lambda: True)

    async def went(times):
        return len(gone) == times

    for times in (1, 2):
        gather.add({"a"})
        await eventually(lambda times=times: went(times), "the names to go", every=0.01)


async def test_close():
    """After its end nothing goes any more."""
    gone = []
    gather = Gather(gone.append, lambda: True)
    gather.add({"a"})
    gather.close()
    assert not gather
    await asyncio.sleep(0)
    assert gone == []
