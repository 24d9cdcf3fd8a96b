"""`python -m dev.bench`: run the scenarios, print the table, keep the figures."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import os
import sys
import time
from pathlib import Path

from dev.bench import bare, machine, pages, report, rows, trail
from dev.bench import scenarios as do
from dev.bench.figures import Results, Row
from dev.bench.stage import BARE, LABEL, MORE_ACCOUNTS, OPERATOR, Stage, stage
from dev.controlplane import GIVEN
from dev.operator_process import ROOT

KEPT = ROOT / "build" / "bench"
_SELECTED = {"selector": {"matchLabels": {LABEL: "yes"}}}
_EVERY_ACCOUNT = ("default", *MORE_ACCOUNTS)


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Attributes:
        steps: namespaces served by one resource, one account each.
        large: namespaces served by many resources, three accounts each.
        resources: of these.
        burst: namespaces created at once.
        lone: accounts created one by one.
        during: namespaces created while a renewal runs, at the most.
        rest: seconds without work.
        foreign: Secrets of others, of 500 KiB.
    """

    steps: tuple[int, ...] = (250, 500, 1000)
    large: int = 5000
    resources: int = 20
    burst: int = 300
    lone: int = 400
    during: int = 300
    rest: float = 300.0
    foreign: int = 2000


FULL = Sizes()
QUICK = Sizes(steps=(100, 250), large=300, burst=60, lone=60, during=40, rest=15.0, foreign=200)
TINY = Sizes(steps=(25, 50), large=50, resources=3, burst=20, lone=20, during=10, rest=3.0, foreign=10)
_SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}


