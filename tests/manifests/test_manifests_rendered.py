"""What `kubectl apply -k` sends is what the documentation promises, for the base and for every choice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import regcred
from regcred import cli
from regcred.api import names
from tests.manifests.manifests_support import MANIFESTS, NAMESPACE, OVERLAYS, ROOT, container, one, render, text

BASE = render("manifests")
POD = one(BASE, "Deployment", "regcred")["spec"]["template"]["spec"]


def identities(objects: list[dict[str, object]]) -> set[tuple[str, str]]:
    return {(item["kind"], item["metadata"]["name"]) for item in objects}  # type: ignore[index,misc]


def test_the_whole_installation_stands_in_one_folder() -> None:
    """The base holds the definitions, the namespace, the permissions and the operator, and nothing else."""
    assert sorted(kind for kind, _ in identities(BASE)) == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "CustomResourceDefinition",
        "Deployment",
        "Namespace",
        "NetworkPolicy",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ]


def test_every_namespaced_object_is_in_the_operators_namespace() -> None:
    """Nothing is written into another namespace than the operator's own."""
    spaces = {item["metadata"].get("namespace") for item in BASE if "namespace" in item["metadata"]}
    assert spaces == {NAMESPACE}


def test_no_object_of_ours_looks_like_a_pull_secret_of_the_operator() -> None:
    """The label that marks the operator's own Secrets is on no object of the installation."""
    assert names.MANAGED_BY_LABEL not in text("manifests")


def test_the_image_is_of_this_version() -> None:
    """The Deployment runs the version that this checkout is, by a name without a registry's host."""
    assert container(BASE)["image"] == f"regcred:{regcred.__version__}"


