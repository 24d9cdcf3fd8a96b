"""What is said of larger clusters follows from what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.bench import outlook, pages
from dev.bench.figures import Point, Results, Row

POINTS = [Point(n, 0.5 + n / 500, 0.0, n / 1000, 0.0, 90 + n / 100) for n in (250, 500, 1000)]


def test_in_proportion():
    """Time and memory lie on the line through the points."""
    sizes = outlook.expected(POINTS, idle=90.0, sizes=(1_000, 50_000))
    assert [size.namespaces for size in sizes] == [1_000, 50_000]
    assert [size.first for size in sizes] == pytest.approx([2.5, 100.5])
    assert [size.renewal for size in sizes] == pytest.approx([1.0, 50.0])
    assert [size.memory for size in sizes] == pytest.approx([100.0, 590.0])
    assert sizes[1].busy["Google"] == pytest.approx(50 / 1800)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1e6)), min_size=1, max_size=6))
def test_never_falls(points):
    """Whatever noise there was, more namespaces never cost less, and nothing costs less than nothing."""
    line = outlook.Line.through(points)
    assert 0 <= line.at(0) <= line.at(1_000) <= line.at(50_000)


def test_page(tmp_path):
    """A run is put into its places of the page, and what stands around them stays."""
    page = tmp_path / pages.PAGE
    page.write_text(f"a {pages.BEGIN} old {pages.END} b {pages.BEYOND} old {pages.END_BEYOND} c", encoding="utf-8")
    rows = [Row("memory-idle", "idle", 90.0, unit="MiB")]
    large = Point(5000, 20.0, 0.0, 9.0, 0.0, 140.0)
    pages.publish(Results("quick", "2026-01-01 00:00 UTC", {}, rows, [*POINTS, large]), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("a ")
    assert text.endswith(" c")
    assert "| 50,000" in text
    assert "590 MiB" in text
    assert (tmp_path / pages.PICTURE).exists()
