"""Times as Kubernetes writes them: RFC 3339, in UTC, to the second."""

from __future__ import annotations

import datetime as dt


def format_time(moment: dt.datetime) -> str:
    """Return `moment` as `2026-01-02T03:04:05Z`.

    Args:
        moment: an aware time; fractions of a second are cut off.

    Raises:
        ValueError: it has no time zone, so nobody knows when it is.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without time zone cannot be written; make it aware")
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_time(text: str) -> dt.datetime:
    """Return the aware time, in UTC, that an RFC 3339 text tells.

    Raises:
        ValueError: it is no RFC 3339 time, or has no time zone.
    """
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without time zone cannot be compared")
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("the time lies outside the calendar") from None
