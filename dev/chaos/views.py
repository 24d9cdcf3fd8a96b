"""What the operator sees is silent, late, or of an earlier time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from dev.chaos.arena import Arena, timed
from dev.chaos.book import Finding, experiment
from dev.faults import Delay, Silence, Stale

#: Seconds in which a silent watch must be noticed, with room for a busy machine.
_NOTICED = 90.0
_ROOM = 15.0


@experiment(
    2,
    "silent-watch",
    title="Every watch falls silent, its connection open (half-open TCP, a dead load balancer)",
    expected="Noticed within 90 s, listed anew, counted; what was missed is made good, for our own kinds too",
)
async def silent_watch(arena: Arena) -> Finding:
    """Silence all streams at once and change one thing of every kind."""
    limit = 8.0 if arena.quick else _NOTICED
    async with arena.work(*(("--watch-silence=6",) if arena.quick else ())) as (corner, operator):
        first = await corner.settle("edited", "deleted", "leaves")
        await corner.offer(namespaces={"names": [f"{corner.id}-*"], "exclude": first[2:]})
        await corner.declare(corner.entry(), name=f"{corner.id}-goes", namespaces={"names": first[2:]})
        await corner.all_served(first)
        rule = arena.proxy.add(Silence(), verb="watch")
        silenced = rule.hits
        arena.proxy.remove(rule)
        began = time.monotonic()
        born = await corner.settle("born")
        changed = arena.evidence.canary()
        await corner.source(changed)
        await corner.cluster.kubectl("delete", "secret", "regcred", "-n", first[1])
        await corner.declare(corner.entry("new.example.com"), name=f"{corner.id}-new", namespaces={"names": born})
        await corner.cluster.kubectl("delete", "crcred", f"{corner.id}-goes")
        times: dict[str, float] = {}

        async def left() -> bool:
            return "regcred" not in (await corner.pull_secrets(first[2]) or [])

        async def note(name: str, work: Coroutine[Any, Any, float]) -> None:
            await work
            times[name] = time.monotonic() - began

        waits = limit + _ROOM + 60
        await asyncio.gather(
            note("namespace", corner.all_served(born, changed, seconds=waits)),
            note("source and Secret", corner.all_served(first[:2], changed, seconds=waits)),
            note("new resource", corner.all_served(born, changed, server="new.example.com", seconds=waits)),
            note("deleted resource", timed(left, "the deleted resource", seconds=waits)),
        )
        told = await operator.metrics()
        counted = sum(
            float(line.rsplit(" ", 1)[1])
            for line in told.splitlines()
            if line.startswith("regcred_watch_restarts_total") and ('"silent"' in line or '"missed"' in line)
        )
        slowest = max(times.values())
        return Finding(
            silenced > 0 and counted > 0 and slowest <= limit + _ROOM,
            f"{silenced} streams silenced; 5 kinds of change made good; {counted:.0f} restarts counted",
            ", ".join(f"{name} {seconds:.0f} s" for name, seconds in sorted(times.items())),
        )


@experiment(
    11,
    "stale-start",
    title="It starts against an API server that lags: lists are of an earlier time, watches come late",
    expected="Nothing is deleted, reverted or overwritten on the strength of an old view",
)
async def stale_start(arena: Arena) -> Finding:
    """Remember every answer, change the world while the operator is down, and let it start in the past."""
    async with arena.work(*(("--watch-silence=6",) if arena.quick else ())) as (corner, operator):
        names = await corner.settle("foreign", "again", "leaves", "stays")
        foreign, again, leaves, stays = names
        await corner.offer()
        await corner.declare(corner.entry("late.example.com"), name=f"{corner.id}-late")
        await corner.all_served(names)
        await operator.stop()
        arena.proxy.remember()
        # It sees all this once, through the proxy: these are the answers that it will get again.
        await operator.start()
        await operator.stop()
        kubectl = corner.cluster.kubectl
        # Another's Secret takes the place of ours, one of its resources goes, one namespace is born again.
        await kubectl("delete", "secret", "regcred", "-n", foreign)
        await kubectl("create", "secret", "generic", "regcred", "-n", foreign, "--from-literal=mine=1")
        await kubectl("delete", "crcred", f"{corner.id}-late")
        await kubectl("delete", "namespace", again, "--timeout=60s")
        await corner.settle("again")
        await kubectl("label", "namespace", leaves, "test-")
        changed = arena.evidence.canary()
        await corner.source(changed)
        theirs = await corner.secret(foreign)
        # Every first list is one of the past, and what happened since comes late.
        arena.proxy.add(Delay(2.0), verb="watch", times=20)
        stale = arena.proxy.add(Stale(), verb="list", times=20)
        await operator.start(ready=False)
        await corner.all_served([again, stays], changed)
        await corner.bare(leaves)

        async def one_left() -> bool:
            return list(await corner.auths(stays)) == ["registry.example.com"]

        await timed(one_left, "the deleted resource's login to go", seconds=90)
        untouched = await corner.secret(foreign) == theirs
        return Finding(
            untouched and stale.hits > 0 and operator.running,
            f"{stale.hits} lists of the past; the foreign Secret is byte for byte the same; all ends as it should",
            f"wrong writes {0 if untouched else 1}",
        )
