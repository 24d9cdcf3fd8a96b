"""Runs the experiments, prints their table, and writes it into `docs/reliability.md`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dev.chaos import book
from dev.chaos.arena import BACKGROUND, Arena, arena
from dev.chaos.evidence import Totals
from dev.operator_process import NAMESPACE
from dev.waiting import eventually
from regcred.api import names as regcred_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
#: What each experiment has found the last time that its run was written into the page.
ROWS = PAGE.parents[1] / "build" / "chaos.json"
_BEGIN, _END = "<!-- measured: chaos -->", "<!-- end of chaos -->"
KEPT = f"{regcred_names.MANAGED_BY_LABEL}={regcred_names.MANAGED_BY}"
#: Seconds that one experiment may take.
_LIMIT = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One experiment and what came of it."""

    experiment: book.Experiment
    finding: book.Finding
    seconds: float


async def run(chosen: list[book.Experiment], place: Arena, *, keep: bool = False) -> list[Row]:
    """Run experiments one after the other; `keep` what each has found for the page."""
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
        if keep:
            _keep(row)
    return rows


def _kept() -> dict[str, dict[str, Any]]:
    """Return what every experiment has found the last time, by name."""
    found: dict[str, dict[str, Any]] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}
    return found


def _keep(row: Row) -> None:
    ROWS.parent.mkdir(exist_ok=True)
    kept = _kept() | {row.experiment.name: {**dataclasses.asdict(row.finding), "seconds": row.seconds}}
    ROWS.write_text(json.dumps(kept, indent=1), encoding="utf-8")


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


def markdown(rows: list[Row], totals: Totals, seconds: float) -> str:
    """Return the table for the page."""
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        (
            f"Measured on {today} with {os.cpu_count()} cores, on a machine shared with other work, so times are "
            f"longer than they need be. The run took {seconds / 60:.0f} minutes."
        ),
        "",
        "| Experiment | Expected | Seen | Figure | Repeat it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: row.experiment.number):
        seen = row.finding.seen if row.finding.holds else f"**Does not hold:** {row.finding.seen}"
        cells = (row.experiment.title, row.experiment.expected, seen, row.finding.figure)
        text = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
        lines.append(f"| {row.experiment.number}. {text} | `make chaos ONLY={row.experiment.name}` |")
    there = {row.experiment.name for row in rows}
    left = [f"`{each.name}`" for each in book.experiments() if each.name not in there]
    if left:
        lines += ["", f"Not measured with these, and to be run by themselves: {', '.join(left)}."]
    lines += ["", "Over the whole run, counted from the API server's audit log and a watch of every change:", ""]
    lines += ["| Total | |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in dataclasses.asdict(totals).items()]
    lines += ["", "Not done here:", "", "| Experiment | Why |", "| --- | --- |"]
    done = {row.experiment.number for row in rows}
    lines += [
        f"| {each.number}. {each.title} | {each.why} |"
        for each in book.ELSEWHERE
        if each.always or each.number not in done
    ]
    return "\n".join(lines)


def last(known: list[book.Experiment]) -> list[Row]:
    """Return what every experiment has found the last time."""
    kept = _kept()
    found = []
    for each in known:
        if (row := kept.get(each.name)) is not None:
            finding = book.Finding(row["holds"], row["seen"], row["figure"])
            found.append(Row(each, finding, row["seconds"]))
    return found


def publish(text: str) -> None:
    """Put the table into its place in the page."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(_BEGIN, 1)
    _, tail = rest.split(_END, 1)
    PAGE.write_text(f"{head}{_BEGIN}\n\n{text}\n\n{_END}{tail}", encoding="utf-8")


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
        rows = await run(chosen, place, keep=write)
        totals = await sweep(place)
        details = place.evidence.details
    show(rows, totals, details)
    if write:
        publish(markdown(last(known), totals, time.monotonic() - began))
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
    if arguments.list:
        for one in book.experiments():
            print(f"{one.number:3} {one.name:22} {one.title}")
        sys.exit(0)
    sys.exit(asyncio.run(main(arguments.names, quick=arguments.quick, write=arguments.write)))
