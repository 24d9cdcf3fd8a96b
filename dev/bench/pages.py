"""Puts a run into the documentation: the table into docs/performance.md, the plot beside it."""

from __future__ import annotations

from pathlib import Path

from dev.bench import plot, report
from dev.bench.figures import Results

BEGIN = "<!-- the last run -->"
END = "<!-- end of the last run -->"
PAGE = "performance.md"
PICTURE = "performance.svg"


def publish(results: Results, docs: Path) -> None:
    """Write the last run into the documentation."""
    page = docs / PAGE
    page.write_text(inserted(page.read_text(encoding="utf-8"), report.table(results)), encoding="utf-8")
    (docs / PICTURE).write_text(plot.draw(results.points), encoding="utf-8")


def inserted(page: str, text: str) -> str:
    """Return the page with `text` between its two marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no place for the last run")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"
