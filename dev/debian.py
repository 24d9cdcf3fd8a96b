"""Debian packages, used without installing them.

Installing etcd or a registry on somebody's machine would start services, change its package state and need
root. Here packages are downloaded through a private apt state made of the machine's own Debian sources,
unpacked below the project's cache, and run from there with an environment that finds them.

Run `python -m dev.debian` to fetch everything the local control plane needs.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dev.cache import cache_home, exclusive
from dev.processes import Completed, run

CODENAME = "bookworm"
SERVER_PACKAGES = ("etcd-server", "docker-registry", "skopeo")
BUILD_PACKAGES = (
    *("golang-1.19-go", "golang-1.19-src", "make", "patch", "rsync", "jq"),
    "golang-github-modern-go-reflect2-dev",
)

_COMPILER = "usr/lib/go-1.19/bin"
_SUITES = {CODENAME, f"{CODENAME}-updates", f"{CODENAME}-security"}
_ONE_LINE = re.compile(r"^deb(?:-src)?\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.+)$")
_NEW_PACKAGE = re.compile(r"^Inst (?P<name>\S+) \(", re.MULTILINE)


class UnsupportedSystemError(RuntimeError):
    """This machine cannot provide the binaries; the message says what to do instead."""


@dataclass(frozen=True)
class PackageTree:
    """Unpacked packages below `root`."""

    root: Path

    def environment(self) -> dict[str, str]:
        """The environment in which programs of the tree find each other and their libraries."""
        libraries = sorted(self.root.glob("usr/lib/*-linux-gnu*")) + sorted(self.root.glob("lib/*-linux-gnu*"))
        compilers = [self.root / _COMPILER, Path("/") / _COMPILER]
        programs = [self.root / folder for folder in ("usr/bin", "usr/sbin", "bin", "sbin")]
        env = dict(os.environ)
        env["PATH"] = ":".join([*map(str, (*compilers, *programs)), env.get("PATH", os.defpath)])
        if libraries:
            before = filter(None, [env.get("LD_LIBRARY_PATH")])
            env["LD_LIBRARY_PATH"] = ":".join([*map(str, libraries), *before])
        return env

    def program(self, name: str) -> Path:
        """The full path of a program, from the tree or else from the machine.

        Raises:
            FileNotFoundError: neither has it.
        """
        found = shutil.which(name, path=self.environment()["PATH"])
        if found is None:
            raise FileNotFoundError(f"{name} is neither below {self.root} nor in PATH")
        return Path(found)

    def folder(self, path: str) -> Path:
        """A folder that a package brings, from the tree or else from the machine.

        Raises:
            FileNotFoundError: neither has it.
        """
        for base in (self.root, Path("/")):
            if (base / path).is_dir():
                return base / path
        raise FileNotFoundError(f"/{path} is neither below {self.root} nor on the machine")


def require_debian() -> None:
    """Refuse a system whose packages we do not know, saying what works there.

    Raises:
        UnsupportedSystemError: this is not Debian 12.
    """
    try:
        release = Path("/etc/os-release").read_text()
    except FileNotFoundError:
        release = ""
    if f"VERSION_CODENAME={CODENAME}" in release and "ID=debian" in release.splitlines():
        return
    raise UnsupportedSystemError(
        "The local control plane is made from the packages of Debian 12, and this is another system. Either\n"
        "  set KUBEBUILDER_ASSETS to a folder with the programs etcd, kube-apiserver and, if possible,\n"
        "      kube-controller-manager (the convention of envtest), or\n"
        "  set KUBECONFIG_UNDER_TEST to the kubeconfig of a throw-away cluster: no control plane is started."
    )


async def fetch(*names: str, into: Path | None = None) -> PackageTree:
    """Make the packages usable: those the machine lacks are downloaded and unpacked, and printed.

    They are kept in the project's cache, or with `into` in a folder the caller will remove.

    Raises:
        UnsupportedSystemError: this is not Debian 12.
        dev.processes.CommandError: apt said no.
    """
    require_debian()
    home = cache_home() / "debian"
    tree = PackageTree(into or home / "root")
    done = home / "fetched"

    def fetched() -> bool:
        return into is None and all((done / name).exists() for name in names)

    if fetched():
        return tree
    async with exclusive("debian"):
        if fetched():  # by the one we waited for
            return tree
        for folder in (tree.root, done, home / "lists/partial", home / "sources.list.d"):
            folder.mkdir(parents=True, exist_ok=True)
        await _update(home)
        planned = await _apt(home, "install", "-s", "--no-install-recommends", *names)
        # A package the machine has in another version ("Inst name [version] …") is good as it is.
        missing = sorted(match["name"] for match in _NEW_PACKAGE.finditer(planned.stdout))
        print(f"Debian packages fetched for {', '.join(names)}: {', '.join(missing) or 'none'}", flush=True)
        if missing:
            with tempfile.TemporaryDirectory(dir=home) as downloads:
                await _apt(home, "download", *missing, cwd=Path(downloads))
                for archive in sorted(Path(downloads).glob("*.deb")):
                    await run("dpkg-deb", "-x", archive, tree.root)
        if into is None:
            for name in names:
                (done / name).touch()
    return tree


async def fetch_source(name: str, folder: Path, tools: PackageTree) -> None:
    """Download and check a source package, and unpack it into `folder` with Debian's patches applied.

    Unpacked by our own hands, with the `patch` of these tools: `dpkg-source` would need half of Perl.
    """
    home = cache_home() / "debian"
    downloads = folder.parent / f"{folder.name}.download"
    downloads.mkdir(parents=True)
    async with exclusive("debian"):
        await _apt(home, "source", "--download-only", name, cwd=downloads)
    folder.mkdir(parents=True)
    (upstream,) = downloads.glob("*.orig.tar.*")
    (packaging,) = downloads.glob("*.debian.tar.*")
    await run("tar", "-xf", upstream, "-C", folder, "--strip-components=1", "--no-same-owner")
    await run("tar", "-xf", packaging, "-C", folder, "--no-same-owner")
    patches = folder / "debian" / "patches"
    series = patches / "series"
    lines = series.read_text().splitlines() if series.exists() else []
    for line in (line.split("#")[0].strip() for line in lines):
        if line:
            await run("patch", "-p1", "-s", "-i", patches / line.split()[0], cwd=folder, env=tools.environment())
    shutil.rmtree(downloads)


def sources_for(texts: dict[str, str]) -> dict[str, str]:
    """From the machine's source files, by name, those entries that are Debian's own, binary and source."""
    chosen: dict[str, str] = {}
    for name, text in texts.items():
        kept = _deb822(text) if name.endswith(".sources") else _one_line(text)
        if kept:
            chosen[name] = kept
    return chosen


def _deb822(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    kept: list[str] = []
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            match[1].lower(): match[2]
            for match in re.finditer(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        suites = [suite for suite in fields.get("suites", "").split() if suite in _SUITES]
        enabled = fields.get("enabled", "yes").strip().lower() not in {"no", "false", "0"}
        if suites and enabled and "main" in fields.get("components", "").split():
            fields |= {"types": "deb deb-src", "suites": " ".join(suites), "components": "main"}
            kept.append("\n".join(f"{key}: {value}" for key, value in fields.items()))
    return "\n\n".join(kept) + "\n" if kept else ""


def _one_line(text: str) -> str:
    kept: dict[str, None] = {}
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#")[0].strip())
        if match and match["suite"] in _SUITES and "main" in match["rest"].split():
            entry = f"{match['options'] or ''}{match['uri']} {match['suite']} main"
            kept |= {f"deb {entry}": None, f"deb-src {entry}": None}
    return "\n".join(kept) + "\n" if kept else ""


async def _update(home: Path) -> None:
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    known = [path for path in files if path.suffix in {".list", ".sources"} and path.exists()]
    chosen = sources_for({path.name: path.read_text() for path in known})
    if not chosen:
        raise UnsupportedSystemError(f"no file below {etc} has an entry for Debian's {CODENAME} main")
    private = home / "sources.list.d"
    for stale in private.iterdir():
        stale.unlink()
    for name, text in chosen.items():
        (private / name).write_text(text)
    await _apt(home, "update")


async def _apt(home: Path, *args: str, cwd: Path | None = None) -> Completed:
    settings = {
        "Dir::State::lists": home / "lists",
        "Dir::Cache": home,
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": home / "sources.list.d",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "APT::Get::Assume-Yes": "true",
        "quiet": "2",
    }
    if os.geteuid() == 0:
        settings["APT::Sandbox::User"] = "root"  # apt's own user may not enter root's folders
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return await run("apt-get", *options, *args, cwd=cwd)


async def _main() -> int:
    try:
        tree = await fetch(*SERVER_PACKAGES)
    except (UnsupportedSystemError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    for name in ("etcd", "docker-registry", "skopeo"):
        print(f"{name}: {tree.program(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
