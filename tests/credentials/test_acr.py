"""Azure Container Registry: which hosts get a token, as whom we ask, and what the login is worth."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import subprocess
import sys
from typing import Any

import aiohttp
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.clouds.azure import TENANT, Application, AzureCloud, Federation
from dev.clouds.azure_registries import ARM_AUDIENCE, TOKEN_USER
from dev.clouds.issuers import Issuer
from regcred.api import providers as blocks
from regcred.cluster import client as api
from regcred.credentials import exchange, federation, provider
from regcred.credentials.providers.acr import provider as acr
from tests.credentials.acr_support import (
    CLIENT,
    HOST,
    OTHER,
    RESOURCE_ID,
    SECRET,
    Namespace,
    Pair,
    ask,
    azure,
    by_account,
    by_secret,
    cloud,
    cluster_key,
    namespace,
    pair,
)

__all__ = ["azure", "cloud", "cluster_key", "namespace", "pair"]


def loose(**values: Any) -> blocks.AcrBlock:
    """A block that the model would refuse, as an old cache or a careless caller might hand it over."""
    return blocks.AcrBlock.model_construct(**values)


async def pull(azure: AzureCloud, grant: provider.Grant, repository: str, host: str = HOST) -> int:
    """Pull a manifest as docker does, with the login of a grant, and return the status."""
    login = grant.logins.get(host) or grant.logins[provider.ANY_SERVER]
    context = await asyncio.to_thread(exchange._ssl_context, azure.ca)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        url, headers = f"{azure.origin}/v2/{repository}/manifests/latest", {"Host": host}
        async with session.head(url, headers=headers) as first:
            assert first.status == 401
        async with session.get(
            f"{azure.origin}/oauth2/token",
            params={"service": host, "scope": f"repository:{repository}:pull"},
            headers={**headers, "Authorization": f"Basic {login.auth}"},
        ) as token:
            if token.status != 200:
                return token.status
            bearer = (await token.json())["access_token"]
        async with session.head(url, headers={**headers, "Authorization": f"Bearer {bearer}"}) as second:
            return second.status


class TestHosts:
    @pytest.mark.parametrize(
        "server",
        [
            "contoso.azurecr.io",
            "contoso.azurecr.cn",
            "contoso.azurecr.us",
            "contoso-a1b2c3.azurecr.io",
            "contoso.azurecr.io/team/",
            "contoso.azurecr.io:443",
            "contoso.westeurope.geo.azurecr.io",
        ],
    )
    def test_registry(self, server: str) -> None:
        """A registry of each cloud is served, also by its regional name, its port, and below a prefix."""
        assert acr.AcrProvider().serves(server)

    @pytest.mark.parametrize(
        "server",
        [
            "azurecr.io",
            "contoso.azurecr.io.evil.example",
            "contoso.azurecr.iox",
            "contoso.azurecr.io:8443",
            "contosoazurecr.io",
            "contoso.xazurecr.io",
            "evil.example/contoso.azurecr.io",
            "a.b.azurecr.io",
            "contoso.westeurope.geo.azurecr.io.evil.example",
            "contoso.westeurope.data.azurecr.io",
            "-.azurecr.io",
            "*.azurecr.io",
            "contoso.azurecr.de",
            "contoso.azurecr.io\n",
            "contoso.azurecr.io@evil.example",
            "CONTOSO.azurecr.io",
            "169.254.169.254",
            "*",
            "",
        ],
    )
    async def test_look_alike(self, server: str) -> None:
        """What only looks like a registry is neither served nor asked, and the error names the field."""
        tested = acr.AcrProvider()
        assert not tested.serves(server)
        with pytest.raises(provider.InvalidSpec) as error:
            await tested.fetch(ask(server=server))
        assert (error.value.reason, error.value.field) == ("NotAnAcrHost", "server")

    @given(st.text(st.sampled_from("abz019-.:/@*%#\n azurecrio"), max_size=40))
    def test_nothing_but_azure_is_served(self, text: str) -> None:
        """Whatever is served is one host directly below a domain of Azure's registries."""
        if acr.AcrProvider().serves(text):
            host = text.partition("/")[0].removesuffix(":443")
            assert host.endswith((".azurecr.io", ".azurecr.cn", ".azurecr.us"))
            assert not set(host) & set("@:%#*\n /")

    def test_data_endpoint(self) -> None:
        """A data endpoint is refused with the advice to name the registry."""
        with pytest.raises(provider.InvalidSpec, match="data endpoint"):
            acr.AcrProvider().key(ask(server="contoso.westeurope.data.azurecr.io"))

    def test_alias(self) -> None:
        """An alias outside Azure is refused as such, though the server is fine."""
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(ask(None, "evil.example"))
        assert error.value.field == "aliases"

    def test_own_suffix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The administrator's environment adds domains, and nothing but NAME.SUFFIX below them."""
        monkeypatch.setenv("REGCRED_ACR_HOST_SUFFIXES", " azurecr.example.test, acr.lab:8443 ,, .bad., *.evil")
        tested = acr.AcrProvider()
        assert tested.serves("contoso.azurecr.example.test")
        assert tested.serves("contoso.acr.lab:8443")
        for server in ("azurecr.example.test", "a.b.azurecr.example.test", "contoso.acr.lab", "x.bad", "x.y.evil"):
            assert not tested.serves(server)


