"""What the documentation tells people to write works as it is written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.binaries import kubectl_binary
from dev.cluster import Cluster
from dev.operator_process import OperatorProcess, install
from dev.processes import tail
from dev.waiting import eventually
from regcred.api import names, resource
from tests.docs.docs_support import DOCS, PAGES, ROOT, Block, blocks

YAML = [block for page in PAGES for block in blocks(page, "yaml")]


def documents(block: Block) -> list[dict[str, Any]]:
    """The objects of a block; a placeholder of an ellipsis is text like any other."""
    return [document for document in yaml.safe_load_all(block.body) if document]


def of_kind(*kinds: str) -> list[Block]:
    """The blocks with an object of these kinds; Flux has a kind of its own that is named as kustomize's is."""
    return [
        block
        for block in YAML
        if any(
            document.get("kind") in kinds and "toolkit.fluxcd.io" not in document.get("apiVersion", "")
            for document in documents(block)
        )
    ]


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    """Every block of YAML can be read, and holds something."""
    assert documents(block)


@pytest.mark.parametrize("block", of_kind(names.CLUSTER_KIND, names.NAMESPACED_KIND), ids=str)
def test_resources_are_valid(block: Block) -> None:
    """Every resource that is shown is one that the operator accepts."""
    for document in documents(block):
        if document.get("apiVersion") == names.API_VERSION:
            assert resource.parse(document).problems == ()


@pytest.mark.parametrize("block", of_kind("Kustomization"), ids=str)
def test_kustomizations_render(block: Block, tmp_path: Path) -> None:
    """Every kustomization that is shown renders beside a checkout, and its patches find what they change."""
    for folder in ("crds", "manifests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    own = tmp_path / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(block.body)
    done = subprocess.run([kubectl_binary(), "kustomize", own], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    base = subprocess.run(
        [kubectl_binary(), "kustomize", ROOT / "manifests"], capture_output=True, text=True, check=True
    )
    assert done.stdout != base.stdout


@pytest.mark.parametrize(
    "block",
    [
        block
        for block in YAML
        if any(
            document.get("apiVersion", names.API_VERSION) != names.API_VERSION
            and document.get("kind") != "Kustomization"
            and "metadata" in document
            for document in documents(block)
        )
    ],
    ids=str,
)
async def test_other_objects_are_known_to_the_server(control_plane: Cluster, block: Block) -> None:
    """Every other object that is shown has the fields that the API server knows."""
    ours = [document for document in documents(block) if document["apiVersion"] != names.API_VERSION]
    await control_plane.kubectl(
        *("apply", "--dry-run=client", "--validate=true", "-f", "-"), input=yaml.safe_dump_all(ours)
    )


def quickstart() -> tuple[str, str, str]:
    """The quickstart's command that stores the login, its first resource, and the table it promises."""
    page = DOCS / "quickstart.md"
    (store,) = [block.body for block in blocks(page, "sh") if "create secret generic" in block.body]
    first = next(block.body for block in blocks(page, "yaml") if names.CLUSTER_KIND in block.body)
    (shown,) = [block.body for block in blocks(page, "console") if "kubectl get crcred" in block.body]
    return store, first, shown


async def test_the_quickstart_shows_what_comes(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    """Done as it is written, with the operator at work, the quickstart leads to the table that it shows."""
    store, first, shown = quickstart()
    await install(control_plane)
    environment = control_plane.environment | {
        "KUBECONFIG": str(control_plane.admin_kubeconfig),
        "PATH": f"{control_plane.kubectl_program.parent}:{control_plane.environment['PATH']}",
    }
    operator = OperatorProcess(control_plane, tmp_path / "regcred.log", identity="quickstart")
    await operator.start()
    try:
        subprocess.run(["/bin/sh", "-ec", store], env=environment, check=True, capture_output=True)
        await control_plane.kubectl("apply", "-f", "-", input=first)

        async def row() -> list[str]:
            command = shown.splitlines()[0].removeprefix("$ kubectl ")
            listed = (await control_plane.kubectl(*command.split())).splitlines()
            head, line = listed[0], next(line for line in listed if line.startswith("docker-hub "))
            assert head.split() == shown.splitlines()[1].split()
            columns = line.split()
            # Namespaces of other tests come and go: all of those that are there are served in the end.
            done = len(columns) > 4 and columns[1] == "True" and re.fullmatch(r"(\d+)/\1", columns[3])
            return columns if done else []

        columns = await eventually(row, f"the resource to be ready\n{tail(operator.log)}", seconds=90)
        expected = shown.splitlines()[2].split()
        assert columns[:3] == expected[:3]
        assert columns[4] == expected[4]

        async def listed() -> bool:
            # The account is made by a controller, which may come after the Secret.
            found = await control_plane.get("serviceaccounts", "-n", namespace)
            return any(account.get("imagePullSecrets") == [{"name": "regcred"}] for account in found["items"])

        await eventually(listed, "the default account to list the Secret")
        secret = await control_plane.get("secret", "regcred", "-n", namespace)
        assert json.loads(secret["metadata"]["annotations"][names.SERVERS]).keys() == {
            "https://index.docker.io/v1/"
        }
    finally:
        await control_plane.kubectl("delete", "clusterregistrycredential", "docker-hub", "--ignore-not-found")

        async def gone() -> bool:
            return not await control_plane.kubectl(
                "get", "secret", "regcred", "-n", namespace, "--ignore-not-found"
            )

        await eventually(gone, "the Secret to be cleaned up")
        await operator.stop()
        await control_plane.kubectl("delete", "secret", "dockerhub", "-n", "regcred-system", "--ignore-not-found")


async def test_the_script_that_removes_entries_works(control_plane: Cluster, namespace: str) -> None:
    """The script of the page on uninstalling takes out regcred's entry and leaves those of others, in order."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    (script,) = [block.body for block in blocks(DOCS / "how-to" / "uninstall.md", "sh") if "jq" in block.body]
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "web", "namespace": namespace},
        "imagePullSecrets": [{"name": "first"}, {"name": "regcred"}, {"name": "last"}],
    }
    await control_plane.apply(account)
    environment = control_plane.environment | {
        "KUBECONFIG": str(control_plane.admin_kubeconfig),
        "PATH": f"{control_plane.kubectl_program.parent}:{control_plane.environment['PATH']}",
    }
    only = script.replace("--all-namespaces", f"--namespace={namespace}")
    subprocess.run(["/bin/sh", "-ec", only], env=environment, check=True, capture_output=True)
    left = await control_plane.get("serviceaccount", "web", "-n", namespace)
    assert left["imagePullSecrets"] == [{"name": "first"}, {"name": "last"}]
