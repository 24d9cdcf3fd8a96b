"""The next step of each cause: one command to paste, made for the very case.  Pure."""

from __future__ import annotations

import json
import shlex
from typing import Any

from regcred.api import names, spec
from regcred.api import resource as api_resource
from regcred.diagnosis.facts import Facts, Step

_TEMPLATE_PATHS = {
    "Deployment": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "ReplicaSet": ("spec", "template", "spec"),
    "ReplicationController": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}
_ROLLING = ("Deployment", "StatefulSet", "DaemonSet")


def of(resource: api_resource.Resource) -> str:
    """Return kubectl's arguments that name a resource: `crcred platform`, or `-n team-a rcred own`."""
    if resource.cluster:
        return f"crcred {resource.name}"
    return f"-n {resource.namespace} rcred {resource.name}"


def plugin(resource: api_resource.Resource) -> str:
    """Return the plugin's arguments that name a resource: `platform`, or `own -n team-a`."""
    return resource.name if resource.cluster else f"{resource.name} -n {resource.namespace}"


def patch(resource: api_resource.Resource, *operations: dict[str, Any]) -> str:
    """Return the command of a JSON patch of a resource."""
    return f"kubectl patch {of(resource)} --type=json -p {shlex.quote(json.dumps(operations))}"


def restart(facts: Facts, text: str) -> Step:
    """Return how to make the pod anew."""
    pod = facts.pod
    if facts.target.workload is not None and facts.target.kind != "Pod":
        kind, name = facts.target.workload
        if kind in _ROLLING:
            return Step(text, f"kubectl -n {facts.namespace} rollout restart {kind.lower()}/{name}")
    if pod.controller is not None:
        return Step(text, f"kubectl -n {facts.namespace} delete pod {pod.name}")
    if not facts.real:
        return Step(text)
    return Step(
        f"{text} Nothing else makes it anew, so replace it by itself.",
        f"kubectl -n {facts.namespace} get pod {pod.name} -o yaml | kubectl replace --force -f -",
    )


def list_secret(facts: Facts, secret: str) -> Step:
    """Return how to add a Secret to a list that is the pod's own."""
    text = f"Add {secret} to imagePullSecrets of the pod."
    if facts.target.workload is not None:
        kind, name = facts.target.workload
        path = _TEMPLATE_PATHS.get(kind)
        if path is not None:
            body: Any = {"imagePullSecrets": [{"name": secret}]}
            for part in reversed(path):
                body = {part: body}
            # The list is keyed by name here, so this adds to it, which is not so in a ServiceAccount.
            command = (
                f"kubectl -n {facts.namespace} patch {kind.lower()} {name} -p {shlex.quote(json.dumps(body))}"
            )
            return Step(f"Add {secret} to imagePullSecrets in the template of the {kind} {name}.", command)
    if not facts.real:
        return Step(text)
    return Step(
        text,
        f"kubectl -n {facts.namespace} get pod {facts.pod.name} -o yaml"
        f" | sed '/^  imagePullSecrets:$/a\\  - name: {secret}' | kubectl replace --force -f -",
    )


def select(facts: Facts, resource: api_resource.Resource) -> Step:
    """Return how to have a resource select the namespace."""
    assert isinstance(resource.spec, spec.ClusterRegistryCredentialSpec)  # noqa: S101 - only that kind selects
    chosen, name = resource.spec.namespaces, facts.namespace
    if chosen.selector is not None and chosen.selector.match_labels and not chosen.selector.match_expressions:
        wanted = " ".join(
            shlex.quote(f"{key}={value}") for key, value in sorted(chosen.selector.match_labels.items())
        )
        return Step(
            f"Give the namespace the labels that {resource.key} selects.",
            f"kubectl label namespace {name} {wanted} --overwrite",
        )
    add = {"op": "add", "path": "/spec/namespaces/names/-", "value": name}
    if not chosen.names:
        add = {"op": "add", "path": "/spec/namespaces/names", "value": [name]}  # type: ignore[dict-item]
    return Step(f"Have {resource.key} select the namespace.", patch(resource, add))


