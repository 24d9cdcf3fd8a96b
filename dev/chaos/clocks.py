"""The wall clock of the operator's machine jumps, by libfaketime; its monotonic clock goes on."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import time
from pathlib import Path
from typing import Any

from dev.bench import desk
from dev.chaos.arena import BACKGROUND, Arena, Corner, timed
from dev.chaos.book import Finding, experiment
from dev.debian import UnsupportedSystemError, fetch
from regcred.api import names as regcred_names

#: Seconds that a login lives, and by which the clock jumps, one after the other.
_LIFE = 4 * 3600
_JUMPS = (3600, 0, -3000, 0, 86400, 0)
_QUICK = (86400, 0)
#: Seconds by which what the operator writes may be beside the moved clock: it writes whole seconds, and takes some.
_ROUNDED = 60.0
#: So often may the provider be asked in one jump: a renewal, and one more try.
_ASKED = 2


@experiment(
    8,
    "clock-jumps",
    title="The wall clock jumps by an hour, by -50 minutes and by a day, and back",
    expected="No storm of renewals; what stands stays, or is renewed where it has ended; the process lives on",
)
async def clock_jumps(arena: Arena) -> Finding:
    """Move the operator's clock, and count how often the provider is asked."""
    try:
        tree = await fetch("libfaketime")
    except UnsupportedSystemError as error:
        return Finding(True, f"not run: {error}; see clock-jumps-simulated")
    (library,) = tree.root.glob("usr/lib/*/faketime/libfaketimeMT.so.1")
    clock = arena.folder / "clock"
    clock.write_text("+0", encoding="utf-8")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    # Its logins are so short that a provider with this clock would hand out ended ones.
    await _suspend(arena, on=True)
    left: list[Path] = []
    try:
        async with arena.work(environment=environment) as (corner, operator):
            # A process that is ended by a signal leaves what the library shares with its children.
            left = list(Path("/dev/shm").glob(f"*faketime_*_{operator.pid}"))  # noqa: S108 - the library's choice
            names = await corner.settle("a", "b")
            await corner.source()
            plugin = {"name": desk.NAME, "config": {"size": 64, "seconds": _LIFE}}
            await corner.declare({"server": "clock.example.com", "plugin": plugin})
            await corner.ready()
            asked: list[int] = []
            moved: list[float] = []
            gone: set[int] = set()
            jumps = _QUICK if arena.quick else _JUMPS
            for jump in jumps:
                before = _calls(arena)
                clock.write_text(f"{jump:+d}", encoding="utf-8")
                # The keeper looks at its clocks once a minute at the latest; a new resource makes it look now.
                marker = f"{corner.id}-{len(asked)}"
                server = f"{marker}.example.com"
                await corner.declare(corner.entry(server), name=marker)
                moved.append(_moved(await corner.ready(marker)))

                async def lives(jump: int = jump, server: str = server) -> bool:
                    ends = await _ends(corner, names[0])
                    if "clock.example.com" not in ends:
                        gone.add(jump)
                    return server in ends and ends.get("clock.example.com", 0) > time.time() + jump

                await timed(lives, f"a login that lives by the clock at {jump:+d} s", seconds=150)
                await asyncio.sleep(1 if arena.quick else 5)
                asked.append(_calls(arena) - before)
            # A clock that did not move would prove nothing: the operator's own times tell where it stood.
            stood = all(abs(seen - jump) < _ROUNDED for seen, jump in zip(moved, jumps, strict=True))
            return Finding(
                stood and not gone and max(asked) <= _ASKED and sum(asked) > 0 and operator.running,
                f"the operator's own times moved by {', '.join(f'{seen:+.0f}' for seen in moved)} s; each time a new "
                "resource was served, and an older login stood that lives by that clock",
                f"provider asked {', '.join(map(str, asked))} times"
                + (
                    f"; the older login was away at {', '.join(f'{jump:+d}' for jump in sorted(gone))} s"
                    if gone
                    else ""
                ),
            )
    finally:
        for path in left:
            path.unlink(missing_ok=True)
        await _suspend(arena, on=False)


def _moved(body: dict[str, Any]) -> float:
    """Return by how many seconds the clock that became Ready by was ahead of ours."""
    (ready,) = (row for row in body["status"]["conditions"] if row["type"] == "Ready")
    return datetime.datetime.fromisoformat(ready["lastTransitionTime"]).timestamp() - time.time()


async def _ends(corner: Corner, namespace: str) -> dict[str, float]:
    """Return until when each login in a namespace lives, as its Secret says; a server that is not in it has none."""
    body = await corner.secret(namespace)
    annotations = (body or {"metadata": {}})["metadata"].get("annotations", {})
    rows = json.loads(annotations.get(regcred_names.SERVERS, "{}"))
    return {
        server: datetime.datetime.fromisoformat(row["expires"]).timestamp() if row.get("expires") else math.inf
        for server, row in rows.items()
    }


async def _suspend(arena: Arena, *, on: bool) -> None:
    patch = f'{{"spec":{{"suspend":{str(on).lower()}}}}}'
    await arena.cluster.kubectl("patch", "crcred", BACKGROUND, "--type=merge", "-p", patch)


def _calls(arena: Arena) -> int:
    calls = Path(arena.environment[desk.CALLS])
    text = calls.read_text(encoding="utf-8") if calls.exists() else ""
    return text.splitlines().count("clock.example.com")
