"""`uninstall`: leave nothing behind, or say what is left.

Resources go first, so that an operator that runs cleans up after them; what it leaves is removed from here, by the same
rules: only what is regcred's own, and accounts under the guard of their uid and resourceVersion.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import click

from regcred.api import names
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import errors, views
from regcred.commands import common, resources

_LABEL = "app.kubernetes.io/name=regcred"
_OURS = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
_CRDS = tuple(f"{plural}.{names.GROUP}" for plural in (names.CLUSTER_PLURAL, names.NAMESPACED_PLURAL))
#: Collections in which the manifests put objects, in the order in which they are deleted.
_NAMESPACED = (
    "apis/apps/v1/namespaces/{}/deployments",
    "api/v1/namespaces/{}/services",
    "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "apis/policy/v1beta1/namespaces/{}/poddisruptionbudgets",
    "apis/monitoring.coreos.com/v1/namespaces/{}/servicemonitors",
    "apis/monitoring.coreos.com/v1/namespaces/{}/prometheusrules",
    "apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "api/v1/namespaces/{}/serviceaccounts",
)
_CLUSTER = (
    "apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
    "apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
    "apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicybindings",
    "apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicies",
    "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "apis/rbac.authorization.k8s.io/v1/clusterroles",
)
_TRIES = 5


@dataclasses.dataclass(slots=True)
class _Inventory:
    """What of regcred is in the cluster.

    Attributes:
        resources: of both kinds.
        secrets: ours, outside of the operator's namespace.
        accounts: those that list one of our Secrets, or a name that no Secret stands under any more.
        operator: paths of the operator's objects.
        helm: whether Helm installed them.
    """

    resources: list[api_resource.Resource]
    secrets: list[views.SecretView]
    accounts: list[views.AccountView]
    operator: list[str]
    helm: str = ""

    @property
    def retained(self) -> list[views.SecretView]:
        """Secrets that a resource of deletionPolicy Retain wants to stay."""
        keys = {
            each.uid for each in self.resources if each.spec is not None and each.spec.deletion_policy == "Retain"
        }
        return [
            secret for secret in self.secrets if any(row.retain or row.uid in keys for row in secret.contributors)
        ]

    @property
    def lines(self) -> list[str]:
        """What there is, in words."""
        return [
            *(each.key for each in self.resources),
            *(f"Secret {each.namespace}/{each.name}" for each in self.secrets),
            *(f"entry of ServiceAccount {each.namespace}/{each.name}" for each in self.accounts),
            *self.operator,
        ]


@click.command()
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--keep-operator", is_flag=True, help="Remove resources, Secrets and entries only.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds given to the operator."
)
@common.operator_namespace
@common.connection
@common.asynchronous
async def uninstall(**options: Any) -> int:
    """Remove resources, Secrets, entries in service accounts, and the operator; say what is left.

    Secrets of resources with `deletionPolicy: Retain` stay, and so do your own Secrets in the operator's namespace.
    What Helm has installed is for Helm to remove. It ends with 0 where nothing is left but what is meant to stay.
    """
    where = options["operator_namespace"]
    async with common.connected(options["kubeconfig"], options["context"]) as client:
        found = await _look(client, where, operator=not options["keep_operator"])
        for line in found.lines:
            common.say(f"- {line}", whole=True)
        if not found.lines:
            common.say("There is nothing of regcred in this cluster.")
            return 0
        if options["dry_run"]:
            common.say(f"{len(found.lines)} objects would be removed or changed. Nothing was changed.")
            return 0
        if not options["yes"]:
            click.confirm("Remove all of this?", abort=True)
        kept = {(each.namespace, each.name) for each in found.retained}
        await _delete_resources(client, found)
        await _wait(client, kept, options["timeout"])
        await _clean(client, found, kept)
        for path in () if options["keep_operator"] or found.helm else found.operator:
            await _delete(client, path)
        return await _report(client, where, found, kept, operator=not options["keep_operator"])


async def _look(client: api.Client, where: str, *, operator: bool) -> _Inventory:
    found: list[api_resource.Resource] = []
    with contextlib.suppress(errors.NotFound):
        found = await resources.everything(client)
    secrets = [each for each in await _secrets(client) if each.namespace != where]
    ours = {(each.namespace, each.name) for each in secrets}
    accounts = []
    for body in await common.listed(client, "/api/v1/serviceaccounts"):
        account = views.account(body)
        if any(_entry_of_ours(account, name, ours) for name in account.pull_secrets):
            accounts.append(account)
    objects, helm = await _operator_objects(client, where) if operator else ([], "")
    return _Inventory(found, secrets, accounts, objects, helm)


def _entry_of_ours(account: views.AccountView, name: str, ours: set[tuple[str, str]]) -> bool:
    """Whether an entry names a Secret of ours, or was written by us."""
    return (account.namespace, name) in ours or (account.managed and name == names.DEFAULT_SECRET_NAME)


async def _secrets(client: api.Client) -> list[views.SecretView]:
    found = []
    pages = client.pages("/api/v1/secrets", params={"labelSelector": _OURS}, metadata=True)
    async with contextlib.aclosing(pages):
        async for items, _ in pages:
            found += [view for view in map(views.secret, items) if view.ours]
    return found


async def _operator_objects(client: api.Client, where: str) -> tuple[list[str], str]:
    """Return paths of the operator's objects, and the Helm release that owns them, or ""."""
    found: list[str] = []
    helm = ""
    for collection in (*(each.format(where) for each in _NAMESPACED), *_CLUSTER):
        try:
            bodies = await common.listed(client, f"/{collection}", labelSelector=_LABEL)
        except errors.NotFound:
            continue
        for body in bodies:
            annotations = body["metadata"].get("annotations") or {}
            helm = helm or annotations.get("meta.helm.sh/release-name", "")
            # Budgets are served in two versions.
            path = f"/{collection}/{body['metadata']['name']}"
            if not any(_bare(path) == _bare(other) for other in found):
                found.append(path)
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for path in (
        *(f"{crds}/{name}" for name in _CRDS),
        f"/apis/coordination.k8s.io/v1/namespaces/{where}/leases/{names.MANAGER}",
        *(
            f"/api/v1/namespaces/{where}/secrets/{body['metadata']['name']}"
            for body in await common.listed(client, f"/api/v1/namespaces/{where}/secrets", labelSelector=_OURS)
        ),
    ):
        with contextlib.suppress(errors.NotFound):
            await client.get(path, accept=api.METADATA)
            found.append(path)
    return found, helm