def choose_account(facts: Facts, resource: api_resource.Resource) -> Step:
    """Return how to have a resource serve the account."""
    account = facts.pod.account
    assert resource.spec is not None  # noqa: S101 - it applies here
    add: dict[str, Any] = {"op": "add", "path": "/spec/serviceAccounts/-", "value": account}
    if not resource.spec.service_accounts:
        add = {"op": "add", "path": "/spec/serviceAccounts", "value": [account]}
    return Step(f"Add the account to spec.serviceAccounts of {resource.key}.", patch(resource, add))


def add_alias(resource: api_resource.Resource, index: int, host: str) -> Step:
    """Return how to publish the login of a registry under a further host."""
    assert resource.spec is not None  # noqa: S101 - the caller has found the entry in it
    path = f"/spec/registries/{index}/aliases"
    guard = {
        "op": "test",
        "path": f"/spec/registries/{index}/server",
        "value": resource.spec.registries[index].server,
    }
    add: dict[str, Any] = {"op": "add", "path": f"{path}/-", "value": host}
    if not resource.spec.registries[index].aliases:
        add = {"op": "add", "path": path, "value": [host]}
    return Step(f"If it is the same registry, publish its login under {host} too.", patch(resource, guard, add))


def drop_registry(resource: api_resource.Resource, server: str) -> str:
    """Return the command that takes a registry out of a resource, or deletes the resource where it has no other."""
    assert resource.spec is not None  # noqa: S101 - the caller has found the entry in it
    listed = resource.spec.registries
    index = next((index for index, entry in enumerate(listed) if entry.server == server), 0)
    if len(listed) == 1:
        return f"kubectl delete {of(resource)}"
    path = f"/spec/registries/{index}"
    return patch(
        resource,
        {"op": "test", "path": f"{path}/server", "value": listed[index].server},
        {"op": "remove", "path": path},
    )


def resume(resource: api_resource.Resource) -> Step:
    """Return how to end a suspension."""
    return Step(
        f"Resume {resource.key}.",
        f'kubectl patch {of(resource)} --type=merge -p \'{{"spec":{{"suspend":false}}}}\'',
    )


def refresh(resource: api_resource.Resource, text: str = "") -> Step:
    """Return how to have the logins of a resource fetched now."""
    return Step(text or "Have it fetched again now.", f"kubectl regcred refresh {plugin(resource)} --wait")


def source(facts: Facts, resource: api_resource.Resource, server: str, text: str) -> Step:
    """Return how to store the login that a registry entry reads, where it reads one; else how to fetch again."""
    assert resource.spec is not None  # noqa: S101 - the caller has found the entry in it
    entry = next((entry for entry in resource.spec.registries if entry.server == server), None)
    if entry is None or entry.login is None:
        return refresh(resource, text)
    where = facts.operator_namespace if resource.cluster else resource.namespace
    return Step(
        text,
        f"kubectl -n {where} create secret generic {entry.login.secret_ref.name} --type=kubernetes.io/basic-auth"
        " --from-literal=username=<user> --from-literal=password=<password> --dry-run=client -o yaml"
        # A client-side apply would copy the password into an annotation.
        " | kubectl apply --server-side --force-conflicts -f -",
        fill_in=True,
    )


def declare(facts: Facts, host: str) -> Step:
    """Return how to declare a registry."""
    cluster = [resource for resource in facts.resources if resource.cluster and resource.spec is not None]
    entry = {"server": host, "login": {"secretRef": {"name": "<secret>"}}}
    if cluster:
        return Step(
            f"If the image is private, declare its registry, for instance in {cluster[0].key}.",
            patch(cluster[0], {"op": "add", "path": "/spec/registries/-", "value": entry}),
            fill_in=True,
        )
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.NAMESPACED_KIND,
        "metadata": {"name": "registry", "namespace": facts.namespace},
        "spec": {"registries": [entry], "serviceAccounts": [facts.pod.account]},
    }
    return Step(
        "If the image is private, declare its registry.",
        f"echo {shlex.quote(json.dumps(body))} | kubectl apply -f -",
        fill_in=True,
    )
