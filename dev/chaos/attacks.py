"""Attackers and mistakes: hostile sources, a tenant with a registry of his own, a platform that selects it all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from dev import attacks
from dev.chaos.arena import Arena, Corner
from dev.chaos.book import Finding, experiment
from dev.evil import Evil, evil_registry, own_address


@contextlib.asynccontextmanager
async def _watched(arena: Arena) -> AsyncIterator[tuple[Corner, attacks.Recording, Evil, list[str]]]:
    """Run an operator whose connections are written down, against a registry in an attacker's hands."""
    recording = attacks.Recording.into(arena.folder)
    paths = arena.environment["PYTHONPATH"].split(":")
    async with (
        attacks.listener() as (port, came),
        evil_registry(own_address() or "127.0.0.1", port) as evil,
        arena.work(environment=recording.environment(evil.names, *paths)) as (corner, _),
    ):
        yield corner, recording, evil, came


def _finding(outcome: attacks.Outcome) -> Finding:
    if outcome.wrong:
        more = f" and {len(outcome.wrong) - 1} more" if len(outcome.wrong) > 1 else ""
        return Finding(False, f"{outcome.wrong[0]}{more}", outcome.figure)
    return Finding(True, outcome.seen, outcome.figure)


@experiment(
    22,
    "hostile-sources",
    title="Sources of 1 MB, 95,000 entries, JSON 450,000 deep, keys that read files or the metadata service",
    expected="None is used; each gets a reason, and no echo; no connection; the neighbour is renewed meanwhile",
)
async def hostile_sources(arena: Arena) -> Finding:
    """Store them all, and name each in a resource."""
    arena.evidence.look_for(attacks.CANARY)
    async with _watched(arena) as (corner, recording, _, _):
        return _finding(await attacks.hostile_sources(corner, recording))


@experiment(
    23,
    "hostile-tenant",
    title="Names with `..`, metadata and loopback in every spelling, a registry that challenges, redirects and floods",
    expected="No forbidden connection, no login to strangers, nothing of the victim's; the neighbour is renewed",
)
async def hostile_tenant(arena: Arena) -> Finding:
    """Declare them all in a tenant's namespace."""
    if not own_address():
        return Finding(False, "this machine has no address but loopback, where no tenant gets")
    async with _watched(arena) as (corner, recording, evil, came):
        return _finding(await attacks.hostile_tenant(corner, recording, evil, came))


@experiment(
    24,
    "mistaken-platform",
    title="A cluster resource selects every namespace by name and by `{}`, or names somebody else's Secret",
    expected="Namespaces of the system hold nothing, the foreign Secret stays, and the status says why",
)
async def mistaken_platform(arena: Arena) -> Finding:
    """Declare them one after the other."""
    async with arena.work() as (corner, _):
        return _finding(await attacks.mistaken_platform(corner))
