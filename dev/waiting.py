"""Waiting for a condition, never for a guess of how long it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Answer = TypeVar("Answer")


class NeverHappenedError(AssertionError):
    """The condition did not come true within its deadline."""


async def eventually(
    check: Callable[[], Awaitable[Answer]], what: str, *, seconds: float = 30.0, every: float = 0.1
) -> Answer:
    """Ask again and again until the answer is truthy, and return it.

    Raises:
        NeverHappenedError: the deadline passed; the message says what was waited for and the last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = await check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise NeverHappenedError(f"not seen within {seconds:.0f} s: {what}; last answer: {answer!r}")
        await asyncio.sleep(every)
