"""Renewal: each mode's login is renewed before half of its life, by one fetch, in the same Secret."""

from __future__ import annotations

from typing import Any

from regcred.api import times
from tests.clouds import identities, many
from tests.clouds.conftest import AGEING, Stage
from tests.clouds.hub import Hub, docker_config
from tests.clouds.local_clouds import Clouds


async def test_every_mode_is_renewed_in_place(first: Stage, second: Stage, clouds: Clouds) -> None:
    """The Secret of each mode keeps its UID and holds, byte for byte, the second login that its cloud gave."""
    for mode in second.modes:
        before, after = first.sights[mode.name], second.sights[mode.name]
        issued = mode.issued(clouds)
        assert after.data == docker_config(mode.servers, mode.username, issued[1].password), mode.name
        assert after.secret["metadata"]["uid"] == before.secret["metadata"]["uid"]
        assert after.row["reason"] == "Issued"
        assert after.row["identity"].startswith(mode.identity)


async def test_renewal_comes_before_half_of_the_life(first: Stage, second: Stage) -> None:
    """Between the two issues of a mode lies no more than half of the first login's life, but half a minute."""
    for mode in second.modes:
        before, after = (times.parse_time(stage.sights[mode.name].row["issuedAt"]) for stage in (first, second))
        assert 30 <= (after - before).total_seconds() + 1 <= 0.5 * AGEING + 5, mode.name


async def test_one_fetch_for_each_renewal(second: Stage, clouds: Clouds, figures: dict[str, Any]) -> None:
    """For issue and renewal each identity was given exactly two logins, the thousand namespaces' too."""
    counted = {mode.name: len(mode.issued(clouds)) for mode in second.modes}
    counted |= {f"many, {cloud}": len(clouds.logins(*known)) for cloud, known in many.KNOWN_AS.items()}
    figures["logins handed out for issue and renewal"] = counted
    assert set(counted.values()) == {2}, counted


async def test_restart_asks_nobody_and_writes_nothing(
    second: Stage, hub: Hub, clouds: Clouds, environments: identities.Environments, figures: dict[str, Any]
) -> None:
    """After a restart, even with other identities of the operator's own, no cloud is asked and no Secret is written."""
    before = clouds.calls()
    await hub.operator.stop()
    hub.operator.environment = dict(environments.second)
    await hub.operator.start()
    figures["provider calls of a restart with 30 logins, 1,000 namespaces"] = sum((clouds.calls() - before).values())
    assert clouds.calls() == before
    found = await hub.pull_secret_of_all()
    assert {name: found[name]["metadata"]["resourceVersion"] for name in second.pull_secrets} == {
        name: body["metadata"]["resourceVersion"] for name, body in second.pull_secrets.items()
    }
