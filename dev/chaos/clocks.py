"""The wall clock of the operator's machine jumps, by libfaketime; its monotonic clock goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dev.bench import desk
from dev.chaos.arena import BACKGROUND, Arena, timed
from dev.chaos.book import Finding, experiment
from dev.debian import UnsupportedSystemError, fetch

#: Seconds that a login lives, and by which the clock jumps, one after the other.
_LIFE = 4 * 3600
_JUMPS = (3600, 0, -3000, 0, 86400, 0)
#: So often may the provider be asked in one jump: a renewal, and one more try.
_ASKED = 2


@experiment(
    8,
    "clock-jumps",
    title="The wall clock jumps by an hour, by -50 minutes and by a day, and back",
    expected="No storm of renewals; what stands stays or is renewed; the process lives on",
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
    try:
        async with arena.work(environment=environment) as (corner, operator):
            names = await corner.settle("a", "b")
            plugin = {"name": desk.NAME, "config": {"size": 64, "seconds": _LIFE}}
            await corner.declare({"server": "clock.example.com", "plugin": plugin})
            await corner.ready()
            asked: list[int] = []
            for jump in _JUMPS[:2] if arena.quick else _JUMPS:
                before = _calls(arena)
                clock.write_text(f"{jump:+d}", encoding="utf-8")
                # The keeper looks at its clocks once a minute at the latest; a new resource makes it look now.
                marker = f"{corner.id}{len(asked)}"
                await corner.declare(corner.entry(await corner.source(), f"{marker}.example.com"), name=marker)

                async def served(server: str = f"{marker}.example.com") -> bool:
                    held = await corner.auths(names[0])
                    return {"clock.example.com", server} <= set(held)

                await timed(served, f"a resource to be served at {jump:+d} s", seconds=90)
                await asyncio.sleep(1 if arena.quick else 5)
                asked.append(_calls(arena) - before)
            # A clock that did not move would prove nothing: the log tells the time that the operator saw.
            days = {line["ts"][:13] for line in operator.lines() if "ts" in line}
            return Finding(
                max(asked) <= _ASKED and operator.running and len(days) > len(_JUMPS) // 2,
                f"after each of {len(asked)} jumps a new resource was served and the old login stood",
                f"provider asked {', '.join(map(str, asked))} times",
            )
    finally:
        await _suspend(arena, on=False)


async def _suspend(arena: Arena, *, on: bool) -> None:
    patch = f'{{"spec":{{"suspend":{str(on).lower()}}}}}'
    await arena.cluster.kubectl("patch", "crcred", BACKGROUND, "--type=merge", "-p", patch)


def _calls(arena: Arena) -> int:
    calls = Path(arena.environment[desk.CALLS])
    text = calls.read_text(encoding="utf-8") if calls.exists() else ""
    return text.splitlines().count("clock.example.com")
