"""Two replicas on the real control plane: however the leader fails, the other one takes over, and one writes at a time."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest

from dev.chaos import availability
from dev.cluster import Cluster
from dev.operator_process import OperatorProcess


@pytest.fixture(scope="module")
async def pair(
    installed: Cluster, shared_operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[availability.Pair]:
    """Two replicas, with a Lease of seconds; the session's operator makes room for them."""
    if installed.audit_log is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    await shared_operator.stop()
    folder = tmp_path_factory.mktemp("replicas")
    async with availability.pair(installed, folder, "--lease-duration=10", "--lease-deadline=7") as both:
        yield both


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (availability.terminated, 0),
        (availability.killed, -signal.SIGKILL),
        (availability.frozen, 1),
        (availability.partitioned, 1),
        (availability.swallowed, 1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_the_other_one_takes_over_and_the_first_writes_nothing_more(
    pair: availability.Pair, fail: object, code: int
) -> None:
    """A failed leader ends as it should, namespaces are served on, and no write follows the other's Lease."""
    seen = await fail(pair)  # type: ignore[operator]
    assert (seen.exit_code, seen.double) == (code, 0)
    assert seen.writes
