"""The Dockerfile is well made, and its steps lead to a program that runs.

There is no container runtime here, so the steps are carried out in plain folders: what COPY copies is laid out, and RUN
is run by a shell, with the image's paths put below a temporary folder.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import regcred
from tests.manifests.manifests_support import ROOT, container, render

DOCKERFILE = ROOT / "Dockerfile"
#: Paths of the image that the steps name; each is put below the temporary folder.
IMAGE_PATHS = ("/opt/regcred", "/src")


@dataclass
class Stage:
    """One stage: where it starts from, and its instructions in order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        """The argument of the last instruction of a kind."""
        return [argument for kind, argument in self.steps if kind == instruction][-1]


def stages() -> list[Stage]:
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text())).splitlines()
    found: list[Stage] = []
    for line in filter(None, (line.strip() for line in lines)):
        kind, _, argument = line.partition(" ")
        if kind == "FROM":
            base, _, name = argument.partition(" AS ")
            found.append(Stage(base, name))
        else:
            found[-1].steps.append((kind, argument.strip()))
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the build; the last line that matches decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern, exception = line.removeprefix("!"), line.startswith("!")
        if not pattern or pattern.startswith("#"):
            continue
        parts = path.split("/")
        prefixes = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        names = parts if pattern.startswith("**/") else prefixes
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            verdict = not exception
    return verdict


def test_hadolint_finds_nothing() -> None:
    """The linter for Dockerfiles has no complaint."""
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_pinned_by_tag_and_name_no_registry() -> None:
    """Every stage starts from one tagged image, which is found in whatever registry the builder is set up for."""
    bases = {stage.base for stage in stages()}
    assert len(bases) == 1
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)


def test_it_runs_as_a_numeric_user_without_root() -> None:
    """The last stage's user is a number other than 0, so that a kubelet can enforce runAsNonRoot."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stages()[-1].last("USER"))


def test_the_last_stage_runs_no_command() -> None:
    """What is installed comes from the build stage; nothing is fetched or built in the image that ships."""
    assert [kind for kind, _ in stages()[-1].steps if kind == "RUN"] == []


def test_entrypoint_and_deployment_agree() -> None:
    """The image runs `regcred run` by itself, and the Deployment's arguments follow the entrypoint."""
    last = stages()[-1]
    assert json.loads(last.last("ENTRYPOINT")) == ["regcred"]
    assert json.loads(last.last("CMD")) == container(render("manifests"))["args"]


def test_every_installation_is_pinned_by_hash_or_local() -> None:
    """No step resolves a dependency: each either checks hashes or takes what was built before."""
    commands = [argument for stage in stages() for kind, argument in stage.steps if kind == "RUN"]
    installs = [
        part for command in commands for part in re.split(r"&&", command) if re.search(r"pip\b.*install", part)
    ]
    assert len(installs) == 3
    for install in installs:
        assert "--no-deps" in install
        assert "--require-hashes" in install or "--no-index" in install


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_requirements_are_hashed_and_name_no_address(name: str) -> None:
    """Every requirement has an exact version and a hash, and none says where it is fetched from."""
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert lines
    assert all(re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert "://" not in text


def test_nothing_but_what_is_copied_reaches_the_build() -> None:
    """The build context holds the sources and the locks: no history, no tests, no local files."""
    assert not ignored("operator/regcred/cli.py")
    assert ignored("operator/regcred/__pycache__/cli.cpython-311.pyc")
    for path in (".git/config", "tests/conftest.py", ".venv/bin/python", "dev/controlplane.py", "kubeconfig"):
        assert ignored(path)


def shim(folder: Path, python: Path) -> None:
    """Put a `pip` into the folder that passes installations on to uv where there is one: minutes become seconds."""
    folder.mkdir(parents=True)
    uv = shutil.which("uv", path=os.pathsep.join((str(ROOT / ".tool/bin"), os.environ["PATH"])))
    script = f'exec {python} -m pip "$@"'
    if uv is not None:
        script = f"""
target={python}
if [ "$1" = --python ]; then target="$2"; shift 2; fi
if [ "$1" != install ]; then exec {python} -m pip "$@"; fi
shift
for word; do shift; [ "$word" = --no-cache-dir ] || set -- "$@" "$word"; done
exec {uv} pip install --quiet --python "$target" "$@"
"""
    (folder / "pip").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "pip").chmod(0o755)


def copy(argument: str, target: Path) -> None:
    """Carry out COPY from the build context, as .dockerignore leaves it."""
    *sources, destination = argument.split()
    for source in sources:
        files = [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
        for path in (path for path in files if path.is_file()):
            relative = path.relative_to(ROOT).as_posix()
            if ignored(relative):
                continue
            inner = path.relative_to(ROOT / source).as_posix() if path != ROOT / source else path.name
            place = target / destination / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def test_the_steps_lead_to_a_program_that_runs(tmp_path: Path) -> None:
    """Carried out step by step, the build stage makes an installation that says its version and knows its providers."""
    build, last = stages()
    image = tmp_path / "image"
    subprocess.run([sys.executable, "-m", "venv", image / "usr"], check=True)
    shim(tmp_path / "bin", image / "usr/bin/python")
    # How this machine reaches its packages (proxies, CAs) is not the Dockerfile's business.
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    environment = inherited | {"PATH": f"{tmp_path / 'bin'}:{image / 'usr/bin'}:/usr/bin:/bin"}

    def placed(text: str) -> str:
        return re.sub(rf"(?<![\w/])({'|'.join(IMAGE_PATHS)})\b", rf"{image}\1", text)

    folder = image
    for kind, argument in build.steps:
        if kind == "WORKDIR":
            folder = Path(placed(argument))
            folder.mkdir(parents=True)
        elif kind == "COPY":
            copy(argument, folder)
        else:
            assert kind == "RUN"
            done = subprocess.run(
                ["/bin/sh", "-c", placed(argument)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    assert last.last("COPY").split() == ["--from=build", "/opt/regcred", "/opt/regcred"]
    program = image / "opt/regcred/bin/regcred"
    clean = {"PATH": "/usr/bin:/bin"}
    said = subprocess.run([program, "--version"], env=clean, capture_output=True, text=True, check=True, cwd="/")
    assert said.stdout == f"regcred, version {regcred.__version__}\n"
    ask = "from regcred.credentials import plugins; print(*plugins.Providers().names)"
    python = image / "opt/regcred/bin/python"
    known = subprocess.run([python, "-c", ask], env=clean, capture_output=True, text=True, check=True, cwd="/")
    assert {"login", "ecr", "gcr", "acr"} <= set(known.stdout.split())
