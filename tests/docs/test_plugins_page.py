"""docs/plugins.md gets its reader to a tested provider: its files are written out, installed and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from regcred.api import spec
from regcred.credentials import plugins, provider

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text()
FILES = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGE, re.DOTALL))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The reader's folder, with the four files of the page in it."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the reader's folder, with regcred installed there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_files() -> None:
    """The page has the files that it announces."""
    assert sorted(FILES) == [
        "pyproject.toml",
        "regcred_login_desk/__init__.py",
        "regcred_login_desk/provider.py",
        "test_login_desk.py",
    ]


def test_tests_pass(package: Path) -> None:
    """The reader's own tests pass as they stand on the page, every one of them."""
    ran = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "8 passed" in ran.stdout


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (("not in allowed", "in ()"), "test_host"),
        (('f"https://{host}")\n        what', '"*")\n        what'), "test_login"),
        (("{ask.namespace}/{account}: have", "{answer.body}: have"), "test_stranger"),
        (('not re.fullmatch("[a-z0-9]([a-z0-9.-]*[a-z0-9])?", account)', "False"), "test_config"),
    ],
)
def test_tests_bite(change: tuple[str, str], failing: str, package: Path) -> None:
    """The reader's tests notice when the provider loses one of the properties that the page insists on."""
    path = package / "regcred_login_desk/provider.py"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    ran = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ran.returncode == 1
    assert f"test_login_desk.py::{failing}" in ran.stdout


def test_entry_point(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once installed, regcred finds the provider under the name that the page's resource uses."""
    points = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]["regcred.providers"]
    metadata = package / "regcred_login_desk-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: regcred-login-desk\nVersion: 0.1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (metadata / "entry_points.txt").write_text(f"[regcred.providers]\n{lines}")
    monkeypatch.syspath_prepend(package)
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    [entry] = spec.RegistryCredentialSpec.model_validate(yaml.safe_load(block)["spec"]).registries
    found = plugins.Providers().get(str(entry.provider_name))
    assert isinstance(found, provider.Provider)
    assert found.name == entry.provider_name
    ask: Any = type("Ask", (), {"server": "x.io", "servers": ("x.io",), "config": entry.provider_config})
    with pytest.raises(provider.InvalidSpec, match="LOGIN_DESK_HOSTS"):
        found.key(ask)


def test_links() -> None:
    """Every file that the page links to is there."""
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    for target in re.findall(r"\]\(((?!http|#)[^)]+)\)", prose):
        assert (ROOT / "docs" / target).exists()
