"""All clouds are down: what stands stays, a restart and new namespaces are served from the last good logins."""

from __future__ import annotations

import time

import pytest

from tests.clouds.conftest import Outage
from tests.clouds.hub import Hub, config_in, docker_config
from tests.clouds.local_clouds import OUTAGE_CANARY, Clouds


async def test_new_namespaces_get_the_last_good(outage: Outage, hub: Hub) -> None:
    """The operator starts during the outage, and a namespace that is born then holds the same bytes as the others."""
    await outage.born_are_served(hub)
    found = await hub.pull_secret_of_all()
    for mode in outage.modes:
        assert config_in(found[outage.born[mode.name]]) == config_in(found[mode.namespace]), mode.name
        assert config_in(found[mode.namespace]) == outage.before[mode.name].data, mode.name


async def test_operators_other_identities(outage: Outage, clouds: Clouds) -> None:
    """Pod Identity, a federation file and workload identity had brought what stands there, as IRSA and nodes had before."""
    for mode in outage.modes:
        sight = outage.before[mode.name]
        (issued,) = [login for login in mode.issued(clouds) if login.password.encode() in sight.data]
        assert sight.data == docker_config(mode.servers, mode.username, issued.password), mode.name
        assert sight.row["identity"].startswith(mode.identity), mode.name
        assert sight.row["reason"] == "Issued"


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
        pytest.skip("this machine came too late to see it")
    for mode in outage.modes:
        conditions = {row["type"]: row["status"] for row in resources[mode.name]["status"]["conditions"]}
        assert conditions["Ready"] == "True", mode.name
