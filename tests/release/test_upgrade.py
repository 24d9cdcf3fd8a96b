"""An upgrade rewrites nothing: what an earlier version has published stays, byte for byte, and so it does on the way back."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.operator_process import OperatorProcess, install
from dev.processes import tail
from dev.waiting import eventually
from regcred.api import names
from tests.manifests.manifests_support import ROOT

#: Where there is no tag yet: the state in which every provider, the cache and the composed Secret were there first.
FIRST = "7baeb08"


def git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the latest tag before this commit, or of the first complete state where there is none."""
    tag = git("describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^").decode().strip() or FIRST
    packed = git("archive", tag, "operator", "manifests", "crds")
    if not packed:
        pytest.skip(f"the history does not reach back to {tag}: this is a shallow clone, or none")
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def written(secret: dict[str, Any]) -> tuple[str, str]:
    return secret["metadata"]["uid"], secret["metadata"]["resourceVersion"]


@pytest.mark.slow
async def test_an_upgrade_rewrites_nothing(
    control_plane: Cluster, namespace: str, earlier: Path, tmp_path: Path
) -> None:
    """Old manifests and old operator, then the new ones, then the old ones: no Secret and no account is written."""
    cluster = control_plane
    source = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "upgrade", "namespace": "regcred-system"},
        "stringData": {"username": "u", "password": "p"},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": namespace}}
    declared = {
        "apiVersion": names.API_VERSION,
        "kind": names.CLUSTER_KIND,
        "metadata": {"name": "upgrade"},
        "spec": {
            "registries": [
                {"server": "one.example.com", "login": {"secretRef": {"name": "upgrade"}}},
                {"server": "two.example.com", "login": {"secretRef": {"name": "upgrade"}}},
            ],
            "namespaces": {"names": [namespace]},
            "serviceAccounts": ["web"],
        },
    }

    async def state() -> list[tuple[str, str]]:
        found = [
            await cluster.get("secret", "regcred", "-n", namespace),
            await cluster.get("serviceaccount", "web", "-n", namespace),
        ]
        return [written(item) for item in found]

    async def works(operator: OperatorProcess) -> None:
        async def ready() -> bool:
            found = await cluster.get("clusterregistrycredential", "upgrade")
            listed = (await cluster.get("serviceaccount", "web", "-n", namespace)).get("imagePullSecrets")
            conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", ())}
            return conditions.get("Ready") == "True" and listed == [{"name": "regcred"}]

        await eventually(ready, f"the resource to be ready\n{tail(operator.log)}", seconds=90)

    def operator(log: str, code: Path) -> OperatorProcess:
        paths = {"PYTHONPATH": str(code)}
        return OperatorProcess(cluster, tmp_path / log, identity=log, environment=paths)

    old, new = operator("old.log", earlier / "operator"), operator("new.log", ROOT / "operator")
    back = operator("back.log", earlier / "operator")
    try:
        await install(cluster, earlier / "manifests")
        await cluster.apply(source, account, declared)
        await old.start()
        await works(old)

        async def settled() -> list[tuple[str, str]]:
            # Old API servers give each account a token a moment after it was made.
            found = await cluster.get("serviceaccount", "web", "-n", namespace)
            wanted = cluster.controllers and cluster.version < (1, 24)
            return await state() if found.get("secrets") or not wanted else []

        before = await eventually(settled, "the account to be complete")
        for following, manifests in ((new, ROOT / "manifests"), (back, earlier / "manifests")):
            await (old if following is new else new).stop()
            await install(cluster, manifests)
            await following.start()
            await works(following)
            assert await state() == before
            shown = await following.metrics()
            assert "regcred_secret_writes_total 0.0" in shown
            assert "regcred_secret_deletions_total 0.0" in shown
    finally:
        await cluster.kubectl("delete", "clusterregistrycredential", "upgrade", "--ignore-not-found")
        for each in (old, new, back):
            await each.stop()
        await install(cluster)
        await cluster.kubectl("delete", "secret", "upgrade", "-n", "regcred-system", "--ignore-not-found")
