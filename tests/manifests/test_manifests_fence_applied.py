"""A real API server keeps the operator's account within the fence, even where somebody has made it an administrator."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.processes import Completed
from dev.waiting import eventually
from tests.manifests.fence_support import OPERATOR
from tests.manifests.manifests_support import NAMESPACE, ROOT

Json = dict[str, Any]
#: What a resource has left that was to be retained: an operator that is at work leaves it alone.
LEFT = {"from": "ClusterRegistryCredential/gone", "deletionPolicy": "Retain"}
MARKS: Json = {
    "labels": {"app.kubernetes.io/managed-by": "regcred"},
    "annotations": {
        "regcred.io/contributors": json.dumps({"u": LEFT}),
        "regcred.io/servers": json.dumps({"a.example.com": {"from": LEFT["from"], "uid": "u"}}),
    },
}
PULL: Json = {
    "apiVersion": "v1",
    "kind": "Secret",
    "type": "kubernetes.io/dockerconfigjson",
    "metadata": {"name": "regcred", **MARKS},
    "data": {".dockerconfigjson": base64.b64encode(b'{"auths":{}}').decode()},
}


class Fenced:
    """The operator's account as an administrator, in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    async def does(self, *words: str, body: Json | None = None) -> Completed:
        """Run kubectl as the operator's account."""
        stdin = json.dumps(body) if body is not None else None
        return await self.cluster.kubectl_run(
            *words, f"--as={OPERATOR}", f"--namespace={self.namespace}", stdin=stdin, check=False
        )

    async def refused(self, words: str, *command: str, body: Json | None = None) -> None:
        """Assert that a policy refuses it with these words."""
        done = await self.does(*command, body=body)
        assert done.returncode != 0, command
        assert "ValidatingAdmissionPolicy 'regcred-" in done.stderr, done.stderr
        assert words in done.stderr, done.stderr

    async def allowed(self, *command: str, body: Json | None = None) -> None:
        """Assert that it is done."""
        done = await self.does(*command, body=body)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
async def fence(control_plane: Cluster) -> AsyncIterator[Fenced]:
    """The policies in force on a server that has them."""
    if control_plane.version < (1, 30):
        pytest.skip(
            f"admission policies are served from Kubernetes 1.30 on; this is {control_plane.git_version} "
            f"(tests/manifests/test_manifests_fence.py evaluates them without a server)"
        )
    name = f"test-{uuid.uuid4().hex[:8]}"
    await control_plane.kubectl("apply", "-k", ROOT / "manifests" / "overlays" / "admission")
    await control_plane.kubectl("create", "namespace", name)
    await control_plane.kubectl("create", "serviceaccount", "app", "-n", name)
    binding = ("clusterrolebinding", name)
    account = f"--serviceaccount={NAMESPACE}:regcred"
    await control_plane.kubectl("create", *binding, "--clusterrole=cluster-admin", account)
    made = Fenced(control_plane, name)

    async def in_force() -> bool:
        done = await made.does("create", "configmap", "x", "--dry-run=server")
        return "ValidatingAdmissionPolicy 'regcred-writes'" in done.stderr

    try:
        await eventually(in_force, "the policies to be in force", seconds=60)
        yield made
    finally:
        await control_plane.kubectl("delete", *binding)
        await control_plane.kubectl("delete", "namespace", name, "--wait=false")
        await control_plane.kubectl(
            "delete",
            "validatingadmissionpolicies,validatingadmissionpolicybindings",
            "-l",
            "app.kubernetes.io/name=regcred",
        )


async def test_the_expressions_are_sound(fence: Fenced) -> None:
    """The server's own type check of every expression finds nothing."""
    found = await fence.cluster.get("validatingadmissionpolicies")
    ours = [item for item in found["items"] if item["metadata"]["name"].startswith("regcred-")]
    assert len(ours) == 6
    assert [item["status"] for item in ours if (item.get("status") or {}).get("typeChecking")] == []


async def test_secrets(fence: Fenced) -> None:
    """Its own pull Secret it writes and deletes; no other type, mark, name, key or owner's."""
    apply = ("apply", "--server-side", "--field-manager=regcred", "-f", "-")
    plain = {**PULL, "metadata": {"name": "regcred"}}
    await fence.refused("carries the label", *apply, body=plain)
    await fence.refused("of the type", *apply, body={**PULL, "type": "Opaque"})
    await fence.refused("names", *apply, body={**PULL, "metadata": {**PULL["metadata"], "name": "other"}})
    await fence.refused("no other", *apply, body={**PULL, "data": {**PULL["data"], "more": "eA=="}})
    await fence.cluster.kubectl("apply", "-n", fence.namespace, "-f", "-", input=json.dumps(plain))
    await fence.refused("is not regcred's", *apply, "--force-conflicts", body=PULL)
    await fence.refused("is not regcred's", "delete", "secret", "regcred")
    await fence.cluster.kubectl("delete", "secret", "regcred", "-n", fence.namespace)
    await fence.allowed(*apply, body=PULL)
    changed = {**PULL, "data": {".dockerconfigjson": base64.b64encode(b'{"auths":{"a":{}}}').decode()}}
    await fence.allowed(*apply, body=changed)
    await fence.allowed("delete", "secret", "regcred")


async def test_service_accounts(fence: Fenced) -> None:
    """Its own entry it adds and removes; it loses, adds and changes nothing else."""
    patch = ("patch", "serviceaccount", "app", "--type=merge", "-p")

    def listed(*names: str, **more: Any) -> str:
        return json.dumps({"imagePullSecrets": [{"name": name} for name in names], **more})

    await fence.cluster.kubectl(*patch, listed("theirs"), "-n", fence.namespace)
    await fence.refused("stay as they are", *patch, listed("regcred"))
    await fence.refused("stay as they are", *patch, listed("theirs", "evil"))
    await fence.refused("and nothing else", *patch, listed("theirs", automountServiceAccountToken=True))
    await fence.refused("and nothing else", *patch, json.dumps({"metadata": {"annotations": {"a": "b"}}}))
    await fence.allowed(*patch, listed("theirs", "regcred"))
    await fence.allowed(*patch, listed("theirs"))
    await fence.refused("/serviceaccounts DELETE", "delete", "serviceaccount", "app")


async def test_tokens(fence: Fenced) -> None:
    """Tokens for a cloud it gets; one for the API server, or for nobody in particular, it does not."""
    await fence.allowed("create", "token", "app", "--audience=sts.amazonaws.com")
    # The server fills in its own audience where none is named.
    await fence.refused("none of AWS", "create", "token", "app")
    await fence.refused("none of AWS", "create", "token", "app", "--audience=https://kubernetes.default.svc")


async def test_everything_else(fence: Fenced) -> None:
    """Nothing else of a cluster can be changed by the account, whatever roles it has."""
    await fence.refused("/configmaps CREATE", "create", "configmap", "x")
    binding = ("create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=x")
    await fence.refused("rbac.authorization.k8s.io/clusterrolebindings CREATE", *binding)
    await fence.refused("/namespaces UPDATE", "label", "namespace", fence.namespace, "a=b")
    await fence.refused("/namespaces DELETE", "delete", "namespace", fence.namespace)
