"""Renewal: each mode's login is renewed before half of its life, by one fetch, in the same Secret."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from regcred.credentials import schedule
from tests.clouds import many
from tests.clouds.conftest import Stage
from tests.clouds.hub import Hub, docker_config
from tests.clouds.local_clouds import Clouds


async def test_every_mode_is_renewed_in_place(first: Stage, second: Stage, clouds: Clouds) -> None:
    """The Secret of each mode keeps its UID and holds, byte for byte, the second login that its cloud gave."""
    for mode in second.modes:
        before, after = first.sights[mode.name], second.sights[mode.name]
        assert after.data == docker_config(mode.servers, mode.username, mode.issued(clouds)[1].password), mode.name
        assert after.secret["metadata"]["uid"] == before.secret["metadata"]["uid"]
        assert after.row["reason"] == "Issued"
        assert after.row["identity"].startswith(mode.identity)


async def test_renewal_comes_in_time(second: Stage, clouds: Clouds, figures: dict[str, Any]) -> None:
    """A login is renewed while it lives, and no sooner than half a minute after its issue."""
    waits = {}
    for mode in second.modes:
        before, after = mode.issued(clouds)[:2]
        assert before.at + schedule.FLOOR - 1 <= after.at < before.ends, mode.name
        waits[mode.name] = round((after.at - before.at) / (before.ends - before.at), 2)
    first, *_, last = sorted(waits, key=waits.__getitem__)
    figures["share of the life after which logins were renewed"] = {name: waits[name] for name in (first, last)}


async def test_one_fetch_for_each_renewal(second: Stage, clouds: Clouds, figures: dict[str, Any]) -> None:
    """For issue and renewal each identity was given exactly two logins, the thousand namespaces' too."""
    counted = {mode.name: len(mode.issued(clouds)) for mode in second.modes}
    counted |= {f"many, {cloud}": len(clouds.logins(*known)) for cloud, known in many.KNOWN_AS.items()}
    figures["logins handed out for issue and renewal"] = counted
    assert set(counted.values()) == {2}, counted


async def test_restart_asks_nobody_and_writes_nothing(
    second: Stage, hub: Hub, clouds: Clouds, figures: dict[str, Any]
) -> None:
    """After a restart no cloud is asked for a login that is good, also once the overdue ones would be; none is written."""
    before = clouds.calls()
    await hub.restart()
    ready = time.monotonic()
    # What is overdue after a start is fetched at a moment of its own within the first half minute.
    while time.monotonic() < ready + schedule.FLOOR + 5:
        assert clouds.calls() == before
        await asyncio.sleep(1)
    figures["provider calls in the 35 s after a restart with 30 logins, 1,000 namespaces"] = sum(
        (clouds.calls() - before).values()
    )
    assert clouds.calls() == before
    found = await hub.pull_secret_of_all()
    assert {name: found[name]["metadata"]["resourceVersion"] for name in second.pull_secrets} == {
        name: body["metadata"]["resourceVersion"] for name, body in second.pull_secrets.items()
    }
