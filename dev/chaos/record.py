"""What was measured: the runs whose rows stand in `docs/reliability.md`, kept beside this module, and the page's text.

A run of every experiment replaces all that was kept.  A run of some replaces their rows, and its totals are added to
those of the runs before: what a run has counted stays counted as long as a row of it stands.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dev.chaos import book
from dev.chaos.evidence import Totals

KEPT = Path(__file__).with_name("measured.json")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One experiment and what came of it."""

    experiment: book.Experiment
    finding: book.Finding
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """Experiments that were done one after the other, and what was counted over all of them.

    Attributes:
        date: on which it ended.
        cores: of the machine.
        seconds: that it took.
        findings: by the names of the experiments; without those that a later run has done again.
        totals: of all that it did.
    """

    date: str
    cores: int
    seconds: float
    findings: dict[str, book.Finding]
    totals: Totals

    @classmethod
    def of(cls, rows: Sequence[Row], totals: Totals, seconds: float) -> Run:
        """Return the run that has ended just now."""
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        findings = {row.experiment.name: row.finding for row in rows}
        return cls(today, os.cpu_count() or 1, round(seconds), findings, totals)

    @classmethod
    def read(cls, kept: dict[str, Any]) -> Run:
        """Return a run that was kept."""
        findings = {name: book.Finding(**finding) for name, finding in kept["findings"].items()}
        return cls(**{**kept, "findings": findings, "totals": Totals(**kept["totals"])})


def load() -> list[Run]:
    """Return the runs that are kept, the oldest first."""
    return [Run.read(kept) for kept in json.loads(KEPT.read_text(encoding="utf-8"))]


def keep(runs: Sequence[Run]) -> None:
    """Keep these runs."""
    text = json.dumps([dataclasses.asdict(run) for run in runs], indent=1, ensure_ascii=False)
    KEPT.write_text(f"{text}\n", encoding="utf-8")


def merge(runs: Sequence[Run], new: Run, known: Sequence[str]) -> list[Run]:
    """Return the runs that count after a new one, given the names of all experiments."""
    if set(known) <= set(new.findings):
        return [new]
    left = [
        dataclasses.replace(
            run, findings={name: found for name, found in run.findings.items() if name not in new.findings}
        )
        for run in runs
    ]
    return [*(run for run in left if run.findings), new]


def text() -> str:
    """Return the part of the page that tells what was measured."""
    return markdown(load(), book.experiments())


def markdown(runs: Sequence[Run], known: Sequence[book.Experiment]) -> str:
    """Return the tables of these runs."""
    findings = {name: finding for run in runs for name, finding in run.findings.items()}
    lines = [
        f"{_when(runs)} The machine was shared with other work, so times are longer than they need be.",
        "",
        "| Experiment | Expected | Seen | Figure | Repeat it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in sorted(known, key=lambda each: each.number):
        if (finding := findings.get(each.name)) is not None:
            seen = finding.seen if finding.holds else f"**Does not hold:** {finding.seen}"
            cells = (each.title, each.expected, seen, finding.figure)
            row = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
            lines.append(f"| {each.number}. {row} | `make chaos ONLY={each.name}` |")
    left = [f"`{each.name}`" for each in known if each.name not in findings]
    if left:
        lines += ["", f"Not measured yet: {', '.join(left)}."]
    over = "the whole run" if len(runs) == 1 else "all of these runs"
    lines += ["", f"Over {over}, counted from the API server's audit log and a watch of every change:", ""]
    lines += ["| Total | |", "| --- | --- |"]
    counted = [dataclasses.asdict(run.totals) for run in runs]
    lines += [
        f"| {field.name.replace('_', ' ')} | {sum(row[field.name] for row in counted)} |"
        for field in dataclasses.fields(Totals)
    ]
    done = {each.number for each in known if each.name in findings}
    lines += ["", "Not done here:", "", "| Experiment | Why |", "| --- | --- |"]
    lines += [
        f"| {each.number}. {each.title} | {each.why} |"
        for each in book.ELSEWHERE
        if each.always or each.number not in done
    ]
    return "\n".join(lines)


def _when(runs: Sequence[Run]) -> str:
    """Say when which run was done, and how long it took."""
    first, *later = runs
    told = [f"Measured on {first.date} with {first.cores} cores, in a run of {_minutes(first)} minutes."]
    for run in later:
        names = ", ".join(f"`{name}`" for name in run.findings)
        told.append(f"Measured by themselves after it, on {run.date}, in {_minutes(run)} minutes: {names}.")
    return " ".join(told)


def _minutes(run: Run) -> int:
    return max(1, round(run.seconds / 60))