def _bare(path: str) -> str:
    return path.replace("/v1beta1/", "/v1/")


async def _delete_resources(client: api.Client, found: _Inventory) -> None:
    for each in found.resources:
        await _delete(client, api_resource.path(each.namespace, each.name))


async def _delete(client: api.Client, path: str) -> None:
    with contextlib.suppress(errors.NotFound):
        await client.request("DELETE", path, accept=api.METADATA)


async def _wait(client: api.Client, kept: set[tuple[str, str]], timeout: float) -> None:  # noqa: ASYNC109 - the user's
    """Leave the operator time to clean up after its resources."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        left = [each for each in await _secrets(client) if (each.namespace, each.name) not in kept]
        if not any(each.contributors for each in left):
            return
        await asyncio.sleep(0.5)


async def _clean(client: api.Client, found: _Inventory, kept: set[tuple[str, str]]) -> None:
    """Remove what the operator has left, entries before Secrets."""
    ours = {(each.namespace, each.name) for each in found.secrets}
    for account in found.accounts:
        entries = {name for name in account.pull_secrets if _entry_of_ours(account, name, ours)}
        await _detach(client, account, {name for name in entries if (account.namespace, name) not in kept})
    for secret in await _secrets(client):
        if (secret.namespace, secret.name) in ours - kept:
            await _delete(client, f"/api/v1/namespaces/{secret.namespace}/secrets/{secret.name}")


async def _detach(client: api.Client, account: views.AccountView, entries: set[str]) -> None:
    path = f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}"
    for _ in range(_TRIES):
        try:
            now = views.account(await client.get(path))
            if now.uid != account.uid or not entries & set(now.pull_secrets):
                return
            body = {
                "metadata": {"uid": now.uid, "resourceVersion": now.version},
                "imagePullSecrets": [{"name": name} for name in now.pull_secrets if name not in entries],
            }
            params = {"fieldManager": names.MANAGER}
            await client.request("PATCH", path, params=params, body=body, content_type=api.MERGE)
        except errors.NotFound:
            return
        except errors.Conflict:
            continue
        return


async def _report(
    client: api.Client, where: str, before: _Inventory, kept: set[tuple[str, str]], *, operator: bool
) -> int:
    async def gone() -> _Inventory:
        # Definitions go when the last resource has gone.
        deadline = time.monotonic() + 15
        while True:
            left = await _look(client, where, operator=operator and not before.helm)
            if not _unmeant(left, kept) or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.5)

    left = await gone()
    wrong = _unmeant(left, kept)
    for line in wrong:
        common.say(f"Left: {line}", "red", whole=True)
    for namespace, name in sorted(kept):
        common.say(f"Left on purpose (deletionPolicy: Retain): Secret {namespace}/{name}", whole=True)
    if before.helm:
        common.say(f"Installed by Helm; remove it by: helm uninstall -n {where} {before.helm}", whole=True)
    elif operator:
        await _namespace(client, where)
    if not wrong:
        common.say("Nothing else of regcred is left.", "green")
    return common.FOUND if wrong else 0


def _unmeant(left: _Inventory, kept: set[tuple[str, str]]) -> list[str]:
    retained = {f"Secret {namespace}/{name}" for namespace, name in kept}
    entries = {
        f"entry of ServiceAccount {each.namespace}/{each.name}"
        for each in left.accounts
        if all((each.namespace, name) in kept for name in each.pull_secrets if name == names.DEFAULT_SECRET_NAME)
    }
    return [line for line in left.lines if line not in retained | entries]


async def _namespace(client: api.Client, where: str) -> None:
    """Delete the operator's namespace where nothing of its users is in it, else say what is."""
    try:
        body = await client.get(f"/api/v1/namespaces/{where}")
    except errors.NotFound:
        return
    if (body["metadata"].get("labels") or {}).get("app.kubernetes.io/name") != "regcred":
        return
    secrets = await common.listed(client, f"/api/v1/namespaces/{where}/secrets")
    own = [each["metadata"]["name"] for each in secrets if not _automatic(each)]
    if own:
        common.say(f"Left: the namespace {where} with your Secrets {', '.join(sorted(own))}.", whole=True)
        return
    await _delete(client, f"/api/v1/namespaces/{where}")
    common.say(f"The namespace {where} is being deleted.")


def _automatic(secret: Mapping[str, Any]) -> bool:
    return secret.get("type") == "kubernetes.io/service-account-token"
