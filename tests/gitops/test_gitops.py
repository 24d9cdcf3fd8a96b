"""Argo CD and Flux stay quiet beside regcred, and judge its resources as `kubectl wait` does; seen on real objects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml

from dev.cluster import Cluster
from dev.operator_process import OperatorProcess, install
from dev.processes import tail
from dev.waiting import eventually
from regcred.api import names
from tests.docs.docs_support import DOCS, ROOT, blocks
from tests.gitops import kstatus

EXAMPLES = ROOT / "examples" / "gitops"
ARGO = EXAMPLES / "argocd"
CASES = yaml.safe_load((ARGO / "health_test.yaml").read_text())["tests"]
Json = dict[str, Any]
#: Who writes for which tool, and how it applies.
FLUX = ("kustomize-controller", ("--server-side", "--force-conflicts"))
ARGO_SERVER_SIDE = ("argocd-controller", ("--server-side", "--force-conflicts"))
ARGO_CLIENT_SIDE = ("argocd-controller", ())
TOOLS = pytest.mark.parametrize(
    "tool", [FLUX, ARGO_SERVER_SIDE, ARGO_CLIENT_SIDE], ids=["flux", "argocd-server-side", "argocd-client-side"]
)


def health(document: Json) -> tuple[str, str]:
    """Argo CD's verdict, by the script that is shipped."""
    lua = lupa.LuaRuntime()
    judge = lua.eval(f"function(obj)\n{(ARGO / 'health.lua').read_text()}\nend")
    found = judge(lua.table_from(document, recursive=True))
    return found["status"], found["message"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: Path(case["inputPath"]).stem)
def test_the_health_script_passes_its_tests(case: Json) -> None:
    """The script comes to the verdict of its test data, which are laid out as Argo CD has them."""
    document = yaml.safe_load((ARGO / case["inputPath"]).read_text())
    assert health(document) == (case["healthStatus"]["status"], case["healthStatus"]["message"])


def test_every_test_datum_is_used() -> None:
    """No file of test data lies about."""
    assert sorted(path.name for path in (ARGO / "testdata").iterdir()) == sorted(
        Path(case["inputPath"]).name for case in CASES
    )


def test_examples_are_what_the_page_shows() -> None:
    """The page on GitOps and the files of the examples say the same."""
    shown = [yaml.safe_load(block.body) for block in blocks(DOCS / "how-to" / "gitops.md", "yaml")]
    config = yaml.safe_load((ARGO / "argocd-cm.yaml").read_text())
    assert {"data": config["data"]} in shown
    script = yaml.safe_load(config["data"]["resource.customizations"])["regcred.io/*"]["health.lua"]
    assert script == (ARGO / "health.lua").read_text()
    application = yaml.safe_load((ARGO / "application.yaml").read_text())["spec"]
    part = {"ignoreDifferences": application["ignoreDifferences"]}
    part["syncPolicy"] = {"syncOptions": application["syncPolicy"]["syncOptions"]}
    assert {"spec": part} in shown


@pytest.fixture(scope="module")
async def operator(
    control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator at work, with a source that cluster resources of this module may name."""
    await install(control_plane)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "gitops", "namespace": "regcred-system"},
        "stringData": {"username": "u", "password": "p"},
    }
    await control_plane.apply(secret)
    running = OperatorProcess(control_plane, tmp_path_factory.mktemp("gitops") / "regcred.log", identity="gitops")
    await running.start()
    yield running
    await control_plane.kubectl("delete", "clusterregistrycredentials", "--all")
    await running.stop()
    await control_plane.kubectl("delete", "secret", "gitops", "-n", "regcred-system")


def declared(namespace: str, source: str = "gitops", **spec: Any) -> Json:
    """A cluster resource for one namespace, with what GitOps tools put on what they apply."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.CLUSTER_KIND,
        "metadata": {
            "name": namespace,
            "labels": {
                "app.kubernetes.io/instance": "platform",
                "kustomize.toolkit.fluxcd.io/name": "registries",
                "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
            },
            "annotations": {"argocd.argoproj.io/tracking-id": "platform:regcred.io/ClusterRegistryCredential:/x"},
        },
        "spec": {
            "registries": [{"server": "gitops.example.com", "login": {"secretRef": {"name": source}}}],
            "namespaces": {"names": [namespace]},
            "serviceAccounts": ["web"],
            **spec,
        },
    }


