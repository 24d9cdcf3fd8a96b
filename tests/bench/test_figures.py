"""What a run has found is kept, judged, compared and shown as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.bench import figures, pages, report

RATIO = figures.Row(
    "first-10", "first", 1.2, bare=1.0, limit=1.25, rule="ratio", exact={"Secret writes": (10, 10)}
)
BEHIND = figures.Row("burst-p99", "burst", 0.5, bare=0.3, limit=0.25, rule="behind")
PLAIN = figures.Row("memory", "memory", 130.0, unit="MiB", limit=120)
TOLD = figures.Row("told", "only told", 0.004)
MISCOUNTED = dataclasses.replace(RATIO, key="miscounted", exact={"Secret writes": (12, 10)})


def run(*rows: figures.Row) -> figures.Results:
    point = figures.Point(10, 0.2, 0.1, 0.2, 0.1, 90.0)
    return figures.Results("tiny", "2026-01-01 00:00 UTC", {"cores": "2"}, list(rows), [point])


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([1.0], 0.99, 1.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([1.0, 2.0], 0.0, 1.0),
    ],
)
def test_percentile(values: list[float], share: float, wanted: float) -> None:
    """A percentile is one of the values, by the nearest rank."""
    assert figures.percentile(values, share) == wanted


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_percentile_covers_its_share(values: list[float], share: float) -> None:
    """At least the share of all values does not exceed the percentile."""
    found = figures.percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_percentile_of_nothing() -> None:
    """A scenario without a sample is an error, never a figure."""
    with pytest.raises(ValueError, match="nothing"):
        figures.percentile([], 0.5)


@pytest.mark.parametrize(
    ("row", "judged", "reached"),
    [
        (RATIO, 1.2, True),
        (BEHIND, 0.2, True),
        (PLAIN, 130.0, False),
        (TOLD, 0.004, None),
        (MISCOUNTED, 1.2, False),
    ],
    ids=lambda value: getattr(value, "key", None),
)
def test_judgement(row: figures.Row, judged: float, *, reached: bool | None) -> None:
    """A row is judged by its own rule, and a wrong count fails it whatever its time is."""
    assert row.judged == pytest.approx(judged)
    assert row.reached is reached


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    """What is read from a kept file equals what was written to it."""
    before = run(RATIO, BEHIND, PLAIN)
    before.write(tmp_path / "deep" / "run.json")
    assert figures.Results.load(tmp_path / "deep" / "run.json") == before


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    """A file of another format is said to be one."""
    (tmp_path / "old.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="another version"):
        figures.Results.load(tmp_path / "old.json")


def test_comparison_is_of_judged_numbers() -> None:
    """Two runs are compared by what the limits are about, row by row, where both have the row."""
    slower = dataclasses.replace(RATIO, value=1.8, bare=1.0)
    found = figures.compared(run(RATIO, PLAIN), run(slower, TOLD))
    assert [(old.key, new.value, round(grown, 3)) for old, new, grown in found] == [("first-10", 1.8, 0.5)]
    text = report.comparison(run(RATIO), run(slower))
    assert "1.20 times" in text
    assert "+50%" in text
    assert "worse" in text


def test_table_says_what_was_not_reached() -> None:
    """The table holds every figure with its unit, what was to be reached, and a wrong count beside the right one."""
    text = report.table(run(RATIO, BEHIND, PLAIN, TOLD, MISCOUNTED))
    assert "130 MiB" in text
    assert "120 MiB" in text
    assert "200 ms behind" in text
    assert "4.0 ms" in text
    assert "Secret writes: 12 **instead of 10**" in text
    assert text.count("**no**") == 2
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "the columns are aligned"


def test_many_kinds_of_requests_are_summed() -> None:
    """Only the most frequent requests are named in the table; none is left uncounted."""
    row = dataclasses.replace(TOLD, requests={f"get kind{n}": 10 - n for n in range(8)})
    assert report.told(row).endswith("6 get kind4, 12 others")


def test_page_keeps_what_is_around_the_last_run() -> None:
    """Publishing replaces what stands between the marks, and nothing else."""
    page = f"# T\n\n{pages.BEGIN}\nold\n{pages.END}\n\nmore\n"
    once = pages.inserted(page, "new")
    assert once == f"# T\n\n{pages.BEGIN}\nnew\n{pages.END}\n\nmore\n"
    assert pages.inserted(once, "new") == once


def test_page_without_a_place() -> None:
    """A page without the marks is not overwritten."""
    with pytest.raises(ValueError, match="no place"):
        pages.inserted("# T\n", "new")
