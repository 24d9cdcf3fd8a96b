"""External Secrets Operator with a generator of registry logins: ECRAuthorizationToken, GCRAccessToken, ACRAccessToken.

Sources of the shapes: external-secrets.io, pages on generators and on ClusterExternalSecret.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regcred.migration.model import Copy, Json, Move, Snapshot, hosts, inner, name_of, namespace_of
from regcred.migration.wanted import cluster_resource, handed_over, left_alone, tenant_resource

_KINDS = ("ECRAuthorizationToken", "GCRAccessToken", "ACRAccessToken")
_GROUP = "generators.external-secrets.io"


def external_secrets(snapshot: Snapshot) -> Iterator[Move]:
    """Read every ExternalSecret and ClusterExternalSecret that takes its data from such a generator."""
    owned = {
        (namespace, name_of(parent))
        for parent in snapshot.of("ClusterExternalSecret")
        for namespace in inner(parent, "status", "provisionedNamespaces") or ()
    }
    for document in snapshot.of("ExternalSecret", "external-secrets.io"):
        where = namespace_of(document)
        owners = [owner.get("kind") for owner in document["metadata"].get("ownerReferences") or ()]
        if "ClusterExternalSecret" in owners or (where, name_of(document)) in owned:
            continue
        for generator in _generators(snapshot, document.get("spec") or {}, where):
            yield _of_namespace(snapshot, document, generator)
    for document in snapshot.of("ClusterExternalSecret", "external-secrets.io"):
        spec = inner(document, "spec", "externalSecretSpec") or {}
        for generator in _generators(snapshot, spec, None):
            yield _of_cluster(snapshot, document, spec, generator)


def _generators(snapshot: Snapshot, spec: Json, where: str | None) -> Iterator[Json]:
    """Yield the generators of registry logins that an ExternalSecret names, as (kind, spec) documents."""
    for entry in spec.get("dataFrom") or ():
        reference = inner(entry, "sourceRef", "generatorRef") or {}
        kind, name = str(reference.get("kind")), reference.get("name")
        if kind == "ClusterGenerator":
            for found in snapshot.of("ClusterGenerator", _GROUP):
                if name_of(found) == name and inner(found, "spec", "kind") in _KINDS:
                    named = inner(found, "spec", "generator") or {}
                    yield {
                        "kind": inner(found, "spec", "kind"),
                        "metadata": found["metadata"],
                        "spec": next(iter(named.values()), {}),
                    }
        elif kind in _KINDS:
            yield from (
                found
                for found in snapshot.of(kind, _GROUP)
                if name_of(found) == name and where in (None, namespace_of(found))
            )


def _target(document: Json, spec: Json) -> str:
    return str(inner(spec, "target", "name") or name_of(document))


def _of_namespace(snapshot: Snapshot, document: Json, generator: Json) -> Move:
    where, name = namespace_of(document), name_of(document)
    secret_name = _target(document, document.get("spec") or {})
    servers = hosts(snapshot.secret(where, secret_name))
    registries, copies, remarks = _registries(generator, servers, where, where)
    adopt, more = handed_over(snapshot, secret_name, names=[where])
    return Move(
        tool="External Secrets Operator",
        subject=f"ExternalSecret {where}/{name}, {generator['kind']} {name_of(generator)}",
        resources=[tenant_resource(name, where, registries, secret_name, [])],
        copies=copies,
        secret_name=secret_name,
        adopt=adopt,
        remove=[
            f"kubectl -n {where} delete externalsecret {name}",
            f"kubectl -n {where} delete {str(generator['kind']).lower()} {name_of(generator)}",
        ],
        remarks=[*remarks, *more, _AT_ONCE, _ACCOUNTS],
    )


def _of_cluster(snapshot: Snapshot, document: Json, spec: Json, generator: Json) -> Move:
    name = name_of(document)
    secret_name = _target({"metadata": {"name": inner(document, "spec", "externalSecretName") or name}}, spec)
    own = document.get("spec") or {}
    selectors = [selector for selector in own.get("namespaceSelectors") or () if selector]
    selectors = selectors or ([own["namespaceSelector"]] if own.get("namespaceSelector") else [])
    chosen = [str(namespace) for namespace in own.get("namespaces") or ()]
    provisioned = [str(namespace) for namespace in inner(document, "status", "provisionedNamespaces") or ()]
    adopt, more = handed_over(snapshot, secret_name, names=provisioned or chosen or ("*",))
    servers = sorted({server for secret in snapshot.secrets(secret_name) for server in hosts(secret)})
    where = namespace_of(generator) or "external-secrets"
    registries, copies, remarks = _registries(generator, servers, where, snapshot.operator_namespace)
    if len(selectors) > 1:
        remarks.append(
            "it has several selectors, of which only the first is taken: make a resource for each other one"
        )
    return Move(
        tool="External Secrets Operator",
        subject=f"ClusterExternalSecret {name}, {generator['kind']} {name_of(generator)}",
        resources=[
            cluster_resource(
                name,
                registries,
                secret_name,
                [],
                names=chosen,
                selector=selectors[0] if selectors else None,
            )
        ],
        copies=copies,
        secret_name=secret_name,
        adopt=adopt,
        remove=[f"kubectl delete clusterexternalsecret {name}"],
        remarks=[*remarks, *more, _AT_ONCE, _ACCOUNTS],
    )


_AT_ONCE = (
    "External Secrets owns the Secret until its resource is deleted: hand over and delete in one go; regcred has "
    "become an owner by then, so the Secret stays"
)
_ACCOUNTS = left_alone("External Secrets")


def _registries(
    generator: Json, servers: list[str], where: str, there: str
) -> tuple[list[Json], list[Copy], list[str]]:
    """Return the entries for a generator; `where` its sources are, and `there` regcred reads them."""
    spec, kind = generator.get("spec") or {}, str(generator["kind"])
    remarks: list[str] = []
    name = {"ECRAuthorizationToken": "ecr", "GCRAccessToken": "gcr", "ACRAccessToken": "acr"}[kind]
    block, copies = {"ecr": _ecr, "gcr": _gcr, "acr": _acr}[name](spec, name_of(generator), where, there)
    account = inner(block, "serviceAccountRef", "name")
    if account and where != there:
        remarks.append(f"the service account {account} has to be in {there}, with the same annotations and trust")
    if account and name == "gcr":
        remarks.append("gcr.audience names the workload identity provider; see docs/how-to/google.md")
    told = [str(spec["registry"]).lower()] if name == "acr" and spec.get("registry") else servers
    if not told:
        remarks.append("which registry it is for is told nowhere: name the servers by hand")
    return [{"server": server, name: block} for server in told], copies, remarks


_Block = tuple[dict[str, Any], list[Copy]]


def _ecr(spec: Json, name: str, where: str, there: str) -> _Block:
    block: dict[str, Any] = {"roleArn": spec["role"]} if str(spec.get("role") or "").startswith("arn:") else {}
    if account := inner(spec, "auth", "jwt", "serviceAccountRef", "name"):
        block["serviceAccountRef"] = {"name": account}
    static = inner(spec, "auth", "secretRef") or {}
    identity, secret = static.get("accessKeyIDSecretRef") or {}, static.get("secretAccessKeySecretRef") or {}
    if identity.get("name") and identity.get("name") == secret.get("name"):
        block["secretRef"] = {"name": f"{name}-aws"}
        keys = {"accessKeyId": str(identity.get("key")), "secretAccessKey": str(secret.get("key"))}
        return block, [_copied(identity, where, there, f"{name}-aws", keys)]
    return block, []


def _gcr(spec: Json, name: str, where: str, there: str) -> _Block:
    if account := inner(spec, "auth", "workloadIdentity", "serviceAccountRef", "name"):
        return {"serviceAccountRef": {"name": account}}, []
    stored = inner(spec, "auth", "secretRef", "secretAccessKeySecretRef") or {}
    if stored.get("name"):
        keys = {"key.json": str(stored.get("key"))}
        return {"secretRef": {"name": f"{name}-key"}}, [_copied(stored, where, there, f"{name}-key", keys)]
    return {}, []


def _acr(spec: Json, name: str, where: str, there: str) -> _Block:
    block: dict[str, Any] = {"tenantId": spec["tenantId"]} if spec.get("tenantId") else {}
    if account := inner(spec, "auth", "workloadIdentity", "serviceAccountRef", "name"):
        return block | {"serviceAccountRef": {"name": account}}, []
    if identity := inner(spec, "auth", "managedIdentity", "identityId"):
        # Either the resource id or the client id of the identity.
        return block | {("resourceId" if "/" in str(identity) else "clientId"): identity}, []
    stored = inner(spec, "auth", "servicePrincipal", "secretRef", "clientSecret") or {}
    if stored.get("name"):
        keys = {"clientSecret": str(stored.get("key"))}
        copy = _copied(stored, where, there, f"{name}-app", keys)
        return block | {"secretRef": {"name": f"{name}-app"}}, [copy]
    return block, []


def _copied(reference: Json, where: str, there: str, name: str, keys: dict[str, str]) -> Copy:
    return Copy(f"secret/{reference['name']} -n {reference.get('namespace') or where}", there, name, keys)