def account(namespace: str, **more: Any) -> Json:
    """A service account as a GitOps tool applies it, which is never without a mark of its own."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "web", "namespace": namespace, "labels": {"app.kubernetes.io/instance": "shop"}},
        **more,
    }


async def sync(cluster: Cluster, tool: tuple[str, tuple[str, ...]], *objects: Json) -> None:
    """Apply as a tool does."""
    manager, flags = tool
    await cluster.kubectl(
        "apply", *flags, f"--field-manager={manager}", "-f", "-", input=yaml.safe_dump_all(objects)
    )


async def drifts(cluster: Cluster, tool: tuple[str, tuple[str, ...]], *objects: Json) -> str:
    """What a tool would change now: its own dry run against what is there; "" where it is content."""
    manager, flags = tool
    done = await cluster.kubectl_run(
        *("diff", *flags, f"--field-manager={manager}", "-f", "-"), stdin=yaml.safe_dump_all(objects), check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


async def entries(cluster: Cluster, namespace: str) -> list[str]:
    found = await cluster.get("serviceaccount", "web", "-n", namespace)
    return [entry["name"] for entry in found.get("imagePullSecrets", ())]


async def served(cluster: Cluster, namespace: str, log: Path) -> None:
    async def ready() -> bool:
        found = await cluster.get("clusterregistrycredential", namespace)
        # Servers before 1.24 give each account a token of its own, which changes it once more.
        token = (await cluster.get("serviceaccount", "web", "-n", namespace)).get("secrets")
        settled = bool(token) or not cluster.controllers or cluster.version >= (1, 24)
        listed = "regcred" in await entries(cluster, namespace)
        return settled and listed and kstatus.verdict(found) == "Current"

    await eventually(ready, f"the account to have the entry\n{tail(log)}", seconds=90)


@TOOLS
@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"imagePullSecrets": [{"name": "regcred"}]},
        {"imagePullSecrets": [{"name": "own"}, {"name": "regcred"}]},
    ],
    ids=["no-list", "our-entry", "both"],
)
async def test_an_account_in_git_stays_as_it_is(
    control_plane: Cluster,
    operator: OperatorProcess,
    namespace: str,
    tool: tuple[str, tuple[str, ...]],
    listed: Json,
) -> None:
    """With no list in Git, or one with our entry, the tool sees no drift, and its next sync changes nothing."""
    mine, declaration = account(namespace, **listed), declared(namespace)
    await sync(control_plane, tool, mine, declaration)
    await served(control_plane, namespace, operator.log)
    before = await control_plane.get("serviceaccount", "web", "-n", namespace)
    resource = await control_plane.get("clusterregistrycredential", namespace)
    assert await drifts(control_plane, tool, mine, declaration) == ""
    await sync(control_plane, tool, mine, declaration)
    after = await control_plane.get("serviceaccount", "web", "-n", namespace)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    again = await control_plane.get("clusterregistrycredential", namespace)
    assert again["metadata"]["generation"] == resource["metadata"]["generation"]

    raw = await control_plane.kubectl(
        "get", "serviceaccount", "web", "-n", namespace, "-o", "json", "--show-managed-fields"
    )
    fields = json.loads(raw)["metadata"]["managedFields"]
    owners = {entry["manager"] for entry in fields if "f:imagePullSecrets" in entry["fieldsV1"]}
    # Who owns the list tells why nobody is at odds: we wrote it only where the tool has none.
    if not listed:
        assert tool[0] not in owners
        assert names.MANAGER in owners
    else:
        assert names.MANAGER not in owners

    secret = await control_plane.get("secret", "regcred", "-n", namespace)
    assert secret["metadata"]["labels"] == {names.MANAGED_BY_LABEL: names.MANAGER}
    assert not [key for key in secret["metadata"]["annotations"] if "argocd" in key or "fluxcd" in key]
    await control_plane.kubectl("delete", "clusterregistrycredential", namespace)


@TOOLS
async def test_a_list_without_our_entry_is_told_of(
    control_plane: Cluster, operator: OperatorProcess, namespace: str, tool: tuple[str, tuple[str, ...]]
) -> None:
    """Where Git has another list, the tool sees drift as the page says, and a sync takes our entry out."""
    mine, declaration = account(namespace, imagePullSecrets=[{"name": "own"}]), declared(namespace)
    await sync(control_plane, tool, mine, declaration)
    await served(control_plane, namespace, operator.log)
    assert await entries(control_plane, namespace) == ["own", "regcred"]
    assert "regcred" in await drifts(control_plane, tool, mine)
    await control_plane.kubectl("delete", "clusterregistrycredential", namespace)


async def test_every_tool_comes_to_one_verdict(
    control_plane: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    """On live objects in every state, kstatus (Flux), Argo CD's script and `kubectl wait` agree."""
    await control_plane.apply(account(namespace))
    states = {
        "ready": (declared(namespace), ("Current", "Healthy", True)),
        "stalled": (declared(namespace, "not-there", secretName="regcred"), ("Failed", "Degraded", False)),
        "suspended": (declared(namespace, suspend=True), None),
    }
    for state, (declaration, expected) in states.items():
        await control_plane.apply(declaration)

        async def settled() -> Json:
            found = await control_plane.get("clusterregistrycredential", namespace)
            current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
            return found if current and kstatus.verdict(found) != "InProgress" else {}

        found = await eventually(settled, f"the state {state}\n{tail(operator.log)}", seconds=90)
        ready = await control_plane.kubectl_run(
            *("wait", f"crcred/{namespace}", "--for=condition=Ready", "--timeout=1s"), check=False
        )
        if expected is None:
            assert health(found)[0] == "Suspended"
        else:
            assert (kstatus.verdict(found), health(found)[0], ready.returncode == 0) == expected
        await control_plane.kubectl("delete", "clusterregistrycredential", namespace)


async def test_a_resource_that_nobody_has_looked_at_is_not_ready(control_plane: Cluster, namespace: str) -> None:
    """Without the operator, no tool takes a resource for ready: its status says that nobody has seen it."""
    await install(control_plane)
    body = declared(namespace)
    body["kind"], body["metadata"]["namespace"] = names.NAMESPACED_KIND, "regcred-none"
    del body["spec"]["namespaces"]
    made = json.loads(
        await control_plane.kubectl(
            *("create", "--dry-run=server", "-o", "json", "-f", "-"),
            input=yaml.safe_dump({**body, "metadata": {"name": "unseen", "namespace": namespace}}),
        )
    )
    assert made["status"] == {"observedGeneration": -1}
    assert kstatus.verdict(made) == "InProgress"
    assert health(made)[0] == "Progressing"
