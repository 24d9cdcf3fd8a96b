"""No name is lost, none is worked on twice at once, the urgent go first, and failures come back later and later."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from regcred.distribution import pace, workqueue
from regcred.distribution.workqueue import Priority


async def take(queue, number):
    """Take what is there without waiting for more."""
    taken = []
    for _ in range(number):
        async with asyncio.timeout(5):
            taken.append(await queue.get())
    return taken


async def nothing_waits(queue):
    task = asyncio.ensure_future(queue.get())
    for _ in range(5):
        await asyncio.sleep(0)
    if task.done():
        return False
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return True


async def test_order_and_urgency():
    """Names come in their order, urgent ones first, each once however often it was added."""
    queue = workqueue.WorkQueue()
    for name in ("a", "b", "a", "c", "b"):
        queue.add(name)
    queue.add("u", Priority.URGENT)
    queue.add("v", Priority.URGENT)
    assert queue.depth == 5
    assert await take(queue, 5) == ["u", "v", "a", "b", "c"]
    assert await nothing_waits(queue)


async def test_priorities():
    """What was born goes before what has nothing yet, and that before what has something already."""
    queue = workqueue.WorkQueue()
    for name, priority in (("c", Priority.NORMAL), ("b", Priority.FIRST), ("d", Priority.NORMAL)):
        queue.add(name, priority)
    queue.add("a", Priority.URGENT)
    queue.add("d", Priority.FIRST)
    queue.add("b", Priority.NORMAL)
    assert await take(queue, 4) == ["a", "b", "d", "c"]


async def test_waiting_name_becomes_urgent():
    """A name that waits already moves ahead when it becomes urgent, and comes once."""
    queue = workqueue.WorkQueue()
    for name in ("a", "b", "c"):
        queue.add(name)
    queue.add("c", Priority.URGENT)
    queue.add("c")
    assert await take(queue, 3) == ["c", "a", "b"]
    assert await nothing_waits(queue)


async def test_never_twice_at_once():
    """A name that is added while in work comes back when that work is done, and as urgently as it was asked for."""
    queue = workqueue.WorkQueue()
    queue.add("a")
    assert await take(queue, 1) == ["a"]
    queue.add("a")
    queue.add("a", Priority.URGENT)
    queue.add("b")
    assert await take(queue, 1) == ["b"]
    assert await nothing_waits(queue)
    queue.add("c")
    queue.done("a")
    assert await take(queue, 2) == ["a", "c"]


async def test_pace():
    """Names that are not urgent wait when as many are in work as their pace allows; urgent ones do not."""
    queue = workqueue.WorkQueue(pace.Pace(ceiling=2))
    for name in ("a", "b", "c"):
        queue.add(name)
    assert await take(queue, 2) == ["a", "b"]
    assert await nothing_waits(queue)
    queue.add("u", Priority.URGENT)
    assert await take(queue, 1) == ["u"]
    queue.done("u")
    assert await nothing_waits(queue)
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.done("a")
    async with asyncio.timeout(5):
        assert await waiting == "c"


async def test_waiting_name_that_becomes_urgent_is_not_paced():
    """A worker that waits for the pace is woken when a name becomes urgent."""
    queue = workqueue.WorkQueue(pace.Pace(ceiling=1))
    for name in ("a", "b"):
        queue.add(name)
    assert await take(queue, 1) == ["a"]
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("b", Priority.URGENT)
    async with asyncio.timeout(5):
        assert await waiting == "b"


async def test_getter_wakes_up():
    """A worker that waits is woken by the next name."""
    queue = workqueue.WorkQueue()
    workers = [asyncio.ensure_future(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    async with asyncio.timeout(5):
        assert sorted(await asyncio.gather(*workers)) == ["a", "b"]


async def test_one_name_wakes_one_getter():
    """However many wait, only as many look as there is work for: a fan-out does not wake all workers for each name."""
    looks = []

    class Watched(workqueue.WorkQueue):
        def _next(self):
            looks.append(1)
            return super()._next()

    queue = Watched()
    getters = [asyncio.ensure_future(queue.get()) for _ in range(20)]
    await asyncio.sleep(0)
    looks.clear()
    queue.add("a")
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(looks) == 1
    for name in "bcdef":
        queue.add(name)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(looks) == 6
    assert sorted(getter.result() for getter in getters if getter.done()) == list("abcdef")
    for getter in getters:
        getter.cancel()
    await asyncio.gather(*getters, return_exceptions=True)


@pytest.mark.parametrize("before", [True, False])
async def test_getter_that_is_cancelled_loses_no_name(before):
    """A worker that ends before its turn, or at the moment of it, gives the turn to another."""
    queue = workqueue.WorkQueue()
    first, second = (asyncio.ensure_future(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    if before:
        first.cancel()
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == "a"
    assert first.cancelled()
    queue.add("b")
    assert await take(queue, 1) == ["b"]


async def test_a_higher_limit_lets_several_in():
    """Where the pace allows more at once than before, as many begin, though only one name is done."""
    paced = pace.Pace(ceiling=32, floor=2)
    queue = workqueue.WorkQueue(paced)
    for name in "abcdef":
        queue.add(name)
    await take(queue, 2)
    getters = [asyncio.ensure_future(queue.get()) for _ in range(4)]
    await asyncio.sleep(0)
    assert not any(getter.done() for getter in getters)
    for _ in range(3):
        paced.answered(0.001)
    queue.done("a")
    for _ in range(5):
        await asyncio.sleep(0)
    assert [getter.result() for getter in getters] == list("cdef")


async def test_busy():
    """A queue is busy while a name waits or is in work; a retry does not count."""
    queue = workqueue.WorkQueue()
    assert not queue.busy
    queue.add("a")
    assert queue.busy
    await take(queue, 1)
    assert queue.busy
    queue.retry("a")
    queue.done("a")
    assert not queue.busy
    assert queue.retrying == 1
    queue.close()
    assert queue.retrying == 0


class FakeLoop:
    """Takes the place of the event loop's timers: time passes when the test says so."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def call_later(self, pause, callback, *arguments):
        timer = FakeTimer(self.now + pause, callback, arguments)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.when <= self.now and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due and not timer.cancelled]
        for timer in sorted(due, key=lambda timer: timer.when):
            timer.callback(*timer.arguments)