class Run:
    """One run: scenarios in order, every row told as soon as it is there."""

    def __init__(self, sizes: Sizes, mode: str) -> None:
        self.sizes = sizes
        at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.results = Results(mode=mode, at=at, machine={})
        self._began = time.monotonic()

    def add(self, *found: Row) -> None:
        """Take in rows."""
        self.results.rows += found
        for row in found:
            print(f"{report.line(row)}", flush=True)

    def say(self, text: str) -> None:
        """Tell what is being done."""
        print(f"[{time.monotonic() - self._began:5.0f} s] {text}", flush=True)

    async def small(self) -> None:
        """One resource, growing numbers of namespaces; then latencies on the largest."""
        async with stage() as on:
            self.results.machine = machine.describe(on.cluster)
            await on.start()
            self.add(rows.memory("idle", "started, no work", await do.memory(on), 110, on))
            sample = await on.sample(1)
            await on.stop()
            names: list[str] = []
            for step in self.sizes.steps:
                self.say(f"{step} namespaces, one resource")
                new = [f"bench-{number:05d}" for number in range(len(names), step)]
                await on.populate(new, "yes")
                names += new
                await self._step(on, sample, names, last=step == self.sizes.steps[-1])

    async def _step(self, on: Stage, sample: bare.Json, names: list[str], *, last: bool) -> None:
        step, wanted = len(names), ["default"]
        before = bare.Writer(on.client, f"bench-a-{step}", sample, on.owners)
        after = bare.Writer(on.client, f"bench-b-{step}", sample, on.owners)
        theirs = [await do.bare_waves(on, before, names, wanted)]
        await on.start()
        resource = f"wave-{step}"
        ours = [await do.first(on, [resource], _SELECTED, names, wanted, globs=[*wanted, "late-*"])]
        ours.append(await do.renewal(on, resource, names))
        resident = await do.memory(on)
        found: list[list[float]] = []
        if last:
            self.add(rows.memory(f"{step}x3", f"{step} namespaces x 3 accounts", resident, 120, on))
            found = await self._latencies(on, names, "a", OPERATOR)
        else:
            await on.forget([resource], names)
        await on.stop()
        theirs.append(await do.bare_waves(on, after, names, wanted))
        self.results.points.append(rows.point(step, ours, theirs, resident))
        work = rows.Work(f"{step}x1", f"{step} namespaces, 1 account each", step, 1)
        self.add(rows.first(work, ours[0], theirs), rows.renewal(work, ours[1], theirs))
        if last:
            new = ("late-b-", "burst-b-")
            async with on.following(
                after,
                lambda namespace, name: (
                    f"{name} {namespace}".startswith(new) or (name == "default" and namespace.startswith(new))
                ),
            ):
                bares = await self._latencies(on, names, "b", BARE)
            self._tell_latencies(found, bares)

    async def _latencies(self, on: Stage, names: list[str], letter: str, user: str) -> list[list[float]]:
        """Return the delays of lone accounts and of a burst of namespaces."""
        self.say(f"accounts one by one, {self.sizes.burst} namespaces at once")
        mark = on.mark()
        born = await do.lone_accounts(on, names, [f"late-{letter}-{each}" for each in range(self.sizes.lone)])
        lone = await do.delays(on, mark, born, user)
        mark = on.mark()
        born = await do.new_namespaces(on, [f"burst-{letter}-{each:03d}" for each in range(self.sizes.burst)])
        return [lone, await do.delays(on, mark, born, user)]

    def _tell_latencies(self, ours: list[list[float]], theirs: list[list[float]]) -> None:
        what = "a service account appears, idle"
        self.add(rows.delay("lone-p50", what, ours[0], 0.5, 0.015, other=theirs[0]))
        self.add(rows.delay("lone-p99", what, ours[0], 0.99, 0.05, other=theirs[0]))
        what = f"{self.sizes.burst} namespaces at once: account to entry"
        self.add(
            rows.delay(f"burst-{self.sizes.burst}-p99", what, ours[1], 0.99, 0.25, other=theirs[1], rule="behind")
        )

    async def large(self) -> None:
        """Many resources and many namespaces with three accounts each."""
        size, resources = self.sizes.large, self.sizes.resources
        told = f"{size} namespaces x 3 accounts, {resources} resources"
        key = f"{size}x3x{resources}"
        async with stage() as on:
            self.results.machine = self.results.machine or machine.describe(on.cluster)
            await on.start()
            sample = await on.sample(resources)
            await on.stop()
            self.say(told)
            names = [f"bench-{number:05d}" for number in range(size)]
            await on.populate(names, "yes")
            self.say("populated")
            before = bare.Writer(on.client, "bench-a", sample, on.owners)
            theirs = [await do.bare_waves(on, before, names, _EVERY_ACCOUNT)]
            await on.start()
            wanted = [f"wave-{number:02d}" for number in range(resources)]
            ours = [await do.first(on, wanted, _SELECTED, names, _EVERY_ACCOUNT)]
            ours.append(await do.renewal(on, wanted[0], names))
            resident = await do.memory(on)
            self.add(rows.memory(key, told, resident, 150, on))
            self.say("one more resource")
            more = await do.first(on, ["wave-more"], _SELECTED, names, [], globs=_EVERY_ACCOUNT, number=resources)
            self.say("new namespaces during a renewal")
            found, count = await do.during_renewal(on, wanted[1], names, self.sizes.during)
            if count:
                what = f"a new namespace during a renewal over {size}"
                self.add(rows.delay(f"during-{size}-p99", what, found, 0.99, 0.5))
            await self._rest(on, key, told)
            await on.stop()
            after = bare.Writer(on.client, "bench-b", sample, on.owners)
            theirs.append(await do.bare_waves(on, after, names, _EVERY_ACCOUNT))
            self.results.points.append(rows.point(size, ours, theirs, resident))
            work = rows.Work(key, told, size, len(_EVERY_ACCOUNT), resources)
            self.add(
                rows.first(work, ours[0], theirs),
                rows.more(work, more, theirs),
                rows.renewal(work, ours[1], theirs),
            )

    async def _rest(self, on: Stage, key: str, told: str) -> None:
        self.say(f"nothing for {self.sizes.rest:.0f} s")
        share, writes = await do.at_rest(on, self.sizes.rest)
        self.add(
            Row(
                f"rest-{key}",
                f"CPU at rest over {self.sizes.rest:.0f} s, {told}",
                share * 100,
                unit="% of a core",
                limit=1.0,
                requests=trail.counted(writes),
                exact={"writes": (len(writes), 0)},
            )
        )
        self.say("restart")
        took, writes, asked = await do.restart(on)
        self.add(
            Row(
                f"restart-{key}",
                f"restart to Ready, {told}",
                took,
                limit=5.0,
                requests=trail.counted(writes),
                exact={"writes": (len(writes), 0), "provider calls": (asked, 0)},
            ),
            rows.memory(f"restarted-{key}", f"after a restart, {told}", await do.memory(on), 150, on),
        )

    async def foreign(self) -> None:
        """A cluster full of Secrets of others."""
        count = self.sizes.foreign
        async with stage() as on:
            self.results.machine = self.results.machine or machine.describe(on.cluster)
            self.say(f"{count} foreign Secrets of 500 KiB")
            starts, resident = [await do.best_start(on)], [await do.memory(on)]
            await on.stop()
            await do.fill(on, count)
            starts.append(await do.best_start(on))
            resident.append(await do.memory(on))
            told = f"{count} foreign Secrets of 500 KiB"
            more = Row(
                f"foreign-memory-{count}", f"more memory with {told}", resident[1] - resident[0], unit="MiB"
            )
            longer = Row(f"foreign-start-{count}", f"longer start with {told}", starts[1] - starts[0])
            self.add(
                dataclasses.replace(more, limit=2.0, details={"MiB": [round(each) for each in resident]}),
                dataclasses.replace(longer, limit=0.5, details={"seconds": [round(each, 2) for each in starts]}),
            )

    async def everything(self, only: list[str]) -> None:
        """Run what was asked for."""
        for part in (self.small, self.large, self.foreign):
            if not only or part.__name__ in only:
                await part()


def main() -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=__doc__)
    parser.add_argument(
        "--mode", choices=_SIZES, default="full", help="how much of everything (quick: under 5 minutes)"
    )
    parser.add_argument("--only", action="append", default=[], choices=("small", "large", "foreign"))
    parser.add_argument("--base", type=Path, help="an earlier run to compare with (build/bench/*.json)")
    parser.add_argument(
        "--kubeconfig", type=Path, help="a throw-away cluster to use in place of a local control plane"
    )
    parser.add_argument("--publish", action="store_true", help="put table and plot into docs/performance.md")
    chosen = parser.parse_args()
    base = Results.load(chosen.base) if chosen.base else None
    if chosen.kubeconfig:
        os.environ[GIVEN] = str(chosen.kubeconfig.resolve())
    began = time.monotonic()
    run = Run(_SIZES[chosen.mode], chosen.mode)
    try:
        asyncio.run(run.everything(chosen.only))
    finally:
        if run.results.rows:
            name = run.results.at.replace(" UTC", "").replace(" ", "-").replace(":", "")
            run.results.write(KEPT / f"{name}-{chosen.mode}.json")
            run.results.write(KEPT / "last.json")
    print(f"\n{report.table(run.results)}\n\nTook {(time.monotonic() - began) / 60:.1f} minutes; kept in {KEPT}.")
    if base is not None:
        print(f"\n{report.comparison(base, run.results)}")
    if chosen.publish:
        pages.publish(run.results, ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
