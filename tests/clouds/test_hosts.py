"""A token goes to its provider's hosts and to nobody else, whatever a tenant, a cloud or a registry says."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from dev.clouds.aws_checks import Fault as AwsFault
from dev.clouds.local import Fault, LocalServer
from dev.waiting import eventually
from tests.clouds import cloud_names, makers
from tests.clouds.local_clouds import Clouds
from tests.clouds.tenants import ACR, WHO, Json, declared, row_of
from tests.e2e.conftest import World

pytestmark = pytest.mark.usefixtures("quiet")


REFUSED = {"InvalidSpec", "NotAnAcrHost", "NotAGoogleHost", "HostNotAllowed", "AddressRefused"}


async def test_no_token_leaves_the_providers_hosts(world: World, clouds: Clouds) -> None:
    """Whatever host a tenant names, in the entry, in a key or for a proof, it gets no token and no request."""
    (namespace,) = await world.namespaces("a")
    plain, tls = clouds.attackers
    user = await clouds.aws.create_user(f"tenant-{world.id}")
    key = clouds.google.create_key(cloud_names.google_account("stolen-key"))
    secrets = {
        "aws": makers.key_pair(user),
        "azure": makers.azure_secret(clouds, "tenant"),
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
        {"server": cloud_names.GAR, "gcr": {"secretRef": {"name": name}}}
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
    annotations = {"eks.amazonaws.com/role-arn": cloud_names.role("elsewhere")}
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
            {"server": cloud_names.ECR, "ecr": account},
            {"server": cloud_names.GAR, "gcr": {**account, "audience": cloud_names.AUDIENCE}},
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
