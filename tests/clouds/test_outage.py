"""All clouds are down: what stands stays, a restart and new namespaces are served from the last good logins."""

from __future__ import annotations

import time

from dev.waiting import eventually
from tests.clouds.conftest import Outage
from tests.clouds.hub import Hub, config_in
from tests.clouds.local_clouds import OUTAGE_CANARY


async def test_new_namespaces_get_the_last_good(outage: Outage, hub: Hub) -> None:
    """The operator starts during the outage, and a namespace that is born then holds the same bytes as the others."""

    async def served() -> bool:
        found = await hub.pull_secret_of_all()
        return all(
            outage.born[mode.name] in found
            and config_in(found[outage.born[mode.name]]) == outage.before[mode.name].data
            for mode in outage.modes
        )

    await eventually(served, "namespaces born in the outage to be served", seconds=15)
    for namespace in outage.born.values():

        async def attached(namespace: str = namespace) -> bool:
            return await hub.pull_secrets(namespace) == ["regcred"]

        await eventually(attached, "the account to list the Secret", seconds=15)


async def test_what_never_had_a_login_gets_no_empty_secret(outage: Outage, hub: Hub) -> None:
    """A resource that is declared in the outage says what is wrong, in words of ours, and nothing is written for it."""
    told = await hub.ready(outage.fresh.name, status="False", reason="RegistriesFailed")
    row = told["status"]["registries"][0]
    assert row["reason"] == "ProviderFailed"
    assert OUTAGE_CANARY not in str(told)
    assert await hub.secret(outage.fresh.namespace) is None
    assert await hub.pull_secrets(outage.fresh.namespace) == []


async def test_living_logins_keep_a_resource_ready(outage: Outage, hub: Hub) -> None:
    """As long as the last good login lives a resource stays Ready: pods start."""
    ended = {mode.name: mode.issued(hub.clouds)[-1].ends for mode in outage.modes}
    resources = await hub.resources()
    if min(ended.values()) - time.time() < 2:
        return  # a slow machine came too late to see it; what follows the end is the next module's
    for mode in outage.modes:
        conditions = {row["type"]: row["status"] for row in resources[mode.name]["status"]["conditions"]}
        assert conditions["Ready"] == "True", mode.name
