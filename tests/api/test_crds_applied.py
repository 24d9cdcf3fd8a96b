"""A real API server takes the CRDs as they are, explains them, and refuses what it should."""

from __future__ import annotations

import json
import os
import re

import pytest
import yaml

from dev import waiting
from regcred.api import crd
from tests.api import api_support

CRDS = api_support.ROOT / "crds"


def bad(*refusers):
    """Return the bad resources that one of these is the first to refuse."""
    return [path for path in api_support.BAD if api_support.note(path, "refused by") in refusers]


def refused_files(text):
    """Return the files that kubectl said something of, to what it said."""
    found = re.findall(r'(?:error when \w+|error validating|for:) "?([^":]+\.yaml)"?(.*)', text)
    return {name.rpartition("/")[2]: said for name, said in found}


@pytest.fixture(scope="session")
async def crds(control_plane):
    """The CRDs, applied as anybody would: plain, without a flag."""
    printed = await control_plane.kubectl("apply", "-f", f"{CRDS}/")
    assert printed.count("customresourcedefinition.apiextensions.k8s.io/") == len(crd.KINDS)
    for kind in crd.KINDS:
        await control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", _crd_name(kind))

    async def explained():
        answers = [
            await control_plane.kubectl_run("explain", f"{kind.plural}.spec", check=False) for kind in crd.KINDS
        ]
        return all(answer.returncode == 0 for answer in answers)

    await waiting.eventually(explained, "the server publishes the schemas, by which kubectl checks fields")
    return control_plane


def _crd_name(kind):
    return f"{kind.plural}.regcred.io"


async def _dry_run(cluster, paths, *flags, check=False):
    arguments = [argument for path in paths for argument in ("-f", path)]
    return await cluster.kubectl_run("create", "--dry-run=server", *flags, *arguments, check=check)


async def test_kustomize_takes_them_too(crds):
    """`kubectl apply -k crds` is the same as `kubectl apply -f crds/`."""
    printed = await crds.kubectl("apply", "-k", CRDS)
    assert printed.count("unchanged") == len(crd.KINDS), printed


async def test_server_finds_the_schema_structural(crds):
    """The server has no complaint about the schema, and publishes it."""
    for kind in crd.KINDS:
        stored = await crds.get("crd", _crd_name(kind))
        types = {condition["type"]: condition["status"] for condition in stored["status"]["conditions"]}
        assert types["NamesAccepted"] == types["Established"] == "True"
        assert types.get("NonStructuralSchema", "False") == "False"


async def test_explain(crds):
    """`kubectl explain` reads like documentation, down to the last field."""
    shown = " ".join((await crds.kubectl("explain", "clusterregistrycredential.spec.registries")).split())
    assert "Registries whose logins the Secret holds, 1 to 64" in shown
    assert "Examples: docker.io, quay.io, registry.example.com:5000" in shown
    shown = " ".join((await crds.kubectl("explain", "rcred.spec.registries.ecr.roleArn")).split())
    assert "such as arn:aws:iam::123456789012:role/puller" in shown


async def test_short_names_and_category(crds):
    """Both kinds answer to their short names and together to their category."""
    for name in ("crcred", "rcred", "regcred"):
        assert (await crds.kubectl_run("get", name)).returncode == 0


async def test_schema_refuses(crds):
    """What the schema can say, the API server refuses, whatever kubectl checks before."""
    paths = bad("schema")
    answer = await _dry_run(crds, paths, "--validate=false")
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert refused_files(answer.stderr).keys() == {path.name for path in paths}


async def test_kubectl_refuses_unknown_fields(crds):
    """A misspelt field, which the API server would prune, is refused with kubectl's default checks."""
    paths = bad("kubectl")
    for path in paths:
        answer = await _dry_run(crds, [path])
        field = api_support.note(path, "expect").partition(":")[0].rpartition(".")[2]
        assert answer.returncode != 0, path
        assert re.search(rf"unknown field.*{field}", answer.stderr), (path, answer.stderr)


