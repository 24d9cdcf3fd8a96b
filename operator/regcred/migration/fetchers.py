"""Tools that fetch logins of clouds: upmc's registry-creds, nabsul's k8s-ecr-login-renew, msi-acrpull.

Sources of the shapes: upmc-enterprises/registry-creds (main.go, k8s/secret.yaml; minikube ships it as an addon);
nabsul/k8s-ecr-login-renew (README, example/deploy.yml); Azure/msi-acrpull (api/v1beta1, api/v1beta2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from regcred.migration.model import (
    PLACEHOLDERS,
    Copy,
    Json,
    Move,
    Snapshot,
    environment,
    flags,
    host,
    hosts,
    inner,
    name_of,
    namespace_of,
    source,
    stopped,
    value,
    words,
)
from regcred.migration.wanted import cluster_resource, handed_over, left_alone, tenant_resource

_ACCESS_KEY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def registry_creds_upmc(snapshot: Snapshot) -> Iterator[Move]:
    """Read registry-creds of upmc-enterprises: up to four clouds, each with a Secret of its own."""
    for workload, container in snapshot.containers(
        "upmcenterprises/registry-creds", "k8s-minikube/registry-creds"
    ):
        where, given = namespace_of(workload), flags(container)
        included = words(given.get("include-namespaces", ""))
        excluded = [] if included else words(given.get("exclude-namespaces", ""))
        for cloud, default, read in (
            ("aws", "awsecr-cred", _upmc_ecr),
            ("dpr", "dpr-secret", _upmc_login),
            ("acr", "acr-secret", _upmc_login),
            ("gcr", "gcr-secret", _upmc_gcr),
        ):
            name = given.get(f"{cloud}-secret-name", default)
            registries, copies, remarks = read(snapshot, where, cloud, name)
            if not registries:
                continue
            adopt, more = handed_over(snapshot, name, excluded=excluded, names=included or ("*",))
            yield Move(
                tool="registry-creds (upmc-enterprises)",
                subject=f"Deployment {where}/{name_of(workload)}, {name}",
                resources=[
                    cluster_resource(name, registries, name, ["default"], names=included, exclude=excluded)
                ],
                copies=copies,
                secret_name=name,
                adopt=adopt,
                stop=[stopped(workload)],
                remove=[f"kubectl -n {where} delete deployment {name_of(workload)}"],
                remarks=[*remarks, *more],
            )


_Read = tuple[list[Json], list[Copy], list[str]]


def _upmc_ecr(snapshot: Snapshot, where: str, cloud: str, name: str) -> _Read:  # noqa: ARG001 - one form
    stored = "registry-creds-ecr"
    accounts = [text for text in words(snapshot.text(where, stored, "aws-account")) if text not in PLACEHOLDERS]
    region = snapshot.text(where, stored, "aws-region") or "us-east-1"
    servers = [f"{account}.dkr.ecr.{region}.amazonaws.com" for account in accounts] or _outputs(
        snapshot, name, ".ecr."
    )
    role = snapshot.text(where, stored, "aws_assume_role")
    block: dict[str, Any] = {"roleArn": role} if role.startswith("arn:") else {}
    copies = []
    if snapshot.text(where, stored, "AWS_ACCESS_KEY_ID") not in PLACEHOLDERS:
        block["secretRef"] = {"name": "registry-creds-ecr"}
        keys = {key: key for key in _ACCESS_KEY}
        copies = [Copy(f"secret/{stored} -n {where}", snapshot.operator_namespace, stored, keys)]
    return [{"server": server, "ecr": block} for server in servers], copies, []


def _upmc_login(snapshot: Snapshot, where: str, cloud: str, name: str) -> _Read:  # noqa: ARG001 - one form
    server, user, password = {
        "dpr": (
            "DOCKER_PRIVATE_REGISTRY_SERVER",
            "DOCKER_PRIVATE_REGISTRY_USER",
            "DOCKER_PRIVATE_REGISTRY_PASSWORD",
        ),
        "acr": ("ACR_URL", "ACR_CLIENT_ID", "ACR_PASSWORD"),
    }[cloud]
    stored = f"registry-creds-{cloud}"
    told = snapshot.text(where, stored, server)
    if told in PLACEHOLDERS:
        return [], [], []
    keys = {"username": user, "password": password}
    copy = Copy(
        f"secret/{stored} -n {where}", snapshot.operator_namespace, stored, keys, "kubernetes.io/basic-auth"
    )
    return [{"server": host(told), "login": {"secretRef": {"name": stored}}}], [copy], []


def _upmc_gcr(snapshot: Snapshot, where: str, cloud: str, name: str) -> _Read:  # noqa: ARG001 - one form
    stored, key = "registry-creds-gcr", "application_default_credentials.json"
    if snapshot.text(where, stored, key) in PLACEHOLDERS:
        return [], [], []
    server = host(snapshot.text(where, stored, "gcrurl") or "https://gcr.io")
    copy = Copy(f"secret/{stored} -n {where}", snapshot.operator_namespace, stored, {"key.json": key})
    remark = "only the key of a service account is taken; credentials of a person (authorized_user) are not"
    return [{"server": server, "gcr": {"secretRef": {"name": stored}}}], [copy], [remark]


def _outputs(snapshot: Snapshot, name: str, part: str = "") -> list[str]:
    """Return the servers that the Secrets a tool made have logins for."""
    return sorted({server for secret in snapshot.secrets(name) for server in hosts(secret) if part in server})


def ecr_login_renew(snapshot: Snapshot) -> Iterator[Move]:
    """Read nabsul's k8s-ecr-login-renew: a CronJob for each Secret."""
    for workload, container in snapshot.containers("k8s-ecr-login-renew"):
        variables, where = environment(container), namespace_of(workload)
        name = value(variables, "DOCKER_SECRET_NAME", "regcred")
        chosen = words(value(variables, "TARGET_NAMESPACE", "default"))
        servers = [host(text) for text in words(value(variables, "DOCKER_REGISTRIES"))] or _outputs(
            snapshot, name, ".ecr."
        )
        block, copies = _access_key(snapshot, variables, where, name_of(workload))
        adopt, remarks = handed_over(snapshot, name, names=chosen)
        if not servers:
            remarks.append("which registry it is for is told nowhere: name the servers by hand")
        yield Move(
            tool="k8s-ecr-login-renew (nabsul)",
            subject=f"{workload['kind']} {where}/{name_of(workload)}",
            resources=[
                cluster_resource(
                    name_of(workload),
                    [{"server": server, "ecr": block} for server in servers],
                    name,
                    [],
                    names=chosen,
                )
            ],
            copies=copies,
            secret_name=name,
            adopt=adopt,
            stop=[stopped(workload)],
            remove=[f"kubectl -n {where} delete {str(workload['kind']).lower()} {name_of(workload)}"],
            remarks=[
                *remarks,
                left_alone("the CronJob"),
            ],
        )


