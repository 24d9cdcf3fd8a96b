"""Two replicas and five ways for a leader to fail: `dev.chaos.availability` as experiments of the book."""

from __future__ import annotations

from dev.chaos import availability
from dev.chaos.arena import Arena
from dev.chaos.book import Finding, experiment


@experiment(
    9,
    "hand-over",
    title="The leader of two replicas is ended, killed, stopped and woken, partitioned, and left without answers",
    expected="The other one leads; the old one writes nothing after that, and ends at once when it wakes",
)
async def hand_over(arena: Arena) -> Finding:
    """Fail the leader in every way, and ask the audit log who wrote when."""
    chosen = list(availability.EXPERIMENTS.items())
    seen = []
    async with availability.pair(arena.cluster, arena.folder) as both:
        for _, fail in chosen[:1] if arena.quick else chosen:
            seen.append(await fail(both))
    double = sum(each.double for each in seen)
    longest = max(seen, key=lambda each: each.seconds)
    return Finding(
        double == 0,
        f"{len(seen)} failures; of {sum(each.writes for each in seen)} writes {double} came from one that led no more",
        f"another leads after {min(each.seconds for each in seen):.1f} to {longest.seconds:.1f} s, "
        f"serves after {max(each.served for each in seen):.1f} s at most",
    )
