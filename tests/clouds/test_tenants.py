"""What a tenant cannot do: act as the operator, send a token elsewhere, or reach another namespace's sources.

The operator of these tests has an identity at every cloud and may read every Secret and mint every account's token,
so nothing but its own rules stands between the tenants.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from dev.audit import AuditLog
from dev.clouds.aws_checks import Fault as AwsFault
from dev.clouds.local import Fault, LocalServer
from dev.waiting import eventually
from regcred.cluster import errors
from tests.clouds import modes
from tests.clouds.conftest import Stage
from tests.clouds.hub import Hub
from tests.clouds.local_clouds import Clouds
from tests.e2e.conftest import OPERATOR_USER, World

Json = dict[str, Any]
KINDS = "/apis/regcred.io/v1alpha1/namespaces/{}/registrycredentials"
ACR = "tenants.azurecr.io"
WHO = {"clientId": modes.client("tenant"), "tenantId": "72f988bf-86f1-41af-91ab-2d7cd011db47"}


@pytest.fixture(autouse=True)
async def quiet(second: Stage, hub: Hub, clouds: Clouds) -> AsyncIterator[None]:
    """No login is about to be renewed: whatever a cloud is asked here was a tenant's doing.  No attacker is asked."""
    yield
    assert hub.operator.running
    assert [sum(attacker.calls.values()) for attacker in clouds.attackers] == [0, 0]


async def declared(world: World, namespace: str, *registries: Json) -> dict[str, Json]:
    """Declare each entry in a resource of its own; those that the API server itself refuses are left out.

    Returns:
        Name of the resource to its body once it is settled.
    """
    path = KINDS.format(namespace)
    names = []
    for number, registry in enumerate(registries):
        body = {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "RegistryCredential",
            "metadata": {"name": f"entry-{number}"},
            "spec": {"registries": [registry]},
        }
        with contextlib.suppress(errors.Invalid):
            await world.api.request("POST", path, body=body)
            names.append(f"entry-{number}")

    async def settled() -> dict[str, Json] | None:
        found = {item["metadata"]["name"]: item async for items, _ in world.api.pages(path) for item in items}
        return {name: found[name] for name in names} if all(map(_settled, found.values())) else None

    return await eventually(settled, "every entry to be settled", every=0.3)


def _settled(body: Json) -> bool:
    status = body.get("status") or {}
    rows = status.get("registries") or [{}]
    stalled = any(row["type"] == "Stalled" for row in status.get("conditions") or [])
    return stalled or rows[0].get("reason", "Progressing") != "Progressing"


def row_of(body: Json) -> Json:
    """Return the status row of a resource with one registry; of one whose spec is refused, its condition Stalled."""
    rows = body["status"].get("registries")
    if rows:
        return rows[0]
    return next(row for row in body["status"]["conditions"] if row["type"] == "Stalled")


async def test_operators_identity_is_refused(world: World, clouds: Clouds) -> None:
    """A namespaced resource that names no identity of its own gets none: no cloud is asked, nothing is written."""
    (namespace,) = await world.namespaces("a")
    before = clouds.calls()
    bodies = await declared(
        world,
        namespace,
        {"server": modes.ECR},
        {"server": modes.ECR, "ecr": {"roleArn": modes.role("operator")}},
        {"server": "public.ecr.aws"},
        {"server": modes.GAR},
        {"server": modes.GAR, "gcr": {"impersonate": modes.google_account("gcr-own-impersonate")}},
        {"server": modes.azure_host("acr-own")},
        {"server": modes.azure_host("acr-own-client"), "acr": {"clientId": modes.client("acr-own-client")}},
        {"server": modes.azure_host("ambient-acr"), "acr": {"clientId": modes.client("workload")}},
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
    server = {"ecr": modes.ECR, "gcr": modes.GAR, "acr": ACR, "login": "registry.example.com"}
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


REFUSED = {"InvalidSpec", "NotAnAcrHost", "NotAGoogleHost", "HostNotAllowed", "AddressRefused"}


async def test_no_token_leaves_the_providers_hosts(world: World, clouds: Clouds) -> None:
    """Whatever host a tenant names, in the entry, in a key or for a proof, it gets no token and no request."""
    (namespace,) = await world.namespaces("a")
    plain, tls = clouds.attackers
    user = await clouds.aws.create_user(f"tenant-{world.id}")
    key = clouds.google.create_key(modes.google_account("stolen-key"))
    secrets = {
        "aws": modes.key_pair(user),
        "azure": modes.azure_secret(clouds, "tenant"),
        "login": {"username": "alice", "password": "pw-for-nobody"},
        **{
            f"google-{number}": {"key.json": json.dumps({**key, **change})}
            for number, change in enumerate(
                (
                    {"token_uri": f"{plain.origin}/token"},
                    {"token_uri": f"{tls.origin}/token"},
                    {"token_uri": f"https://oauth2.googleapis.com@{tls.host}/token"},
                    {"universe_domain": tls.host},
                )
            )
        },
    }
    await world.cluster.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": data,
            }
            for name, data in secrets.items()
        ),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "puller", "namespace": namespace, "annotations": {"a": "b"}},
        },
    )
    account = {"serviceAccountRef": {"name": "puller"}}
    azure = {**WHO, "secretRef": {"name": "azure"}}
    plugin = {"name": "quay-federation", "config": {"robot": "shop+puller", **account}}
    before = clouds.calls()
    entries: list[Json] = []
    for host in (
        plain.host,
        tls.host,
        f"localhost:{tls.port}",
        "azurecr.io.attacker.example",
        f"x.azurecr.io@{tls.host}",
    ):
        entries += [
            {"server": host, "acr": azure},
            {"server": host, "acr": {**WHO, **account}},
            {"server": ACR, "aliases": [host], "acr": azure},
            {"server": host, "gcr": {"secretRef": {"name": "google-0"}}},
            {"server": host, "plugin": plugin},
            {"server": clouds.quay.host, "aliases": [host], "plugin": plugin, "tls": {"caBundle": clouds.quay.ca}},
            {"server": host, "login": {"secretRef": {"name": "login"}}, "verify": {"repository": "a/b"}},
        ]
    entries += [
        {"server": modes.GAR, "gcr": {"secretRef": {"name": name}}}
        for name in secrets
        if name.startswith("google")
    ]
    entries += [
        {"server": ACR, "acr": {**azure, "tenantId": value}}
        for value in (f"../{tls.host}", f"{tls.host}/x", "..", f"//{tls.host}")
    ]
    bodies = await declared(world, namespace, *entries)
    assert clouds.calls() == before
    for body in bodies.values():
        row = row_of(body)
        proof = "verify" in body["spec"]["registries"][0]
        assert row["reason"] in ({"Unverified"} if proof else REFUSED), (body["spec"], row)
    assert len(bodies) > 20