def _access_key(
    snapshot: Snapshot, variables: dict[str, Json], where: str, login: str
) -> tuple[dict[str, Any], list[Copy]]:
    """Return the block for ECR, and the copy of an access key where there is one."""
    found = {key: source(variables, key) for key in _ACCESS_KEY}
    named = {reference[0] for reference in found.values() if reference}
    if len(named) != 1 or not all(found.values()):
        return {}, []
    (stored,) = named
    keys = {key: reference[1] for key, reference in found.items() if reference}
    copy = Copy(f"secret/{stored} -n {where}", snapshot.operator_namespace, login, keys)
    return {"secretRef": {"name": login}}, [copy]


_OWN_NAME = (
    "its Secret has a name of its own, so the account lists both until the binding is deleted; restart pods that were "
    "created before regcred's entry was there"
)


def msi_acrpull(snapshot: Snapshot) -> Iterator[Move]:
    """Read msi-acrpull: an AcrPullBinding for each registry of a namespace, in either shape."""
    for document in snapshot.of("AcrPullBinding", "acrpull.microsoft.com"):
        name, where, spec = name_of(document), namespace_of(document), document.get("spec") or {}
        remarks: list[str] = []
        block = _binding(spec, remarks)
        server = str(inner(spec, "acr", "server") or spec.get("acrServer") or "").lower()
        made = _binding_secrets(snapshot, document)
        # Its Secrets have names with a hash; the entry moves to regcred's own Secret.
        yield Move(
            tool="msi-acrpull",
            subject=f"AcrPullBinding {where}/{name}",
            resources=[
                tenant_resource(
                    name,
                    where,
                    [{"server": server, "acr": block}],
                    "regcred",
                    [str(spec.get("serviceAccountName") or "default")],
                )
            ],
            secret_name="regcred",  # noqa: S106 - a name
            stop=[
                stopped(found)
                for found, container in snapshot.containers("msi-acrpull")
                if found["kind"] == "Deployment" and container
            ],
            remove=[
                f"kubectl -n {where} delete acrpullbinding {name}",
                *(f"kubectl -n {where} delete secret {secret} --ignore-not-found" for secret in made),
            ],
            remarks=[
                *remarks,
                _OWN_NAME,
            ],
        )


def _binding(spec: Json, remarks: list[str]) -> dict[str, Any]:
    workload = inner(spec, "auth", "workloadIdentity") or {}
    managed = inner(spec, "auth", "managedIdentity") or {}
    block: dict[str, Any] = {}
    account = workload.get("serviceAccountName")
    if account:
        block["serviceAccountRef"] = {"name": account}
        block |= {
            key: workload[old]
            for key, old in (("clientId", "clientID"), ("tenantId", "tenantID"))
            if workload.get(old)
        }
        remarks.append(
            "the tenant has to let regcred ask for a token of this account; the status says with which command, and "
            "the identity has to trust the audience api://AzureADTokenExchange for it, as it does for msi-acrpull"
        )
    else:
        client = managed.get("clientID") or spec.get("managedIdentityClientID")
        resource = managed.get("resourceID") or spec.get("managedIdentityResourceID")
        if client:
            block["clientId"] = client
        elif resource:
            block["resourceId"] = resource
        remarks.append(
            "it uses a managed identity of the node, which tenants' resources may not, unless the operator runs with "
            "--ambient-credentials; better give the namespace a workload identity (serviceAccountRef)"
        )
    cloud = str(inner(spec, "acr", "environment") or "")
    known = {"PublicCloud": "Public", "USGovernmentCloud": "USGovernment", "ChinaCloud": "China"}
    if cloud in known and cloud != "PublicCloud":
        block["cloud"] = known[cloud]
    scope = str(inner(spec, "acr", "scope") or spec.get("scope") or "")
    repositories = [
        part.split(":")[1] for part in scope.split() if part.startswith("repository:") and ":pull" in part
    ]
    if repositories:
        block["scopes"] = repositories
    return block


def _binding_secrets(snapshot: Snapshot, document: Json) -> Sequence[str]:
    name, where = name_of(document), namespace_of(document)
    return [
        name_of(secret)
        for secret in snapshot.of("Secret")
        if namespace_of(secret) == where
        and (
            inner(secret, "metadata", "labels", "acr.microsoft.com/binding") == name
            or name_of(secret) == f"{name}-msi-acrpull-secret"
        )
    ]