class FakeTimer:
    def __init__(self, when, callback, arguments):
        self.when, self.callback, self.arguments = when, callback, arguments
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def loop(monkeypatch):
    fake = FakeLoop()
    monkeypatch.setattr(workqueue.asyncio, "get_running_loop", lambda: fake)
    return fake


def test_retries_come_later_and_later(loop):
    """Each failure in a row doubles the wait, up to five minutes and a quarter more; a success begins anew."""
    queue = workqueue.WorkQueue()
    pauses = [queue.retry("a") for _ in range(12)]
    for number, pause in enumerate(pauses):
        expected = min(2**number, 300)
        assert expected * 0.75 <= pause <= expected * 1.25
    assert queue.retrying == 1
    queue.succeeded("a")
    assert queue.retry("a") <= 1.25
    assert queue.retry("b", after=60) == 60


def test_retry_comes(loop):
    """A retry adds the name when its time has come."""
    queue = workqueue.WorkQueue()
    pause = queue.retry("a")
    loop.advance(pause / 2)
    assert (queue.depth, queue.retrying) == (0, 1)
    loop.advance(pause)
    assert (queue.depth, queue.retrying) == (1, 0)


def test_addition_takes_the_place_of_a_retry(loop):
    """A name that is worked on anyway needs no retry."""
    queue = workqueue.WorkQueue()
    queue.retry("a")
    queue.add("a")
    assert (queue.depth, queue.retrying) == (1, 0)