async def test_redirects_are_not_followed(world: World, clouds: Clouds) -> None:
    """A cloud that sends a request elsewhere is not obeyed: the token was meant for it alone."""
    (namespace,) = await world.namespaces("a")
    account = {"serviceAccountRef": {"name": "puller"}}
    annotations = {"eks.amazonaws.com/role-arn": modes.role("elsewhere")}
    await world.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "puller", "namespace": namespace, "annotations": annotations},
        }
    )
    location = {"Location": f"{clouds.attackers[1].origin}/stolen"}
    clouds.aws.fail("sts:AssumeRoleWithWebIdentity", AwsFault(307, headers=location))
    clouds.google.fail("sts", Fault(307, headers=location), times=1000)
    clouds.azure.fail("entra", Fault(307, headers=location), times=1000)
    clouds.quay.fail("federation", Fault(307, headers=location), times=1000)
    try:
        plugin = {"name": "quay-federation", "config": {"robot": "shop+puller", **account}}
        bodies = await declared(
            world,
            namespace,
            {"server": modes.ECR, "ecr": account},
            {"server": modes.GAR, "gcr": {**account, "audience": modes.AUDIENCE}},
            {"server": ACR, "acr": {**WHO, **account}},
            {"server": clouds.quay.host, "plugin": plugin, "tls": {"caBundle": clouds.quay.ca}},
        )
    finally:
        clouds.come_back()
    assert len(bodies) == 4
    for body in bodies.values():
        assert row_of(body)["reason"] != "Issued"
    assert await world.secret(namespace) is None


class Redirector(LocalServer):
    """A registry whose challenge names somebody else's host as its token endpoint."""

    def __init__(self, realm: str) -> None:
        super().__init__()
        self._realm = realm
        self.route("*", "/{path:.*}", "registry", self._challenge)

    async def _challenge(self, _: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{self._realm}",service="x"'})


async def test_login_does_not_follow_a_challenge_elsewhere(world: World, clouds: Clouds) -> None:
    """A registry cannot have a login sent to another host by naming that as its token endpoint."""
    (namespace,) = await world.namespaces("a")
    source = await world.login("alice", "pw-for-one-host")
    async with Redirector(f"http://localhost:{clouds.attackers[0].port}/token") as registry:
        entry = {"server": f"127.0.0.1:{registry.port}", "login": {"secretRef": {"name": source}}}
        await world.declare({**entry, "verify": {"repository": "private/app"}})

        async def asked() -> bool:
            rows = (await world.resource()).get("status", {}).get("registries") or [{}]
            return registry.calls["registry"] > 0 and rows[0].get("reason") == "Unverified"

        await eventually(asked, "the registry to be asked")
    assert namespace


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
        {"server": modes.ECR, "ecr": {"secretRef": ref}},
        {"server": modes.ECR, "ecr": {"serviceAccountRef": ref}},
        {"server": modes.GAR, "gcr": {"secretRef": ref}},
        {"server": modes.GAR, "gcr": {"serviceAccountRef": ref, "audience": modes.AUDIENCE}},
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
            "stringData": {**modes.key_pair(user), "username": "victim", "password": "pw-of-the-victim"},
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
        "eks.amazonaws.com/role-arn": modes.federated_role(clouds, name, subject),
        "iam.gke.io/gcp-service-account": modes.google_account("victim"),
        **modes.azure_federation(clouds, name, subject),
    }
    clouds.google.allow(modes.principal(victim, "puller"), modes.google_account("victim"))
    host = f"{name.replace('-', '')}.azurecr.io"
    clouds.azure.create_registry(host, pullers={modes.client(name)})
    account = {"serviceAccountRef": {"name": "puller"}}
    registries = [
        {"server": modes.ECR, "ecr": account},
        {"server": modes.GAR, "gcr": {**account, "audience": modes.AUDIENCE}},
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
    given = len(clouds.logins("ecr", modes.sessions(name)))
    for body in (await declared(world, mallory, *registries)).values():
        assert row_of(body)["reason"] in {"AccessDenied", "ImpersonationDenied", "FederationMismatch"}, row_of(
            body
        )
    assert await world.secret(mallory) is None
    assert len(clouds.logins("ecr", modes.sessions(name))) == given == 1


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
            "eks.amazonaws.com/role-arn": modes.role("operator"),
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
            {"server": modes.ECR, "ecr": {"serviceAccountRef": {"name": f"puller-{number}"}}}
            for number in range(len(audiences))
        ),
    )
    assert {row_of(body)["reason"] for body in bodies.values()} == {"SourceInvalid"}
    assert clouds.calls() == before
