"""An attacker's sources, resources and registries reach nothing and stop nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dev import attacks
from dev.cluster import Cluster
from dev.evil import Evil, evil_registry, own_address
from dev.operator_process import ROOT, OperatorProcess
from tests.e2e.conftest import World


class Front:
    """An operator that is watched, a corner for it, and what the attacker has."""

    def __init__(self, corner: World, recording: attacks.Recording, evil: Evil, came: list[str]) -> None:
        self.corner, self.recording, self.evil, self.came = corner, recording, evil, came


@pytest.fixture(scope="module")
async def watched(
    installed: Cluster, shared_operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[OperatorProcess, attacks.Recording, Evil, list[str]]]:
    """An operator of these tests' own whose connections are written down."""
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback, where no tenant gets")
    await shared_operator.stop()
    folder = tmp_path_factory.mktemp("attacks")
    recording = attacks.Recording.into(folder)
    async with attacks.listener() as (port, came), evil_registry(address, port) as evil:
        operator = OperatorProcess(
            installed,
            folder / "regcred.log",
            identity="attacked",
            environment=recording.environment(evil.names, str(ROOT / "operator"), str(ROOT)),
        )
        await operator.start()
        yield operator, recording, evil, came
        await operator.stop()


@pytest.fixture
async def front(
    installed: Cluster, watched: tuple[OperatorProcess, attacks.Recording, Evil, list[str]]
) -> AsyncIterator[Front]:
    """A corner of the attacked operator."""
    operator, recording, evil, came = watched
    corner = World(installed, operator)
    yield Front(corner, recording, evil, came)
    await corner.clean()


async def test_recorder_sees_connections(front: Front) -> None:
    """What is written down holds the connections to the API server: the absence of others means something."""
    port = int(front.corner.cluster.url.rpartition(":")[2])
    assert ("127.0.0.1", port) in front.recording.connections()
    assert front.recording.forbidden(()) != []


async def test_hostile_sources(front: Front) -> None:
    """Giant, deep, wrong and treacherous sources are each refused with a reason, and nobody else notices."""
    outcome = await attacks.hostile_sources(front.corner, front.recording)
    assert outcome.wrong == (), "\n".join(outcome.wrong)


async def test_hostile_tenant(front: Front) -> None:
    """No spelling of a name, host or address gets a tenant another's login, or anywhere on the operator's machine."""
    outcome = await attacks.hostile_tenant(front.corner, front.recording, front.evil, front.came)
    assert outcome.wrong == (), "\n".join(outcome.wrong)


async def test_mistaken_platform(front: Front) -> None:
    """A cluster resource that selects everything, or names another's Secret, changes nothing of the system's."""
    outcome = await attacks.mistaken_platform(front.corner)
    assert outcome.wrong == (), "\n".join(outcome.wrong)
