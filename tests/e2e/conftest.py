"""The operator at work on the real control plane, with the permissions of its own manifests."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dev.audit import AuditLog
from dev.cluster import Cluster
from dev.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess, install
from dev.registry import Registry
from dev.world import Json, World

OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"


@pytest.fixture(scope="session")
async def installed(control_plane: Cluster) -> Cluster:
    """The session's cluster with regcred's own manifests applied, and the fence where the server has such a thing."""
    fenced = control_plane.version >= (1, 30)
    await install(control_plane, ROOT / "manifests" / ("overlays/admission" if fenced else ""))
    return control_plane


@pytest.fixture(scope="session")
async def shared_operator(
    installed: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The session's operator process."""
    process = OperatorProcess(installed, tmp_path_factory.mktemp("operator") / "regcred.log", "--log-level=DEBUG")
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
async def operator(shared_operator: OperatorProcess) -> OperatorProcess:
    """The session's operator, running: a test that killed it need not start it again."""
    if not shared_operator.running:
        await shared_operator.start()
    return shared_operator


@pytest.fixture
async def world(installed: Cluster, operator: OperatorProcess) -> AsyncIterator[World]:
    """A test's own corner of the cluster."""
    made = World(installed, operator)
    yield made
    await made.clean()


@pytest.fixture
def audit(installed: Cluster) -> AuditLog:
    """The API server's audit log from now on; skips where the cluster is not ours."""
    if installed.audit_log is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    return AuditLog(installed.audit_log)


@pytest.fixture
def entry(registry: Registry) -> Callable[..., Json]:
    """Make a registry entry for the session's private registry, whose login stands in a named Secret."""

    def make(source: str, **more: Any) -> Json:
        return {"server": registry.host, "login": {"secretRef": {"name": source}}, **more}

    return make


Entry = Callable[..., Json]
Applied = Callable[..., Awaitable[str]]


def write_bytes(path: Path, body: Json) -> Path:
    """Write the docker config of a Secret, byte for byte, to a file."""
    path.write_bytes(base64.b64decode(body["data"][".dockerconfigjson"]))
    return path
