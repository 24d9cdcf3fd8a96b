"""What a tenant cannot do: act as the operator, send a token elsewhere, or reach another namespace's sources.

The operator of these tests has an identity at every cloud and may read every Secret and mint every account's token,
so nothing but its own rules stands between the tenants.
"""

from __future__ import annotations

import json

import pytest

from dev.audit import AuditLog
from tests.clouds import cloud_names, makers
from tests.clouds.hub import Hub
from tests.clouds.local_clouds import Clouds
from tests.clouds.tenants import ACR, WHO, Json, declared, row_of
from tests.e2e.conftest import OPERATOR_USER, World

pytestmark = pytest.mark.usefixtures("quiet")


async def test_operators_identity_is_refused(world: World, clouds: Clouds) -> None:
    """A namespaced resource that names no identity of its own gets none: no cloud is asked, nothing is written."""
    (namespace,) = await world.namespaces("a")
    before = clouds.calls()
    bodies = await declared(
        world,
        namespace,
        {"server": cloud_names.ECR},
        {"server": cloud_names.ECR, "ecr": {"roleArn": cloud_names.role("operator")}},
        {"server": "public.ecr.aws"},
        {"server": cloud_names.GAR},
        {"server": cloud_names.GAR, "gcr": {"impersonate": cloud_names.google_account("gcr-own-impersonate")}},
        {"server": cloud_names.azure_host("acr-own")},
        {
            "server": cloud_names.azure_host("acr-own-client"),
            "acr": {"clientId": cloud_names.client("acr-own-client")},
        },
        {"server": cloud_names.azure_host("ambient-acr"), "acr": {"clientId": cloud_names.client("acr-own")}},
    )
    assert len(bodies) == 8
    for name, body in bodies.items():
        row = row_of(body)
        assert (row["reason"], "ambient credentials are not available" in row["message"]) == (
            "AmbientRefused",
            True,
        )
        assert next(c for c in body["status"]["conditions"] if c["type"] == "Ready")["status"] == "False", name
    assert clouds.calls() == before
    assert await world.secret(namespace) is None


EMPTY = {
    "ecr id": ({"accessKeyId": "", "secretAccessKey": "x" * 40}, "ecr"),
    "ecr key": ({"accessKeyId": "AKIA0123456789ABCDEF", "secretAccessKey": ""}, "ecr"),
    "ecr both": ({"accessKeyId": "", "secretAccessKey": ""}, "ecr"),
    "ecr blank": ({"accessKeyId": " \n", "secretAccessKey": "\t"}, "ecr"),
    "ecr nothing": ({}, "ecr"),
    "gcr": ({"key.json": ""}, "gcr"),
    "gcr blank": ({"key.json": " \n"}, "gcr"),
    "gcr object": ({"key.json": "{}"}, "gcr"),
    "gcr no key": (
        {"key.json": json.dumps({"type": "service_account", "private_key": "", "client_email": ""})},
        "gcr",
    ),
    "acr": ({"clientSecret": ""}, "acr"),
    "acr newline": ({"clientSecret": "\n"}, "acr"),
    "acr certificate": ({"tls.crt": "", "tls.key": ""}, "acr"),
    "login": ({"username": "", "password": ""}, "login"),
    "login password": ({"username": "alice", "password": ""}, "login"),
}


async def test_empty_keys_are_refused(world: World, clouds: Clouds) -> None:
    """A source whose keys are empty is refused before any SDK, which would look for keys elsewhere, gets to see it."""
    (namespace,) = await world.namespaces("a")
    before = clouds.calls()
    names = {case: f"empty-{number}" for number, case in enumerate(EMPTY)}
    await world.cluster.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": names[case], "namespace": namespace},
                "stringData": data,
            }
            for case, (data, _) in EMPTY.items()
        )
    )
    server = {"ecr": cloud_names.ECR, "gcr": cloud_names.GAR, "acr": ACR, "login": "registry.example.com"}
    more = {"acr": WHO}
    bodies = await declared(
        world,
        namespace,
        *(
            {"server": server[block], block: {"secretRef": {"name": names[case]}, **more.get(block, {})}}
            for case, (_, block) in EMPTY.items()
        ),
    )
    assert len(bodies) == len(EMPTY)
    for case, body in zip(EMPTY, bodies.values(), strict=True):
        assert row_of(body)["reason"] in {"BadSource", "SourceInvalid"}, (case, row_of(body))
    assert clouds.calls() == before
    assert await world.secret(namespace) is None


SPELLINGS = [
    "{victim}/puller",
    "../{victim}/puller",
    "../../{victim}/secrets/puller",
    "../../../namespaces/{victim}/secrets/puller",
    "..%2f..%2f{victim}%2fsecrets%2fpuller",
    "%2e%2e/{victim}/puller",
    "{victim}%2Fpuller",
    "{victim}:puller",
    "{victim}.puller",
    "puller.{victim}",
    "puller?namespace={victim}",
    "puller#{victim}",
    "puller\n",
    "puller\x00",
    "Puller",
    "pu\u2024ller",
    "/api/v1/namespaces/{victim}/secrets/puller",
    "..",
    ".",
    "",
]


