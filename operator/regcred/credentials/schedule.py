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
#: The longest that a provider may make us wait by one answer.
WAIT_CEILING = 3600.0

_EARLIEST = 0.40
_LATEST = 0.50


def spread(key: str, salt: str = "") -> float:
    """Return a number in [0, 1) that is always the same for `key` and `salt`."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def renew_after(
    key: str,
    now: datetime.datetime,
    issued_at: datetime.datetime,
    expires_at: datetime.datetime | None,
    *,
    taken: float = 0.0,
) -> float | None:
    """Return the seconds from `now`, when a login arrived, until its renewal; None where it does not end.

    At half of its life at the latest.  Its life is what its two times say, so a clock of ours that is behind does
    not stretch it.  One that is past that point on arrival comes from somebody's cache: of what is left, the same
    share is waited for, so that asking on and on for a new one stays rare.

    Args:
        key: of the fetch, for the jitter.
        now: when the login arrived.
        issued_at: of the login.
        expires_at: of the login; None where it does not end.
        taken: seconds that the try took which brought it: the floor counts from its beginning.
    """
    if expires_at is None:
        return None
    left = (expires_at - now).total_seconds()
    if left <= 0:
        # Ended on arrival: our clock or theirs is wrong, and asking again at once mends neither.
        return RETRY_CEILING
    share = _EARLIEST + (_LATEST - _EARLIEST) * spread(key)
    age = max((now - issued_at).total_seconds(), 0.0)
    life = (expires_at - issued_at).total_seconds()
    pause = life * share - age
    return max(pause if pause > 0 else left * share, FLOOR - max(taken, 0.0), 0.0)


def resume_after(
    key: str, now: datetime.datetime, issued_at: datetime.datetime, expires_at: datetime.datetime | None
) -> float | None:
    """Return the same for a login that an earlier run of this process has left behind.

    One that is overdue is renewed at once if it has ended, else within half a minute: not all in the first second.  As
    its end nears, it waits an eighth of what is left at the most: a process that is killed again and again comes to it.
    """
    if expires_at is None:
        return None
    if expires_at <= now:
        return 0.0
    life = max((expires_at - issued_at).total_seconds(), 0.0)
    share = _EARLIEST + (_LATEST - _EARLIEST) * spread(key)
    age = max((now - issued_at).total_seconds(), 0.0)
    left = (expires_at - now).total_seconds()
    return max(life * share - age, min(FLOOR, left / 8) * spread(key, "resume"))


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
    left (to a quarter where we are refused), so that several tries fit, however long the outage has been; once the
    login has ended it grows again by the same measure.

    Args:
        key: of the fetch, for the jitter.
        attempt: failures so far, 1 or more.
        denied: the provider knows us and refuses.
        wait: what the provider asked for: obeyed up to an hour, and up to half of what is left.
        left: seconds until the last good login ends, negative after its end; None where there is none, or where it
            does not end.
    """
    floor, ceiling = (DENIED_FLOOR, DENIED_CEILING) if denied else (FLOOR, RETRY_CEILING)
    pause = min(floor * 2.0 ** min(attempt - 1, 16), ceiling)
    longest = WAIT_CEILING
    if left is not None:
        pause = min(pause, max(abs(left) / (4 if denied else 8), floor))
        longest = min(longest, max(left / 2, FLOOR)) if left > 0 else longest
    # A comparison with NaN is false, so that NaN counts as nothing.
    asked = min(wait, longest) if wait > 0 else 0.0
    return max(pause, asked) * (1 + 0.2 * spread(key, str(attempt)))
