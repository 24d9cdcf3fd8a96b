"""The operator's service account may do what the manifests say, and the API server agrees: not one thing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.waiting import eventually
from tests.manifests.manifests_support import NAMESPACE, ROOT, render

Rule = tuple[str, str, str, str]

BASE = render("manifests")
#: What the cluster grants to everybody who is logged in.
EVERYBODY = {
    ("create", "authorization.k8s.io", "selfsubjectaccessreviews", ""),
    ("create", "authorization.k8s.io", "selfsubjectrulesreviews", ""),
    ("create", "authentication.k8s.io", "selfsubjectreviews", ""),
}


def flat(rules: list[dict[str, Any]]) -> set[Rule]:
    return {
        (verb, group, resource, name)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule.get("apiGroups") or ("",)
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ("",)
    }


def granted(binding: str) -> set[Rule]:
    """What the bindings of this kind give to the operator, by the manifests alone."""
    roles = {item["roleRef"]["name"] for item in BASE if item["kind"] == binding}
    kind = binding.removesuffix("Binding")
    rules = [
        rule
        for item in BASE
        if item["kind"] == kind and item["metadata"]["name"] in roles
        for rule in item["rules"]
    ]
    return flat(rules)


@pytest.fixture(scope="module")
async def operator(control_plane: Cluster) -> Path:
    """A kubeconfig that logs in as the operator, once its permissions are in force."""
    await control_plane.kubectl("apply", "-k", ROOT / "manifests")
    kubeconfig = await control_plane.kubeconfig_for_service_account(NAMESPACE, "regcred")

    async def in_force() -> bool:
        asked = ("auth", "can-i", "list", "namespaces")
        return (await control_plane.kubectl_run(*asked, kubeconfig=kubeconfig, check=False)).returncode == 0

    await eventually(in_force, "the operator's permissions")
    return kubeconfig


async def rules_in(cluster: Cluster, kubeconfig: Path, namespace: str) -> set[Rule]:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = await cluster.kubectl(
        "create", "-f", "-", "-o", "json", input=json.dumps(review), kubeconfig=kubeconfig
    )
    return flat(json.loads(answer)["status"]["resourceRules"]) - EVERYBODY


async def test_the_server_grants_what_the_manifests_say(
    control_plane: Cluster, operator: Path, namespace: str
) -> None:
    """In a tenant's namespace the operator has the cluster roles' rules; in its own those of its Role as well."""
    cluster_wide = granted("ClusterRoleBinding")
    assert await rules_in(control_plane, operator, namespace) == cluster_wide
    assert await rules_in(control_plane, operator, NAMESPACE) == cluster_wide | granted("RoleBinding")


MAY = (
    "list namespaces -A",
    "watch namespaces -A",
    "list serviceaccounts -A",
    "get serviceaccount/default -n tenant",
    "patch serviceaccount/default -n tenant",
    "patch serviceaccount/build -n tenant",
    "create secret/regcred -n tenant",
    "patch secret/regcred -n tenant",
    "delete secret/regcred -n tenant",
    "list clusterregistrycredentials.regcred.io -A",
    "watch registrycredentials.regcred.io -A",
    "patch clusterregistrycredentials.regcred.io/platform --subresource=status",
    "create events -n tenant",
    "get secret/dockerhub -n regcred-system",
    "list secrets -n regcred-system",
    "patch secret/regcred-cache-0 -n regcred-system",
    "create serviceaccounts --subresource=token -n regcred-system",
    "create leases.coordination.k8s.io -n regcred-system",
    "update leases.coordination.k8s.io/regcred -n regcred-system",
)
MAY_NOT = (
    "get secret/dockerhub -n tenant",
    "list secrets -n tenant",
    "list secrets -A",
    "watch secrets -A",
    "create secrets -n tenant",
    "create secret/other -n tenant",
    "update secret/regcred -n tenant",
    "deletecollection secrets -n tenant",
    "create serviceaccounts --subresource=token -n tenant",
    "create serviceaccounts -n tenant",
    "update serviceaccount/default -n tenant",
    "delete serviceaccount/default -n tenant",
    "patch namespace/tenant",
    "update namespace/tenant --subresource=finalize",
    "patch clusterregistrycredentials.regcred.io/platform",
    "create clusterregistrycredentials.regcred.io",
    "delete registrycredentials.regcred.io/quay -n tenant",
    "list pods -A",
    "create pods -n tenant",
    "create pods -n regcred-system",
    "create pods --subresource=exec -n regcred-system",
    "patch deployment.apps/regcred -n regcred-system",
    "update leases.coordination.k8s.io/kube-scheduler -n kube-system",
    "update leases.coordination.k8s.io/other -n regcred-system",
    "create clusterrolebindings.rbac.authorization.k8s.io",
    "impersonate serviceaccount/default -n tenant",
    "patch customresourcedefinitions.apiextensions.k8s.io/registrycredentials.regcred.io",
    "get nodes",
)


@pytest.mark.parametrize(
    ("asked", "answer"), [*((asked, "yes") for asked in MAY), *((asked, "no") for asked in MAY_NOT)]
)
async def test_single_rights(control_plane: Cluster, operator: Path, asked: str, answer: str) -> None:
    """Each right that the operator needs it has, and none that would make it worth taking over."""
    done = await control_plane.kubectl_run("auth", "can-i", *asked.split(), kubeconfig=operator, check=False)
    assert done.stdout.split()[:1] == [answer], done.stderr


async def test_secrets_of_our_name_are_listed_by_name_only(control_plane: Cluster, operator: Path) -> None:
    """The one list of Secrets that passes is the one that names them; the same without the name is refused."""
    named = "/api/v1/secrets?fieldSelector=metadata.name%3Dregcred"
    assert (
        json.loads(await control_plane.kubectl("get", "--raw", named, kubeconfig=operator))["kind"] == "SecretList"
    )
    refused = await control_plane.kubectl_run("get", "--raw", "/api/v1/secrets", kubeconfig=operator, check=False)
    assert "forbidden" in refused.stderr.lower()


async def test_a_tenants_consent_opens_one_secret(control_plane: Cluster, operator: Path, namespace: str) -> None:
    """The Role of examples/tenant.yaml opens the one Secret that it names, and no other of the namespace."""
    for name in ("quay-robot", "other"):
        await control_plane.kubectl("create", "secret", "generic", name, "-n", namespace)
    example = (
        (ROOT / "examples" / "tenant.yaml").read_text().replace("namespace: team-a", f"namespace: {namespace}")
    )
    await control_plane.kubectl("apply", "-f", "-", input=example)

    async def allowed() -> bool:
        asked = ("get", "secret", "quay-robot", "-n", namespace)
        return (await control_plane.kubectl_run(*asked, kubeconfig=operator, check=False)).returncode == 0

    await eventually(allowed, "the tenant's consent")
    other = ("get", "secret", "other", "-n", namespace)
    refused = await control_plane.kubectl_run(*other, kubeconfig=operator, check=False)
    assert "forbidden" in refused.stderr.lower()
