"""Tells when a login that was handed out ends by time alone, so that a living one of another resource steps in."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

from regcred.distribution import model


class Endings:
    """An appointment for each resource with the next end of one of its logins.

    Args:
        ended: called with the UID of the resource.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def watch(self, contribution: model.Contribution) -> None:
        """Take in what a resource brings now."""
        self.forget(contribution.uid)
        now = datetime.datetime.now(datetime.UTC)
        logins = contribution.logins.values()
        ends = [login.expires_at for login in logins if login.expires_at is not None and not login.expired(now)]
        if ends:
            pause = (min(ends) - now).total_seconds()
            self._timers[contribution.uid] = asyncio.get_running_loop().call_later(pause, self._tell, contribution)

    def forget(self, uid: str) -> None:
        """Forget a resource."""
        if timer := self._timers.pop(uid, None):
            timer.cancel()

    def close(self) -> None:
        """Forget every resource."""
        for uid in list(self._timers):
            self.forget(uid)

    def _tell(self, contribution: model.Contribution) -> None:
        self.watch(contribution)
        self._ended(contribution.uid)
