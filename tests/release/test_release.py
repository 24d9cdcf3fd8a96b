"""A release is whole, is made from a commit alone, and comes out the same a second time."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import helm_python as helm
import pytest
import yaml

import regcred
from dev import release
from tests.manifests.manifests_support import ROOT, render

VERSION = regcred.__version__
NAME = f"regcred-{VERSION}"


@pytest.fixture(scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of the commit that is checked out."""
    if subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("this is no git checkout, and a release is made from a commit")
    folder = tmp_path_factory.mktemp("release") / "dist"
    await release.release(folder)
    return folder


async def test_it_comes_out_the_same(made: Path, tmp_path: Path) -> None:
    """Made a second time, every file has the same bytes."""
    await release.release(tmp_path / "again")
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (made / "SHA256SUMS").read_text()


def test_every_part_is_there(made: Path) -> None:
    """Wheel, sdist, image build context, manifests, definitions, chart and bill of materials, each with its checksum."""
    lines = [line.split("  ") for line in (made / "SHA256SUMS").read_text().splitlines()]
    assert sorted(name for _, name in lines) == [
        f"{NAME}-crds.yaml",
        f"{NAME}-image.tar.gz",
        f"{NAME}-py3-none-any.whl",
        f"{NAME}.cdx.json",
        f"{NAME}.tar.gz",
        f"{NAME}.tgz",
        f"{NAME}.yaml",
    ]
    for digest, name in lines:
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest


def test_the_manifests_are_those_of_the_base(made: Path) -> None:
    """The rendered manifests are what `kubectl apply -k manifests/` sends, and name the image of this version."""
    rendered = (made / f"{NAME}.yaml").read_text()
    assert f"image: regcred:{VERSION}\n" in rendered
    assert len(list(yaml.safe_load_all(rendered))) == len(render("manifests"))
    assert {item["kind"] for item in yaml.safe_load_all((made / f"{NAME}-crds.yaml").read_text())} == {
        "CustomResourceDefinition"
    }


def test_the_chart_can_be_installed(made: Path) -> None:
    """Helm loads the packed chart, of this version, with its schema."""
    with helm.Chart.load(made / f"{NAME}.tgz") as chart:
        assert (chart.name, chart.version) == ("regcred", VERSION)
        assert chart.schema
        assert chart.render({}, name="regcred", namespace="regcred-system")


def test_the_image_can_be_built(made: Path, tmp_path: Path) -> None:
    """The build context holds every file that the Dockerfile copies, and no test and no cache."""
    with tarfile.open(made / f"{NAME}-image.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
        assert not [name for name in packed.getnames() if "__pycache__" in name or "/tests/" in name]
        assert {member.uid for member in packed.getmembers()} == {0}
    folder = tmp_path / NAME
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    for path in " ".join(copied).split():
        assert (folder / path).exists(), path


def test_the_wheel_is_of_this_version(made: Path) -> None:
    """The wheel holds the package and its types, the command line and the built-in providers."""
    with zipfile.ZipFile(made / f"{NAME}-py3-none-any.whl") as wheel:
        names = wheel.namelist()
        assert "regcred/py.typed" in names
        points = wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert "regcred = regcred.cli:main" in points
    assert "kubectl-regcred" in points
    assert "[regcred.providers]" in points


def test_the_bill_of_materials_is_what_the_image_installs(made: Path) -> None:
    """The bill names every locked requirement with its version and its hashes, in CycloneDX."""
    bill = json.loads((made / f"{NAME}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert {part["name"]: part["version"] for part in bill["components"]}.items() >= locked.items()
    assert bill["metadata"]["component"]["name"] == "regcred"


def test_the_version_stands_in_one_place() -> None:
    """Wherever an image or a chart is named, it is of this version."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "manifests").rglob("*.yaml")]
    named = {
        (path.name, found)
        for path in pages
        for found in re.findall(r"regcred:(\d+\.\d+\.\d+)|newTag: (\d+\.\d+\.\d+)", path.read_text())
    }
    assert named
    assert {version for _, found in named for version in found if version} == {VERSION}
