"""The Helm chart installs what the kustomize base does, for every choice, and refuses values that make no sense."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import helm_python as helm
import pytest
import yaml

import regcred
from dev import binaries, chart, linters
from dev.cluster import Cluster
from dev.controlplane import GIVEN, ControlPlane, start_control_plane
from regcred import cli
from tests.manifests.manifests_support import NAMESPACE, OVERLAYS, ROOT, Object, container, one, render
from tests.manifests.pod_security import violations

CHART = chart.CHART
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
#: The values that stand for each overlay.
SAME = {
    "admission": {"admission": {"enabled": True}},
    "cel": {"crds": {"cel": True}},
    "grafana": {"grafana": {"enabled": True}},
    "no-cluster-ambient": {"clusterAmbientCredentials": False},
    "pdb": {"podDisruptionBudget": {"enabled": True}},
    "prometheus": {"prometheus": {"enabled": True}},
    "pod-injection": {"podInjection": {"enabled": True}},
    "restart-stuck": {"restartStuck": {"enabled": True}},
    "secret-name": {"secretNames": ["regcred", "registry-login"]},
    "single-replica": {"replicas": 1},
    "tenant-sources": {"tenantSources": {"secrets": True, "identities": True}},
}
#: What the base has and a release has not, unless it is asked for.
PLAIN = {"crds": {"cel": False, "keep": False}, "namespace": {"create": True}}


def merged(*values: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for value in values:
        for key, inner in value.items():
            both = isinstance(inner, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], inner) if both else inner
    return result


def objects(*values: dict[str, Any], namespace: str = NAMESPACE) -> list[Object]:
    """What the chart makes of these values."""
    with helm.Chart.load(CHART) as loaded:
        made = loaded.render(merged(*values), name="regcred", namespace=namespace)
    return [
        document
        for path, text in made.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def by_name(found: list[Object]) -> dict[tuple[str, str], Object]:
    keyed = {(item["kind"], item["metadata"]["name"]): item for item in found}
    assert len(keyed) == len(found)
    return keyed


def test_the_chart_installs_what_the_base_does() -> None:
    """With its values left alone the chart's objects are those of the kustomize base, field by field."""
    assert by_name(objects(PLAIN)) == by_name(render("manifests"))


def test_every_overlay_has_its_values() -> None:
    """Every choice of the kustomize side is one of the chart, too."""
    assert sorted(SAME) == sorted(OVERLAYS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_choices_are_the_same(overlay: str) -> None:
    """Each choice makes the same objects with Helm and with kustomize."""
    assert by_name(objects(PLAIN, SAME[overlay])) == by_name(render(f"manifests/overlays/{overlay}"))


def test_a_release_may_be_in_any_namespace() -> None:
    """Every object, subject and all, is in the release's namespace; none is left in the default one."""
    everything = merged(*(values for name, values in SAME.items() if name != "single-replica"))
    found = objects(everything, {"namespace": {"create": False}}, namespace="elsewhere")
    # The dashboard and the alerts only talk about it.
    silent = [item for item in found if item["kind"] not in ("ConfigMap", "PrometheusRule")]
    assert NAMESPACE not in yaml.safe_dump(silent)
    assert {item["metadata"].get("namespace", "elsewhere") for item in found} == {"elsewhere"}
    subjects = [subject for item in found for subject in item.get("subjects", ())]
    assert {subject["namespace"] for subject in subjects} == {"elsewhere"}


def test_definitions_stay_when_the_release_goes() -> None:
    """By default Helm is told to keep the definitions, and with them every resource."""
    kept = [item for item in objects() if item["kind"] == "CustomResourceDefinition"]
    assert len(kept) == 2
    for item in kept:
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [item for item in objects({"crds": {"install": False}}) if item["kind"] == kept[0]["kind"]]


def test_the_shared_files_are_current() -> None:
    """The chart's copies are what stands in manifests/ and crds/, and its version is regcred's; else `make docs`."""
    assert chart.main(["--check"]) == 0
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (metadata["version"], metadata["appVersion"]) == (regcred.__version__, regcred.__version__)
    assert f"image: regcred:{regcred.__version__}" in (ROOT / "manifests" / "base" / "deployment.yaml").read_text()


@pytest.mark.parametrize("version", ["v1.20.0", "v1.25.0", "v1.36.1"])
def test_helms_linter_is_content(version: str) -> None:
    """`helm lint --strict` has no error and no warning, for old servers and new ones."""
    report = helm.lint(CHART, strict=True, namespace=NAMESPACE, kube_version=version)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def properties(schema: Object, values: Object, path: str = "") -> Iterator[tuple[str, Object, Any]]:
    for name, inner in schema.get("properties", {}).items():
        if f"{path}.{name}" == ".global":
            continue
        yield f"{path}.{name}", inner, values[name]
        if inner.get("additionalProperties") is False and inner.get("type") == "object":
            yield from properties(inner, values[name], f"{path}.{name}")


def test_every_value_is_described() -> None:
    """Schema and values.yaml have the same values, each with a description and, in values.yaml, its default."""
    with helm.Chart.load(CHART) as loaded:
        loaded.validate_schema({})
    found = {path: schema for path, schema, _ in properties(SCHEMA, VALUES) if not path.startswith(".resources.")}
    assert all(schema.get("description") for schema in found.values())

    def paths(values: Object, path: str = "") -> Iterator[str]:
        for name, inner in values.items():
            yield f"{path}.{name}"
            if isinstance(inner, dict) and f"{path}.{name}" in found and "properties" in found[f"{path}.{name}"]:
                yield from paths(inner, f"{path}.{name}")

    assert {path for path in paths(VALUES) if not path.startswith(".resources.")} == set(found)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": "two"}, "replicas"),
        ({"replicas": 1, "podDisruptionBudget": {"enabled": True}}, "replicas"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"image": {"repository": "https://registry.example.com/regcred"}}, "repository"),
        ({"image": {"tag": "a b"}}, "tag"),
        ({"secretNames": []}, "secretNames"),
        ({"secretNames": ["registry-login"]}, "secretNames"),
        ({"secretNames": ["regcred", "Upper"]}, "secretNames"),
        ({"protectedNamespaces": ["team a"]}, "protectedNamespaces"),
        ({"logLevel": "info"}, "logLevel"),
        ({"crds": {"cel": "sometimes"}}, "cel"),
        ({"clusterAmbientCredentials": "no"}, "clusterAmbientCredentials"),
        ({"extraArgs": ["run"]}, "extraArgs"),
        ({"serviceAccount": {"name": "other"}}, "name"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], names: str) -> None:
    """A value that is misspelt or impossible is refused before anything is rendered, by its name."""
    with helm.Chart.load(CHART) as loaded, pytest.raises(helm.HelmError, match=names):
        loaded.validate_schema(values)


