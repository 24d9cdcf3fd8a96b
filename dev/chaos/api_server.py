"""The API server goes away, refuses, breaks off, and talks nonsense."""

from __future__ import annotations

import asyncio
import json
import time

from dev.chaos.arena import Arena, series
from dev.chaos.book import Finding, experiment
from dev.faults import Answer, Cut, Drip, Garbage, Huge
from dev.faults.actions import Action

#: Requests a second during an outage that are no hammering: a dozen watches and one status, each with its own backoff.
_CALM = 10.0


def _stream(code: int, reason: str) -> bytes:
    """One ERROR event, as an API server ends a watch with."""
    told = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": "",
    }
    return json.dumps({"type": "ERROR", "object": told}).encode() + b"\n"


@experiment(
    1,
    "apiserver-restarts",
    title="The API server is killed ten times during a distribution",
    expected="The process lives on; everything, and a new namespace, is served after each; no entry twice",
)
async def apiserver_restarts(arena: Arena) -> Finding:
    """Kill and start the API server again and again."""
    rounds = 2 if arena.quick else 10
    async with arena.work() as (corner, operator):
        pid = operator.pid
        names = await corner.serve(*(f"n{number}" for number in range(30)))
        times = []
        for number in range(rounds):
            server = f"r{number}.example.com"
            # One more registry is on its way to all of them.
            await corner.declare(corner.entry(), corner.entry(server))
            await arena.cluster.stop_apiserver()
            await arena.cluster.start_apiserver()
            names += await corner.settle(f"late-{number}")
            times.append(await corner.all_served(names, server=server))
        alive = operator.running and operator.pid == pid
        return Finding(
            alive,
            f"{rounds} kills, {len(names)} namespaces served, same process",
            f"served again: {series(times)}",
        )


@experiment(
    3,
    "expired-versions",
    title="Resource versions expire: 410 as an answer and within a stream",
    expected="Everything is listed anew, no event is lost, also for kopf's watches",
)
async def expired_versions(arena: Arena) -> Finding:
    """Answer watches with 410 in both forms while things change."""
    async with arena.work("--watch-silence=6") as (corner, operator):
        first = await corner.serve("a", "b")
        arena.proxy.add(Answer(200, body=_stream(410, "Expired")), verb="watch", times=12)
        arena.proxy.add(Answer(410, reason="Expired"), verb="watch", times=12)
        arena.proxy.sever()
        late = await corner.settle("c", "d")
        await corner.cluster.kubectl("delete", "secret", "regcred", "-n", first[0])
        await corner.declare(
            corner.entry("late.example.com"), name=f"{corner.id}-late", namespaces={"names": late}
        )
        seconds = await corner.all_served([*first, *late])
        seconds += await corner.all_served(late, server="late.example.com")
        told = await operator.metrics()
        relists = _counter(told, "regcred_watch_restarts_total", 'reason="expired"')
        return Finding(
            operator.running and relists > 0,
            "4 namespaces and 1 resource that changed in the gap are served; 0 events lost",
            f"{relists:.0f} lists for expired versions, {seconds:.1f} s until served",
        )


@experiment(
    3,
    "broken-streams",
    title="Watches end with 500, with garbage, amid a line, or drip a byte at a time",
    expected="The process lives on, kopf is started again, nothing is missed",
)
async def broken_streams(arena: Arena) -> Finding:
    """Damage every watch in several ways, one after the other."""
    async with arena.work("--watch-silence=6") as (corner, operator):
        pid = operator.pid
        await corner.offer()
        times = []
        faults: tuple[Action, ...] = (
            Answer(200, body=_stream(500, "InternalError")),
            Garbage(),
            Garbage(status=502, content_type="text/html"),
            Cut(after=40),
            Drip(pause=0.1),
            Huge(size=2 << 20),
        )
        for number, fault in enumerate(faults[:2] if arena.quick else faults):
            with arena.proxy.fault(fault, verb="watch", seconds=4):
                arena.proxy.sever()
                await asyncio.sleep(1)
                names = await corner.settle(f"n{number}")
                server = f"r{number}.example.com"
                await corner.declare(corner.entry(server), name=f"{corner.id}-{number}")
                times.append(await corner.all_served(names, server=server))
        return Finding(
            operator.running and operator.pid == pid,
            f"{len(times)} kinds of damage, each with a new namespace and a new resource: all served",
            f"until served: {series(times)}",
        )


