"""Notices a rival that keeps removing our entry from a service account, so that nobody fights for ever.  Pure."""

from __future__ import annotations

import collections

#: So many times within the window may we put an entry back.
FLIPS = 3
WINDOW = 600.0
#: Seconds we then keep still.
TRUCE = 3600.0


class Contention:
    """Remembers when an entry was put into which account.  Times are monotonic seconds."""

    def __init__(self) -> None:
        self._added: dict[tuple[str, str], collections.deque[float]] = {}
        self._truce: dict[tuple[str, str], float] = {}

    def added(self, account: str, secret: str, now: float) -> None:
        """Note that the entry `secret` was put into the account of this UID."""
        times = self._added.setdefault((account, secret), collections.deque(maxlen=FLIPS))
        times.append(now)
        if len(times) == FLIPS and now - times[0] <= WINDOW:
            self._truce[account, secret] = now + TRUCE

    def removed(self, account: str, secret: str) -> None:
        """Note that we took the entry out ourselves: that is no fight."""
        self._added.pop((account, secret), None)
        self._truce.pop((account, secret), None)

    def contended(self, account: str, secret: str, now: float) -> bool:
        """Whether the entry is better left alone for now."""
        until = self._truce.get((account, secret))
        if until is not None and until <= now:
            # One try an hour: the next removal within the window ends in a truce again.
            del self._truce[account, secret]
            self._added[account, secret] = collections.deque([now] * (FLIPS - 1), maxlen=FLIPS)
            return False
        return until is not None

    def forget(self, accounts: set[str]) -> None:
        """Forget accounts that are gone."""
        for table in (self._added, self._truce):
            for key in [key for key in table if key[0] in accounts]:
                del table[key]
