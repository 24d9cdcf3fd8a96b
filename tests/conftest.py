"""What tests of every kind share: one control plane and two registries per session, all real."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import hypothesis
import pytest

from dev.controlplane import GIVEN, ControlPlane, start_control_plane
from dev.registry import Registry, start_registry
from dev.token_server import PULL, User

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dev.cluster import Cluster

# A shared machine may stop for a moment: what a test examines is its result, never its speed.  The same commit has the
# same verdict each time; REGCRED_EXAMPLES=1000 looks for new examples, and for more of them where it takes most.
hypothesis.settings.register_profile(
    "regcred",
    deadline=None,
    derandomize="REGCRED_EXAMPLES" not in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("regcred")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the control plane, so that the rest can be run in a moment."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


#: What it writes is judged by what it sent, too.
OPERATOR = "system:serviceaccount:regcred-system:regcred"
REGISTRY_USERS = {
    "alice": User("s3cret", {"private/*": PULL}),
    "bob": User("hunter2", {"public/*": PULL}),
}


@pytest.fixture(scope="session")
async def control_plane() -> AsyncIterator[Cluster]:
    """The session's cluster: started by us, or the one that KUBECONFIG_UNDER_TEST names."""
    async with start_control_plane(audited=OPERATOR) as cluster:
        yield cluster


@pytest.fixture
def owned_control_plane(control_plane: Cluster) -> ControlPlane:
    """The session's cluster where its processes are ours to stop; skips where they are not."""
    if not isinstance(control_plane, ControlPlane):
        pytest.skip(f"the cluster of {GIVEN} is not ours to stop")
    return control_plane


@pytest.fixture
def controllers(control_plane: Cluster) -> None:
    """Skips where the cluster has no controller manager (envtest's folder brings none)."""
    if not control_plane.controllers:
        pytest.skip("this control plane has no kube-controller-manager")


@pytest.fixture(scope="session")
def kubectl(control_plane: Cluster) -> Callable[..., Awaitable[str]]:
    """Run kubectl as the administrator; awaiting it gives what it printed."""
    return control_plane.kubectl


@pytest.fixture
async def namespace(control_plane: Cluster) -> AsyncIterator[str]:
    """A namespace of the test's own, deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await control_plane.kubectl("create", "namespace", name)
    yield name
    await control_plane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
async def registry() -> AsyncIterator[Registry]:
    """A registry that checks passwords itself (htpasswd), with the image private/app:1."""
    async with start_registry(REGISTRY_USERS) as running:
        await running.push("private/app", "1")
        yield running


@pytest.fixture(scope="session")
async def token_registry() -> AsyncIterator[Registry]:
    """A registry behind a token server, over TLS, with the image private/app:1 that only alice may pull."""
    async with start_registry(REGISTRY_USERS, auth="token", tls=True) as running:
        await running.push("private/app", "1")
        yield running
