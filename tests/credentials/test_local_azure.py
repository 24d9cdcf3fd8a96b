"""The local Azure refuses what the real one refuses, so that a login from it proves something."""

from __future__ import annotations

import base64
import hashlib
import ssl
import time
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dev.certificates import private_pem, rsa_key
from dev.clouds.azure import TENANT, AzureCloud
from dev.clouds.azure_registries import ACR_AUDIENCE, ARM_AUDIENCE, TOKEN_USER
from tests.credentials.acr_support import (
    CLIENT,
    HOST,
    ISSUER,
    OTHER,
    SECRET,
    SUBJECT,
    Namespace,
    Pair,
    azure,
    cloud,
    cluster_key,
    namespace,
    pair,
)

__all__ = ["azure", "cloud", "cluster_key", "namespace", "pair"]

FORM = {"grant_type": "client_credentials", "client_id": CLIENT, "scope": f"{ACR_AUDIENCE}/.default"}
ASSERTED = {**FORM, "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}


async def post(azure: AzureCloud, path: str, form: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    """Post a form and return status and body."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=azure.ca))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"{azure.origin}{path}", data=form, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def entra(azure: AzureCloud, form: dict[str, Any], tenant: str = TENANT) -> list[int]:
    """Ask Entra, and return its AADSTS numbers; none is success."""
    status, body = await post(azure, f"/{tenant}/oauth2/v2.0/token", form)
    assert (status == 200) == ("access_token" in body)
    return body.get("error_codes", [])


def by_certificate(pair: Pair, key: str, **claims: Any) -> str:
    """A client assertion that names the certificate of `pair`, signed by any key."""
    der = x509.load_pem_x509_certificate(pair.certificate.encode()).public_bytes(serialization.Encoding.DER)
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode()
    now = int(time.time())
    known = {"iss": CLIENT, "sub": CLIENT, "nbf": now, "exp": now + 600}
    return jwt.encode({**known, **claims}, key, algorithm="PS256", headers={"x5t#S256": thumbprint})


class TestEntra:
    @pytest.mark.parametrize(
        ("change", "number"),
        [
            ({}, None),
            ({"client_secret": "another"}, 7000215),
            ({"client_secret": SECRET[:-1]}, 7000215),
            ({"grant_type": "password"}, 70003),
            ({"scope": ACR_AUDIENCE}, 500011),
            ({"scope": "https://graph.microsoft.com/.default"}, 500011),
            ({"client_id": OTHER}, 700016),
        ],
    )
    async def test_secret(self, change: dict[str, str], number: int | None, azure: AzureCloud) -> None:
        """Secret, client, scope and grant must fit."""
        form = {**FORM, "client_secret": SECRET, **change}
        assert await entra(azure, form) == ([number] if number else [])

    async def test_nothing(self, azure: AzureCloud) -> None:
        """Without a proof, and in another tenant, there is no token."""
        assert await entra(azure, FORM) == [7000216]
        assert await entra(azure, {**FORM, "client_secret": SECRET}, OTHER) == [90002]

    async def test_certificate(self, azure: AzureCloud, pair: Pair) -> None:
        """An assertion must be signed by the certificate's key, for this address, now, and by the client itself."""
        here = {"aud": f"{azure.origin}/{TENANT}/oauth2/v2.0/token"}
        for assertion, numbers in (
            (by_certificate(pair, pair.key, **here), []),
            (by_certificate(pair, private_pem(rsa_key()), **here), [700027]),
            (by_certificate(pair, pair.key, aud="https://elsewhere"), [700027]),
            (by_certificate(pair, pair.key, **here, exp=1_000_000_000), [700024]),
            (by_certificate(pair, pair.key, **here, sub=OTHER), [700027]),
            (by_certificate(pair, pair.key, **here, iss=OTHER), [700027]),
        ):
            assert await entra(azure, {**ASSERTED, "client_assertion": assertion}) == numbers

    async def test_federation(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A Kubernetes token must be signed by its issuer's key; saying the right things is not enough."""
        token = await namespace.request_token("puller", "api://AzureADTokenExchange")
        namespace.key = private_pem(rsa_key())
        forged = await namespace.request_token("puller", "api://AzureADTokenExchange")
        unsigned = jwt.encode({"iss": ISSUER, "sub": SUBJECT, "aud": "x", "exp": 9e9}, "", algorithm="none")
        for assertion, numbers in (
            (token, []),
            (forged, [50027]),
            (unsigned, [50027]),
            ("x", [700211]),
            ("", [700211]),
        ):
            assert await entra(azure, {**ASSERTED, "client_assertion": assertion}) == numbers

    async def test_metadata_header(self, azure: AzureCloud) -> None:
        """The metadata service answers nobody who was sent to it unawares."""
        query = {"api-version": "2018-02-01", "resource": ACR_AUDIENCE}
        async with aiohttp.ClientSession() as session:
            for headers, status in (
                ({"Metadata": "true"}, 200),
                ({}, 400),
                ({"Metadata": "true", "X-Forwarded-For": "192.0.2.1"}, 400),
            ):
                url = f"{azure.imds.origin}/metadata/identity/oauth2/token"
                async with session.get(url, params=query, headers=headers) as answer:
                    assert answer.status == status


class TestRegistry:
    def form(self, azure: AzureCloud, **change: Any) -> dict[str, Any]:
        token = azure.entra_token(CLIENT)
        return {"grant_type": "access_token", "service": HOST, "tenant": TENANT, "access_token": token, **change}

    async def test_exchange(self, azure: AzureCloud) -> None:
        """An exchange takes Entra's tokens only: for a registry, of this tenant, of today, by whoever has a role."""
        azure.create_registry("other.azurecr.io", pullers={CLIENT})
        azure.registries.by_host[HOST].arm_audience = False
        forged = jwt.encode({"aud": ACR_AUDIENCE, "appid": CLIENT, "tid": TENANT}, "x" * 32, algorithm="HS256")
        for change, status in (
            ({}, 200),
            ({"access_token": forged}, 401),
            ({"access_token": azure.entra_token(CLIENT, ARM_AUDIENCE)}, 401),
            ({"access_token": azure.entra_token(CLIENT, "https://graph.microsoft.com")}, 401),
            ({"access_token": azure.entra_token(CLIENT, exp=1_000_000_000)}, 401),
            ({"access_token": azure.entra_token(OTHER)}, 401),
            ({"tenant": OTHER}, 401),
            ({"grant_type": "password"}, 400),
            ({"service": "other.azurecr.io"}, 404),
            ({"service": "nobody.azurecr.io"}, 404),
        ):
            assert (await post(azure, "/oauth2/exchange", self.form(azure, **change), Host=HOST))[0] == status

    async def test_tokens_of_its_own(self, azure: AzureCloud) -> None:
        """A registry takes back only its own tokens, each for what it is."""
        azure.create_registry("other.azurecr.io", pullers={CLIENT})
        _, body = await post(azure, "/oauth2/exchange", self.form(azure), Host=HOST)
        refresh = body["refresh_token"]
        form = {
            "grant_type": "refresh_token",
            "service": HOST,
            "scope": "repository:a:pull",
            "refresh_token": refresh,
        }
        status, body = await post(azure, "/oauth2/token", form, Host=HOST)
        assert status == 200
        for change, wanted in (
            ({"refresh_token": body["access_token"]}, 401),
            ({"refresh_token": azure.entra_token(CLIENT)}, 401),
            ({"grant_type": "password", "username": TOKEN_USER}, 400),
        ):
            assert (await post(azure, "/oauth2/token", {**form, **change}, Host=HOST))[0] == wanted
        elsewhere = {**form, "service": "other.azurecr.io"}
        assert (await post(azure, "/oauth2/token", elsewhere, Host="other.azurecr.io"))[0] == 401