def test_what_helm_users_set_arrives() -> None:
    """Image, account, pod, flags and egress are where the values say."""
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}], "ports": [{"port": 3128, "protocol": "TCP"}]}
    found = objects(
        {
            "image": {"repository": "images.example.com:5000/regcred", "digest": f"sha256:{'a' * 64}"},
            "imagePullSecrets": [{"name": "by-hand"}],
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}},
            "podLabels": {"azure.workload.identity/use": "true"},
            "podAnnotations": {"a": "b"},
            "ambientCredentials": True,
            "protectedNamespaces": ["kube-*", "infra"],
            "logLevel": "DEBUG",
            "logFormat": "text",
            "extraArgs": ["--concurrency=64"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://10.0.0.9:3128"}],
            "networkPolicy": {"extraEgress": [rule]},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "prometheus": {"enabled": True, "runbookBase": "https://docs.example.com/regcred/"},
        }
    )
    pod = one(found, "Deployment", "regcred")["spec"]["template"]
    run = container(found)
    assert run["image"] == f"images.example.com:5000/regcred@sha256:{'a' * 64}"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "by-hand"}]
    assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert pod["metadata"]["annotations"] == {"a": "b"}
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert pod["spec"]["priorityClassName"] == "system-cluster-critical"
    account = one(found, "ServiceAccount", "regcred")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}
    assert one(found, "NetworkPolicy", "regcred")["spec"]["egress"][-1] == rule
    assert run["env"][-1] == {"name": "HTTPS_PROXY", "value": "http://10.0.0.9:3128"}
    parent = click.Context(cli.main, info_name="regcred", **cli.main.context_settings)
    options = cli.run.make_context("run", run["args"][1:], parent=parent).params
    assert options["protected_namespaces"] == ("kube-*", "infra")
    assert (options["ambient_credentials"], options["log_level"], options["concurrency"]) == (True, "DEBUG", 64)
    groups = one(found, "PrometheusRule", "regcred")["spec"]["groups"]
    urls = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    assert "https://docs.example.com/regcred/runbooks.md#regcredloginendssoon" in urls
    assert one(objects({"networkPolicy": {"enabled": False}}), "Deployment", "regcred")
    assert not [item for item in objects({"networkPolicy": {"enabled": False}}) if item["kind"] == "NetworkPolicy"]


# The pod.

BOTH = pytest.mark.parametrize(
    "found", [render("manifests"), objects(), objects({"replicas": 1})], ids=["base", "chart", "chart-1"]
)


