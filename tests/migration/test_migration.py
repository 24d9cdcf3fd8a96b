"""Moving in from another tool: what it has left is read, replaced, and handed over, without a secret being shown."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from dev import leavings as left
from dev.cluster import Cluster
from dev.operator_process import OperatorProcess, install
from dev.processes import tail
from dev.waiting import eventually
from regcred import migration
from regcred.api import names, resource
from regcred.migration import model

EACH = pytest.mark.parametrize("tool", sorted(migration.TOOLS))


def moves(tool: str, *tools: str) -> list[migration.Move]:
    return migration.plan(migration.Snapshot(left.ALL[tool]), tools)


def test_every_tool_has_its_leavings() -> None:
    """No tool is read that no test knows."""
    assert set(left.ALL) == set(migration.TOOLS)


@EACH
def test_a_tool_is_recognised_by_what_it_leaves(tool: str) -> None:
    """Looking for every tool finds this one and no other."""
    found = moves(tool)
    assert found
    assert found == moves(tool, tool)
    assert {move.tool for move in found} == {moves(tool, tool)[0].tool}


@EACH
def test_what_is_printed_is_what_the_operator_accepts(tool: str) -> None:
    """The file is YAML, each resource in it is valid as it stands, and no two have one name."""
    found = moves(tool)
    printed = list(yaml.safe_load_all(migration.render(found)))
    assert printed == [document for move in found for document in move.resources]
    for document in printed:
        stamped = {**document["metadata"], "uid": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}
        assert resource.parse({**document, "metadata": stamped}).problems == ()
    assert not [remark for move in found for remark in move.remarks if "by hand" in remark]
    keys = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in printed]
    assert len(keys) == len(set(keys))


@EACH
def test_no_secret_is_printed(tool: str) -> None:
    """Neither the file nor the moves hold a login, in plain or encoded."""
    told = migration.render(moves(tool)) + repr(moves(tool))
    assert left.CANARY not in told
    assert left.encoded(left.CANARY)[:12] not in told
    assert left.encoded(f"u:{left.CANARY}")[:12] not in told


@EACH
def test_the_commands_are_shell(tool: str) -> None:
    """Every command of the file is one that bash can read."""
    lines = [line[1:].strip() for line in migration.render(moves(tool)).splitlines() if line.startswith("#      ")]
    assert lines
    for line in lines:
        assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0, line


def spec_of(move: migration.Move) -> dict[str, Any]:
    (document,) = move.resources
    spec: dict[str, Any] = document["spec"]
    return spec


def test_imagepullsecret_patcher() -> None:
    """Its source, its name, all accounts and its exclusions are taken over; its Secrets are handed over where they are."""
    (move,) = moves("imagepullsecret-patcher")
    assert spec_of(move) == {
        "registries": [{"server": "*", "login": {"secretRef": {"name": "imagepullsecret-patcher"}}}],
        "secretName": "image-pull-secret",
        "serviceAccounts": ["*"],
        "namespaces": {"exclude": ["infra", "legacy"]},
    }
    (copy,) = move.copies
    assert copy.read == "secret/image-pull-secret-src -n imagepullsecret-patcher"
    assert move.adopt == [("team-a", "image-pull-secret"), ("team-b", "image-pull-secret")]
    assert any(remark.startswith("kube-system is served by no") for remark in move.remarks)
    assert move.stop == [
        "kubectl -n imagepullsecret-patcher scale deployment imagepullsecret-patcher --replicas=0"
    ]


@pytest.mark.parametrize(
    ("env", "accounts", "name"),
    [
        ([], ["default"], "image-pull-secret"),
        (
            [left.variable("CONFIG_SERVICEACCOUNTS", "default, builder")],
            ["default", "builder"],
            "image-pull-secret",
        ),
        ([left.variable("CONFIG_SECRETNAME", "own")], ["default"], "own"),
        ([left.variable("CONFIG_ALLSERVICEACCOUNT", "false")], ["default"], "image-pull-secret"),
    ],
)
def test_imagepullsecret_patchers_settings(env: list[Any], accounts: list[str], name: str) -> None:
    """Each of its variables has its effect, and its defaults are its own; logins in the Deployment need a hand."""
    made = left.deployment("x", "p", "ghcr.io/tamcore/imagepullsecret-patcher:1", env=env)
    (move,) = migration.plan(migration.Snapshot([made]))
    assert (spec_of(move)["serviceAccounts"], spec_of(move)["secretName"]) == (accounts, name)
    assert any("by hand" in remark for remark in move.remarks)


def test_imagepullsecret_patchers_logins_in_a_variable() -> None:
    """Logins that a variable takes from a Secret are copied from there."""
    env = [left.variable_of("CONFIG_DOCKERCONFIGJSON", "source", "json")]
    made = left.deployment("x", "p", "titansoft/imagepullsecret-patcher", env=env)
    (move,) = migration.plan(migration.Snapshot([made]))
    (copy,) = move.copies
    assert (copy.read, dict(copy.keys)) == ("secret/source -n x", {".dockerconfigjson": "json"})


def test_registry_creds_of_alexellis() -> None:
    """A ClusterPullSecret becomes a resource for all accounts; its Secrets keep their names, and its owner goes last."""
    (move,) = moves("registry-creds-alexellis")
    assert spec_of(move)["serviceAccounts"] == ["*"]
    assert spec_of(move)["namespaces"] == {"exclude": ["openfaas"]}
    assert move.secret_name == "dockerhub-registrycreds"
    assert [namespace for namespace, _ in move.adopt] == ["team-a", "team-b"]
    assert move.copies[0].read == "secret/init-registrycreds -n kube-system"
    assert move.remove == ["kubectl delete clusterpullsecret dockerhub"]


def test_registry_creds_of_upmc() -> None:
    """Of its four clouds those that were filled in become resources, each under the name of its Secret."""
    ecr, dpr = moves("registry-creds-upmc")
    assert spec_of(ecr)["registries"] == [
        {
            "server": f"{account}.dkr.ecr.eu-west-1.amazonaws.com",
            "ecr": {"secretRef": {"name": "registry-creds-ecr"}},
        }
        for account in ("123456789012", "210987654321")
    ]
    assert spec_of(ecr)["namespaces"] == {"exclude": ["legacy"]}
    assert [name for name, _ in ecr.adopt] == ["team-a", "team-b"]
    assert spec_of(dpr)["registries"] == [
        {"server": "registry.example.com", "login": {"secretRef": {"name": "registry-creds-dpr"}}}
    ]
    assert dict(dpr.copies[0].keys) == {
        "username": "DOCKER_PRIVATE_REGISTRY_USER",
        "password": "DOCKER_PRIVATE_REGISTRY_PASSWORD",
    }


def test_registry_creds_of_upmc_with_google() -> None:
    """Its Secret for Google is of a type that cannot be changed, which is said."""
    filled = [item for item in left.REGISTRY_CREDS_UPMC if item["metadata"]["name"] != "registry-creds-gcr"] + [
        left.opaque("kube-system", "registry-creds-gcr", **{"application_default_credentials.json": "{}"})
    ]
    google = migration.plan(migration.Snapshot(filled))[-1]
    assert spec_of(google)["registries"] == [
        {"server": "gcr.io", "gcr": {"secretRef": {"name": "registry-creds-gcr"}}}
    ]
    assert google.adopt == []
    assert any("kubernetes.io/dockercfg, which cannot be changed" in remark for remark in google.remarks)


def test_clustersecret() -> None:
    """Its patterns become globs, accounts are left alone, and only pull Secrets are taken."""
    (move,) = moves("clustersecret")
    assert spec_of(move)["namespaces"] == {"names": ["shop", "team-*"], "exclude": ["team-x"]}
    assert spec_of(move)["serviceAccounts"] == []
    assert [namespace for namespace, _ in move.adopt] == ["shop", "team-a", "team-b"]
    assert move.copies[0].read == "clustersecret/regcred-hub"


def test_clustersecrets_patterns_that_are_no_globs() -> None:
    """A regular expression that no glob can say is left to the user, by name."""
    odd = left.made(
        "clustersecret.io/v1",
        "ClusterSecret",
        "odd",
        type="kubernetes.io/dockerconfigjson",
        matchNamespace=["team-(a|b)"],
        data={"valueFrom": {"secretKeyRef": {"name": "s", "namespace": "n"}}},
    )
    (move,) = migration.plan(migration.Snapshot([odd]))
    assert any("'team-(a|b)' is no glob" in remark for remark in move.remarks)
    assert move.copies[0].read == "secret/s -n n"


def test_msi_acrpull() -> None:
    """Both shapes of a binding become tenants' resources, and what has to be decided about identities is said."""
    old, new = moves("msi-acrpull")
    assert spec_of(old)["registries"] == [
        {"server": "contoso.azurecr.io", "acr": {"clientId": "11111111-2222-3333-4444-555555555555"}}
    ]
    assert any("--ambient-credentials" in remark for remark in old.remarks)
    assert "kubectl -n team-a delete secret old-msi-acrpull-secret --ignore-not-found" in old.remove
    assert spec_of(new)["serviceAccounts"] == ["web"]
    assert spec_of(new)["registries"][0]["acr"] == {
        "serviceAccountRef": {"name": "puller"},
        "clientId": "11111111-2222-3333-4444-555555555555",
        "tenantId": "66666666-7777-8888-9999-000000000000",
        "scopes": ["shop/web", "shop/api"],
    }
    assert "kubectl -n team-b delete secret acr-pull-new-1x2y3z --ignore-not-found" in new.remove


