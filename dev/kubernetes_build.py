"""kube-apiserver and kube-controller-manager, built once from Debian's own source package.

Debian 12 packages neither, but ships the sources of both with all dependencies vendored, and a Go compiler
of the right age (a newer one cannot build them). The result is kept in the project's cache; the sources and
the compiler with its cache, 2 GB together, are removed.

Run `python -m dev.kubernetes_build`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dev.cache import cache_home, exclusive
from dev.debian import BUILD_PACKAGES, PackageTree, fetch, fetch_source
from dev.processes import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VERSION = "1.20.2"
PROGRAMS = ("kube-apiserver", "kube-controller-manager")

_RECIPE = 2  # part of the cache folder's name: raise it when the way of building changes
_PACKAGE = "k8s.io/kubernetes"
_REFLECT = "github.com/modern-go/reflect2"
_WORK = "kubernetes-build-"
_HEARTBEAT_SECONDS = 15.0
_BUILD_SECONDS = 3600.0


def built_folder() -> Path:
    """Where the finished programs are kept."""
    return cache_home() / f"kubernetes-{VERSION}-{_RECIPE}"


def is_built() -> bool:
    """Whether a finished build is in the cache."""
    return all((built_folder() / name).exists() for name in PROGRAMS)


async def build() -> Path:
    """Return the folder with the programs, building them first if need be (about five minutes on two cores).

    Raises:
        dev.debian.UnsupportedSystemError: this is not Debian 12.
        dev.processes.CommandError: a step failed; its message names the log.
    """
    if is_built():
        return built_folder()
    async with exclusive("kubernetes-build"):
        if is_built():
            return built_folder()
        begun = time.monotonic()
        for killed in cache_home().glob(f"{_WORK}*/"):
            shutil.rmtree(killed, ignore_errors=True)
        log = cache_home() / "kubernetes-build.log"
        log.unlink(missing_ok=True)
        print(f"building {' and '.join(PROGRAMS)} {VERSION} once; log: {log}", flush=True)
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=cache_home()))
        try:
            tree = await fetch(*BUILD_PACKAGES, into=work / "packages")
            finished = await _build_in(work, tree, log, begun)
            shutil.rmtree(built_folder(), ignore_errors=True)
            finished.rename(built_folder())
        finally:
            shutil.rmtree(work, ignore_errors=True)
        print(f"  done after {time.monotonic() - begun:.0f} s: {built_folder()}", flush=True)
    return built_folder()


async def _build_in(work: Path, tree: PackageTree, log: Path, begun: float) -> Path:
    gopath = work / "go"
    sources = gopath / "src" / _PACKAGE
    sources.parent.mkdir(parents=True)
    env = tree.environment() | {
        "GOPATH": str(gopath),
        "GOCACHE": str(work / "gocache"),
        "GOROOT": str(tree.program("go").parent.parent),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "KUBE_GIT_VERSION": f"v{VERSION}",
        "KUBE_GIT_TREE_STATE": "archive",
        "KUBE_GIT_COMMIT": "debian",
    }
    async with _progress("sources", begun):
        await fetch_source("kubernetes", sources, tree)
        _replace_reflect(sources, tree)
    async with _progress("generated files", begun):
        await run("make", "generated_files", cwd=sources, env=env, log=log, seconds=_BUILD_SECONDS)
    out = work / "finished"
    out.mkdir()
    async with _progress("compiling", begun):
        await run(
            *("go", "build", "-trimpath", "-ldflags", _linker_flags(), "-o", f"{out}/"),
            *(f"{_PACKAGE}/cmd/{name}" for name in PROGRAMS),
            cwd=sources,
            env=env,
            log=log,
            seconds=_BUILD_SECONDS,
        )
    return out


def _replace_reflect(sources: Path, tree: PackageTree) -> None:
    """Vendor Debian's newer reflect2: the one of 2018 reads beyond Go's own map iterator since Go 1.18.

    With it the API server dies of a memory fault at the first custom resource that holds a map.
    """
    vendored = sources / "vendor" / _REFLECT
    shutil.rmtree(vendored)
    shutil.copytree(tree.folder(f"usr/share/gocode/src/{_REFLECT}"), vendored)


def _linker_flags() -> str:
    major, minor, _ = VERSION.split(".")
    stamps = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
    # Two packages hold a copy each: what `--version` prints, and what the server says at /version.
    packages = [f"{_PACKAGE}/vendor/k8s.io/{name}/version" for name in ("component-base", "client-go/pkg")]
    variables = [f"-X {package}.{key}={value}" for package in packages for key, value in stamps.items()]
    return " ".join(["-s", "-w", *variables])


@asynccontextmanager
async def _progress(step: str, begun: float) -> AsyncIterator[None]:
    async def say() -> None:
        while True:
            print(f"  {time.monotonic() - begun:4.0f} s  {step}", flush=True)
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()


async def _main() -> int:
    os.umask(0o022)
    try:
        print(await build())
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
