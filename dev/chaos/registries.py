"""A registry that is asked for proof fails in every way, with the fault proxy before a real one."""

from __future__ import annotations

import time

from dev.chaos.arena import Arena, timed
from dev.chaos.book import Finding, experiment
from dev.faults import Answer, Drip, FaultProxy, Garbage, Huge, Silence, fault_proxy
from dev.faults.actions import Action
from dev.registry import start_registry
from dev.token_server import PULL, User

_FAULTS: tuple[Action, ...] = (
    Answer(500, body=b"<html>oops</html>"),
    Garbage(b"\xff" * 1000, 401),
    Huge(size=10 << 20),
    Drip(pause=0.2),
    Silence(),
)


@experiment(
    7,
    "registry-faults",
    title="The registry that proves a login answers 500, garbage, 10 MiB, a byte at a time, or never",
    expected="The last good login stays; memory and time are bounded; another resource is not held up",
)
async def registry_faults(arena: Arena) -> Finding:
    """Prove a changed password against a registry that fails."""
    good = arena.evidence.canary()
    async with (
        start_registry({"robot": User(good, {"private/*": PULL})}, tls=True) as registry,
        fault_proxy(registry.url, ca_file=registry.ca_file) as proxy,
        arena.work() as (corner, operator),
    ):
        await registry.push("private/app", "1")
        names = await corner.settle("proven")
        others = await corner.settle("other")
        await corner.source(good)
        await corner.declare(_proven(corner.entry(proxy.host), proxy), namespaces={"names": names})
        await corner.all_served(names, good)
        before, peak = operator.memory(), operator.memory()
        kept = 0

        async def proven() -> bool:
            found = await corner.condition("Verified")
            return found.get("status") == "True"

        slowest = 0.0
        faults = _FAULTS[:2] if arena.quick else _FAULTS
        for fault in faults:
            with proxy.fault(fault) as rule:
                await corner.source(arena.evidence.canary())
                await timed(lambda rule=rule: _hit(rule), f"{type(fault).__name__} to be met", seconds=90)  # type: ignore[misc]
                # Somebody else's login goes through meanwhile.
                began = time.monotonic()
                password = arena.evidence.canary()
                other = await corner.source(password, name=f"{corner.id}-other")
                await corner.declare(
                    corner.entry(source=other), name=f"{corner.id}-other", namespaces={"names": others}
                )
                await corner.all_served(others, password)
                slowest = max(slowest, time.monotonic() - began)
                peak = max(peak, operator.memory())
                kept += (("robot", good)) in (await corner.auths(names[0])).values()
            # Handshakes in a row that show nothing add up: a few of them, and a changed source counts all the same.
            await corner.source(good)
            await timed(proven, "the good login to be proven again", seconds=120)
        await corner.cluster.kubectl(
            "annotate", "--overwrite", "crcred", corner.id, "regcred.io/refresh-requested-at=after"
        )

        recovered = await timed(proven, "the login to be proven again", seconds=120)
        return Finding(
            kept == len(faults) and peak - before < 60 and operator.running,
            f"in {kept} of {len(faults)} faults the last good login stayed; proven again afterwards",
            f"memory +{peak - before:.0f} MiB at most, another resource served within {slowest:.1f} s, "
            f"proven {recovered:.1f} s after a refresh",
        )


def _proven(entry: dict[str, object], proxy: FaultProxy) -> dict[str, object]:
    authority = proxy.ca_file.read_text(encoding="utf-8") if proxy.ca_file else ""
    return {
        **entry,
        "verify": {"repository": "private/app", "reference": "1"},
        "tls": {"caBundle": authority},
    }


async def _hit(rule: object) -> bool:
    return bool(getattr(rule, "hits", 0))