def test_ecr_login_renew() -> None:
    """The CronJob's namespaces, key and Secret are taken over, and the registry is read off what it made."""
    (move,) = moves("ecr-login-renew")
    assert spec_of(move) == {
        "registries": [
            {"server": "123456789012.dkr.ecr.us-west-2.amazonaws.com", "ecr": {"secretRef": {"name": "ecr-renew"}}}
        ],
        "secretName": "ecr-docker-login",
        "serviceAccounts": [],
        "namespaces": {"names": ["shop", "team-*"]},
    }
    assert dict(move.copies[0].keys) == {"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": "SECRET"}
    assert [namespace for namespace, _ in move.adopt] == ["team-a", "team-b"]
    assert "suspend" in move.stop[0]


def test_external_secrets() -> None:
    """Each generator of logins becomes an entry of the same identity; other ExternalSecrets are not touched."""
    found = {move.secret_name: move for move in moves("external-secrets")}
    assert set(found) == {"ecr-login", "gar-login", "acr-login", "ecr-shared"}
    assert spec_of(found["ecr-login"])["registries"] == [
        {
            "server": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "ecr": {
                "roleArn": "arn:aws:iam::123456789012:role/puller",
                "serviceAccountRef": {"name": "ecr-puller"},
            },
        }
    ]
    assert spec_of(found["gar-login"])["registries"] == [
        {"server": "europe-docker.pkg.dev", "gcr": {"secretRef": {"name": "gar-key"}}}
    ]
    assert spec_of(found["acr-login"])["registries"][0]["acr"]["serviceAccountRef"] == {"name": "acr-puller"}
    shared = found["ecr-shared"]
    assert shared.resources[0]["kind"] == names.CLUSTER_KIND
    assert spec_of(shared)["namespaces"] == {"selector": {"matchLabels": {"pull": "ecr"}}}
    assert [namespace for namespace, _ in shared.adopt] == ["team-a", "team-b"]


