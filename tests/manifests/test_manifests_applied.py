"""A real API server takes the base and every choice whose APIs it serves."""

from __future__ import annotations

import json

import pytest

from dev.cluster import Cluster
from dev.waiting import eventually
from tests.manifests.manifests_support import NAMESPACE, OVERLAYS, ROOT

#: The first version that serves what an overlay needs, and what that is.
NEEDS = {
    "admission": ((1, 30), "ValidatingAdmissionPolicy v1"),
    "cel": ((1, 25), "CEL in definitions"),
    "pdb": ((1, 21), "policy/v1"),
    "pod-injection": ((1, 36), "MutatingAdmissionPolicy"),
}


@pytest.fixture(scope="module")
async def installed(control_plane: Cluster) -> Cluster:
    """The cluster with the installation applied as the quickstart says."""
    await control_plane.kubectl("apply", "-k", ROOT / "manifests")
    return control_plane


async def test_the_base_is_applied_whole(installed: Cluster) -> None:
    """`kubectl apply -k manifests/` installs everything in one go, definitions included."""
    deployment = await installed.get("deployment", "regcred", "-n", NAMESPACE)
    assert deployment["spec"]["replicas"] == 2
    told = await installed.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    assert "registrycredentials.regcred.io condition met" in told


async def test_applying_again_changes_nothing(installed: Cluster) -> None:
    """A second application, as GitOps tools do it all day, leaves every object as it is."""
    assert "configured" not in await installed.kubectl("apply", "-k", ROOT / "manifests")


async def test_server_side_apply_takes_the_base(installed: Cluster) -> None:
    """The base is accepted by server-side apply, too, as Flux and Helm send it, and as a second manager."""
    await installed.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller"),
        *("--dry-run=server", "-k", ROOT / "manifests"),
    )


async def test_one_replica_can_be_chosen_later(installed: Cluster) -> None:
    """An installation of two replicas takes the overlay for one."""
    await installed.kubectl("apply", "--dry-run=server", "-k", ROOT / "manifests" / "overlays" / "single-replica")


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_every_overlay_is_accepted(installed: Cluster, overlay: str) -> None:
    """The server accepts each overlay, defaulting and validation included."""
    version, what = NEEDS.get(overlay, ((1, 20), ""))
    if installed.version < version:
        pytest.skip(
            f"{what} is served from Kubernetes {version[0]}.{version[1]} on; this is {installed.git_version}"
        )
    if overlay == "prometheus":
        kinds = await installed.kubectl("api-resources", "--api-group=monitoring.coreos.com", "-o", "name")
        if "servicemonitors" not in kinds:
            pytest.skip("the Prometheus Operator's definitions are not installed in this cluster")
    await installed.kubectl("apply", "--dry-run=server", "-k", ROOT / "manifests" / "overlays" / overlay)


async def test_our_kinds_are_listed_by_their_category(installed: Cluster) -> None:
    """`kubectl get regcred` lists both kinds, as the documentation says."""
    listed = await installed.kubectl("api-resources", "--categories=regcred", "-o", "name")
    assert sorted(listed.split()) == [
        "clusterregistrycredentials.regcred.io",
        "registrycredentials.regcred.io",
    ]


@pytest.mark.usefixtures("controllers")
async def test_view_holds_our_kinds_and_edit_does_not_write_them(installed: Cluster) -> None:
    """The cluster's own roles take up the right to look, from `view` to `admin`, and none to change."""

    async def verbs_of(role: str) -> set[str]:
        rules = (await installed.get("clusterrole", role))["rules"]
        return {verb for rule in rules if "regcred.io" in rule["apiGroups"] for verb in rule["verbs"]}

    async def taken_up() -> bool:
        return bool(await verbs_of("admin"))

    await eventually(taken_up, "the aggregated role")
    for role in ("view", "edit", "admin"):
        assert await verbs_of(role) == {"get", "list", "watch"}


async def test_a_disruption_budget_of_the_old_version_is_not_shipped(installed: Cluster) -> None:
    """The base needs nothing that a supported server lacks: each of its kinds is served here."""
    served = await installed.kubectl("api-resources", "-o", "name")
    applied = json.loads(
        await installed.kubectl("apply", "--dry-run=server", "-k", ROOT / "manifests", "-o", "json")
    )
    kinds = {item["kind"].lower() for item in applied["items"]}
    names = {name.partition(".")[0] for name in served.split()}
    plurals = {"networkpolicy": "networkpolicies"}
    assert {plurals.get(kind, f"{kind}s") for kind in kinds} <= names