@experiment(
    5,
    "throttled",
    title="429 with Retry-After 5 to every request for 20 s",
    expected="It waits as long as it is asked to, and goes on",
)
async def throttled(arena: Arena) -> Finding:
    """Throttle everything."""
    lasts = 8.0 if arena.quick else 20.0
    async with arena.work() as (corner, operator):
        names = await corner.serve(*(f"n{number}" for number in range(10)))
        began = time.monotonic()
        with arena.proxy.fault(Answer(429, retry_after=5, reason="TooManyRequests")):
            arena.proxy.sever()
            late = await corner.settle("late")
            await asyncio.sleep(lasts)
        over = time.monotonic()
        asked = [seen for seen in arena.proxy.since(began) if seen.at < over and seen.status == 429]
        await corner.all_served([*names, *late])
        recovered = time.monotonic() - over
        rate = len(asked) / (over - began)
        return Finding(
            operator.running and rate <= _CALM,
            f"{len(asked)} requests in {over - began:.0f} s from all watches together, then all is served",
            f"{rate:.1f} requests/s while throttled, served {recovered:.1f} s after",
        )


@experiment(
    5,
    "outage",
    title="500 and 503 to every request for two minutes",
    expected="Backoff with jitter; alive all the time; what changed is made up for; other logins unaffected",
)
async def outage(arena: Arena) -> Finding:
    """Let the API server fail for long."""
    lasts = 10.0 if arena.quick else 120.0
    async with arena.work() as (corner, operator):
        pid = operator.pid
        names = await corner.serve(*(f"n{number}" for number in range(10)))
        began = time.monotonic()
        alive: list[bool] = []
        with (
            arena.proxy.fault(Answer(503, reason="ServiceUnavailable")),
            arena.proxy.fault(Answer(500), chance=0.5),
        ):
            arena.proxy.sever()
            late = await corner.settle("late")
            changed = arena.evidence.canary()
            await corner.source(changed)
            while time.monotonic() - began < lasts:
                alive.append(await operator.alive())
                await asyncio.sleep(1)
        over = time.monotonic()
        asked = [seen for seen in arena.proxy.since(began + lasts / 2) if seen.at < over]
        rate = len(asked) / (lasts / 2)
        await corner.all_served([*names, *late], changed)
        recovered = time.monotonic() - over
        return Finding(
            operator.running and operator.pid == pid and all(alive) and rate <= _CALM,
            f"/healthz said ok {sum(alive)} times of {len(alive)}; the new password and namespace are served",
            f"{rate:.1f} requests/s in the second half, served {recovered:.1f} s after {lasts:.0f} s",
        )


@experiment(
    5,
    "lost-answers",
    title="Connections break after the server has done what was asked, or amid its answer",
    expected="What was done is recognised, nothing is done wrongly or twice",
)
async def lost_answers(arena: Arena) -> Finding:
    """Lose the answers of a third of all writes and reads."""
    async with arena.work() as (corner, operator):
        names = await corner.settle(*(f"n{number}" for number in range(5 if arena.quick else 40)))
        before = len(arena.evidence.writes())
        rules = [
            arena.proxy.add(Cut(forwarded=True), verb="patch|create|delete|update", chance=0.33),
            arena.proxy.add(Cut(after=30), verb="get|list|patch", chance=0.1),
        ]
        await corner.offer()
        seconds = await corner.all_served(names)
        for rule in rules:
            arena.proxy.remove(rule)
        hits = sum(rule.hits for rule in rules)
        arena.evidence.lost_answers[f"{corner.id}-"] = hits
        written = [row for row in arena.evidence.writes(before) if row.resource in ("secrets", "serviceaccounts")]
        return Finding(
            operator.running and hits > 0,
            f"{hits} answers lost, {len(names)} namespaces served, every entry once",
            f"{len(written)} writes for {2 * len(names)} objects, {seconds:.1f} s",
        )


@experiment(
    5,
    "black-hole",
    title="For 20 s every byte is swallowed: nothing is refused, and nothing is answered",
    expected="Timeouts end each wait; alive all the time; served afterwards",
)
async def black_hole(arena: Arena) -> Finding:
    """Swallow everything."""
    async with arena.work("--watch-silence=10") as (corner, operator):
        names = await corner.serve("a", "b")
        with arena.proxy.black_hole():
            late = await corner.settle("late")
            changed = arena.evidence.canary()
            await corner.source(changed)
            await asyncio.sleep(5 if arena.quick else 20)
            alive = await operator.alive()
        seconds = await corner.all_served([*names, *late], changed, seconds=150)
        return Finding(
            alive and operator.running,
            "alive during it, and what changed is served after it",
            f"served {seconds:.1f} s after the end",
        )


def _counter(text: str, name: str, labels: str = "") -> float:
    """Return the sum of a metric's samples that carry some labels."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(name) and labels in line and not line.startswith("#")
    )
