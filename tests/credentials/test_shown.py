"""What the credentials side shows of itself: a line about every step at DEBUG, and never a secret."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.credentials import shown
from tests.credentials.keeper_support import World, entry, play, spec

STEPS = {
    "begun": r"Fetching fake\|one\|",
    "brought": r"Fetch fake\|one\| brought logins of 1 servers as one, life 43200 s, after 0\.1 s; next try in \d+ s",
    "failed": r"Fetch fake\|two\| failed: ProviderBroken \(Retryable, 1 in a row\), after 0\.1 s; next try in \d+ s",
    "proven": r"The handshake with one\.example ended as Verified",
    "refused": r"The handshake with one\.example ended as BadCredentials",
    "kept": r"Kept the logins of 2 entries of ClusterRegistryCredential/r",
    "read": r"Read the kept logins of 1 resources",
}


@pytest.fixture(scope="module")
def text() -> str:
    """Everything that one scene shows."""
    return shown.shown()


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_its_line(text: str, step: str) -> None:
    """At DEBUG the log says what is fetched, for whom, how long it lives and when it is due, and how proofs ended."""
    assert re.search(STEPS[step], text)


def test_no_secret(text: str) -> None:
    """No login, and no text of a foreign exception, is in log, status, event or repr."""
    assert shown.SEARCH.kinds_in(text) == set()


def test_quiet_at_rest() -> None:
    """Between two renewals nothing is logged: a day with two registries costs four lines a renewal at the most."""

    async def scene(world: World) -> None:
        await world.start(spec("r", entry("one.example", "one"), entry("two.example", "two")))
        await asyncio.sleep(86400)

    with shown.log_at_debug() as log:
        world = play(scene)
    lines = log.getvalue().splitlines()
    assert len(world.provider.asked) < len(lines) <= 4 * len(world.provider.asked)
