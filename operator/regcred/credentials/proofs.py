"""Whether a login is accepted for an entry that asks for proof: by the registry's own handshake.

A login that the registry refuses is never accepted.  One that cannot be proven either way gives way to a living one
for as long as that is worth something, and is accepted where there is nothing better.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Awaitable, Callable

from regcred import dockerconfig
from regcred.credentials import asks, lanes, provider, schedule, verification
from regcred.credentials.holdings import Slot

_log = logging.getLogger(__name__)

#: Handshakes about one login that show nothing before it displaces one that does not end.
_PATIENCE = 3

#: Proves a login by the registry's own handshake.
Verify = Callable[[asks.Entry, dockerconfig.Login], Awaitable[verification.Verdict]]


class Proofs:
    """Proves logins.

    Args:
        verify: the handshake.
        places: how many at once.
    """

    def __init__(self, verify: Verify, places: lanes.Lanes) -> None:
        self._verify = verify
        self._places = places

    async def look(self, slot: Slot, grant: provider.Grant, tenant: str, *, forced: bool) -> None:
        """Prove the login of an entry, and keep the verdict with it.

        Args:
            slot: the entry.
            grant: narrowed to its servers.
            tenant: the namespace of a tenant's entry; "" for the platform.
            forced: prove it even if the very same login was proven before.
        """
        assert slot.entry is not None  # noqa: S101 - the caller has one
        login = grant.logins.get(slot.entry.servers[0])
        if login is None or (known_good(slot, grant) and not forced):
            return
        async with self._places.place(tenant, failing=slot.attempt > 0):
            verdict = await self._verdict(slot.entry, login)
        slot.verdict = verdict
        _log.debug("The handshake with %s ended as %s", slot.entry.servers[0], verdict.outcome.reason)
        slot.attempt = 0 if verdict.outcome.accepts else slot.attempt + 1
        before, times = slot.unproven
        # What an earlier login met says nothing about this one.
        slot.unproven = (None, 0) if verdict.outcome.accepts else (login, times + 1 if login == before else 1)

    async def _verdict(self, entry: asks.Entry, login: dockerconfig.Login) -> verification.Verdict:
        try:
            return await self._verify(entry, login)
        except Exception as error:  # noqa: BLE001 - what could not be asked is not known, and must end nothing else
            name = type(error).__name__
            _log.warning("The handshake with %s failed unexpectedly: %s", entry.servers[0], name)
            return verification.Verdict(
                verification.Outcome.UNKNOWN, f"The handshake failed in an unexpected way ({name}); tried again."
            )


def proven(slot: Slot) -> bool:
    """Whether nothing stands against the login that was looked at last."""
    return slot.verdict is None or slot.verdict.outcome.accepts is True


def known_good(slot: Slot, grant: provider.Grant) -> bool:
    """Whether the very same logins were proven before."""
    return (
        slot.entry is not None
        and slot.accepted is not None
        and slot.accepted.proof == slot.entry.proof
        and dict(slot.accepted.grant.logins) == dict(grant.logins)
        and proven(slot)
    )


def yields(slot: Slot, now: datetime.datetime) -> bool:
    """Whether a login that could not be proven is accepted all the same: nothing better is there."""
    if slot.verdict is not None and slot.verdict.outcome.accepts is False:
        return False
    if slot.accepted is None:
        return True
    ends = slot.accepted.grant.expires_at
    if ends is not None:
        return (ends - now).total_seconds() < 2 * schedule.RETRY_CEILING
    return slot.unproven[1] >= _PATIENCE


def again_after(slot: Slot) -> float:
    """Return the seconds until an unproven login is looked at again."""
    assert slot.verdict is not None  # noqa: S101 - the caller has one
    # Only a registry that cannot be reached is likely to say something else very soon.
    later = slot.verdict.outcome is not verification.Outcome.UNREACHABLE
    return schedule.retry_after(f"{slot.holding.uid}/{slot.server}", slot.attempt, denied=later)
