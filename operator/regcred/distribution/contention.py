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
        self._added: collections.OrderedDict[tuple[str, str], collections.deque[float]] = collections.OrderedDict()
        self._truce: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many entries are remembered."""
        return len(self._added.keys() | self._truce.keys())

    def added(self, account: str, secret: str, now: float) -> None:
        """Note that the entry `secret` was put into the account of this UID."""
        self._forget(now)
        times = self._added.setdefault((account, secret), collections.deque(maxlen=FLIPS))
        self._added.move_to_end((account, secret))
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
            self._added.move_to_end((account, secret))
            return False
        return until is not None

    def forget(self, accounts: set[str]) -> None:
        """Forget accounts that are gone."""
        for table in (self._added, self._truce):
            for key in [key for key in table if key[0] in accounts]:
                del table[key]

    def _forget(self, now: float) -> None:
        """Forget what no longer counts, so that accounts that come and go leave nothing behind."""
        while self._added:
            key, times = next(iter(self._added.items()))
            if now - times[-1] <= WINDOW:
                break
            del self._added[key]
        for key in [key for key, until in self._truce.items() if until + WINDOW < now]:
            del self._truce[key]
