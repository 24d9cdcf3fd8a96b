"""Tools that copy one Secret into many namespaces: imagepullsecret-patcher, alexellis' registry-creds, ClusterSecret.

Sources of the shapes: titansoft-pte-ltd/imagepullsecret-patcher (main.go, secret.go, deploy-example) and its fork by
tamcore; alexellis/registry-creds (api/v1, controllers/secret_reconciler.go); zakkg3/ClusterSecret (README, handlers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from regcred.api import names
from regcred.migration.model import (
    Copy,
    Json,
    Move,
    Snapshot,
    annotated,
    environment,
    flags,
    inner,
    name_of,
    namespace_of,
    source,
    stopped,
    value,
    words,
)
from regcred.migration.wanted import cluster_resource, handed_over, imported, left_alone

_NO_FINALIZER = """'{"metadata":{"finalizers":null}}'"""
_CONFIG_KEY = ".dockerconfigjson"
_TRUE = ("true", "1", "t")


def imagepullsecret_patcher(snapshot: Snapshot) -> Iterator[Move]:
    """Read imagepullsecret-patcher: one Deployment whose environment says all."""
    for workload, container in snapshot.containers("imagepullsecret-patcher"):
        variables, given = environment(container), flags(container)

        def said(
            variable: str, flag: str, default: str, variables: Mapping[str, Json] = variables, given: Any = given
        ) -> str:
            return str(given.get(flag) or value(variables, variable, default))

        name = said("CONFIG_SECRETNAME", "secretname", "image-pull-secret")
        excluded = words(said("CONFIG_EXCLUDED_NAMESPACES", "excluded-namespaces", ""))
        excluded += annotated(snapshot, "k8s.titansoft.com/imagepullsecret-patcher-exclude", "true")
        everybody = said("CONFIG_ALLSERVICEACCOUNT", "allserviceaccount", "false").lower() in _TRUE
        accounts = ["*"] if everybody else words(said("CONFIG_SERVICEACCOUNTS", "serviceaccounts", "default"))
        login = "imagepullsecret-patcher"
        copy, remark = _patchers_source(snapshot, workload, container, variables, login)
        adopt, remarks = handed_over(snapshot, name, excluded=excluded)
        yield Move(
            tool="imagepullsecret-patcher",
            subject=f"Deployment {namespace_of(workload)}/{name_of(workload)}",
            resources=[
                cluster_resource("imagepullsecret-patcher", imported(login), name, accounts, exclude=excluded)
            ],
            copies=[copy] if copy else [],
            secret_name=name,
            adopt=adopt,
            stop=[stopped(workload)],
            remove=[f"kubectl -n {namespace_of(workload)} delete deployment {name_of(workload)}"],
            remarks=[*([remark] if remark else []), *remarks],
        )


def _patchers_source(
    snapshot: Snapshot, workload: Json, container: Json, variables: Mapping[str, Json], login: str
) -> tuple[Copy | None, str]:
    where = namespace_of(workload)

    def copied(name: str, key: str) -> tuple[Copy, str]:
        read = f"secret/{name} -n {where}"
        return Copy(read, snapshot.operator_namespace, login, {_CONFIG_KEY: key}, names.SECRET_TYPE), ""

    if referenced := source(variables, "CONFIG_DOCKERCONFIGJSON"):
        return copied(*referenced)
    path = value(variables, "CONFIG_DOCKERCONFIGJSONPATH")
    for mount in container.get("volumeMounts") or ():
        if path and path.startswith(str(mount.get("mountPath", "")).rstrip("/") + "/"):
            for volume in inner(workload, "spec", "template", "spec", "volumes") or ():
                if volume.get("name") == mount.get("name") and inner(volume, "secret", "secretName"):
                    return copied(str(volume["secret"]["secretName"]), path.rpartition("/")[2])
    for group in container.get("envFrom") or ():
        if named := inner(group, "secretRef", "name"):
            return copied(str(named), "CONFIG_DOCKERCONFIGJSON")
    return None, (
        f"the logins stand in the Deployment itself: put them into a Secret {snapshot.operator_namespace}/{login} of "
        f"the type {names.SECRET_TYPE} by hand"
    )


def registry_creds_alexellis(snapshot: Snapshot) -> Iterator[Move]:
    """Read registry-creds of alexellis: a ClusterPullSecret for each source."""
    excluded = annotated(snapshot, "alexellis.io/registry-creds.ignore", "1", "true")
    for document in snapshot.of("ClusterPullSecret", "ops.alexellis.io"):
        name, reference = name_of(document), inner(document, "spec", "secretRef") or {}
        secret_name, login = f"{name}-registrycreds", f"{name}-registrycreds"
        adopt, remarks = handed_over(snapshot, secret_name, excluded=excluded)
        where = str(reference.get("namespace") or "")
        read = f"secret/{reference.get('name')} -n {where}"
        if not where or not reference.get("name"):
            remarks.append("its spec.secretRef is not complete: name the source by hand")
        deployments = [found for found, _ in snapshot.containers("alexellis/registry-creds")]
        yield Move(
            tool="registry-creds (alexellis)",
            subject=f"ClusterPullSecret {name}",
            resources=[cluster_resource(name, imported(login), secret_name, ["*"], exclude=excluded)],
            copies=[Copy(read, snapshot.operator_namespace, login, {_CONFIG_KEY: _CONFIG_KEY}, names.SECRET_TYPE)],
            secret_name=secret_name,
            adopt=adopt,
            stop=sorted({stopped(found) for found in deployments}),
            # Their owner may go only now: regcred's resource has become an owner, too.
            remove=[f"kubectl delete clusterpullsecret {name}"],
            remarks=remarks,
        )


def clustersecret(snapshot: Snapshot) -> Iterator[Move]:
    """Read ClusterSecret: one resource for each Secret, with its data in it or taken from elsewhere."""
    for document in snapshot.of("ClusterSecret", "clustersecret.io"):
        if str(document.get("type") or inner(document, "spec", "type")) != names.SECRET_TYPE:
            continue
        name, spec = name_of(document), {**document, **(document.get("spec") or {})}
        remarks: list[str] = []
        chosen = [_glob(pattern, remarks) for pattern in spec.get("matchNamespace") or ("*",)]
        excluded = [_glob(pattern, remarks) for pattern in spec.get("avoidNamespaces") or ()]
        adopt, more = handed_over(snapshot, name, excluded=excluded, names=chosen)
        reference = inner(spec, "data", "valueFrom", "secretKeyRef")
        read = f"clustersecret/{name}" + (f" -n {namespace_of(document)}" if namespace_of(document) else "")
        if reference:
            read = f"secret/{reference.get('name')} -n {reference.get('namespace')}"
        login = f"{name}-source"
        yield Move(
            tool="ClusterSecret",
            subject=f"ClusterSecret {name}",
            resources=[cluster_resource(name, imported(login), name, [], names=chosen, exclude=excluded)],
            copies=[Copy(read, snapshot.operator_namespace, login, {_CONFIG_KEY: _CONFIG_KEY}, names.SECRET_TYPE)],
            secret_name=name,
            adopt=adopt,
            # It deletes its copies with the resource, so the operator has to stand still until that is gone.
            stop=[stopped(found) for found, _ in snapshot.containers("clustersecret")],
            remove=[
                f"kubectl delete clustersecret {name}{_where(document)} --wait=false",
                f"kubectl patch clustersecret {name}{_where(document)} --type=merge -p {_NO_FINALIZER}",
            ],
            remarks=[
                *remarks,
                *more,
                left_alone("ClusterSecret"),
            ],
        )


def _where(document: Json) -> str:
    return f" -n {namespace_of(document)}" if namespace_of(document) else ""


def _glob(pattern: Any, remarks: list[str]) -> str:
    """Return the glob for a pattern of ClusterSecret, which are regular expressions that match at the beginning."""
    text = str(pattern).removeprefix("^")
    ends = text.endswith("$")
    plain = text.removesuffix("$").replace(".*", "*")
    if re.fullmatch(r"[a-z0-9*-]+", plain):
        if ends or plain.endswith("*"):
            return plain
        remarks.append(
            f"the pattern {pattern!r} also matched longer names; make it {plain + '*'!r} if that was meant"
        )
        return plain
    remarks.append(f"the pattern {pattern!r} is no glob: choose the namespaces by hand")
    return "choose-by-hand"