def test_what_is_broken_is_no_stumbling_block() -> None:
    """Leavings with parts missing are read all the same."""
    broken = [
        left.made("apps/v1", "Deployment", "x", "y"),
        left.made("ops.alexellis.io/v1", "ClusterPullSecret", "empty"),
        left.made("acrpull.microsoft.com/v1beta2", "AcrPullBinding", "empty", "y"),
        left.made("clustersecret.io/v1", "ClusterSecret", "empty"),
        left.made(
            "v1", "Secret", "s", "y", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "%%"}
        ),
    ]
    found = migration.plan(migration.Snapshot(broken))
    assert len(found) == 2
    assert all(any("by hand" in remark for remark in move.remarks) for move in found)


@pytest.mark.parametrize(
    ("server", "spelled"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://gcr.io", "gcr.io"),
        ("REGISTRY.example.com:5000", "registry.example.com:5000"),
        ("registry.example.com/team", "registry.example.com/team"),
        ("https://r.example.com/v2/", "r.example.com"),
    ],
)
def test_servers_are_spelled_as_resources_have_them(server: str, spelled: str) -> None:
    """A server of a docker config becomes one that a resource may name."""
    assert model.host(server) == spelled


async def test_a_cluster_moves_in(control_plane: Cluster, namespace: str, tmp_path: Any) -> None:
    """Run as they are printed, the steps hand a tool's Secret over in place: same UID, same entry, regcred's content."""
    await install(control_plane)
    cluster = control_plane
    secret = left.pull_secret(namespace, "regcred", "https://index.docker.io/v1/")
    source = left.pull_secret(namespace, "image-pull-secret-src", "moved.example.com")
    tool = left.deployment(
        namespace,
        "imagepullsecret-patcher",
        "quay.io/titansoft/imagepullsecret-patcher:v0.14",
        env=[
            # The name of the default, so that the test needs no permission of its own.
            left.variable("CONFIG_SECRETNAME", "regcred"),
            left.variable("CONFIG_DOCKERCONFIGJSONPATH", "/app/secrets/.dockerconfigjson"),
        ],
        volumeMounts=[{"name": "s", "mountPath": "/app/secrets"}],
        volumes=[{"name": "s", "secret": {"secretName": "image-pull-secret-src"}}],
    )
    account = left.made("v1", "ServiceAccount", "web", namespace, imagePullSecrets=[{"name": "regcred"}])
    await cluster.apply(secret, source, tool, account)
    before = await cluster.get("secret", "regcred", "-n", namespace)

    environment = cluster.environment | {
        "KUBECONFIG": str(cluster.admin_kubeconfig),
        "PATH": f"{cluster.kubectl_program.parent}:{cluster.environment['PATH']}",
    }

    def run(*command: str, given: str | None = None) -> str:
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    program = str(cluster.kubectl_program.parent / "regcred")
    printed = run(program, "migrate", "--from=imagepullsecret-patcher")
    assert left.CANARY not in printed
    (made,) = yaml.safe_load_all(printed)
    # Other tests have namespaces of their own.
    made["spec"]["namespaces"] = {"names": [namespace]}
    commands = [line[1:].strip() for line in printed.splitlines() if line.startswith("#      ")]
    mine = [line for line in commands if namespace in line or "create secret" in line]
    operator = OperatorProcess(cluster, tmp_path / "regcred.log", identity="migration")
    await operator.start()
    try:
        run("bash", "-ec", mine[0])
        await cluster.apply(made)
        for line in mine[1:]:
            run("bash", "-ec", line)

        async def taken_over() -> Any:
            found = await cluster.get("secret", "regcred", "-n", namespace)
            return found if names.SERVERS in found["metadata"].get("annotations", {}) else None

        after = await eventually(taken_over, f"the Secret to be taken over\n{tail(operator.log)}", seconds=90)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert model.hosts(after) == ["moved.example.com"]
        listed = await cluster.get("serviceaccount", "web", "-n", namespace)
        assert listed["imagePullSecrets"] == [{"name": "regcred"}]
    finally:
        await cluster.kubectl(
            "delete", "clusterregistrycredential", "imagepullsecret-patcher", "--ignore-not-found"
        )
        await operator.stop()
        await cluster.kubectl(
            "delete", "secret", "imagepullsecret-patcher", "-n", "regcred-system", "--ignore-not-found"
        )
