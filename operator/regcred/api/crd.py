"""The custom resource definitions, made from the models: `python -m regcred.api.crd --write crds`.

Plain files for every supported API server, and beside them, as a kustomize component, the rules in CEL for
servers from 1.25: older ones do not know the key, and kubectl then refuses the whole file.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from regcred.api import names, spec, status, structural

_HEADER = "# Made from operator/regcred/api by `make crds`; change the models there.\n"
#: Strings with spaces that are longer than this are folded over lines.
_FOLDED = 90


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What a CRD says of a kind beside its schema."""

    name: str
    plural: str
    short_name: str
    scope: str
    description: str

    @property
    def file(self) -> str:
        """Return the name of its file, as controller-gen would name it."""
        return f"{names.GROUP}_{self.plural}.yaml"


KINDS = (
    Kind(
        names.CLUSTER_KIND,
        names.CLUSTER_PLURAL,
        "crcred",
        "Cluster",
        "ClusterRegistryCredential keeps, in every chosen namespace, one pull Secret with a working login "
        "for each of its registries, and lists it in the chosen service accounts. It is the platform's: the "
        "Secrets and service accounts it refers to are those of the operator's own namespace.",
    ),
    Kind(
        names.NAMESPACED_KIND,
        names.NAMESPACED_PLURAL,
        "rcred",
        "Namespaced",
        "RegistryCredential keeps, in its own namespace, one pull Secret with a working login for each of its "
        "registries, and lists it in the chosen service accounts. It is a tenant's: the Secrets and service "
        "accounts it refers to are those of its own namespace.",
    ),
)


def _column(name: str, path: str, description: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "string", "jsonPath": path, "description": description, **more}


def _columns(kind: Kind) -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    columns = [
        _column("Ready", f"{ready}.status", "Whether every login stands wherever it should."),
        _column("Registries", ".status.summary.registries", "Registries with a working login, of all."),
        _column(
            "Namespaces", ".status.summary.namespaces", "Namespaces that are synced, of all that are selected."
        ),
        # A string: kubectl shows a date in the future as <invalid>.
        _column("Expires", ".status.summary.expiresAt", "When the first of the logins ends, in UTC."),
        _column("Refreshed", ".status.summary.refreshedAt", "How long ago a login was last issued.", type="date"),
        _column("Age", ".metadata.creationTimestamp", "How long ago this was created.", type="date"),
        _column("Message", f"{ready}.message", "What is wrong and what to do.", priority=1),
    ]
    if kind.scope == "Namespaced":
        columns = [column for column in columns if column["name"] != "Namespaces"]
    return columns


def schema(kind: Kind) -> structural.Schema:
    """Return the structural schema of a whole object of a kind, rules included."""
    return {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {
                "description": f"Version of the API: {names.API_VERSION}.",
                "type": "string",
                "maxLength": 253,
            },
            "kind": {"description": f"Kind of the object: {kind.name}.", "type": "string", "maxLength": 63},
            "metadata": {"type": "object"},
            "spec": structural.schema_of(spec.SPECS[kind.name]),
            # A resource without a status counts as ready by kstatus, and so for Flux: until the operator has seen it,
            # it is of another generation.  Source: Flux's own definitions have the same default.
            "status": {**structural.schema_of(status.STATUSES[kind.name]), "default": {"observedGeneration": -1}},
        },
    }


def definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind, without the rules in CEL."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["regcred"],
            },
            "scope": kind.scope,
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(kind),
                    "schema": {"openAPIV3Schema": structural.without_rules(schema(kind))},
                }
            ],
        },
    }


def rule_patch(kind: Kind) -> list[dict[str, Any]]:
    """Return the JSON patch that adds the rules in CEL to the definition of a kind."""
    root = "/spec/versions/0/schema/openAPIV3Schema"
    return [
        {"op": "add", "path": f"{root}{pointer}/{structural.RULES}", "value": rules}
        for pointer, rules in structural.rules(schema(kind))
    ]


def files() -> Mapping[str, str]:
    """Return every generated file by its path below `crds/`."""
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "patches": [
            {
                "path": kind.file,
                "target": {
                    "group": "apiextensions.k8s.io",
                    "version": "v1",
                    "kind": "CustomResourceDefinition",
                    "name": f"{kind.plural}.{names.GROUP}",
                },
            }
            for kind in KINDS
        ],
    }
    base = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [kind.file for kind in KINDS],
    }
    return {
        # Without extension, so that `kubectl apply -f crds/` takes the definitions only.
        "Kustomization": _text(base),
        **{kind.file: _text(definition(kind)) for kind in KINDS},
        "cel/kustomization.yaml": _text(component),
        **{f"cel/{kind.file}": _text(rule_patch(kind)) for kind in KINDS},
    }


class _Dumper(yaml.SafeDumper):
    """Folds long sentences and nothing else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Indent lists below their key."""
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write everything out: no anchors."""
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = ">" if len(text) > _FOLDED and " " in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def _text(document: Any) -> str:
    return _HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated files, or say which of them are not what the models make.

    Returns:
        0, or 1 when `--check` found a difference.
    """
    parser = argparse.ArgumentParser(
        prog="python -m regcred.api.crd", description="Make the CRDs from the models."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", metavar="DIR", type=pathlib.Path, help="write them below DIR")
    what.add_argument("--check", metavar="DIR", type=pathlib.Path, help="fail if those below DIR differ")
    options = parser.parse_args(arguments)
    if options.write:
        for path, text in files().items():
            target = options.write / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return 0
    stale = [
        path
        for path, text in files().items()
        if not (options.check / path).is_file() or (options.check / path).read_text(encoding="utf-8") != text
    ]
    for path in stale:
        sys.stderr.write(f"{options.check / path} is not what the models make; run `make crds`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
