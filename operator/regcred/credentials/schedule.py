"""When to renew a login, and when to try again after a failure.  Pure.

A login is renewed between 40 % and 50 % of its life, spread by a jitter that is stable for each key, so that
neither a restart nor a fleet renews everything at once, and so that most of the life is left to get over an outage.
Times are aware UTC; durations are seconds.
"""

from __future__ import annotations

import datetime
import hashlib

#: No key is fetched again sooner than this after the last try, whatever a provider says about expiry.
FLOOR = 30.0
#: Failures that may pass: from the floor up to five minutes.
RETRY_CEILING = 300.0
#: Refusals by somebody who knows us: five minutes up to thirty, since a granted right arrives late.
DENIED_FLOOR = 300.0
DENIED_CEILING = 1800.0

_EARLIEST = 0.40
_LATEST = 0.50


def spread(key: str, salt: str = "") -> float:
    """Return a number in [0, 1) that is always the same for `key` and `salt`."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def renew_at(
    key: str, issued_at: datetime.datetime, expires_at: datetime.datetime | None
) -> datetime.datetime | None:
    """Return when a login is due for renewal: at half of its life at the latest; None where it does not expire."""
    if expires_at is None:
        return None
    life = max((expires_at - issued_at).total_seconds(), 0.0)
    share = _EARLIEST + (_LATEST - _EARLIEST) * spread(key)
    return issued_at + datetime.timedelta(seconds=max(life * share, FLOOR))


def may_join(now: datetime.datetime, issued_at: datetime.datetime, expires_at: datetime.datetime | None) -> bool:
    """Whether a login may be renewed early, to be published together with another that is due."""
    if expires_at is None:
        return False
    return (now - issued_at) >= (expires_at - issued_at) * _EARLIEST


def retry_after(
    key: str,
    attempt: int,
    *,
    denied: bool = False,
    wait: float = 0.0,
    left: float | None = None,
) -> float:
    """Return the seconds until the next try after `attempt` failures in a row.

    Exponential with a cap and up to 20 % of stable jitter.  As expiry nears the cap shrinks to an eighth of what is
    left, so that at least several tries fit, however long the outage has been.

    Args:
        key: of the fetch, for the jitter.
        attempt: failures so far, 1 or more.
        denied: the provider knows us and refuses.
        wait: what the provider asked for.
        left: seconds until the last good login ends; None where there is none, or where it does not end.
    """
    floor, ceiling = (DENIED_FLOOR, DENIED_CEILING) if denied else (FLOOR, RETRY_CEILING)
    pause = min(floor * 2.0 ** min(attempt - 1, 16), ceiling)
    if left is not None and not denied:
        pause = min(pause, max(left / 8, FLOOR))
    return max(pause, wait) * (1 + 0.2 * spread(key, str(attempt)))
