"""Makes everything that a release consists of into dist/: `python -m dev.release`.

It is made from the commit that is checked out and from nothing else, and a second time it comes out the same, byte for
byte: times are the commit's, names are in order, and owners are nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import io
import os
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import regcred
from dev.binaries import kubectl_binary
from dev.linters import uv
from dev.processes import run

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
#: What the Dockerfile copies.
_CONTEXT = (
    *("Dockerfile", ".dockerignore", "requirements-build.txt", "requirements.txt", "pyproject.toml"),
    *("README.md", "LICENSE", "operator"),
)


async def release(into: Path, commit: str = "HEAD") -> list[Path]:
    """Make the release of a commit.

    Args:
        into: an empty folder, or one that is not there yet.
        commit: as git understands it.

    Returns:
        Every file, the checksums last.

    Raises:
        dev.processes.CommandError: a step failed; git says that there is no such commit.
    """
    into.mkdir(parents=True, exist_ok=True)
    epoch = (await run("git", "-C", ROOT, "show", "-s", "--format=%ct", commit)).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        archive = Path(folder) / "source.tar"
        await run("git", "-C", ROOT, "archive", f"--output={archive}", commit)
        with tarfile.open(archive) as packed:
            packed.extractall(source, filter="data")
        version = _version(source)
        name = f"regcred-{version}"
        await _python(source, into, epoch)
        _pack(into / f"{name}-image.tar.gz", source, [source / path for path in _CONTEXT], name, int(epoch))
        chart = source / "manifests" / "helm" / "regcred"
        _pack(into / f"{name}.tgz", chart, [chart], "regcred", int(epoch))
        (into / f"{name}.yaml").write_text(await _rendered(source / "manifests"))
        (into / f"{name}-crds.yaml").write_text(await _rendered(source / "crds"))
        await _bill(source, into / f"{name}.cdx.json", epoch)
    made = sorted(path for path in into.iterdir() if path.name != "SHA256SUMS")
    sums = into / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made))
    return [*made, sums]


def _version(source: Path) -> str:
    """Return the version, from the one place where it stands."""
    scope: dict[str, str] = {}
    text = (source / "operator" / "regcred" / "__init__.py").read_text()
    exec(compile(text, "__init__.py", "exec"), scope)  # noqa: S102 - our own file, of one line
    return scope["__version__"]


async def _python(source: Path, into: Path, epoch: str) -> None:
    """Build wheel and sdist, with the locked build requirements."""
    env = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", **os.environ, "SOURCE_DATE_EPOCH": epoch}
    constraints = f"--build-constraints={source / 'requirements-build.txt'}"
    await run(
        *(uv(), "build", "--quiet", "--require-hashes", constraints, f"--python={sys.executable}"),
        *("--wheel", "--sdist", f"--out-dir={into}", source),
        env=env,
    )
    for extra in (".gitignore",):
        (into / extra).unlink(missing_ok=True)


async def _rendered(folder: Path) -> str:
    return (await run(kubectl_binary(), "kustomize", folder)).stdout


async def _bill(source: Path, target: Path, epoch: str) -> None:
    """Write the software bill of materials of what the image installs."""
    program = Path(sysconfig.get_path("scripts")) / "cyclonedx-py"
    await run(
        *(program, "requirements", "--output-reproducible", "--of=JSON", f"--output-file={target}"),
        *(f"--pyproject={source / 'pyproject.toml'}", source / "requirements.txt"),
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
    )


def _pack(target: Path, base: Path, roots: Iterable[Path], prefix: str, epoch: int) -> None:
    """Write a compressed archive of files below `base`, in which nothing depends on when and where it was made."""
    files = sorted(
        path
        for root in roots
        for path in ([root] if root.is_file() else root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in files:
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{prefix}/{path.relative_to(base)}")
            entry.size, entry.mtime, entry.mode = len(content), epoch, 0o644
            archive.addfile(entry, io.BytesIO(content))
    with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as compressed:
        compressed.write(packed.getvalue())


async def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.release", description="Make a release into dist/.")
    parser.add_argument("--commit", default="HEAD", help="which commit; what is not committed is not in it")
    options = parser.parse_args(arguments)
    shutil.rmtree(DIST, ignore_errors=True)
    made = await release(DIST, options.commit)
    print(f"regcred {regcred.__version__}:")
    for path in made:
        print(f"  dist/{path.name}  {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
