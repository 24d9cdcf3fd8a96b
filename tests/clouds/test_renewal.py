"""Renewal: each mode's login is renewed before half of its life, by one fetch, in the same Secret."""

from __future__ import annotations

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
    waits = []
    for mode in second.modes:
        before, after = mode.issued(clouds)[:2]
        assert before.at + schedule.FLOOR - 1 <= after.at < before.ends, mode.name
        waits.append((after.at - before.at) / (before.ends - before.at))
    figures["share of the life after which logins were renewed"] = [round(min(waits), 2), round(max(waits), 2)]


async def test_one_fetch_for_each_renewal(second: Stage, clouds: Clouds, figures: dict[str, Any]) -> None:
    """For issue and renewal each identity was given exactly two logins, the thousand namespaces' too."""
    counted = {mode.name: len(mode.issued(clouds)) for mode in second.modes}
    counted |= {f"many, {cloud}": len(clouds.logins(*known)) for cloud, known in many.KNOWN_AS.items()}
    figures["logins handed out for issue and renewal"] = counted
    assert set(counted.values()) == {2}, counted


async def test_restart_asks_nobody_and_writes_nothing(
    second: Stage, hub: Hub, clouds: Clouds, figures: dict[str, Any]
) -> None:
    """After a restart no cloud is asked, and no Secret is written."""
    before = clouds.calls()
    await hub.restart()
    figures["provider calls of a restart with 30 logins, 1,000 namespaces"] = sum(
        (clouds.calls() - before).values()
    )
    assert clouds.calls() == before
    found = await hub.pull_secret_of_all()
    assert {name: found[name]["metadata"]["resourceVersion"] for name in second.pull_secrets} == {
        name: body["metadata"]["resourceVersion"] for name, body in second.pull_secrets.items()
    }
