"""The operator at work uses every right that its manifests give, and lacks none: the audit log is the witness."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from dev.audit import AuditLog
from dev.cluster import Cluster
from dev.operator_process import ACCOUNT, OperatorProcess, install
from dev.processes import tail
from dev.waiting import NeverHappenedError, eventually
from regcred.cluster import client as api
from tests.e2e import fenced
from tests.e2e.conftest import Entry, World
from tests.e2e.rights import Right, granted, superfluous
from tests.manifests.fence_support import refusals
from tests.manifests.manifests_support import NAMESPACE, ROOT, render

USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"


@pytest.mark.usefixtures("controllers", "installed")
async def test_every_right_is_used_and_none_is_missing(
    control_plane: Cluster, shared_operator: OperatorProcess, namespace: str, tmp_path: Path
) -> None:
    """Serving a namespace, with an identity and to its end, fails without any single right there is; none is refused."""
    if control_plane.audit_log is None:
        pytest.skip("a cluster that we were given shows us no audit log")
    # While it leads, another one only stands by.
    await shared_operator.stop()
    await control_plane.kubectl("delete", "lease", "regcred", "-n", NAMESPACE, "--ignore-not-found")
    log = AuditLog(control_plane.audit_log)
    await control_plane.kubectl("create", "serviceaccount", "rights-puller", "-n", NAMESPACE)
    login = ("--from-literal=username=u", "--from-literal=password=p")
    await control_plane.kubectl("create", "secret", "generic", "rights", "-n", NAMESPACE, *login)
    other = f"{namespace}-other"
    await control_plane.kubectl("create", "namespace", other)
    rights = granted()
    unused: set[Right] = set(rights)

    async def used_up(*verbs: str) -> bool:
        done = [request for request in log.requests(USER) if request.code < 400]
        unused.intersection_update(superfluous(rights, done))
        return not any(right.verb in verbs for right in unused)

    async def declare(name: str, *registries: dict[str, Any], namespaces: list[str], **spec: Any) -> None:
        spec |= {"namespaces": {"names": namespaces}, "registries": list(registries)}
        kind = "ClusterRegistryCredential"
        await control_plane.apply(
            {"apiVersion": "regcred.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        )

    async def has(namespace: str, *servers: str) -> bool:
        found = await control_plane.get("secrets", "-n", namespace, "--field-selector=metadata.name=regcred")
        told = [body["metadata"]["annotations"]["regcred.io/servers"] for body in found["items"]]
        return [sorted(json.loads(text)) for text in told] == ([sorted(servers)] if servers else [])

    operator = OperatorProcess(
        control_plane,
        tmp_path / "regcred.log",
        identity="rights",
        # Nobody answers there: the token is asked for, and then goes nowhere.
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"},
    )
    await operator.start()
    try:
        login = {"login": {"secretRef": {"name": "rights"}}}
        main = {"server": "rights.example.com", **login}
        # Nobody gets a token for the second; that one was asked for is enough.
        cloud = {
            "server": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "ecr": {
                "roleArn": "arn:aws:iam::123456789012:role/puller",
                "serviceAccountRef": {"name": "rights-puller"},
            },
        }
        await declare("rights", main, cloud, namespaces=[namespace, other])
        await declare(
            "rights-kept", {"server": "kept.example.com", **login}, namespaces=[namespace], deletionPolicy="Retain"
        )
        await control_plane.apply(
            {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "RegistryCredential",
                "metadata": {"name": "rights", "namespace": namespace},
                # Without a provider it makes no sense, which is all that its status has to say.
                "spec": {"registries": [{"server": "rights.example.com"}]},
            },
        )

        async def served() -> bool:
            account = await control_plane.get("serviceaccount", "default", "-n", other)
            both = await has(namespace, "rights.example.com", "kept.example.com")
            return both and {"name": "regcred"} in account.get("imagePullSecrets", [])

        await eventually(served, f"the namespaces to be served\n{tail(operator.log)}", seconds=60)
        # What is retained is read when the rest is written anew; what is not selected any more is deleted.
        await control_plane.kubectl("delete", "clusterregistrycredential", "rights-kept")
        await declare("rights", cloud, {**main, "server": "moved.example.com"}, namespaces=[namespace])
        await eventually(
            lambda: has(namespace, "moved.example.com", "kept.example.com"), "the retained login", seconds=60
        )
        await eventually(lambda: has(other), "the other namespace to be bare", seconds=60)
        await control_plane.kubectl("delete", "clusterregistrycredential", "rights")

        # What is not used shows below, where all of it is told.
        with contextlib.suppress(NeverHappenedError):
            await eventually(lambda: used_up("get", "patch", "delete", "create", "update", "list"), "the end")
    finally:
        left = ("rights", "rights-kept", "--ignore-not-found")
        await control_plane.kubectl("delete", "clusterregistrycredential", *left)
        await control_plane.kubectl("delete", "namespace", other, "--wait=false")
        await operator.stop()
        await control_plane.kubectl("delete", "serviceaccount/rights-puller", "secret/rights", "-n", NAMESPACE)
    # A watch is logged when it ends.
    with contextlib.suppress(NeverHappenedError):
        await eventually(lambda: used_up("watch"), "the end of the watches")
    assert unused == set()
    here = ("", NAMESPACE, namespace)
    assert [row for row in log.requests(USER) if row.code == 403 and row.namespace in here] == []
    client = api.Client(api.login(str(control_plane.admin_kubeconfig)))
    try:
        wrote = [write async for write in fenced.writes(client, log)]
    finally:
        await client.close()
    assert [(write, told) for write in wrote if (told := refusals(write))] == []
    assert {write.subresource for write in wrote} == {"", "status", "token"}
    for write in wrote:
        assert [name for name, bad in fenced.misdeeds(write) if not refusals(bad)] == []


async def test_a_right_that_is_taken_away_is_missed(world: World, entry: Entry) -> None:
    """Without the right to patch accounts the namespace fails, saying what is missing; with it again, it is served."""
    (namespace,) = await world.namespaces("a")
    role = await world.cluster.get("clusterrole", "regcred")
    rules = [
        {
            **rule,
            "verbs": [
                verb for verb in rule["verbs"] if verb != "patch" or "serviceaccounts" not in rule["resources"]
            ],
        }
        for rule in role["rules"]
    ]
    change = json.dumps({"rules": rules})
    await world.cluster.kubectl("patch", "clusterrole", "regcred", "--type=merge", "-p", change)
    try:

        async def taken() -> bool:
            asked = ("auth", "can-i", "-q", "patch", "serviceaccounts", "-n", namespace, f"--as={USER}")
            return (await world.cluster.kubectl_run(*asked, check=False)).returncode != 0

        await eventually(taken, "the right to be gone", seconds=60)
        await world.declare(entry(await world.login("alice", "s3cret")))

        async def failed() -> list[dict[str, str]]:
            return (await world.resource()).get("status", {}).get("failures") or []

        (failure,) = await eventually(failed, "the failure to be told", seconds=60)
        assert (failure["namespace"], failure["reason"]) == (namespace, "Forbidden")
        assert "service account default" in failure["message"]
        assert await world.secret(namespace) is not None
    finally:
        await install(world.cluster)
    await world.served(namespace)


def test_the_components_for_tenants_are_what_a_consent_gives() -> None:
    """The rights over all tenants' sources are the verbs of one tenant's consent, without the names."""
    consent = (ROOT / "examples" / "tenant.yaml").read_text()
    (role,) = [
        item
        for item in render("manifests/overlays/tenant-sources")
        if item["metadata"]["name"] == "regcred-tenant-secrets" and item["kind"] == "ClusterRole"
    ]
    assert f"verbs: [{', '.join(role['rules'][0]['verbs'])}]" in consent
