"""Puts a run into docs/performance.md: the table, what follows from it for larger clusters, and the plot beside it."""

from __future__ import annotations

from pathlib import Path

from dev.bench import outlook, plot, report
from dev.bench.figures import Results

BEGIN = "<!-- the last run -->"
END = "<!-- end of the last run -->"
BEYOND = "<!-- beyond the last run -->"
END_BEYOND = "<!-- end of what is beyond -->"
PAGE = "performance.md"
PICTURE = "performance.svg"


def publish(results: Results, docs: Path) -> None:
    """Write the last run into the documentation."""
    page = docs / PAGE
    text = inserted(page.read_text(encoding="utf-8"), report.table(results))
    page.write_text(inserted(text, outlook.table(results), BEYOND, END_BEYOND), encoding="utf-8")
    (docs / PICTURE).write_text(plot.draw(results.points), encoding="utf-8")


def inserted(page: str, text: str, opening: str = BEGIN, closing: str = END) -> str:
    """Return the page with `text` between two marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no place for the last run")
    return f"{before}{opening}\n{text}\n{closing}{after}"
