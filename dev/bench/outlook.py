"""What to expect beyond what was run: a calculation for up to 50,000 namespaces, from the figures of a run.  Pure.

Everything regcred does is a request a namespace or a request an account, so its cost is a line through two measured
points.  What is not measured is named here, with where it comes from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dev.bench import report
from dev.bench.figures import Point, Results

#: Sizes that are calculated.
SIZES = (1_000, 5_000, 10_000, 50_000)
#: Bytes of one Secret with one registry in etcd, owned fields and annotations among them; and of its metadata, of a
#: namespace's and of a service account, as a list of them travels.  Counted on the benchmark's own objects.
SECRET_BYTES, LISTED_BYTES = 6_000, 3_500 + 1_000 + 3 * 900
#: Hours after which a login is renewed, at half of its life: ECR 12 h, ACR 3 h, Google 1 h.
PERIODS = {"ECR": 6.0, "ACR": 1.5, "Google": 0.5}


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A straight line: `base` at nothing, and `each` for every namespace."""

    base: float
    each: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """Return the line of least squares through points, which never falls."""
        if len(points) < 2:
            return cls(0.0, points[0][1] / points[0][0]) if points else cls(0.0, 0.0)
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        each = max(sum((x - mean_x) * (y - mean_y) for x, y in points) / spread, 0.0) if spread else 0.0
        return cls(max(mean_y - each * mean_x, 0.0), each)

    def at(self, namespaces: int) -> float:
        """Return the value for so many namespaces."""
        return self.base + self.each * namespaces


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What is to be expected of one number of namespaces, with one account served in each.

    Attributes:
        namespaces: how many.
        first: seconds until a new resource is everywhere.
        renewal: seconds until a renewed login is everywhere.
        busy: share of the time that renewals of a login take, by provider.
        memory: MiB resident.
        listed: MiB that a start reads.
        grown: MiB by which etcd grows until a renewal is compacted.
    """

    namespaces: int
    first: float
    renewal: float
    busy: dict[str, float]
    memory: float
    listed: float
    grown: float


def expected(points: Sequence[Point], idle: float, sizes: Sequence[int] = SIZES) -> list[Size]:
    """Return what is to be expected.

    Args:
        points: of a run, with one resource.
        idle: MiB resident without work.
        sizes: numbers of namespaces.
    """
    first = Line.through([(point.namespaces, point.first) for point in points])
    renewal = Line.through([(point.namespaces, point.renewal) for point in points])
    memory = Line.through([(0, idle), *((point.namespaces, point.memory) for point in points)])
    return [
        Size(
            size,
            first.at(size),
            renewal.at(size),
            {name: renewal.at(size) / (hours * 3600) for name, hours in PERIODS.items()},
            memory.at(size),
            size * LISTED_BYTES / 2**20,
            size * SECRET_BYTES / 2**20,
        )
        for size in sizes
    ]


def table(results: Results) -> str:
    """Return the calculation from a run, as Markdown; nothing where the run has too few figures."""
    idle = next((row.value for row in results.rows if row.key == "memory-idle"), 0.0)
    largest = max((point.namespaces for point in results.points), default=0)
    # The points with one resource are one series; the last one, with many, is another.
    points = [point for point in results.points if point.namespaces < largest] or results.points
    heads = (
        "namespaces",
        "a new resource is everywhere",
        "a renewal is everywhere",
        *(f"of the time spent on one {name} login" for name in PERIODS),
        "resident memory",
        "read at a start",
        "etcd grows by a renewal",
    )
    body = [
        (
            f"{size.namespaces:,}",
            report.amount(size.first, "s"),
            report.amount(size.renewal, "s"),
            *(f"{share:.2%}" for share in size.busy.values()),
            report.amount(size.memory, "MiB"),
            report.amount(size.listed, "MiB"),
            report.amount(size.grown, "MiB"),
        )
        for size in expected(points, idle)
    ]
    told = f"Calculated from the run of {results.at} ({results.mode})."
    return f"{told}\n\n{report.grid(heads, body)}"
