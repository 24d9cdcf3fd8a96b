"""What the documentation tells people to write works as it is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.binaries import kubectl_binary
from dev.cluster import Cluster
from regcred.api import names, resource
from tests.docs.docs_support import PAGES, ROOT, Block, blocks
from tests.manifests.manifests_support import text as rendered

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
    assert done.stdout != rendered("manifests")


async def test_other_objects_are_known_to_the_server(control_plane: Cluster) -> None:
    """Every other object that is shown has the fields that the API server knows."""
    shown = [
        document
        for block in YAML
        for document in documents(block)
        if document.get("apiVersion", names.API_VERSION) != names.API_VERSION
        and document.get("kind") != "Kustomization"
        and "metadata" in document
    ]
    assert shown
    await control_plane.kubectl(
        *("apply", "--dry-run=client", "--validate=true", "-f", "-"), input=yaml.safe_dump_all(shown)
    )
