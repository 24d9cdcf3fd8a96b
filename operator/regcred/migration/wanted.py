"""Makes the resources of a move, and says which Secrets can be handed over."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from regcred.api import names as api_names
from regcred.migration.model import Json, Snapshot, namespace_of

_SYSTEM = ("kube-system", "kube-public", "kube-node-lease")


def imported(secret: str) -> list[Json]:
    """Return the entry for every login of a docker config in a Secret."""
    return [{"server": "*", "login": {"secretRef": {"name": secret}}}]


def cluster_resource(
    name: str,
    registries: Sequence[Json],
    secret_name: str,
    accounts: Sequence[str],
    *,
    names: Sequence[str] = (),
    exclude: Sequence[str] = (),
    selector: Json | None = None,
) -> Json:
    """Return a ClusterRegistryCredential."""
    chosen: dict[str, Any] = {}
    if selector:
        chosen["selector"] = dict(selector)
    if names and "*" not in names:
        chosen["names"] = sorted(set(names))
    if exclude:
        chosen["exclude"] = sorted(set(exclude))
    made = _resource(api_names.CLUSTER_KIND, {"name": name}, registries, secret_name, accounts)
    made["spec"]["namespaces"] = chosen
    return made


def tenant_resource(
    name: str, namespace: str, registries: Sequence[Json], secret_name: str, accounts: Sequence[str]
) -> Json:
    """Return a RegistryCredential."""
    where = {"name": name, "namespace": namespace}
    return _resource(api_names.NAMESPACED_KIND, where, registries, secret_name, accounts)


def _resource(
    kind: str, metadata: Json, registries: Sequence[Json], secret_name: str, accounts: Sequence[str]
) -> dict[str, Any]:
    return {
        "apiVersion": api_names.API_VERSION,
        "kind": kind,
        "metadata": dict(metadata),
        "spec": {
            "registries": list(registries),
            "secretName": secret_name,
            "serviceAccounts": list(accounts),
        },
    }


def left_alone(tool: str) -> str:
    """Return the remark on a tool that patches no service account."""
    return f"serviceAccounts is empty, since {tool} leaves accounts alone; name those that regcred is to serve"


def handed_over(
    snapshot: Snapshot, name: str, *, excluded: Iterable[str] = (), names: Sequence[str] = ("*",)
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return which Secrets of a name can be handed over, and what is to be said of those that cannot."""
    adopt: list[tuple[str, str]] = []
    remarks: list[str] = []
    for secret in snapshot.secrets(name):
        namespace = namespace_of(secret)
        served = any(fnmatch.fnmatchcase(namespace, glob) for glob in names)
        if not served or any(fnmatch.fnmatchcase(namespace, glob) for glob in excluded):
            continue
        if namespace in (*_SYSTEM, snapshot.operator_namespace):
            remarks.append(f"{namespace} is served by no cluster resource: the Secret {name} there stays as it is")
        elif secret.get("type") != api_names.SECRET_TYPE:
            remarks.append(
                f"the Secret {namespace}/{name} is of the type {secret.get('type')}, which cannot be changed: delete "
                f"it once the tool is stopped, and regcred makes its own at once"
            )
        else:
            adopt.append((namespace, name))
    return adopt, remarks
