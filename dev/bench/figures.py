"""What a run has found: rows of figures with what they should be, kept as JSON, compared with an earlier run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        key: names it in later runs; it holds the size.
        what: for people.
        value: what regcred took.
        unit: of `value`, `bare` and, unless it is a ratio, of `limit`.
        bare: what the bare client took for the same; None where it has no part in it.
        limit: what to reach, at the most; None for a figure that is only told.
        rule: what the limit is about: `ratio` (value / bare), `behind` (value - bare) or `value`.
        requests: of the operator, by verb and kind.
        exact: what was counted and what it has to be, by name.
        details: whatever else explains the figure.
    """

    key: str
    what: str
    value: float
    unit: str = "s"
    bare: float | None = None
    limit: float | None = None
    rule: str = "value"
    requests: Mapping[str, int] = dataclasses.field(default_factory=dict)
    exact: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def judged(self) -> float:
        """The number that the limit is about."""
        if self.rule == "value" or self.bare is None:
            return self.value
        return self.value - self.bare if self.rule == "behind" else self.value / self.bare

    @property
    def reached(self) -> bool | None:
        """Whether everything is as it has to be; None where nothing has to be."""
        if self.limit is None and not self.exact:
            return None
        return (self.limit is None or self.judged <= self.limit) and all(
            got == wanted for got, wanted in self.exact.values()
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """How one number of namespaces was served, for the plot; seconds and MiB."""

    namespaces: int
    first: float
    first_bare: float
    renewal: float
    renewal_bare: float
    memory: float


@dataclasses.dataclass(slots=True)
class Results:
    """One run."""

    mode: str
    at: str
    machine: Mapping[str, str]
    rows: list[Row] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)

    def write(self, path: Path) -> None:
        """Keep the run as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a run back.

        Raises:
            ValueError: it was kept by another version of the benchmark.
        """
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is of another version of the benchmark")
        document["rows"] = [
            Row(**{**row, "exact": {name: tuple(pair) for name, pair in row["exact"].items()}})
            for row in document["rows"]
        ]
        document["points"] = [Point(**point) for point in document["points"]]
        return cls(**document)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of all values do not exceed, by the nearest rank.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is no percentile of nothing")
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def compared(before: Results, after: Results) -> list[tuple[Row, Row, float]]:
    """Return the rows that both runs have, each with how much its judged number has grown, as a share of it."""
    old = {row.key: row for row in before.rows}
    return [
        (old[row.key], row, row.judged / old[row.key].judged - 1 if old[row.key].judged > 0 else 0.0)
        for row in after.rows
        if row.key in old
    ]