def test_the_pod_meets_the_restricted_standard() -> None:
    """The pod asks for nothing that the Pod Security Standard "restricted" refuses, and the namespace enforces it."""
    ours = container(BASE)["securityContext"]
    assert POD["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert ours["allowPrivilegeEscalation"] is False
    assert ours["capabilities"] == {"drop": ["ALL"]}
    assert ours["readOnlyRootFilesystem"] is True
    assert {kind for volume in POD["volumes"] for kind in volume if kind != "name"} == {"projected", "emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)
    labels = one(BASE, "Namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_token_is_short_lived_and_the_only_one() -> None:
    """No token is mounted by default; one of an hour is projected where clients look for it, with CA and namespace."""
    assert POD["automountServiceAccountToken"] is False
    assert one(BASE, "ServiceAccount", "regcred")["automountServiceAccountToken"] is False
    (mount,) = [row for row in container(BASE)["volumeMounts"] if row["name"] == "identity"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    (volume,) = [row for row in POD["volumes"] if row["name"] == "identity"]
    token, authority, namespace = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {"path": "token", "expirationSeconds": 3607}
    assert authority["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert namespace["downwardAPI"]["items"][0]["path"] == "namespace"


def test_two_replicas_spread_softly_and_one_can_be_chosen() -> None:
    """Two replicas stand on different nodes where they can; the overlay for one replaces the old one first."""
    two = one(BASE, "Deployment", "regcred")["spec"]
    assert two["replicas"] == 2
    assert {row["whenUnsatisfiable"] for row in POD["topologySpreadConstraints"]} == {"ScheduleAnyway"}
    single = one(render("manifests/overlays/single-replica"), "Deployment", "regcred")["spec"]
    assert (single["replicas"], single["strategy"]) == (1, {"type": "Recreate"})
    assert "topologySpreadConstraints" not in single["template"]["spec"]


def test_selectors_choose_the_pod() -> None:
    """The Service, the NetworkPolicy, the disruption budget and the ServiceMonitor select what they mean to."""
    pod = one(BASE, "Deployment", "regcred")["spec"]["template"]["metadata"]["labels"]
    service = one(BASE, "Service", "regcred-metrics")
    assert service["spec"]["selector"] == pod
    assert one(BASE, "NetworkPolicy", "regcred")["spec"]["podSelector"]["matchLabels"] == pod
    budget = one(render("manifests/overlays/pdb"), "PodDisruptionBudget", "regcred")
    assert budget["spec"]["selector"]["matchLabels"] == pod
    monitor = one(render("manifests/overlays/prometheus"), "ServiceMonitor", "regcred")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_probes_and_metrics_go_to_the_port_the_operator_listens_on() -> None:
    """The named port is the default of --port, and every probe and the Service use it."""
    default = {option.name: option.default for option in cli.run.params}["port"]
    assert container(BASE)["ports"] == [{"name": "http", "containerPort": default, "protocol": "TCP"}]
    probes = [container(BASE)[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
    assert probes == [{"path": "/healthz", "port": "http"}, {"path": "/readyz", "port": "http"}]
    assert one(BASE, "Service", "regcred-metrics")["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize("path", ["manifests", *(f"manifests/overlays/{name}" for name in OVERLAYS)])
def test_the_arguments_are_understood_by_the_command_line(path: str) -> None:
    """Every flag that a manifest passes is one that `regcred run` knows."""
    command, *flags = container(render(path))["args"]
    assert command == "run"
    known = {text for option in cli.run.params for text in (*option.opts, *option.secondary_opts)}
    assert set(flags) <= known


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_changes_the_base(overlay: str) -> None:
    """An overlay is the whole installation with something added or changed, never with something missing."""
    assert text(f"manifests/overlays/{overlay}") != text("manifests")
    assert identities(BASE) <= identities(render(f"manifests/overlays/{overlay}"))


@pytest.mark.parametrize("component", sorted(path.name for path in (MANIFESTS / "components").iterdir()))
def test_every_component_is_used_by_an_overlay(component: str) -> None:
    """No component goes untested: an overlay includes each."""
    overlays = [(MANIFESTS / "overlays" / name / "kustomization.yaml").read_text() for name in OVERLAYS]
    assert any(f"../../components/{component}\n" in overlay for overlay in overlays)


def test_components_can_be_combined(tmp_path: Path) -> None:
    """All choices that do not exclude each other render together, as a user's own kustomization would have them."""
    for folder in ("crds", "manifests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    chosen = [
        "admission",
        "pdb",
        "prometheus",
        "no-cluster-ambient",
        "secret-name",
        "tenant-secrets",
        "tenant-identities",
        "restart-stuck",
        "pod-injection",
    ]
    own = {
        "resources": ["../manifests"],
        "components": ["../crds/cel", *(f"../manifests/components/{name}" for name in chosen)],
        "images": [{"name": "regcred", "newName": "images.example.com/regcred", "newTag": "mine"}],
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    together = text(str(tmp_path / "own"))
    parts = (
        "x-kubernetes-validations",
        "ValidatingAdmissionPolicyBinding",
        "PodDisruptionBudget",
        "PrometheusRule",
        "registry-login",
        "regcred:mine",
        "pods/eviction",
        "MutatingAdmissionPolicyBinding",
    )
    for part in parts:
        assert part in together


def test_another_secret_name_is_one_line() -> None:
    """The overlay adds one name beside the default, and changes nothing else."""
    before, after = text("manifests").splitlines(), text("manifests/overlays/secret-name").splitlines()
    assert sorted(set(after) - set(before)) == ["  - registry-login"]
    assert len(after) == len(before) + 1


def test_without_cluster_ambient_credentials_the_metadata_services_are_out_of_reach() -> None:
    """The overlay sets the flag and takes the link-local addresses out of the egress rules."""
    objects = render("manifests/overlays/no-cluster-ambient")
    assert "--no-cluster-ambient-credentials" in container(objects)["args"]
    assert "169.254" in yaml.safe_dump(one(BASE, "NetworkPolicy", "regcred"))
    policy = one(objects, "NetworkPolicy", "regcred")["spec"]
    assert "169.254" not in yaml.safe_dump(policy)
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {
        53,
        5353,
        443,
        6443,
        8443,
        16443,
    }


def test_traffic_is_limited_in_both_directions() -> None:
    """Only the metrics port can be reached, and every egress rule names its ports."""
    policy = one(BASE, "NetworkPolicy", "regcred")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert all(rule["ports"] for rule in policy["egress"])


def test_rights_over_the_kinds_reach_those_who_look_and_nobody_else() -> None:
    """Reading our kinds is part of `view`; writing them is part of no role that the cluster hands out by itself."""
    roles = {item["metadata"]["name"]: item for item in BASE if item["kind"] == "ClusterRole"}
    aggregated = {
        name: [label for label in role["metadata"].get("labels", {}) if "aggregate-to" in label]
        for name, role in roles.items()
    }
    assert aggregated == {
        "regcred": [],
        "regcred-secrets": [],
        "regcred-edit": [],
        "regcred-view": ["rbac.authorization.k8s.io/aggregate-to-view"],
    }
    assert {verb for rule in roles["regcred-view"]["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    bound = {item["roleRef"]["name"] for item in BASE if item["kind"].endswith("Binding")}
    assert bound == {"regcred", "regcred-secrets"}


def test_no_rule_has_a_wildcard() -> None:
    """No permission of the installation, with any choice, says `*` or lets anybody raise his rights."""
    for path in ("manifests", *(f"manifests/overlays/{name}" for name in OVERLAYS)):
        for item in render(path):
            for rule in item.get("rules", ()):
                said = {word for key in ("apiGroups", "resources", "verbs") for word in rule[key]}
                assert not said & {"*", "escalate", "bind", "impersonate"}
