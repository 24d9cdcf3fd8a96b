"""Turns what the scenarios measured into rows, beside what is to be reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dev.bench import machine, trail
from dev.bench.figures import Point, Row, percentile
from dev.bench.scenarios import Wave
from dev.bench.stage import Stage


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What was to be done.

    Attributes:
        key: names it in the keys of rows.
        what: for people.
        size: namespaces.
        accounts: of each to be attached.
        resources: that are new.
    """

    key: str
    what: str
    size: int
    accounts: int
    resources: int = 1


Rounds = Sequence[Sequence[Wave]]


def mean(rounds: Rounds, at: int) -> float:
    """Return the mean time of the bare client for the first distribution (0) or the renewal (1)."""
    return sum(waves[at].seconds for waves in rounds) / len(rounds)


def first(work: Work, wave: Wave, rounds: Rounds) -> Row:
    """Return the row of new resources: a Secret in every namespace, and an entry in every account.

    Of several resources none waits for another's login, so some Secrets are written more than once: that is told and
    counts by its time only.
    """
    several = "s" if work.resources > 1 else ""
    exact = wave.exact(work.size, work.size * work.accounts, work.resources)
    if work.resources > 1:
        del exact["Secret writes"]
    return _ratio(
        f"first-{work.key}", f"new resource{several}, {work.what}", wave, rounds, at=0, limit=1.25, exact=exact
    )


def more(work: Work, wave: Wave, rounds: Rounds) -> Row:
    """Return the row of a resource that came to others: every Secret is written, and no account."""
    return _ratio(
        f"more-{work.key}",
        f"one more resource, {work.what}",
        wave,
        rounds,
        at=1,
        limit=1.25,
        exact=wave.exact(work.size, 0, 1),
    )


def renewal(work: Work, wave: Wave, rounds: Rounds) -> Row:
    """Return the row of a renewal: every Secret is written, no account, and the provider is asked once."""
    return _ratio(
        f"renewal-{work.key}",
        f"renewal, {work.what}",
        wave,
        rounds,
        at=1,
        limit=1.2,
        exact=wave.exact(work.size, 0, 1),
    )


def point(size: int, ours: Sequence[Wave], rounds: Rounds, resident: float) -> Point:
    """Return the point of the plot for one size."""
    return Point(size, ours[0].seconds, mean(rounds, 0), ours[1].seconds, mean(rounds, 1), resident)


def delay(
    key: str,
    what: str,
    found: Sequence[float],
    share: float,
    limit: float,
    *,
    other: Sequence[float] = (),
    rule: str = "value",
) -> Row:
    """Return the row of a percentile of delays, beside the bare client's where it has them."""
    return Row(
        key,
        f"{what}, p{share * 100:.0f}",
        percentile(found, share),
        bare=percentile(other, share) if other else None,
        limit=limit,
        rule=rule,
        details={"samples": len(found), "p50": round(percentile(found, 0.5), 4), "worst": round(max(found), 4)},
    )


def memory(key: str, what: str, resident: float, limit: float | None, stage: Stage) -> Row:
    """Return the row of a resident memory."""
    details = {"peak MiB": round(machine.peak(stage.operator.pid))}
    return Row(f"memory-{key}", f"resident memory, {what}", resident, unit="MiB", limit=limit, details=details)


def _ratio(
    key: str, what: str, wave: Wave, rounds: Rounds, *, at: int, limit: float, exact: dict[str, tuple[int, int]]
) -> Row:
    return Row(
        key,
        what,
        wave.seconds,
        bare=mean(rounds, at),
        limit=limit,
        rule="ratio",
        requests=trail.counted(wave.requests),
        exact=exact,
        details={
            "bare rounds": [round(waves[at].seconds, 3) for waves in rounds],
            "cpu": round(wave.cpu, 2),
            "bare cpu": [round(waves[at].cpu, 2) for waves in rounds],
        },
    )