def entries_for(name: str, clouds: Clouds, **more: str) -> list[Json]:
    """Return an entry of every provider whose Secret or account is of this name."""
    ref = {"name": name, **more}
    plugin = {"name": "quay-federation", "config": {"robot": "shop+victim", "serviceAccountRef": ref}}
    return [
        {"server": cloud_names.ECR, "ecr": {"secretRef": ref}},
        {"server": cloud_names.ECR, "ecr": {"serviceAccountRef": ref}},
        {"server": cloud_names.GAR, "gcr": {"secretRef": ref}},
        {"server": cloud_names.GAR, "gcr": {"serviceAccountRef": ref, "audience": cloud_names.AUDIENCE}},
        {"server": ACR, "acr": {**WHO, "secretRef": ref}},
        {"server": ACR, "acr": {**WHO, "serviceAccountRef": ref}},
        {"server": "registry.example.com", "login": {"secretRef": ref}},
        {"server": "*", "login": {"secretRef": ref}},
        {"server": clouds.quay.host, "plugin": plugin, "tls": {"caBundle": clouds.quay.ca}},
    ]


async def test_no_spelling_reaches_another_namespace(world: World, hub: Hub, clouds: Clouds) -> None:
    """However a tenant spells a name, another namespace's Secret and account are neither read nor asked for a token."""
    victim, mallory = await world.namespaces("victim", "mallory")
    user = await clouds.aws.create_user(f"victim-{world.id}")
    clouds.planted.add(user.secret_access_key)
    await world.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "puller", "namespace": victim},
            "stringData": {**makers.key_pair(user), "username": "victim", "password": "pw-of-the-victim"},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller", "namespace": victim}},
    )
    assert world.cluster.audit_log is not None
    log = AuditLog(world.cluster.audit_log)
    before = clouds.calls()
    spelled = [spelling.format(victim=victim) for spelling in SPELLINGS]
    entries = [entry for name in spelled for entry in entries_for(name, clouds)]
    # A field that is not in the schema is dropped or refused; it never selects.
    entries += entries_for("puller", clouds, namespace=victim)
    bodies = await declared(world, mallory, *entries)
    for body in bodies.values():
        row = row_of(body)
        assert row["reason"] in {"SourceMissing", "SourceInvalid", "InvalidSpec", "InvalidConfig"}, row
    assert clouds.calls() == before
    assert await world.secret(mallory) is None
    reached = [
        request
        for request in log.requests(OPERATOR_USER)
        if request.namespace == victim
        and (request.resource, request.name) != ("secrets", "regcred")
        and not (request.resource == "serviceaccounts" and request.name == "default")
    ]
    assert reached == []


async def test_same_names_are_not_the_same_identity(world: World, clouds: Clouds) -> None:
    """A tenant who copies another's resource, with all its names and annotations, gets nothing of his."""
    victim, mallory = await world.namespaces("victim", "mallory")
    subject = f"system:serviceaccount:{victim}:puller"
    name = f"victim-{world.id}"
    annotations = {
        "eks.amazonaws.com/role-arn": makers.federated_role(clouds, name, subject),
        "iam.gke.io/gcp-service-account": cloud_names.google_account("victim"),
        **makers.azure_federation(clouds, name, subject),
    }
    clouds.google.allow(cloud_names.principal(victim, "puller"), cloud_names.google_account("victim"))
    host = f"{name.replace('-', '')}.azurecr.io"
    clouds.azure.create_registry(host, pullers={cloud_names.client(name)})
    account = {"serviceAccountRef": {"name": "puller"}}
    registries = [
        {"server": cloud_names.ECR, "ecr": account},
        {"server": cloud_names.GAR, "gcr": {**account, "audience": cloud_names.AUDIENCE}},
        {"server": host, "acr": account},
    ]
    for namespace in (victim, mallory):
        await world.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "puller", "namespace": namespace, "annotations": annotations},
            }
        )
    for body in (await declared(world, victim, *registries)).values():
        assert row_of(body)["reason"] == "Issued"
    given = len(clouds.logins("ecr", cloud_names.sessions(name)))
    for body in (await declared(world, mallory, *registries)).values():
        assert row_of(body)["reason"] in {"AccessDenied", "ImpersonationDenied", "FederationMismatch"}, row_of(
            body
        )
    assert await world.secret(mallory) is None
    assert len(clouds.logins("ecr", cloud_names.sessions(name))) == given == 1


async def test_no_token_for_the_api_server(world: World, clouds: Clouds) -> None:
    """An annotation cannot make the operator mint a token that would log in to the API server itself."""
    (namespace,) = await world.namespaces("a")
    audiences = [
        world.cluster.issuer,
        "https://kubernetes.default.svc",
        "https://kubernetes.default.svc.cluster.local",
    ]
    for number, audience in enumerate(audiences):
        annotations = {
            "eks.amazonaws.com/role-arn": cloud_names.role("operator"),
            "eks.amazonaws.com/audience": audience,
        }
        await world.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": f"puller-{number}", "namespace": namespace, "annotations": annotations},
            }
        )
    before = clouds.calls()
    bodies = await declared(
        world,
        namespace,
        *(
            {"server": cloud_names.ECR, "ecr": {"serviceAccountRef": {"name": f"puller-{number}"}}}
            for number in range(len(audiences))
        ),
    )
    assert {row_of(body)["reason"] for body in bodies.values()} == {"SourceInvalid"}
    assert clouds.calls() == before
