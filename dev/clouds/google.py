"""Google's token endpoints on loopback: they check what they are sent, as Google does, and refuse as Google does.

One server plays four services, each at its own path: `oauth2.googleapis.com` (assertions signed with a service
account's key), `sts.googleapis.com` (workload identity federation), `iamcredentials.googleapis.com` (to act as
another account) and the metadata server of GKE and Compute Engine.  Signatures, audiences, scopes, bearer tokens
and roles are verified for real, a Kubernetes token by its cluster's public key.  A test may shorten the life of
tokens, move the server's clock, or have any answer of `google_faults.FAULTS`.

    async with GoogleCloud() as cloud:
        key = cloud.create_key("puller@project.iam.gserviceaccount.com")
        GcrProvider(cloud.environment())
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dev.certificates import Authority, rsa_key
from dev.clouds.google_faults import IAM, METADATA, OAUTH, STS, Refused, api_error, oauth_error
from dev.clouds.issuers import Issuer, audiences, unverified
from dev.clouds.local import Handler, LocalServer

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
READ_ONLY = f"{CLOUD_PLATFORM}.read-only"
_IAM_SCOPES = frozenset({CLOUD_PLATFORM, "https://www.googleapis.com/auth/iam"})
_PULL_SCOPES = frozenset({CLOUD_PLATFORM, READ_ONLY})

_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
_TOLERANCE = 120
#: A metadata server hands out the same token until so many seconds before its end.
_METADATA_RENEWS = 240
_PLACE = ("project/project-id", "instance/attributes/cluster-location", "instance/attributes/cluster-name")

_PROVIDER_NAME = re.compile(
    r"//iam\.googleapis\.com/projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+"
    r"|identitynamespace:[a-z0-9-]+\.svc\.id\.goog:https://container\.googleapis\.com/v1/projects/[a-z0-9-]+"
    r"/locations/[a-z0-9-]+/clusters/[a-z0-9-]+"
)


@dataclass(frozen=True)
class Issued:
    """A token that this server handed out: whose, for what, until when (seconds of the epoch)."""

    principal: str
    scopes: frozenset[str]
    expires_at: float


@dataclass(frozen=True)
class WorkloadProvider:
    """A workload identity provider: whose tokens it believes.

    Attributes:
        issuer: of the tokens, with its public key.
        audiences: that they may be meant for.
        condition: the subjects that pass the attribute condition, a regular expression.
    """

    issuer: Issuer
    audiences: tuple[str, ...]
    condition: str = ".*"


class GoogleCloud(LocalServer):
    """A Google of our own: its accounts, keys, pools and roles, and the endpoints that hand out tokens.

    Args:
        authority: of its TLS certificate; plain HTTP without.
        lifetime: seconds that a token lives.
    """

    def __init__(self, authority: Authority | None = None, *, lifetime: int = 3600) -> None:
        super().__init__(authority)
        self.lifetime = lifetime
        #: Seconds by which this server's clock is ahead of ours.
        self.ahead = 0.0
        #: What the last request held that was answered with a token, by endpoint.
        self.seen: dict[str, dict[str, Any]] = {}
        #: The identity of the machine, "" for none, and the GKE cluster it belongs to: project, location, name.
        self.attached = ""
        self.cluster: tuple[str, str, str] | None = None
        self._accounts: dict[str, dict[str, rsa.RSAPublicKey]] = {}
        self._providers: dict[str, WorkloadProvider] = {}
        self._roles: set[tuple[str, str]] = set()
        self._issued: dict[str, Issued] = {}
        self._metadata: dict[frozenset[str], str] = {}
        account = r"/v1/projects/-/serviceAccounts/{email:[^/:]+}:generateAccessToken"
        self.route("POST", "/token", OAUTH, self._told(self._oauth))
        self.route("POST", "/v1/token", STS, self._told(self._sts))
        self.route("POST", account, IAM, self._told(self._iam))
        self.route("GET", "/computeMetadata/v1/{path:.*}", METADATA, self._metadata_value)

    # What an administrator does.

    def environment(self) -> dict[str, str]:
        """Return the variables that send regcred here."""
        names = ("OAUTH2", "STS", "IAMCREDENTIALS", "METADATA")
        return {f"REGCRED_GOOGLE_{name}_URL": self.origin for name in names}

    def create_account(self, address: str) -> str:
        """Create a service account and return its address."""
        self._accounts.setdefault(address, {})
        return address

    def create_key(self, address: str, private_key: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
        """Create a key of a service account and return the document that Google hands out for it."""
        private_key = private_key or rsa_key()
        key_id = secrets.token_hex(20)
        self._accounts.setdefault(address, {})[key_id] = private_key.public_key()
        pem = private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": key_id,
            "private_key": pem.decode(),
            "client_email": address,
            "client_id": "100000000000000000000",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": _TOKEN_URI,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "universe_domain": "googleapis.com",
        }

    def delete_keys(self, address: str) -> None:
        """Delete all keys of a service account; the account stays."""
        self._accounts[address] = {}

    def create_provider(self, name: str, provider: WorkloadProvider) -> None:
        """Create a workload identity provider; `name` is the audience of the exchange."""
        self._providers[name] = provider

    def allow(self, member: str, address: str) -> None:
        """Let `member` (an address, a `principal://`, `POOL[NAMESPACE/NAME]`) act as a service account."""
        self._roles.add((member, self.create_account(address)))

    # What a registry asks.

    def issued(self, token: str) -> Issued:
        """Return what a token stands for.

        Raises:
            KeyError: it was not handed out here, or has ended.
        """
        found = self._issued[token]
        if found.expires_at <= self._now():
            raise KeyError("the token has ended")
        return found

    def tokens(self) -> frozenset[str]:
        """Return every token that was handed out here."""
        return frozenset(self._issued)

    def puller(self, username: str, password: str) -> str:
        """Return who may pull with this login of a registry's, or "" if nobody: what Artifact Registry decides."""
        if username == "oauth2accesstoken":
            with contextlib.suppress(KeyError):
                issued = self.issued(password)
                return issued.principal if issued.scopes & _PULL_SCOPES else ""
        if username == "_json_key":
            with contextlib.suppress(ValueError, KeyError, TypeError):
                key = json.loads(password)
                private = serialization.load_pem_private_key(key["private_key"].encode(), None)
                if private.public_key() == self._accounts[key["client_email"]][key["private_key_id"]]:
                    return str(key["client_email"])
        return ""

    # The endpoints.

    async def _oauth(self, request: web.Request) -> dict[str, Any]:
        form = dict(await request.post())
        if form.get("grant_type") != _JWT_BEARER:
            raise oauth_error("unsupported_grant_type", "Invalid grant_type")
        assertion = str(form.get("assertion"))
        header, claims = unverified(assertion, 0), unverified(assertion, 1)
        keys = self._accounts.get(str(claims.get("iss")))
        if keys is None:
            raise oauth_error("invalid_grant", "Invalid grant: account not found")
        key = keys.get(str(header.get("kid")))
        if key is None or not _signed_by(assertion, key):
            raise oauth_error("invalid_grant", "Invalid JWT Signature.")
        if claims["aud"] != _TOKEN_URI:
            raise oauth_error("invalid_grant", "Invalid JWT: Failed audience check.")
        now = self._now()
        if (
            claims["iat"] > now + _TOLERANCE
            or claims["exp"] < now - _TOLERANCE
            or claims["exp"] - claims["iat"] > 3600
        ):
            raise oauth_error("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes:
            raise oauth_error("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        self.seen[OAUTH] = {**form, "scopes": scopes}
        token = self._issue(claims["iss"], scopes)
        return {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}

    async def _sts(self, request: web.Request) -> dict[str, Any]:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if form.get("grant_type") != _TOKEN_EXCHANGE or form.get("requested_token_type") != _ACCESS_TOKEN:
            raise oauth_error("invalid_request", "Invalid grant_type or requested_token_type")
        if form.get("subject_token_type") != _JWT_TYPE or not form.get("scope"):
            raise oauth_error("invalid_request", "Invalid subject_token_type or scope")
        name = form.get("audience", "")
        if not _PROVIDER_NAME.fullmatch(name):
            raise oauth_error("invalid_request", 'Invalid value for "audience".')
        provider = self._providers.get(name)
        if provider is None:
            raise oauth_error("invalid_target", 'The target service indicated by the "audience" is invalid.')
        claims = self._believed(form.get("subject_token", ""), provider)
        if not re.fullmatch(provider.condition, claims["sub"]):
            raise oauth_error(
                "unauthorized_client", "The given credential is rejected by the attribute condition."
            )
        self.seen[STS] = form
        token = self._issue(_member(name, claims["sub"]), frozenset(form["scope"].split()))
        return {
            "access_token": token,
            "issued_token_type": _ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
        }

    def _believed(self, token: str, provider: WorkloadProvider) -> Mapping[str, Any]:
        """Check a Kubernetes token as the provider says, and return its claims."""
        stale = oauth_error("invalid_grant", "ID Token issued at 1700000000 is stale to sign-in.")
        try:
            claims = provider.issuer.claims(token)
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
            raise stale from None
        except jwt.InvalidTokenError:
            raise oauth_error("invalid_grant", "The ID Token is not of the expected issuer and key.") from None
        if not set(audiences(claims)) & set(provider.audiences):
            raise oauth_error("invalid_grant", "The audience in ID Token does not match the expected audience.")
        if claims["exp"] < self._now():
            raise stale
        return claims

    async def _iam(self, request: web.Request) -> dict[str, Any]:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            caller = self.issued(bearer)
        except KeyError:
            raise api_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.") from None
        if not caller.scopes & _IAM_SCOPES:
            raise api_error(403, "PERMISSION_DENIED", "Insufficient scopes.", "ACCESS_TOKEN_SCOPE_INSUFFICIENT")
        target = request.match_info["email"]
        if target not in self._accounts:
            raise api_error(404, "NOT_FOUND", f"Not found; Gaia id not found for email {target}")
        if (caller.principal, target) not in self._roles:
            raise api_error(
                403,
                "PERMISSION_DENIED",
                "Permission 'iam.serviceAccounts.getAccessToken' denied",
                "IAM_PERMISSION_DENIED",
            )
        body = await request.json()
        seconds = int(str(body.get("lifetime", "3600s")).removesuffix("s"))
        if not body.get("scope") or not 0 < seconds <= 3600:
            raise api_error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
        self.seen[IAM] = {**body, "caller": caller.principal, "target": target}
        life = min(seconds, self.lifetime)
        token = self._issue(target, frozenset(body["scope"]), life)
        ends = datetime.datetime.fromtimestamp(self._now() + life, datetime.UTC)
        return {"accessToken": token, "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}

    async def _metadata_value(self, request: web.Request) -> web.Response:
        headers = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, text="Missing Metadata-Flavor:Google header.", headers=headers)
        path = request.match_info["path"]
        account = "instance/service-accounts/default/"
        if path == account and self.attached and request.query.get("recursive") == "true":
            about = {"aliases": ["default"], "email": self.attached, "scopes": [CLOUD_PLATFORM]}
            return web.json_response(about, headers=headers)
        if path == f"{account}token" and self.attached:
            return web.json_response(self._metadata_token(request.query.get("scopes", "")), headers=headers)
        if self.cluster and path in _PLACE:
            return web.Response(text=self.cluster[_PLACE.index(path)], headers=headers)
        return web.Response(status=404, text="<html>Error 404 (Not Found)</html>", headers=headers)

    def _metadata_token(self, asked: str) -> dict[str, Any]:
        scopes = frozenset(asked.split(",")) if asked else frozenset({CLOUD_PLATFORM})
        token = self._metadata.get(scopes, "")
        if not token or self._issued[token].expires_at - self._now() < _METADATA_RENEWS:
            token = self._metadata[scopes] = self._issue(self.attached, scopes)
        left = int(self._issued[token].expires_at - self._now())
        return {"access_token": token, "expires_in": left, "token_type": "Bearer"}

    # What they share.

    def _now(self) -> float:
        return time.time() + self.ahead

    def _issue(self, principal: str, scopes: Iterable[str], life: int | None = None) -> str:
        token = f"ya29.{secrets.token_urlsafe(120)}"
        ends = self._now() + (self.lifetime if life is None else life)
        self._issued[token] = Issued(principal, frozenset(scopes), ends)
        return token

    def _told(self, handler: Callable[[web.Request], Awaitable[dict[str, Any]]]) -> Handler:
        """Answer with JSON and by this server's clock; a refusal, too."""

        async def serve(request: web.Request) -> web.StreamResponse:
            date = {"Date": email.utils.formatdate(self._now(), usegmt=True)}
            try:
                return web.json_response(await handler(request), headers=date)
            except Refused as refused:
                return web.json_response(refused.body, status=refused.status, headers=date)

        return serve


def _signed_by(token: str, key: rsa.RSAPublicKey) -> bool:
    try:
        jwt.PyJWS().decode(token, key, algorithms=["RS256"])
    except jwt.InvalidTokenError:
        return False
    return True


def _member(provider: str, subject: str) -> str:
    """Return how IAM policies call a subject of a workload identity provider."""
    if provider.startswith("identitynamespace:"):
        _, _, namespace, name = subject.split(":")
        return f"{provider.split(':')[1]}[{namespace}/{name}]"
    return f"principal:{provider.partition('/providers/')[0]}/subject/{subject}"