@BOTH
def test_the_restricted_standard_accepts_the_pod(found: list[Object]) -> None:
    """The Pod Security Standard that the namespace enforces finds nothing wrong with the pod."""
    assert violations(one(found, "Deployment", "regcred")["spec"]["template"]["spec"]) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("hostNetwork",), True, "hostNetwork"),
        (("securityContext", "runAsNonRoot"), False, "runAsNonRoot"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "seccompProfile"),
        (("securityContext", "runAsUser"), 0, "runAsUser"),
        (("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}], "sysctl"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), None, "allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "capabilities"),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"], "capabilities"),
        (("containers", 0, "securityContext", "privileged"), True, "privileged"),
        (("containers", 0, "securityContext", "seLinuxOptions"), {"type": "spc_t"}, "seLinuxOptions"),
        (("containers", 0, "ports", 0, "hostPort"), 8080, "hostPort"),
        (("containers", 0, "livenessProbe", "httpGet", "host"), "169.254.169.254", "probe host"),
        (("volumes", 1), {"name": "tmp", "hostPath": {"path": "/"}}, "hostPath"),
    ],
    ids=str,
)
def test_the_table_of_the_standard_bites(path: tuple[Any, ...], value: Any, said: str) -> None:
    """The restated standard notices each thing that it forbids."""
    pod = copy.deepcopy(one(render("manifests"), "Deployment", "regcred")["spec"]["template"]["spec"])
    place = pod
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert [found for found in violations(pod) if said in found]


# Checkers.

#: What checkov would have, and why not.
WAIVED = {
    "CKV_K8S_11": "no CPU limit: a renewal that is throttled is a renewal that is late",
    "CKV_K8S_15": "the tag is a version, which is never pushed anew",
    "CKV_K8S_40": "OpenShift chooses the user; the image's own is 65532",
    "CKV_K8S_43": "the digest is that of the user's own build; the chart takes one",
}


