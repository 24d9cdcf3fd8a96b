"""The operator at work uses every right that its manifests give, and lacks none: the audit log is the witness."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dev.audit import AuditLog, Request
from dev.cluster import Cluster
from dev.operator_process import ACCOUNT, OperatorProcess
from dev.processes import tail
from dev.waiting import NeverHappenedError, eventually
from tests.manifests.manifests_support import NAMESPACE, ROOT, render

USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
#: Rights that the audit log shows under another verb, or that only a first start needs.
UNSEEN = {
    ("create", "secrets"),  # an apply-patch that creates is logged as a patch
    ("create", "leases"),  # it stands already where another operator ran in this cluster
}

Right = tuple[str, str]


def granted() -> set[Right]:
    """What the bound roles of the base give: verb and resource."""
    base = render("manifests")
    bound = {
        (item["roleRef"]["kind"], item["roleRef"]["name"]) for item in base if item["kind"].endswith("Binding")
    }
    return {
        (verb, resource)
        for item in base
        if (item["kind"], item["metadata"]["name"]) in bound
        for rule in item["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }


def right(request: Request) -> Right:
    """What a request needed: verb and resource."""
    return request.verb, "/".join(filter(None, (request.resource, request.subresource)))


@pytest.mark.usefixtures("controllers", "installed")
async def test_every_right_is_used_and_none_is_missing(
    control_plane: Cluster, shared_operator: OperatorProcess, namespace: str, tmp_path: Path
) -> None:
    """Serving a namespace, with an identity and to its end, takes all the rights there are; none is refused."""
    if control_plane.audit_log is None:
        pytest.skip("a cluster that we were given shows us no audit log")
    # While it leads, another one only stands by.
    await shared_operator.stop()
    log = AuditLog(control_plane.audit_log)
    await control_plane.kubectl("create", "serviceaccount", "rights-puller", "-n", NAMESPACE)
    login = ("--from-literal=username=u", "--from-literal=password=p")
    await control_plane.kubectl("create", "secret", "generic", "rights", "-n", NAMESPACE, *login)
    unused = granted() - UNSEEN

    async def used_up(*verbs: str) -> bool:
        unused.difference_update(right(request) for request in log.requests(USER) if request.code < 400)
        return not any(verb in verbs for verb, _ in unused)

    operator = OperatorProcess(
        control_plane,
        tmp_path / "regcred.log",
        identity="rights",
        # Nobody answers there: the token is asked for, and then goes nowhere.
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"},
    )
    await operator.start()
    try:
        await control_plane.apply(
            {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "ClusterRegistryCredential",
                "metadata": {"name": "rights"},
                "spec": {
                    "namespaces": {"names": [namespace]},
                    "registries": [
                        {"server": "rights.example.com", "login": {"secretRef": {"name": "rights"}}},
                        {
                            "server": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                            "ecr": {
                                "roleArn": "arn:aws:iam::123456789012:role/puller",
                                "serviceAccountRef": {"name": "rights-puller"},
                            },
                        },
                    ],
                },
            },
            {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "RegistryCredential",
                "metadata": {"name": "rights", "namespace": namespace},
                # Without a provider it makes no sense, which is all that its status has to say.
                "spec": {"registries": [{"server": "rights.example.com"}]},
            },
        )

        async def served() -> bool:
            account = await control_plane.get("serviceaccount", "default", "-n", namespace)
            return {"name": "regcred"} in account.get("imagePullSecrets", [])

        await eventually(served, f"the namespace to be served\n{tail(operator.log)}")
        await control_plane.kubectl("delete", "clusterregistrycredential", "rights")

        # What is not used shows below, where all of it is told.
        with contextlib.suppress(NeverHappenedError):
            await eventually(lambda: used_up("get", "patch", "delete", "create", "update", "list"), "the end")
    finally:
        await control_plane.kubectl("delete", "clusterregistrycredential", "rights", "--ignore-not-found")
        await operator.stop()
        await control_plane.kubectl("delete", "serviceaccount/rights-puller", "secret/rights", "-n", NAMESPACE)
    # A watch is logged when it ends.
    with contextlib.suppress(NeverHappenedError):
        await eventually(lambda: used_up("watch"), "the end of the watches")
    assert unused == set()
    here = ("", NAMESPACE, namespace)
    assert [row for row in log.requests(USER) if row.code == 403 and row.namespace in here] == []


def test_the_components_for_tenants_are_what_a_consent_gives() -> None:
    """The rights over all tenants' sources are the verbs of one tenant's consent, without the names."""
    consent = (ROOT / "examples" / "tenant.yaml").read_text()
    (role,) = [
        item
        for item in render("manifests/overlays/tenant-sources")
        if item["metadata"]["name"] == "regcred-tenant-secrets" and item["kind"] == "ClusterRole"
    ]
    assert f"verbs: [{', '.join(role['rules'][0]['verbs'])}]" in consent
