"""An outage of twice a login's life: nothing is erased, nobody is hammered, and its end is noticed within one step."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dev.audit import AuditLog
from dev.waiting import eventually
from regcred.credentials import schedule
from tests.clouds import modes
from tests.clouds.conftest import Outage
from tests.clouds.hub import Hub, docker_config
from tests.clouds.local_clouds import OUTAGE_CANARY, Clouds
from tests.e2e.conftest import OPERATOR_USER

#: One step of the backoff while a login's end is near: the floor with its jitter.
STEP = 1.2 * schedule.FLOOR


@pytest.mark.slow
async def test_outage_of_twice_the_life(outage: Outage, hub: Hub, clouds: Clouds, figures: dict[str, Any]) -> None:
    """Secrets stay byte for byte, through the end of their logins; tries are few; and then all recover by themselves."""
    assert hub.cluster.audit_log is not None
    await outage.born_are_served(hub)
    log = AuditLog(hub.cluster.audit_log)
    namespaces = {mode.namespace for mode in outage.modes} | {*outage.born.values(), outage.fresh.namespace}
    standing = {
        name: body["metadata"]["resourceVersion"]
        for name, body in (await hub.pull_secret_of_all()).items()
        if name in namespaces
    }
    assert len(standing) == 2 * len(outage.modes)

    await asyncio.sleep(max(outage.ends - time.monotonic(), 0))
    late = [f"late-of-{mode.name}" for mode in outage.modes]
    await hub.create_namespaces(late, {})

    async def told() -> bool:
        found = await hub.resources()
        return all(_ready(found[mode.name]) == "False" for mode in outage.modes)

    await eventually(told, "the end of the logins to be told")
    found = await hub.pull_secret_of_all()
    assert {name: found[name]["metadata"]["resourceVersion"] for name in standing} == standing
    written = [
        request
        for request in log.writes(OPERATOR_USER)
        if request.namespace in {*namespaces, *late} and request.resource in {"secrets", "serviceaccounts"}
    ]
    assert written == []
    assert not {*late, outage.fresh.namespace} & set(found)
    resources = await hub.resources()
    assert not any(OUTAGE_CANARY in str(body) for body in resources.values())

    lasted = time.monotonic() - outage.began
    calls = clouds.calls() - outage.calls
    fetches = len(outage.modes) + 1
    figures["outage"] = {
        "seconds": round(lasted),
        "life of a login in seconds": modes_life(outage),
        "resources": fetches,
        "calls of each endpoint": dict(calls),
        "calls for each resource in an hour": round(sum(calls.values()) / fetches / lasted * 3600),
    }
    # Each begins again no sooner than after the floor; the SDKs may repeat one request, and Pod Identity and Entra come
    # before the call that is meant.
    most = fetches * (lasted / schedule.FLOOR + 1) * 2
    assert sum(calls.values()) <= most, calls

    clouds.live(3600)
    clouds.come_back()
    came = time.monotonic()
    third = {mode.name: mode for mode in modes.third_ambient_modes(clouds)}
    now = [third.get(mode.name, mode) for mode in outage.modes]

    async def recovered() -> bool:
        seen = await hub.sights([*now, outage.fresh])
        return len(seen) == fetches and all(
            seen[mode.name].ready.get("status") == "True"
            and mode.issued(clouds)
            and seen[mode.name].data
            == docker_config(mode.servers, mode.username, mode.issued(clouds)[-1].password)
            for mode in (*now, outage.fresh)
        )

    # The next try of each begins within a step; what lies between it and the login in the Secret is not the schedule's.
    await eventually(recovered, "every resource to have recovered", seconds=STEP + 60)
    figures["outage"]["seconds until all had recovered"] = round(time.monotonic() - came, 1)
    seen = await hub.sights(now)
    for mode in now:
        assert seen[mode.name].row["identity"].startswith(mode.identity), mode.name
        assert seen[mode.name].secret["metadata"]["uid"] == outage.before[mode.name].secret["metadata"]["uid"]

    async def everywhere() -> bool:
        found = await hub.pull_secret_of_all()
        return all(
            name in found and found[name]["data"] == found[mode.namespace]["data"]
            for mode in now
            for name in (outage.born[mode.name], f"late-of-{mode.name}")
        )

    await eventually(everywhere, "the namespaces of the outage to hold the new logins")


def _ready(resource: dict[str, Any]) -> str:
    conditions = resource["status"]["conditions"]
    return next(str(row["status"]) for row in conditions if row["type"] == "Ready")


def modes_life(outage: Outage) -> int:
    """Return the life of a login in the outage, in seconds."""
    return round((outage.ends - outage.began) / 2)