async def test_checkov_finds_nothing(tmp_path: Path) -> None:
    """A checker of manifests finds nothing in base and chart, with every choice, but what is waived for a reason."""
    try:
        program = await linters.checkov()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    harmless = [values for name, values in SAME.items() if name not in ("single-replica", "tenant-sources")]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump_all(render("manifests")))
    (tmp_path / "chart.yaml").write_text(yaml.safe_dump_all(objects(*harmless)))
    done = subprocess.run(
        [program, "-d", tmp_path, "--framework=kubernetes", "--skip-download", "--compact", "--output=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    failed = {check["check_id"]: check["check_name"] for check in report["results"]["failed_checks"]}
    assert {key: name for key, name in failed.items() if key not in WAIVED} == {}
    assert set(failed) == set(WAIVED), "a waiver that is not needed any more"
    assert report["summary"]["passed"] > 200


@pytest.mark.parametrize("version", ["1.25.0", "1.37.0"])
async def test_newer_api_servers_know_every_field(version: str, tmp_path: Path) -> None:
    """Each object that a newer server is sent has the fields of its schema of that version, and no other."""
    try:
        program = await linters.kubernetes_validate()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    several = ("pdb", "grafana", "tenant-sources")
    known = {key: item for name in several for key, item in by_name(render(f"manifests/overlays/{name}")).items()}
    known[("ConfigMap", "bad")] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dat": {}}
    files = []
    for (kind, name), item in known.items():
        if kind != "CustomResourceDefinition":
            files.append(tmp_path / f"{kind}-{name.replace(':', '-')}.yaml")
            files[-1].write_text(yaml.safe_dump(item))
    done = await asyncio.to_thread(
        subprocess.run,
        [program, "--strict", "--no-warn", f"--kubernetes-version={version}", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert len(wrong) == 1, done.stdout + done.stderr
    assert "'dat' was unexpected" in wrong[0]


# On a cluster.


ADMISSION = "admissionregistration.k8s.io/v1"
MONITORING = "monitoring.coreos.com/v1"
#: What a server may lack, and since when each has it; () is what somebody has to install.
NEWER: dict[tuple[str, str], tuple[int, ...]] = {
    ("policy/v1", "PodDisruptionBudget"): (1, 21),
    (ADMISSION, "ValidatingAdmissionPolicy"): (1, 30),
    (ADMISSION, "ValidatingAdmissionPolicyBinding"): (1, 30),
    (ADMISSION, "MutatingAdmissionPolicy"): (1, 36),
    (ADMISSION, "MutatingAdmissionPolicyBinding"): (1, 36),
    (MONITORING, "ServiceMonitor"): (),
    (MONITORING, "PrometheusRule"): (),
}


@pytest.mark.parametrize("how", ["chart", "base"])
async def test_a_real_server_accepts_all_of_it(control_plane: Cluster, how: str) -> None:
    """The API server takes every object, with every choice, by either way of applying; what it cannot know is named."""
    cel = control_plane.version >= (1, 25)
    harmless = [name for name in OVERLAYS if name != "single-replica" and (cel or name != "cel")]
    if how == "chart":
        given = {"namespace": {"create": True}, "crds": {"cel": cel}}
        found = by_name(objects(merged(*(SAME[name] for name in harmless)), given))
    else:
        found = {
            key: item for name in harmless for key, item in by_name(render(f"manifests/overlays/{name}")).items()
        }
        found |= by_name(render("manifests"))
    rows = (await control_plane.kubectl("api-resources", "--no-headers")).splitlines()
    served = {(words[-3], words[-1]) for words in map(str.split, rows)}
    known = [item for item in found.values() if (item["apiVersion"], item["kind"]) in served]
    unknown = {(item["apiVersion"], item["kind"]) for item in found.values()} - served
    assert {key for key, since in NEWER.items() if since > control_plane.version} <= unknown <= set(NEWER)
    assert not [key for key in unknown if NEWER[key] and NEWER[key] <= control_plane.version]
    assert len(known) > 15
    await control_plane.kubectl("apply", "-f", ROOT / "manifests" / "base" / "namespace.yaml")
    text = yaml.safe_dump_all(known)
    await control_plane.kubectl("apply", "--dry-run=server", "-f", "-", input=text)
    # As Helm 4 and Flux do.
    await control_plane.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=flux", "--dry-run=server", "-f", "-"),
        input=text,
    )


@pytest.fixture(scope="module")
async def fresh() -> Any:
    """A cluster that nothing was installed in: Helm refuses what somebody else has installed."""
    async with start_control_plane() as cluster:
        if not isinstance(cluster, ControlPlane):
            pytest.skip(f"the cluster of {GIVEN} is not ours to install in")
        yield cluster


@pytest.mark.cluster
async def test_helm_installs_upgrades_and_uninstalls(fresh: Cluster) -> None:
    """A release is installed, upgraded with its definitions, and uninstalled; definitions and resources stay."""
    await fresh.kubectl("create", "namespace", NAMESPACE)
    config = helm.Config(kubeconfig_path=fresh.admin_kubeconfig, namespace=NAMESPACE)
    with config, helm.Chart.load(CHART) as loaded:
        config.install(loaded, "regcred", {}, namespace=NAMESPACE)
        await fresh.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        assert (await fresh.get("deployment", "regcred", "-n", NAMESPACE))["spec"]["replicas"] == 2
        definition = await fresh.get("crd", "registrycredentials.regcred.io")
        (version,) = definition["spec"]["versions"]
        has_cel = "x-kubernetes-validations" in json.dumps(version)
        assert has_cel is (fresh.version >= (1, 25))

        tenant = (ROOT / "examples" / "tenant.yaml").read_text()
        resource = next(item for item in yaml.safe_load_all(tenant) if item["kind"] == "RegistryCredential")
        resource["metadata"]["namespace"] = "default"
        await fresh.apply(resource)
        # A definition that an older release has left behind.
        lists = json.dumps([{"op": "remove", "path": "/spec/names/categories"}])
        await fresh.kubectl("patch", "crd", "registrycredentials.regcred.io", "--type=json", f"-p={lists}")
        config.upgrade(loaded, "regcred", {"replicas": 1}, namespace=NAMESPACE)
        upgraded = await fresh.get("deployment", "regcred", "-n", NAMESPACE)
        assert (upgraded["spec"]["replicas"], upgraded["spec"]["strategy"]["type"]) == (1, "Recreate")
        again = await fresh.get("crd", "registrycredentials.regcred.io")
        assert again["spec"]["names"]["categories"] == ["regcred"]

        config.uninstall("regcred")
        left = await fresh.kubectl("get", "deployments,networkpolicies,roles", "-n", NAMESPACE, "-o", "name")
        assert left == ""
        roles = await fresh.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
        assert not re.findall(r"/regcred", roles)
        found = await fresh.get("registrycredential", resource["metadata"]["name"])
        assert found["spec"]
        # The same release finds its definitions again.
        config.install(loaded, "regcred", {}, namespace=NAMESPACE)
        assert await fresh.get("registrycredential", resource["metadata"]["name"]) == found


def test_checkers_have_their_programs() -> None:
    """What renders the manifests is there without being installed by hand."""
    assert binaries.kubectl_binary().exists()
    assert helm.helm_sdk_version().startswith("v4.")
