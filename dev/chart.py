"""Gives the Helm chart what it shares with the kustomize base: `python -m dev.chart --write` or `--check`.

A chart can read no file outside of its folder, so it has copies.  Only what Helm users set is written a second time, in
the chart's templates, and a test holds that against the base.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

import regcred
from dev.binaries import kubectl_binary

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "manifests"
CHART = MANIFESTS / "helm" / "regcred"
#: Files of manifests/ below the chart's files/.
_SHARED = {
    "base": ("namespace.yaml", "rbac.yaml", "users.yaml", "service.yaml"),
    "components/tenant-secrets": ("rbac.yaml",),
    "components/tenant-identities": ("rbac.yaml",),
    "components/pdb": ("pdb.yaml",),
    "components/restart-stuck": ("rbac.yaml",),
    "components/admission": ("policies.yaml", "bindings.yaml"),
    "components/pod-injection": ("policy.yaml",),
    "components/prometheus": ("servicemonitor.yaml", "alerts.yaml"),
    "components/grafana": ("regcred.json",),
}


def build() -> dict[Path, str]:
    """Return every file that is made, with its text."""
    made: dict[Path, str] = {}
    for folder, names in _SHARED.items():
        for name in names:
            made[CHART / "files" / Path(folder).name / name] = (MANIFESTS / folder / name).read_text()
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        made[CHART / "files" / "crds" / path.name] = path.read_text()
    for document in yaml.safe_load_all(_kustomize(MANIFESTS / "overlays" / "cel")):
        if document["kind"] == "CustomResourceDefinition":
            plural, _, group = document["metadata"]["name"].partition(".")
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=115)
            made[CHART / "files" / "crds-cel" / f"{group}_{plural}.yaml"] = text
    chart = CHART / "Chart.yaml"
    version = regcred.__version__
    made[chart] = re.sub(r"^(version|appVersion): .*$", rf"\1: {version}", chart.read_text(), flags=re.MULTILINE)
    return made


def _kustomize(folder: Path) -> str:
    done = subprocess.run([kubectl_binary(), "kustomize", folder], capture_output=True, text=True, check=True)
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or check them; return 1 if `--check` found one that is out of date."""
    parser = argparse.ArgumentParser(prog="python -m dev.chart", description="Make what the chart shares.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="bring it up to date")
    what.add_argument("--check", action="store_true", help="fail if it is out of date")
    options = parser.parse_args(arguments)
    made = build()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    left = set((CHART / "files").rglob("*")) - {parent for path in made for parent in (path, *path.parents)}
    for path in (*stale, *sorted(left)):
        if options.write and path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
        elif options.write:
            path.unlink()
        else:
            print(f"{path.relative_to(ROOT)} is out of date; run `make docs`", file=sys.stderr)
    return 1 if options.check and (stale or left) else 0


if __name__ == "__main__":
    sys.exit(main())
