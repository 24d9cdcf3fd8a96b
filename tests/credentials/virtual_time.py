"""An event loop whose time passes only when nothing else is left to do: weeks in a second, and always the same."""

from __future__ import annotations

import asyncio
import datetime as dt
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Result = TypeVar("Result")

#: The wall clock at the loop's time 0.
EPOCH = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class NothingHappensError(AssertionError):
    """Everything waits, and no timer is set: the code under test would hang for ever."""


class _Skipping(selectors.SelectSelector):
    """Waits for nobody: where a selector would sleep, the loop's time jumps."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingHappensError
            self.loop.skip(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a time of its own, in seconds."""

    def __init__(self) -> None:
        self._at = 0.0
        self.turns = 0
        selector = _Skipping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._at

    def skip(self, seconds: float) -> None:
        self._at += max(seconds, 0.0)
        # Rounding leaves a rest now and then.
        self.turns += seconds > 1e-6


class VirtualClock:
    """The keeper's clock on such a loop; its wall clock can be set wrong.

    Attributes:
        skew: what the wall clock is ahead of the truth.
        suspended: seconds that the monotonic clock has missed.
    """

    def __init__(self) -> None:
        self.skew = dt.timedelta()
        self.suspended = 0.0

    def true(self) -> dt.datetime:
        """What time it really is."""
        return EPOCH + dt.timedelta(seconds=asyncio.get_running_loop().time() + self.suspended)

    def now(self) -> dt.datetime:
        return self.true() + self.skew

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def run(scene: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a scene in virtual time, and see that it leaves no task behind."""

    async def watched() -> Result:
        result = await scene()
        for _ in range(3):
            await asyncio.sleep(0)
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(watched())
