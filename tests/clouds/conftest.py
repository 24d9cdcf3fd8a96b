"""The operator at work on the clouds: a control plane of its own, all local clouds, and waits that many tests share.

Tokens of real clouds live for hours; here they live for seconds.  Since no login is renewed sooner than half a minute
after its issue, everything that is to be renewed is declared at once, and the tests are put in an order in which the
one long wait is filled with others: `first` has issued everything, `second` has renewed it, `outage` comes after both.
Any of them can be run alone but the search for canaries, which looks at what all others have done.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.controlplane import GIVEN, ControlPlane, start_control_plane
from dev.operator_process import ROOT, OperatorProcess, install
from dev.waiting import eventually
from tests.clouds import cloud_names, identities, makers, modes
from tests.clouds.hub import Hub, Sight, config_in
from tests.clouds.local_clouds import Clouds, start_clouds
from tests.clouds.many import KNOWN_AS, MANY, has_logins, many_objects
from tests.clouds.mode import Mode
from tests.clouds.modes import MOVED
from tests.e2e.conftest import World

#: One wait serves many: what comes between `test_issue` and `test_renewal` runs while logins age.
_ORDER = (
    "test_issue",
    "test_verdicts",
    "test_renewal",
    "test_tenants",
    "test_hosts",
    "test_outage",
    "test_memory",
    "test_recovery",
    "test_canaries",
)
#: Seconds that logins live which are to be renewed while we wait: they are at 40 % to 50 % of it.
AGEING = 75
#: Seconds that logins live which an outage outlasts.
SHORT = 40
#: Seconds that all others live.
LONG = 12 * 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests of this folder, where they stand among the others."""
    places = [place for place, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ours = sorted((items[place] for place in places), key=lambda item: _ORDER.index(item.path.stem))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
async def control_plane() -> AsyncIterator[ControlPlane]:
    """A second control plane: one Lease serves one operator, and the other tests have theirs."""
    async with start_control_plane() as cluster:
        if not isinstance(cluster, ControlPlane):
            pytest.skip(f"the clouds must know the issuer's key, and the operator must be alone: not with {GIVEN}")
        # All tenants' sources are open to the operator: what a tenant cannot reach even so, it cannot reach at all.
        await install(cluster, ROOT / "manifests" / "overlays" / "tenant-sources")
        yield cluster


@pytest.fixture(scope="session")
async def clouds(control_plane: ControlPlane) -> AsyncIterator[Clouds]:
    """The local clouds, which believe this control plane's tokens."""
    assert control_plane.public_key is not None
    async with start_clouds(control_plane.public_key, control_plane.issuer) as running:
        yield running


@pytest.fixture(scope="session")
async def environments(
    clouds: Clouds, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> identities.Environments:
    """What the operator may be started with."""
    return await identities.environments(clouds, control_plane, tmp_path_factory.mktemp("identities"))


@pytest.fixture(scope="session")
async def operator(
    control_plane: ControlPlane,
    environments: identities.Environments,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[OperatorProcess]:
    """The operator at DEBUG, with the first of its identities."""
    log = tmp_path_factory.mktemp("operator") / "regcred.log"
    process = OperatorProcess(control_plane, log, "--log-level=DEBUG", environment=environments.first)
    await process.start()
    yield process
    await process.stop()


@pytest.fixture(scope="session")
async def hub(control_plane: ControlPlane, operator: OperatorProcess, clouds: Clouds) -> AsyncIterator[Hub]:
    """The cluster, for the whole session."""
    made = Hub(control_plane, operator, clouds)
    yield made
    await made.api.close()


@pytest.fixture
async def world(hub: Hub) -> AsyncIterator[World]:
    """A test's own corner of this cluster."""
    made = World(hub.cluster, hub.operator)
    yield made
    await made.clean()


@pytest.fixture
async def quiet(second: Stage, hub: Hub, clouds: Clouds) -> AsyncIterator[None]:
    """No login is about to be renewed: whatever a cloud is asked here was a tenant's doing.  No attacker is asked."""
    yield
    assert hub.operator.running
    assert [sum(attacker.calls.values()) for attacker in clouds.attackers] == [0, 0]


@pytest.fixture(scope="session")
def figures() -> Iterator[dict[str, Any]]:
    """What is measured on the way; kept in `build/clouds.json`, and printed."""
    found: dict[str, Any] = {}
    yield found
    if found:
        text = json.dumps(found, indent=1, sort_keys=True)
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "clouds.json").write_text(text + "\n")
        print(text)  # noqa: T201 - figures are for whoever runs the tests with -s


@dataclasses.dataclass
class Stage:
    """Everything declared and brought to one point.

    Attributes:
        modes: what was declared.
        sights: how each mode stood.
        pull_secrets: every Secret named regcred, by namespace.
    """

    modes: list[Mode]
    sights: dict[str, Sight]
    pull_secrets: dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
async def first(hub: Hub, clouds: Clouds, figures: dict[str, Any]) -> Stage:
    """Every mode is declared, and three clouds for a thousand namespaces; all are served for the first time."""
    declared = await modes.all_modes(clouds)
    names = [f"many-{number:04}" for number in range(MANY)]
    await hub.create_namespaces(names, {"many": "yes"})
    clouds.live(AGEING)
    began = time.monotonic()
    many = many_objects(clouds)
    await hub.cluster.apply(*many[:-1])
    await hub.apply_modes(declared)
    await hub.cluster.apply(many[-1])
    await hub.all_issued(declared, 1)
    await eventually(lambda: has_logins(clouds, 1), "the logins for many namespaces", seconds=60)
    # What is issued from now on outlives the session, the outage's apart.
    clouds.live(LONG)
    sights = await hub.all_ready(declared)

    async def served() -> dict[str, Any] | None:
        found = await hub.pull_secret_of_all()
        return found if set(names) <= set(found) else None

    pull_secrets = await eventually(served, f"{MANY} namespaces to be served", seconds=240, every=0.5)
    figures[f"seconds until {len(declared)} modes and {MANY} namespaces were served"] = round(
        time.monotonic() - began, 1
    )
    return Stage(declared, sights, pull_secrets)


@pytest.fixture(scope="session")
async def second(hub: Hub, clouds: Clouds, first: Stage) -> Stage:
    """Everything that ends was renewed once."""
    ending = [mode for mode in first.modes if mode.document is None]
    await hub.all_issued(ending, 2)
    await eventually(lambda: has_logins(clouds, 2), "the many namespaces' logins to be renewed", seconds=60)
    sights = await hub.all_hold_the_latest(ending)
    latest = {clouds.logins(*known)[-1].password for known in KNOWN_AS.values()}

    async def renewed() -> dict[str, Any] | None:
        found = await hub.pull_secret_of_all()
        many = {config_in(body) for name, body in found.items() if name.startswith("many-")}
        return (
            found if len(many) == 1 and all(password.encode() in next(iter(many)) for password in latest) else None
        )

    pull_secrets = await eventually(renewed, "the many namespaces to be renewed", seconds=240, every=0.5)
    return Stage(ending, sights, pull_secrets)


@dataclasses.dataclass
class Outage:
    """All clouds are down, since `began`.

    Attributes:
        began: monotonic time.
        ends: monotonic time at which it has lasted twice the life of a login.
        modes: whose logins end in it.
        before: how they stood when it began.
        born: namespaces that were made in it, one for each mode.
        calls: how often each endpoint had been asked when it began.
        fresh: a mode that was declared in it for the first time.
    """

    began: float
    ends: float
    modes: list[Mode]
    before: dict[str, Sight]
    born: dict[str, str]
    calls: collections.Counter[str]
    fresh: Mode

    async def born_are_served(self, hub: Hub) -> None:
        """Wait until every namespace that was made in the outage has its Secret, and its account lists it."""

        async def served() -> bool:
            return set(self.born.values()) <= set(await hub.pull_secret_of_all())

        async def attached() -> bool:
            return all([await hub.pull_secrets(name) == ["regcred"] for name in self.born.values()])

        await eventually(served, "namespaces born in the outage to be served", seconds=60)
        await eventually(attached, "their accounts to list the Secret", seconds=60)


@pytest.fixture(scope="session")
async def outage(hub: Hub, clouds: Clouds, environments: identities.Environments, second: Stage) -> Outage:
    """Every provider fails as soon as a few logins of short life are issued; the operator starts anew in it.

    Both times that it starts here its own identities come from elsewhere than before.
    """
    declared = [*await modes.outage_modes(clouds), *modes.ambient_modes(clouds)]
    await hub.restart(environments.second)
    await hub.all_issued([mode for mode in second.modes if mode.name in MOVED], 3)
    clouds.live(SHORT)
    await hub.apply_modes(declared)
    before = await hub.all_ready(declared)
    clouds.go_down()
    began = time.monotonic()
    calls = clouds.calls()
    await hub.restart(environments.third)
    fresh = makers.ecr(
        "out-fresh",
        cloud_names.sessions("out-fresh"),
        {"serviceAccountRef": {"name": "out-fresh"}, "roleArn": cloud_names.role("out-fresh")},
        accounts={"out-fresh": {}},
    )
    makers.federated_role(clouds, "out-fresh", cloud_names.subject("out-fresh"))
    await hub.apply_modes([fresh])
    born = {mode.name: f"born-of-{mode.name}" for mode in declared}
    await hub.create_namespaces(born.values(), {})
    return Outage(began, began + 2 * SHORT, declared, before, born, calls, fresh)
