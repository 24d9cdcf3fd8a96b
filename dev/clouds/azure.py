"""Azure on loopback: Microsoft Entra, registries and the instance metadata service; they check what they are sent.

    async with AzureCloud(Authority("test")) as azure:
        azure.register(Application(client, secret="..."))
        azure.create_registry("contoso.azurecr.io", pullers={client})

Entra verifies client secrets, the signature of certificate assertions (PS256) and Kubernetes tokens by the public
key of their issuer; a registry verifies that the access token is Entra's, for its audience and by an identity with
a role; a pull is let through only with a token that the registry issued.  Refusals have the real ones' bodies.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Self

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dev.certificates import Authority, public_pem, rsa_key
from dev.clouds.azure_registries import ACR_AUDIENCE, ARM_AUDIENCE, Refusal, Registries, Registry, refusable
from dev.clouds.issuers import Issuer, audiences, unverified
from dev.clouds.local import LocalServer

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclasses.dataclass(frozen=True)
class Federation:
    """A federated credential: whose Kubernetes tokens stand for an application."""

    issuer: str
    subject: str
    audience: str = "api://AzureADTokenExchange"


@dataclasses.dataclass(frozen=True)
class Application:
    """An application or managed identity of the tenant.

    Attributes:
        client: its client id.
        secret: its client secret, or "".
        secret_expired: whether that has ended.
        certificates: PEM of its registered certificates.
        federations: its federated credentials.
        resource_id: of a managed identity.
        assigned: whether the node (the metadata service) has it.
        system: whether it is the node's system-assigned identity.
    """

    client: str
    secret: str = dataclasses.field(default="", repr=False)
    secret_expired: bool = False
    certificates: Sequence[str] = ()
    federations: Sequence[Federation] = ()
    resource_id: str = ""
    assigned: bool = False
    system: bool = False


class AzureCloud(LocalServer):
    """Microsoft Entra and registries on one TLS port, the metadata service on a plain one.

    Attributes:
        ca: PEM of the authority of the TLS port.
        imds: the metadata service.
        lives: seconds of the tokens it issues: `entra`, `refresh`, `access`.
    """

    def __init__(self, authority: Authority, tenant: str = TENANT) -> None:
        super().__init__(authority)
        self.ca = authority.certificate
        self.tenant = tenant
        self.lives = {"entra": 3600, "refresh": 3 * 3600, "access": 75 * 60}
        self.applications: dict[str, Application] = {}
        self.issuers: dict[str, Issuer] = {}
        self.imds = LocalServer()
        self.stolen: list[str] = []
        self._key = rsa_key()
        self.registries = Registries(self, public_pem(self._key), self.lives)
        self.route("POST", "/{tenant}/oauth2/v2.0/token", "entra", refusable(self._entra))
        self.route("*", "/stolen", "stolen", self._thief)
        self.imds.route("GET", "/metadata/identity/oauth2/token", "imds", refusable(self._imds))

    async def __aenter__(self) -> Self:
        await self.imds.__aenter__()
        await super().__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        await self.imds.__aexit__(*exception)

    def register(self, application: Application) -> None:
        """Add or replace an application."""
        self.applications[application.client] = application

    def create_registry(self, host: str, pullers: Iterable[str] = ()) -> Registry:
        """Add or replace a registry."""
        self.registries.by_host[host] = Registry(host, set(pullers))
        return self.registries.by_host[host]

    def trust(self, issuer: Issuer) -> None:
        """Make the keys of a cluster's issuer known."""
        self.issuers[issuer.name] = issuer

    # Microsoft Entra

    async def _entra(self, request: web.Request) -> Mapping[str, Any]:
        form = {name: str(value) for name, value in (await request.post()).items()}
        tenant = request.match_info["tenant"]
        if tenant != self.tenant:
            _aadsts(400, 90002, "invalid_request", f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials":
            _aadsts(400, 70003, "unsupported_grant_type", "The app requested an unsupported grant type.")
        application = self.applications.get(form.get("client_id", ""))
        if application is None:
            _aadsts(400, 700016, "unauthorized_client", f"Application '{form.get('client_id')}' was not found.")
        audience, default, _ = form.get("scope", "").partition("/.default")
        if not default or audience not in {ACR_AUDIENCE, ARM_AUDIENCE}:
            _aadsts(400, 500011, "invalid_resource", f"The resource principal named {audience} was not found.")
        if "client_secret" in form:
            self._check_secret(application, form["client_secret"])
        elif form.get("client_assertion_type") == _JWT_BEARER:
            assertion = form.get("client_assertion", "")
            if "x5t#S256" in unverified(assertion, 0):
                self._check_certificate(application, assertion, str(request.url))
            else:
                self._check_federation(application, assertion)
        else:
            _aadsts(401, 7000216, "invalid_client", "client_assertion or client_secret is required.")
        return {
            "token_type": "Bearer",
            "expires_in": self.lives["entra"],
            "ext_expires_in": self.lives["entra"],
            "access_token": self.entra_token(application.client, audience),
        }

    def entra_token(self, client: str, audience: str = ACR_AUDIENCE, **claims: Any) -> str:
        """Return an access token as Entra issues it."""
        now = int(time.time())
        known = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant}/",
            "iat": now,
            "nbf": now,
            "exp": now + self.lives["entra"],
            "appid": client,
            "oid": str(uuid.uuid5(uuid.NAMESPACE_URL, client)),
            "tid": self.tenant,
        }
        return jwt.encode({**known, **claims}, self._key, algorithm="RS256")

    def _check_secret(self, application: Application, secret: str) -> None:
        if not application.secret or secret != application.secret:
            _aadsts(401, 7000215, "invalid_client", "Invalid client secret provided.")
        if application.secret_expired:
            _aadsts(401, 7000222, "invalid_client", "The provided client secret keys are expired.")

    def _check_certificate(self, application: Application, assertion: str, token_url: str) -> None:
        thumbprint = unverified(assertion, 0).get("x5t#S256")
        for pem in application.certificates:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            der = certificate.public_bytes(serialization.Encoding.DER)
            if base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode() != thumbprint:
                continue
            key = certificate.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            try:
                claims = jwt.decode(
                    assertion, key, algorithms=["PS256"], audience=token_url, issuer=application.client
                )
            except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
                _aadsts(401, 700024, "invalid_client", "Client assertion is not within its valid time range.")
            except jwt.InvalidTokenError:
                _aadsts(401, 700027, "invalid_client", "The signature of the client assertion is not valid.")
            if claims.get("sub") != application.client:
                _aadsts(401, 700027, "invalid_client", "Subject and issuer of the client assertion differ.")
            return
        _aadsts(401, 700027, "invalid_client", "The certificate with identifier used to sign is not registered.")

    def _check_federation(self, application: Application, assertion: str) -> None:
        said = unverified(assertion, 1)
        known = [row for row in application.federations if row.issuer == said.get("iss")]
        issuer = self.issuers.get(str(said.get("iss")))
        if not known:
            _aadsts(401, 700211, "invalid_client", f"No matching record for issuer '{said.get('iss')}'.")
        if issuer is None:
            _aadsts(500, 50166, "server_error", "Request to External OIDC endpoint failed.")
        try:
            claims = issuer.claims(assertion)
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
            _aadsts(401, 700024, "invalid_client", "Client assertion is not within its valid time range.")
        except jwt.InvalidTokenError:
            _aadsts(401, 50027, "invalid_request", "Invalid JWT token.")
        known = [row for row in known if [row.audience] == audiences(claims)]
        if not known:
            _aadsts(401, 700212, "invalid_client", f"No matching record for audience '{audiences(claims)}'.")
        subjects = {row.subject for row in known}
        if claims["sub"] in subjects:
            return
        if claims["sub"].lower() in {subject.lower() for subject in subjects}:
            _aadsts(401, 7002138, "invalid_client", f"Subject '{claims['sub']}' matches case-insensitively only.")
        _aadsts(401, 700213, "invalid_client", f"No matching record for subject '{claims['sub']}'.")

    # The instance metadata service

    async def _imds(self, request: web.Request) -> Mapping[str, Any]:
        query = request.query
        if request.headers.get("Metadata") != "true" or "X-Forwarded-For" in request.headers:
            _imds_error("invalid_request", "Required metadata header not specified")
        if not query.get("api-version") or query.get("resource") not in {ACR_AUDIENCE, ARM_AUDIENCE}:
            _imds_error("invalid_resource", "The resource principal was not found")
        for application in self.applications.values():
            if not application.assigned:
                continue
            if "client_id" in query:
                found = query["client_id"] == application.client
            elif "msi_res_id" in query:
                found = query["msi_res_id"].lower() == application.resource_id.lower()
            else:
                found = application.system
            if found:
                token = self.entra_token(application.client, query["resource"])
                return {
                    "access_token": token,
                    "client_id": application.client,
                    "expires_in": str(self.lives["entra"]),
                    "expires_on": str(int(time.time()) + self.lives["entra"]),
                    "resource": query["resource"],
                    "token_type": "Bearer",
                }
        return _imds_error("invalid_request", "Identity not found")

    async def _thief(self, request: web.Request) -> web.StreamResponse:
        self.stolen.append(f"{request.headers} {await request.text()}")
        return web.json_response({"access_token": "x.y.z", "refresh_token": "x.y.z"})


def _aadsts(status: int, number: int, error: str, text: str) -> NoReturn:
    raise Refusal(status, aadsts_body(number, error, text))


def aadsts_body(number: int, error: str = "invalid_client", text: str = "Refused.") -> dict[str, Any]:
    """Return the body of a refusal by Entra."""
    trace, correlation, now = uuid.uuid4(), uuid.uuid4(), time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return {
        "error": error,
        "error_description": f"AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation} "
        f"Timestamp: {now}",
        "error_codes": [number],
        "timestamp": now,
        "trace_id": str(trace),
        "correlation_id": str(correlation),
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
    }


def _imds_error(error: str, text: str) -> NoReturn:
    raise Refusal(400, {"error": error, "error_description": text})