class TestCloud:
    @pytest.mark.parametrize(
        ("server", "authority"),
        [
            ("contoso.azurecr.io", "login.microsoftonline.com"),
            ("contoso.azurecr.cn", "login.chinacloudapi.cn"),
            ("contoso.azurecr.us", "login.microsoftonline.us"),
            ("contoso.usgovvirginia.geo.azurecr.us", "login.microsoftonline.us"),
        ],
    )
    def test_host_tells(self, server: str, authority: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The registry's cloud says where Entra is, whatever public address the webhook put into our pod."""
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/")
        assert authority in acr.AcrProvider().key(ask(server=server)).split("|")

    @pytest.mark.parametrize("host", ["https://login.example.test/", "login.example.test"])
    def test_private_cloud(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """An Entra that is not public is used for everything: it is a decision of the administrator's."""
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", host)
        assert "login.example.test" in acr.AcrProvider().key(ask()).split("|")

    def test_field(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host that tells no cloud is in the one that the entry names."""
        monkeypatch.delenv("AZURE_AUTHORITY_HOST", raising=False)
        monkeypatch.setenv("REGCRED_ACR_HOST_SUFFIXES", "acr.example.test")
        key = acr.AcrProvider().key(ask(server="contoso.acr.example.test", cloud="China"))
        assert "login.chinacloudapi.cn" in key.split("|")

    def test_mismatch(self) -> None:
        """An entry that contradicts its host, or mixes clouds, is refused."""
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(ask(cloud="China"))
        assert (error.value.reason, error.value.field) == ("CloudMismatch", "acr.cloud")
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(ask(None, "contoso.azurecr.cn"))
        assert (error.value.reason, error.value.field) == ("CloudMismatch", "aliases")

    @pytest.mark.parametrize("variable", ["AZURE_AUTHORITY_HOST", "REGCRED_ACR_ENDPOINT"])
    @pytest.mark.parametrize(
        "value", ["http://login.example.test", "https://a/b", "https://user@login.example.test"]
    )
    async def test_bad_environment(
        self, variable: str, value: str, azure: AzureCloud, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An address that is no https origin is never used, and the error names the variable."""
        monkeypatch.setenv(variable, value)
        with pytest.raises(provider.Retryable, match=variable) as error:
            await acr.AcrProvider().fetch(by_secret(namespace))
        assert error.value.reason == "OperatorMisconfigured"
        assert "exchange" not in azure.calls


class TestIdentity:
    @pytest.mark.parametrize(
        ("who", "text"),
        [
            ({"tenant": True, "ambient": False}, "ambient credentials are not available"),
            ({"tenant": False, "ambient": False}, "--cluster-ambient-credentials"),
        ],
        ids=["tenant", "platform"],
    )
    @pytest.mark.parametrize(
        "block", [{}, {"clientId": CLIENT}, {"resourceId": RESOURCE_ID}, {"tenantId": TENANT}], ids=str
    )
    async def test_no_ambient(
        self, who: dict[str, Any], text: str, block: dict[str, Any], azure: AzureCloud
    ) -> None:
        """Whoever may not use the operator's own identity is refused before anything is asked, by every block."""
        with pytest.raises(provider.InvalidSpec, match=text) as error:
            await acr.AcrProvider().fetch(ask(**who, **block))
        assert error.value.reason == "AmbientRefused"
        assert not azure.calls
        assert not azure.imds.calls

    @pytest.mark.parametrize(
        "value",
        [
            "../common",
            "a/b",
            "a/b.example",
            "common",
            "organizations",
            "adfs",
            "a..b",
            "contoso.com/../x",
            "contoso.com?x=1",
            "contoso.com#",
            "contoso.com\n",
            "%2e%2e.com",
            "user@contoso.com",
            "contoso.com:443",
            " contoso.com",
            "",
        ],
    )
    async def test_tenant_is_no_path(self, value: str, azure: AzureCloud, namespace: Namespace) -> None:
        """A tenant that could change the path of Entra's address is refused, in the entry and in an annotation."""
        tested, reference = acr.AcrProvider(), blocks.ServiceAccountRef(name="puller")
        block = loose(tenant_id=value, client_id=CLIENT, service_account_ref=reference)
        with pytest.raises(provider.InvalidSpec) as error:
            await tested.fetch(dataclasses.replace(ask(namespace), config=block))
        assert (error.value.reason, error.value.field) == ("InvalidIdentity", "acr.tenantId")
        namespace.annotations["azure.workload.identity/tenant-id"] = value
        with pytest.raises(provider.InvalidSpec) as error:
            await tested.fetch(by_account(namespace))
        assert error.value.reason in {"InvalidIdentity", "IdentityIncomplete"}
        assert value not in str(error.value) or not value
        assert not azure.calls

    @pytest.mark.parametrize("value", ["", "puller", f"{CLIENT}x", f"{CLIENT}/", "00000000"])
    async def test_client_is_a_guid(self, value: str, azure: AzureCloud, namespace: Namespace) -> None:
        """A client id is a GUID or refused; an empty one does not fall back to the operator's identity."""
        block = loose(
            tenant_id=TENANT, client_id=value, service_account_ref=blocks.ServiceAccountRef(name="puller")
        )
        with pytest.raises(provider.InvalidSpec) as error:
            await acr.AcrProvider().fetch(dataclasses.replace(ask(namespace), config=block))
        assert (error.value.reason, error.value.field) == ("InvalidIdentity", "acr.clientId")
        block = loose(client_id=value)
        with pytest.raises(provider.InvalidSpec):
            await acr.AcrProvider().fetch(dataclasses.replace(ask(namespace), config=block))
        assert not azure.imds.calls

    @pytest.mark.parametrize("value", ["", "/subscriptions/x", f"{RESOURCE_ID}/../x", f"{RESOURCE_ID}?a=b"])
    def test_resource_id(self, value: str) -> None:
        """A resource id that is not one of a managed identity is refused."""
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(dataclasses.replace(ask(), config=loose(resource_id=value)))
        assert error.value.field == "acr.resourceId"

    @pytest.mark.parametrize(
        "given",
        [
            {"service_account_ref": blocks.ServiceAccountRef(name="a"), "secret_ref": blocks.SecretRef(name="b")},
            {"resource_id": RESOURCE_ID, "client_id": CLIENT},
            {"resource_id": RESOURCE_ID, "secret_ref": blocks.SecretRef(name="b")},
            {"resource_id": RESOURCE_ID, "service_account_ref": blocks.ServiceAccountRef(name="b")},
        ],
    )
    def test_two_identities(self, given: dict[str, Any]) -> None:
        """Two identities in one entry are refused, not chosen between."""
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(dataclasses.replace(ask(), config=loose(**given)))
        assert error.value.reason == "TwoIdentities"

    @pytest.mark.parametrize(("absent", "field"), [("tenant_id", "acr.tenantId"), ("client_id", "acr.clientId")])
    def test_secret_alone(self, absent: str, field: str) -> None:
        """A Secret proves an application: without saying which, it is refused."""
        given = {"tenant_id": TENANT, "client_id": CLIENT, "secret_ref": blocks.SecretRef(name="sp"), absent: None}
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(dataclasses.replace(ask(), config=loose(**given)))
        assert (error.value.reason, error.value.field) == ("IdentityIncomplete", field)

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"clientSecret": b""},
            {"clientSecret": b"\n"},
            {"clientSecret": b"with space"},
            {"clientSecret": b"line\nline"},
            {"clientSecret": b"\xff\xfe"},
            {"clientSecret": b"x", "tls.crt": b"y", "tls.key": b"z"},
            {"certificate": b"canary, no certificate"},
            {"certificate": b"-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----"},
            {"tls.crt": b"canary"},
            {"password": b"canary"},
        ],
        ids=str,
    )
    async def test_bad_secret(self, data: dict[str, bytes], azure: AzureCloud, namespace: Namespace) -> None:
        """A Secret that proves nothing is refused by name, with its field and without its content."""
        namespace.secrets["sp"] = data
        with pytest.raises(provider.InvalidSpec, match="Secret team-a/sp") as error:
            await acr.AcrProvider().fetch(by_secret(namespace))
        assert (error.value.reason, error.value.field) == ("SourceInvalid", "acr.secretRef.name")
        assert "canary" not in str(error.value)
        assert not azure.calls

    async def test_wrong_certificate_password(self, azure: AzureCloud, namespace: Namespace, pair: Pair) -> None:
        """A bundle that does not open is refused before anything is asked."""
        namespace.secrets["sp"] = {"certificate": pair.bundle, "certificatePassword": b"canary-wrong"}
        with pytest.raises(provider.InvalidSpec, match="certificatePassword") as error:
            await acr.AcrProvider().fetch(by_secret(namespace))
        assert "canary" not in str(error.value)
        assert not azure.calls

    @pytest.mark.parametrize("name", ["client-id", "tenant-id"])
    async def test_missing_annotation(self, name: str, azure: AzureCloud, namespace: Namespace) -> None:
        """An account that does not say whom it stands for is refused, and the annotation is named."""
        del namespace.annotations[f"azure.workload.identity/{name}"]
        with pytest.raises(provider.InvalidSpec, match=f"azure.workload.identity/{name}") as error:
            await acr.AcrProvider().fetch(by_account(namespace))
        assert error.value.reason == "IdentityIncomplete"
        assert not azure.calls

    async def test_own_identity_incomplete(self, azure: AzureCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """A workload identity without client id says what to annotate; no other identity is tried."""
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/nowhere")
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        with pytest.raises(provider.InvalidSpec, match="AZURE_CLIENT_ID"):
            await acr.AcrProvider().fetch(ask())
        assert not azure.imds.calls

    @pytest.mark.parametrize(
        "value", ["registry", "https://a b", "https://x?y", "https://containerregistry.azure.net\n"]
    )
    def test_audience(self, value: str) -> None:
        """An audience that is no address is refused, since it becomes part of a scope."""
        with pytest.raises(provider.InvalidSpec) as error:
            acr.AcrProvider().key(dataclasses.replace(ask(), config=loose(audience=value)))
        assert error.value.field == "acr.audience"

    def test_model_agrees(self) -> None:
        """The API's own model refuses a tenant that is a path, too."""
        with pytest.raises(pydantic.ValidationError):
            blocks.AcrBlock(tenantId="../common")


class TestKey:
    def test_same(self) -> None:
        """Two entries of one identity and registry are one fetch, whatever prefix they are for."""
        tested = acr.AcrProvider()
        assert tested.key(ask()) == tested.key(ask(server="contoso.azurecr.io/team/"))
        assert tested.key(ask()) == tested.key(ask(clientId=None))

    @pytest.mark.parametrize(
        "other",
        [
            ask(server="fabrikam.azurecr.io"),
            ask(None, "contoso.westeurope.geo.azurecr.io"),
            ask(clientId=CLIENT),
            ask(resourceId=RESOURCE_ID),
            ask(scopes=["team/app"]),
            ask(audience="https://management.azure.com"),
            ask(ca_bundle="-----BEGIN CERTIFICATE-----"),
            by_secret(None),
            by_account(None),
        ],
        ids=range(9),
    )
    def test_different(self, other: provider.Ask) -> None:
        """Registry, identity, scopes, audience and trust each make a fetch of its own."""
        assert acr.AcrProvider().key(other) != acr.AcrProvider().key(ask())

    @pytest.mark.parametrize("make", [by_secret, by_account])
    def test_namespace(self, make: Any) -> None:
        """Sources of equal names in two namespaces are never one fetch."""
        one, two = make(None, namespace="team-a"), make(None, namespace="team-b")
        assert acr.AcrProvider().key(one) != acr.AcrProvider().key(two)

    def test_sources(self) -> None:
        """The Secret of a service principal is watched; other identities have none."""
        assert acr.AcrProvider().sources(by_secret(None)) == [provider.SourceRef("team-a", "sp")]
        assert acr.AcrProvider().sources(by_account(None)) == []
        assert acr.AcrProvider().sources(ask()) == []


class TestLogin:
    @pytest.mark.parametrize("key", ["clientSecret", "client-secret", "AZURE_CLIENT_SECRET"])
    async def test_client_secret(self, key: str, azure: AzureCloud, namespace: Namespace) -> None:
        """A client secret, trailing newline or not, becomes a login that docker can pull with, for three hours."""
        namespace.secrets["sp"] = {key: f"{SECRET}\n".encode()}
        before = dt.datetime.now(dt.UTC)
        grant = await acr.AcrProvider().fetch(by_secret(namespace))
        login = grant.logins[provider.ANY_SERVER]
        assert (login.username, grant.identity) == (TOKEN_USER, CLIENT)
        assert grant.expires_at is not None
        assert grant.expires_at.timestamp() == exchange.jwt_claims(login.password)["exp"]
        assert abs(grant.expires_at - before - dt.timedelta(hours=3)) < dt.timedelta(minutes=1)
        assert await pull(azure, grant, "team/app") == 200
        assert azure.calls["entra"] == azure.calls["exchange"] == 1

    @pytest.mark.parametrize("shape", ["tls", "pem", "pkcs12"])
    async def test_certificate(self, shape: str, azure: AzureCloud, namespace: Namespace, pair: Pair) -> None:
        """A certificate signs the request, as cert-manager stores it, as one PEM, or as PKCS #12."""
        key, certificate = pair.key.encode(), pair.certificate.encode()
        namespace.secrets["sp"] = {
            "tls": {"tls.crt": certificate, "tls.key": key},
            "pem": {"certificate": certificate + key},
            "pkcs12": {"certificate": pair.bundle, "certificatePassword": b"canary-password\n"},
        }[shape]
        grant = await acr.AcrProvider().fetch(by_secret(namespace))
        assert await pull(azure, grant, "team/app") == 200
        assert azure.calls["entra"] == 1

    async def test_service_account(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A service account's token, asked for Entra's audience alone, becomes a login."""
        grant = await acr.AcrProvider().fetch(by_account(namespace, tenant=True, ambient=False))
        assert namespace.audiences == ["api://AzureADTokenExchange"]
        assert grant.identity == CLIENT
        assert await pull(azure, grant, "team/app") == 200

    @pytest.mark.usefixtures("azure")
    async def test_entry_before_annotation(self, namespace: Namespace) -> None:
        """Ids in the entry take the place of the account's annotations."""
        namespace.annotations.update(dict.fromkeys(namespace.annotations, OTHER))
        grant = await acr.AcrProvider().fetch(by_account(namespace, clientId=CLIENT.upper(), tenantId=TENANT))
        assert grant.identity == CLIENT

    async def test_workload_identity(
        self, azure: AzureCloud, namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        """The operator's own workload identity is used where its webhook has set it up, with its fresh token."""
        token_file = tmp_path / "token"
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token_file))
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
        token_file.write_text(await namespace.request_token("puller", "api://AzureADTokenExchange"))
        grant = await acr.AcrProvider().fetch(ask())
        assert grant.identity == CLIENT
        assert not azure.imds.calls

    @pytest.mark.parametrize("block", [{}, {"clientId": CLIENT}, {"resourceId": RESOURCE_ID}])
    async def test_managed_identity(self, block: dict[str, str], azure: AzureCloud) -> None:
        """The node's identity is asked for by nothing, by client id or by resource id, and nobody else's comes."""
        azure.register(Application(OTHER, assigned=True))
        grant = await acr.AcrProvider().fetch(ask(**block))
        assert grant.identity == CLIENT
        assert await pull(azure, grant, "team/app") == 200
        assert azure.imds.calls["imds"] == 1

    @pytest.mark.usefixtures("azure")
    async def test_resource_id_beside_workload_identity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A resource id means the node's identity, though the operator has a workload identity as well."""
        for name in ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID"):
            monkeypatch.setenv(name, "/nowhere")
        grant = await acr.AcrProvider().fetch(ask(resourceId=RESOURCE_ID))
        assert grant.identity == CLIENT

    async def test_scopes(self, azure: AzureCloud, namespace: Namespace) -> None:
        """Scopes narrow the login to pulls from the named repositories, for the life that its token says."""
        grant = await acr.AcrProvider().fetch(by_secret(namespace, scopes=["team/app", "team/base"]))
        assert grant.expires_at is not None
        life = grant.expires_at - grant.issued_at
        assert dt.timedelta(minutes=74) < life <= dt.timedelta(minutes=75, seconds=1)
        assert await pull(azure, grant, "team/app") == 200
        assert await pull(azure, grant, "team/base") == 200
        assert await pull(azure, grant, "team/other") == 401

    async def test_several_hosts(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A regional endpoint is a registry of its own for docker: each host gets the login that it issued."""
        regional = "contoso.westeurope.geo.azurecr.io"
        azure.create_registry(regional, pullers={CLIENT})
        entry = dataclasses.replace(by_secret(namespace), servers=(HOST, regional, f"{HOST}/team/"))
        grant = await acr.AcrProvider().fetch(entry)
        assert set(grant.logins) == {HOST, regional, f"{HOST}/team/"}
        assert grant.logins[HOST] == grant.logins[f"{HOST}/team/"]
        assert await pull(azure, grant, "team/app", HOST) == 200
        assert await pull(azure, grant, "team/app", regional) == 200
        assert (azure.calls["entra"], azure.calls["exchange"]) == (1, 2)

    async def test_arm_audience(self, azure: AzureCloud, namespace: Namespace) -> None:
        """The resource manager's audience works where the registry takes it; by default it is not asked for."""
        entry = by_secret(namespace, audience=f"{ARM_AUDIENCE}/")
        await acr.AcrProvider().fetch(entry)
        azure.registries.by_host[HOST].arm_audience = False
        with pytest.raises(provider.Denied, match=r"leave acr\.audience out"):
            await acr.AcrProvider().fetch(entry)
        await acr.AcrProvider().fetch(by_secret(namespace))

    async def test_short_life(self, azure: AzureCloud, namespace: Namespace) -> None:
        """The token says when it ends; no life is assumed."""
        azure.lives["refresh"] = 90
        grant = await acr.AcrProvider().fetch(by_secret(namespace))
        assert grant.expires_at is not None
        assert grant.expires_at - grant.issued_at <= dt.timedelta(seconds=91)

    async def test_private_ca(self, azure: AzureCloud, namespace: Namespace) -> None:
        """The entry's own CA is trusted, and one that cannot be read is refused by its field."""
        await acr.AcrProvider().fetch(by_secret(namespace, ca_bundle=azure.ca))
        with pytest.raises(provider.InvalidSpec) as error:
            await acr.AcrProvider().fetch(by_secret(namespace, ca_bundle="no PEM"))
        assert error.value.field == "tls.caBundle"


class TestSharing:
    async def test_registries_of_one_identity(self, azure: AzureCloud, namespace: Namespace) -> None:
        """Registries of one identity that are asked at once share one token of Entra."""
        tested = acr.AcrProvider()
        hosts = [f"r{number}.azurecr.io" for number in range(8)]
        for host in hosts:
            azure.create_registry(host, pullers={CLIENT})
        await asyncio.gather(*(tested.fetch(by_secret(namespace, server=host)) for host in hosts))
        assert (azure.calls["entra"], azure.calls["exchange"]) == (1, 8)

    @pytest.mark.usefixtures("azure")
    async def test_new_secret(self, namespace: Namespace) -> None:
        """A changed client secret is proven by Entra at once, not covered by a shared token."""
        tested = acr.AcrProvider()
        await tested.fetch(by_secret(namespace))
        namespace.secrets["sp"] = {"clientSecret": b"another"}
        with pytest.raises(provider.Denied):
            await tested.fetch(by_secret(namespace))

    async def test_namespaces(self, azure: AzureCloud, namespace: Namespace) -> None:
        """Two namespaces never share a token, though their Secrets say the same."""
        tested = acr.AcrProvider()
        await tested.fetch(by_secret(namespace, namespace="team-a"))
        await tested.fetch(by_secret(namespace, namespace="team-b"))
        assert azure.calls["entra"] == 2

    @pytest.mark.parametrize(("life", "fetches"), [(3600, 1), (30, 2), (-5, 2)])
    async def test_short_token(self, life: int, fetches: int, azure: AzureCloud, namespace: Namespace) -> None:
        """A token of Entra that is about to end, as from the cache of the metadata service, is not shared."""
        azure.lives["entra"] = life
        azure.create_registry("other.azurecr.io", pullers={CLIENT})
        tested = acr.AcrProvider()
        for server in (HOST, "other.azurecr.io"):
            with contextlib.suppress(provider.Denied):  # a registry takes no token that has ended
                await tested.fetch(by_secret(namespace, server=server))
        assert azure.calls["entra"] == fetches

    async def test_after_refusal(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A registry that refuses makes the next try ask Entra anew; so does a failure of Entra."""
        tested = acr.AcrProvider()
        azure.registries.by_host[HOST].pullers.clear()
        with pytest.raises(provider.Denied):
            await tested.fetch(by_secret(namespace))
        azure.create_registry(HOST, pullers={CLIENT})
        await tested.fetch(by_secret(namespace))
        assert azure.calls["entra"] == 2

    async def test_cancelled_waiter(self, azure: AzureCloud, namespace: Namespace) -> None:
        """One who gives up waiting does not fail the others that wait for the same token."""
        tested = acr.AcrProvider()
        first = asyncio.create_task(tested.fetch(by_secret(namespace)))
        second = asyncio.create_task(tested.fetch(by_secret(namespace)))
        await asyncio.sleep(0)  # lets both run up to their first wait
        assert tested._tokens._tasks or not first.done()
        first.cancel()
        assert (await second).identity == CLIENT
        with pytest.raises(asyncio.CancelledError):
            await first
        assert azure.calls["entra"] == 1


def test_lazy_import() -> None:
    """Importing the provider loads neither azure-identity nor msal, which cost 20 MB."""
    code = (
        "import sys, regcred.credentials.providers.acr as acr; acr.AcrProvider();"
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'msal', 'requests')])"
    )
    path = ":".join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert run.stdout.strip() == "[]"


class TestRealCluster:
    """The proof is a token that a real API server signed, checked by its issuer's public key."""

    @pytest.fixture
    async def reader(self, control_plane: Any, azure: AzureCloud) -> Any:
        """The operator's reader of the namespace `acr-test` on the control plane, and its client."""
        if control_plane.public_key is None:
            pytest.skip("the public key of this cluster's token issuer is not known")
        azure.trust(Issuer.of(control_plane.issuer, control_plane.public_key))
        await control_plane.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acr-test"}},
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {
                    "name": "puller",
                    "namespace": "acr-test",
                    "annotations": {
                        "azure.workload.identity/client-id": CLIENT,
                        "azure.workload.identity/tenant-id": TENANT,
                    },
                },
            },
        )
        client = api.Client(api.login(str(control_plane.admin_kubeconfig)))
        yield federation.NamespaceReader(client, "acr-test", operator_account="regcred-system/regcred")
        await client.close()

    async def test_federation(self, control_plane: Any, azure: AzureCloud, reader: Any) -> None:
        """An annotated service account pulls, with nothing stored anywhere."""
        credential = Federation(control_plane.issuer, "system:serviceaccount:acr-test:puller")
        azure.register(Application(CLIENT, federations=[credential]))
        entry = by_account(reader, tenant=True, ambient=False, namespace="acr-test")
        grant = await acr.AcrProvider().fetch(entry)
        assert grant.identity == CLIENT
        assert await pull(azure, grant, "team/app") == 200

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"issuer": "https://other.test"}, "issuer matches no"),
            ({"subject": "system:serviceaccount:acr-test:other"}, "subject matches no"),
            ({"subject": "system:serviceaccount:acr-test:Puller"}, "upper and lower case only"),
            ({"audience": "sts.amazonaws.com"}, "audience matches no"),
        ],
        ids=["issuer", "subject", "case", "audience"],
    )
    async def test_mismatch(
        self, wrong: dict[str, str], text: str, control_plane: Any, azure: AzureCloud, reader: Any
    ) -> None:
        """Each part of a federated credential that does not fit is named, with what it must be."""
        right = Federation(control_plane.issuer, "system:serviceaccount:acr-test:puller")
        azure.register(Application(CLIENT, federations=[dataclasses.replace(right, **wrong)]))
        with pytest.raises(provider.Denied, match=text) as error:
            await acr.AcrProvider().fetch(by_account(reader, namespace="acr-test"))
        assert error.value.reason == "FederationMismatch"
        assert "system:serviceaccount:acr-test:puller" in str(error.value)

    async def test_missing_account(self, azure: AzureCloud, reader: Any) -> None:
        """A service account that does not exist is the source's fault, found before Azure is asked."""
        with pytest.raises(provider.InvalidSpec) as error:
            await acr.AcrProvider().fetch(ask(reader, serviceAccountRef={"name": "nobody"}, namespace="acr-test"))
        assert error.value.reason == "SourceMissing"
        assert not azure.calls
