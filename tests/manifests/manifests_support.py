"""What the tests of the manifests share: rendering with kubectl's own kustomize, and reading what comes out."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

from dev.binaries import kubectl_binary

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = tuple(sorted(path.name for path in (MANIFESTS / "overlays").iterdir()))
NAMESPACE = "regcred-system"

Object = dict[str, Any]


@functools.cache
def text(path: str) -> str:
    """What `kubectl apply -k` would send for a folder below the project's root."""
    done = subprocess.run(
        [kubectl_binary(), "kustomize", ROOT / path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def render(path: str) -> list[Object]:
    """The objects of a folder."""
    return list(yaml.safe_load_all(text(path)))


def one(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def container(objects: list[Object]) -> Object:
    """The operator's container."""
    (found,) = one(objects, "Deployment", "regcred")["spec"]["template"]["spec"]["containers"]
    return found
