"""Runs the experiments, prints their table, and writes it into `docs/reliability.md`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dev.chaos import book, record
from dev.chaos.arena import BACKGROUND, Arena, arena
from dev.chaos.evidence import Totals
from dev.chaos.record import Row
from dev.docs.__main__ import render
from dev.operator_process import NAMESPACE
from dev.waiting import eventually
from regcred.api import names as regcred_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
KEPT = f"{regcred_names.MANAGED_BY_LABEL}={regcred_names.MANAGED_BY}"
#: Seconds that one experiment may take.
_LIMIT = 600.0


async def run(chosen: list[book.Experiment], place: Arena) -> list[Row]:
    """Run experiments one after the other."""
    rows = []
    for each in chosen:
        print(f"{each.name}: {each.title} ...", flush=True)
        place.proxy.clear()
        began = time.monotonic()
        try:
            async with asyncio.timeout(_LIMIT):
                finding = await each.run(place)
        except Exception as error:  # noqa: BLE001 - one that breaks must not keep the others from being run
            traceback.print_exc()
            lines = str(error).splitlines() or [""]
            finding = book.Finding(False, f"{type(error).__name__}: {lines[0]}"[:300])
        row = Row(each, finding, time.monotonic() - began)
        print(
            f"  {'holds' if finding.holds else 'DOES NOT HOLD'} after {row.seconds:.0f} s: {finding.seen}",
            flush=True,
        )
        rows.append(row)
    return rows


async def sweep(place: Arena) -> Totals:
    """Delete what is left, let an operator clean up after it, and count."""
    async with place.work() as (corner, _):
        names = [f"{BACKGROUND}-{number}" for number in range(3)]
        await place.cluster.kubectl("delete", "crcred,rcred", "--all", "-A", "--timeout=60s")
        await corner.bare(*names)

        async def forgotten() -> bool:
            return not await place.cluster.kubectl("get", "secrets", "-n", NAMESPACE, "-l", KEPT, "-o", "name")

        await eventually(forgotten, "the kept logins to be forgotten", seconds=60)
    return await place.evidence.totals()


def show(rows: list[Row], totals: Totals, details: list[str]) -> None:
    """Print the table."""
    table = Table(show_lines=True)
    for title in ("", "Experiment", "Expected", "Seen", "Figure"):
        table.add_column(title)
    for row in rows:
        mark = "holds" if row.finding.holds else "NO"
        table.add_row(
            mark,
            f"{row.experiment.number} {row.experiment.name}",
            row.experiment.expected,
            row.finding.seen,
            row.finding.figure,
        )
    console = Console(width=None if sys.stdout.isatty() else 180, markup=False)
    console.print(table)
    for name, value in dataclasses.asdict(totals).items():
        console.print(f"{name.replace('_', ' ')}: {value}")
    for line in details[:40]:
        console.print(f"  {line}")


def publish() -> None:
    """Put what is kept into its place in the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


async def main(names: list[str], *, quick: bool, write: bool) -> int:
    """Run experiments and return the exit code."""
    known = book.experiments()
    wrong = set(names) - {each.name for each in known}
    if wrong:
        print(f"no such experiment: {', '.join(sorted(wrong))}\n" + "\n".join(each.name for each in known))
        return 2
    chosen = [each for each in known if not names or each.name in names]
    began = time.monotonic()
    async with arena(quick=quick) as place:
        rows = await run(chosen, place)
        totals = await sweep(place)
        details = place.evidence.details
    show(rows, totals, details)
    if write:
        new = record.Run.of(rows, totals, time.monotonic() - began)
        record.keep(record.merge(record.load(), new, [each.name for each in known]))
        publish()
    failed = [row.experiment.name for row in rows if not row.finding.holds]
    if failed:
        print(f"does not hold: {', '.join(failed)}")
    return 0 if not failed and totals.holds else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dev.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", help="experiments; all without any")
    parser.add_argument("--list", action="store_true", help="name the experiments")
    parser.add_argument("--quick", action="store_true", help="silences and outages of seconds")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("what a quick run has found is not for the page")
    if arguments.list:
        for one in book.experiments():
            print(f"{one.number:3} {one.name:22} {one.title}")
        sys.exit(0)
    sys.exit(asyncio.run(main(arguments.names, quick=arguments.quick, write=arguments.write)))