async def test_rest_is_left_to_the_operator(crds):
    """What only the operator can find is taken by the API server, so the operator has to cope with it."""
    answer = await _dry_run(crds, bad("operator"))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("created (server dry run)") == len(bad("operator"))


@pytest.fixture
async def with_rules(control_plane, tmp_path):
    """The CRDs with the component that adds the rules in CEL, as an overlay renders them."""
    base = os.path.relpath(CRDS, tmp_path)
    overlay = {"resources": [base], "components": [f"{base}/cel"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    return await control_plane.kubectl("kustomize", tmp_path)


async def test_component_adds_the_rules(with_rules):
    """An overlay with the component holds every rule at its place, and nothing else is changed."""
    rendered = {document["spec"]["names"]["kind"]: document for document in yaml.safe_load_all(with_rules)}
    for kind in crd.KINDS:
        (version,) = rendered[kind.name]["spec"]["versions"]
        assert version["schema"]["openAPIV3Schema"] == crd.schema(kind)


async def test_rules_in_cel(crds, with_rules):
    """With the component, the API server refuses what breaks a rule, in our words."""
    if crds.version < (1, 25):
        pytest.skip(f"this API server ({crds.git_version}) has no CEL rules; test_bad_resources evaluates them")
    try:
        await crds.kubectl("apply", "-f", "-", input=with_rules)
        for path in bad("cel"):
            (document,) = api_support.documents(path)
            schema = api_support.schema_of(document["kind"])
            ((_, message),) = api_support.broken_rules(schema, api_support.stored(schema, document))
            answer = await _dry_run(crds, [path])
            assert message in answer.stderr, path
        answer = await _dry_run(crds, bad("operator"))
        assert answer.returncode == 0, answer.stderr
    finally:
        await crds.kubectl("apply", "-f", f"{CRDS}/")


async def test_examples_are_taken(crds, namespace):
    """Each example is taken by the API server, which prunes nothing of it."""
    for path in api_support.EXAMPLES:
        for document in api_support.documents(path):
            if "namespace" in document["metadata"]:
                document["metadata"]["namespace"] = namespace
            text = yaml.safe_dump(document)
            printed = await crds.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", input=text)
            schema = api_support.schema_of(document["kind"])
            assert json.loads(printed)["spec"] == api_support.stored(schema, document)["spec"], path


async def test_columns(crds, namespace):
    """`kubectl get` shows what works and until when; with -o wide also what to do."""
    name = f"columns-{namespace}"
    document = {
        "apiVersion": "regcred.io/v1alpha1",
        "kind": "ClusterRegistryCredential",
        "metadata": {"name": name},
        "spec": {"suspend": True, "namespaces": {"names": ["none"]}, "registries": [{"server": "public.ecr.aws"}]},
    }
    state = {
        "summary": {
            "registries": "4/5",
            "namespaces": "498/500",
            "expiresAt": "2126-01-02T03:04:05Z",
            "refreshedAt": "2026-01-02T03:04:05Z",
        },
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "RegistriesFailed",
                "message": "quay.io: create the Secret.",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    }
    await crds.apply(document)
    try:
        url = f"/apis/regcred.io/v1alpha1/clusterregistrycredentials/{name}/status"
        current = await crds.get("crcred", name)
        await crds.kubectl("replace", "--raw", url, "-f", "-", input=json.dumps({**current, "status": state}))
        header, row = (await crds.kubectl("get", "crcred", name)).splitlines()
        assert header.split() == ["NAME", "READY", "REGISTRIES", "NAMESPACES", "EXPIRES", "REFRESHED", "AGE"]
        assert row.split()[1:5] == ["False", "4/5", "498/500", "2126-01-02T03:04:05Z"]
        assert "quay.io: create the Secret." in await crds.kubectl("get", "crcred", name, "-o", "wide")
    finally:
        await crds.kubectl("delete", "crcred", name)
