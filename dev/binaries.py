"""Which programs the local control plane is made of, and where they come from.

In this order: a folder named by KUBEBUILDER_ASSETS (the convention of envtest), the project's cache, and
else a build from Debian's packages. Run `python -m dev.binaries` to have everything in place beforehand.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from dev.debian import SERVER_PACKAGES, PackageTree, UnsupportedSystemError, fetch
from dev.kubernetes_build import build

ASSETS = "KUBEBUILDER_ASSETS"


@dataclass(frozen=True)
class Binaries:
    """The programs of a control plane. `controller_manager` is None where the given folder has none."""

    etcd: Path
    apiserver: Path
    controller_manager: Path | None
    kubectl: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


async def control_plane_binaries() -> Binaries:
    """Find or make etcd, kube-apiserver, kube-controller-manager and kubectl.

    Raises:
        UnsupportedSystemError: they can be had in none of the ways, or KUBEBUILDER_ASSETS is incomplete.
    """
    assets = os.environ.get(ASSETS)
    if assets:
        return _from_assets(Path(assets))
    tree = await fetch(*SERVER_PACKAGES)
    built = await build()
    return Binaries(
        etcd=tree.program("etcd"),
        apiserver=built / "kube-apiserver",
        controller_manager=built / "kube-controller-manager",
        kubectl=kubectl_binary(),
        environment=tree.environment(),
    )


def kubectl_binary() -> Path:
    """The kubectl of the virtual environment (a Python package ships it), or else the one in PATH.

    Raises:
        UnsupportedSystemError: there is none.
    """
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    if found is None:
        raise UnsupportedSystemError("no kubectl: install the development requirements or put one in PATH")
    return Path(found)


async def registry_tools() -> PackageTree:
    """The packages with `docker-registry` and `skopeo`."""
    return await fetch(*SERVER_PACKAGES)


async def promtool() -> Path:
    """The program that checks Prometheus rules and metrics, from Debian's `prometheus`."""
    return (await fetch("prometheus")).program("promtool")


def _from_assets(folder: Path) -> Binaries:
    missing = [name for name in ("etcd", "kube-apiserver") if not (folder / name).exists()]
    if missing:
        raise UnsupportedSystemError(f"{ASSETS} names {folder}, which lacks {' and '.join(missing)}")
    manager = folder / "kube-controller-manager"
    kubectl = folder / "kubectl"
    return Binaries(
        etcd=folder / "etcd",
        apiserver=folder / "kube-apiserver",
        controller_manager=manager if manager.exists() else None,
        kubectl=kubectl if kubectl.exists() else kubectl_binary(),
    )


async def _main() -> int:
    try:
        binaries = await control_plane_binaries()
    except (UnsupportedSystemError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    for name in ("etcd", "apiserver", "controller_manager", "kubectl"):
        print(f"{name}: {getattr(binaries, name) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