def test_appointment_is_kept(loop):
    """What was asked for at a time comes then, whatever was done about the name before; it is no retry."""
    queue = workqueue.WorkQueue()
    queue.later("a", 3600)
    queue.add("a")
    assert queue.retrying == 0
    asyncio.run(take(queue, 1))
    queue.retry("a")
    queue.done("a")
    queue.add("a")
    asyncio.run(take(queue, 1))
    queue.done("a")
    assert queue.depth == 0
    loop.advance(3600)
    assert queue.depth == 1


def test_new_appointment_replaces_the_old(loop):
    """A name has one appointment at a time."""
    queue = workqueue.WorkQueue()
    queue.later("a", 10)
    queue.later("a", 20)
    loop.advance(15)
    assert queue.depth == 0
    loop.advance(5)
    assert queue.depth == 1


def test_close(loop):
    """A closed queue adds nothing by itself any more."""
    queue = workqueue.WorkQueue()
    queue.retry("a")
    queue.later("b", 10)
    queue.close()
    loop.advance(1000)
    assert queue.depth == 0


async def test_work_that_was_done_while_nobody_waited_is_told():
    """Whoever was busy when the last work was done hears of it when he waits again, and only once."""
    queue = workqueue.WorkQueue()
    queue.add("a")
    (name,) = await take(queue, 1)
    queue.done(name)
    async with asyncio.timeout(10):
        await queue.changed()
    again = asyncio.ensure_future(queue.changed())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_changed():
    """Whoever waits for work to be done is woken when some is."""
    queue = workqueue.WorkQueue()
    waiting = asyncio.ensure_future(queue.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add("a")
    await take(queue, 1)
    queue.done("a")
    async with asyncio.timeout(5):
        await waiting


NAMES = st.sampled_from("abcd")


class Queueing(RuleBasedStateMachine):
    """A queue beside the plainest thing that could be one: what is owed, and what is in work."""

    def __init__(self):
        super().__init__()
        self.loop = FakeLoop()
        self.real, workqueue.asyncio.get_running_loop = workqueue.asyncio.get_running_loop, lambda: self.loop
        self.queue = workqueue.WorkQueue()
        self.owed: dict[str, Priority] = {}
        self.working: set[str] = set()

    def teardown(self):
        while self.owed or self.working:
            for name in sorted(self.working):
                self.finish(name)
            if self.owed:
                self.take_one()
        workqueue.asyncio.get_running_loop = self.real

    @rule(name=NAMES, priority=st.sampled_from(Priority))
    def add(self, name, priority):
        self.queue.add(name, priority)
        self.owed[name] = min(self.owed.get(name, priority), priority)

    @precondition(lambda self: set(self.owed) - self.working)
    @rule()
    def take(self):
        self.take_one()

    def take_one(self):
        free = {name: priority for name, priority in self.owed.items() if name not in self.working}
        coroutine = self.queue.get()
        with pytest.raises(StopIteration) as taken:
            coroutine.send(None)
        name = taken.value.value
        assert name not in self.working, "never worked on twice at once"
        assert name in free, "nothing that nobody asked for"
        assert free[name] == min(free.values()), "the urgent first"
        del self.owed[name]
        self.working.add(name)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def work(self, data):
        self.finish(data.draw(st.sampled_from(sorted(self.working))))

    def finish(self, name):
        self.queue.done(name)
        self.working.discard(name)

    @rule(name=NAMES)
    def retry(self, name):
        self.queue.retry(name)

    @rule(name=NAMES, pause=st.sampled_from([1.0, 100.0]))
    def later(self, name, pause):
        self.queue.later(name, pause)

    @rule(seconds=st.sampled_from([0.5, 2.0, 50.0]))
    def pass_time(self, seconds):
        end = self.loop.now + seconds
        for timer in self.loop.timers:
            if not timer.cancelled and timer.when <= end:
                self.owed.setdefault(timer.arguments[0], Priority.NORMAL)
        self.loop.advance(seconds)

    @invariant()
    def depth(self):
        assert self.queue.depth == len(set(self.owed) - self.working)
        assert self.queue.busy == bool(self.owed or self.working)


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
