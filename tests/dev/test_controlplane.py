"""The control plane that other tests stand on is a real one, in every respect they rely on."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import jwt
import pytest

from dev.cluster import Cluster
from dev.controlplane import ControlPlane
from dev.processes import CommandError
from dev.waiting import eventually


async def gone(cluster: Cluster, *what: str) -> bool:
    return not await cluster.kubectl("get", *what, "--ignore-not-found", "-o", "name")


async def present(cluster: Cluster, *what: str) -> bool:
    return not await gone(cluster, *what)


async def test_version_is_discovered(control_plane: Cluster) -> None:
    """The server's version is known as a pair of numbers, and is one that regcred supports."""
    assert control_plane.version >= (1, 20)
    assert control_plane.git_version.startswith("v{}.{}.".format(*control_plane.version))


async def test_rbac_is_on(control_plane: Cluster, namespace: str) -> None:
    """A service account without a role may not read Secrets, and with one it may."""
    await control_plane.kubectl("create", "serviceaccount", "visitor", "-n", namespace)
    kubeconfig = await control_plane.kubeconfig_for_service_account(namespace, "visitor")
    with pytest.raises(CommandError, match="forbidden"):
        await control_plane.kubectl("get", "secrets", kubeconfig=kubeconfig)
    here = ("-n", namespace)
    account = f"--serviceaccount={namespace}:visitor"
    await control_plane.kubectl("create", "role", "reader", "--verb=list", "--resource=secrets", *here)
    await control_plane.kubectl("create", "rolebinding", "reader", "--role=reader", account, *here)

    async def allowed() -> bool:
        done = await control_plane.kubectl_run("get", "secrets", kubeconfig=kubeconfig, check=False)
        return done.returncode == 0

    assert await eventually(allowed, "the role binding takes effect")


@pytest.mark.usefixtures("controllers")
async def test_default_service_account_appears(control_plane: Cluster, namespace: str) -> None:
    """Every new namespace is given its default service account."""
    await eventually(
        lambda: present(control_plane, "serviceaccount", "default", "-n", namespace), "the default account"
    )


@pytest.mark.usefixtures("controllers")
async def test_namespace_is_deleted_with_its_content(control_plane: Cluster, namespace: str) -> None:
    """A deleted namespace goes away for good, together with the Secrets in it."""
    await control_plane.kubectl("create", "secret", "generic", "content", "-n", namespace)
    await control_plane.kubectl("delete", "namespace", namespace, "--wait=false")
    await eventually(lambda: gone(control_plane, "namespace", namespace), "the end of the namespace")
    assert await gone(control_plane, "secret", "content", "-n", namespace)


@pytest.mark.usefixtures("controllers")
async def test_owned_object_is_collected(control_plane: Cluster, namespace: str) -> None:
    """When an owner is deleted, the garbage collector deletes what it owned."""
    await control_plane.kubectl("create", "configmap", "owner", "-n", namespace)
    owner = await control_plane.get("configmap", "owner", "-n", namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    metadata = {"name": "owned", "namespace": namespace, "ownerReferences": [reference]}
    await control_plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    await control_plane.kubectl("delete", "configmap", "owner", "-n", namespace)
    await eventually(lambda: gone(control_plane, "secret", "owned", "-n", namespace), "the garbage collector")


async def test_token_request_yields_a_bound_token(control_plane: Cluster, namespace: str) -> None:
    """A requested token has the audience asked for and is signed with the published key."""
    if control_plane.public_key is None:
        pytest.skip("the signing key of a given cluster is not known here")
    await control_plane.kubectl("create", "serviceaccount", "puller", "-n", namespace)
    asked = ("--audience=sts.example", "--duration=600s")
    token = await control_plane.kubectl("create", "token", "puller", "-n", namespace, *asked)
    claims = jwt.decode(
        token.strip(),
        control_plane.public_key.read_text(),
        algorithms=["RS256"],
        audience="sts.example",
        issuer=control_plane.issuer,
    )
    assert claims["sub"] == f"system:serviceaccount:{namespace}:puller"
    assert claims["exp"] - claims["iat"] == 600


async def test_every_request_is_in_the_audit_log(control_plane: Cluster, namespace: str) -> None:
    """A write is in the audit log, once, with its user and without its content."""
    log = control_plane.audit_log
    if log is None:
        pytest.skip("a given cluster's audit log is not known here")
    name, content = f"marked-{uuid.uuid4().hex}", uuid.uuid4().hex
    await control_plane.kubectl(
        "create", "secret", "generic", name, f"--from-literal=a={content}", "-n", namespace
    )

    async def entries() -> list[dict[str, Any]]:
        lines = [line for line in log.read_text().splitlines() if f'"{name}"' in line]
        return [json.loads(line) for line in lines]

    (entry,) = await eventually(entries, "the write in the audit log")
    assert (entry["verb"], entry["stage"], entry["level"]) == ("create", "ResponseComplete", "Metadata")
    assert entry["user"]["username"] == "dev-admin"
    assert content not in log.read_text()


async def test_outage_keeps_data_and_address(owned_control_plane: ControlPlane, namespace: str) -> None:
    """After a stop and start the API server is back at the same address with the same data."""
    plane = owned_control_plane
    before = await plane.get("namespace", namespace)
    await plane.stop_apiserver()
    refused = await plane.kubectl_run("get", "namespace", namespace, check=False)
    assert refused.returncode != 0
    assert "refused" in refused.stderr
    await plane.start_apiserver()
    after = await plane.get("namespace", namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.mark.usefixtures("controllers")
async def test_restarted_controllers_know_new_kinds(owned_control_plane: ControlPlane, namespace: str) -> None:
    """After a restart of the controllers, what a resource of a brand-new kind owned is collected at once."""
    plane = owned_control_plane
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    await plane.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "owners.dev.regcred.io"},
            "spec": {
                "group": "dev.regcred.io",
                "scope": "Cluster",
                "names": {"kind": "Owner", "plural": "owners"},
                "versions": [version],
            },
        }
    )
    await plane.kubectl("wait", "--for=condition=Established", "crd/owners.dev.regcred.io", "--timeout=30s")
    try:
        await plane.restart_controller_manager()
        await plane.apply({"apiVersion": "dev.regcred.io/v1", "kind": "Owner", "metadata": {"name": "one"}})
        owner = await plane.get("owners.dev.regcred.io", "one")
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        reference |= {key: owner["metadata"][key] for key in ("name", "uid")}
        metadata = {"name": "owned", "namespace": namespace, "ownerReferences": [reference]}
        await plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
        await plane.kubectl("delete", "owners.dev.regcred.io", "one")
        begun = time.monotonic()
        await eventually(lambda: gone(plane, "secret", "owned", "-n", namespace), "the garbage collector")
        assert time.monotonic() - begun < 20
    finally:
        await plane.kubectl("delete", "crd", "owners.dev.regcred.io")
