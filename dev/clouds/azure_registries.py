"""Container registries of a local Azure: they issue tokens for Entra's, and let a pull through for theirs."""

from __future__ import annotations

import base64
import dataclasses
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import jwt
from aiohttp import web

from dev.certificates import public_pem, rsa_key
from dev.clouds.issuers import unverified
from dev.clouds.local import Handler, LocalServer

ACR_AUDIENCE = "https://containerregistry.azure.net"
ARM_AUDIENCE = "https://management.azure.com"
TOKEN_USER = "00000000-0000-0000-0000-000000000000"  # noqa: S105 - a user name


@dataclasses.dataclass
class Registry:
    """A registry.

    Attributes:
        host: its login server.
        pullers: clients with a role on all of it.
        repositories: clients with a right on single repositories only, by repository.
        arm_audience: whether tokens for the resource manager are accepted.
        firewalled: whether nobody is let in.
    """

    host: str
    pullers: set[str] = dataclasses.field(default_factory=set)
    repositories: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    arm_audience: bool = True
    firewalled: bool = False

    def admits(self, client: str) -> bool:
        """Whether the client has any right here."""
        return client in self.pullers or any(client in clients for clients in self.repositories.values())

    def pulls(self, client: str, repository: str) -> bool:
        """Whether the client may pull a repository."""
        return client in self.pullers or client in self.repositories.get(repository, set())


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.response = web.json_response(dict(body), status=status, headers=dict(headers or {}))


def refusable(work: Callable[[web.Request], Awaitable[Mapping[str, Any]]]) -> Handler:
    """Return a handler that answers with the JSON that `work` returns, or with the `Refusal` that it raises."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(await work(request))
        except Refusal as refusal:
            return refusal.response

    return handle


class Registries:
    """All registries, behind one server: `Host` and `service` say which is meant.

    Args:
        server: gets their endpoints.
        entra_key: PEM of the public key of Microsoft Entra.
        lives: seconds of the tokens they issue: `refresh`, `access`.
    """

    def __init__(self, server: LocalServer, entra_key: str, lives: Mapping[str, int]) -> None:
        self.by_host: dict[str, Registry] = {}
        self._server, self._entra_key, self._lives = server, entra_key, lives
        self._key = rsa_key()
        self._public = public_pem(self._key)
        server.route("POST", "/oauth2/exchange", "exchange", refusable(self._exchange))
        server.route("POST", "/oauth2/token", "token", refusable(self._token))
        server.route("GET", "/oauth2/token", "docker-token", refusable(self._docker_token))
        server.route("*", "/v2/{repository:.+}/manifests/{reference}", "manifest", refusable(self._manifest))

    async def _exchange(self, request: web.Request) -> Mapping[str, Any]:
        form = await request.post()
        registry = self._registry(request, str(form.get("service", "")))
        if form.get("grant_type") != "access_token":
            _denied(400, "UNSUPPORTED", "grant_type is not supported")
        accepted = [ACR_AUDIENCE, *([ARM_AUDIENCE] if registry.arm_audience else [])]
        try:
            claims = jwt.decode(
                str(form.get("access_token", "")), self._entra_key, algorithms=["RS256"], audience=accepted
            )
        except jwt.InvalidTokenError:
            _denied(401, "UNAUTHORIZED", "authentication required")
        if form.get("tenant", claims["tid"]) != claims["tid"] or not registry.admits(claims["appid"]):
            _denied(401, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization")
        return {"refresh_token": self._issue(registry, claims["appid"], "refresh_token", "refresh")}

    async def _token(self, request: web.Request) -> Mapping[str, Any]:
        form = await request.post()
        registry = self._registry(request, str(form.get("service", "")))
        if form.get("grant_type") != "refresh_token":
            _denied(400, "UNSUPPORTED", "grant_type is not supported")  # as the real one answers "password"
        claims = self._verify(str(form.get("refresh_token", "")), registry, "refresh_token")
        return {"access_token": self._scoped(registry, claims["sub"], [str(s) for s in form.getall("scope", [])])}

    async def _docker_token(self, request: web.Request) -> Mapping[str, Any]:
        """What containerd and docker do with the login: GET with Basic."""
        registry = self._registry(request, request.query.get("service", ""))
        user, _, password = _basic(request)
        if user != TOKEN_USER:
            _denied(401, "UNAUTHORIZED", "authentication required")
        wanted = request.query.getall("scope", [])
        if unverified(password, 1).get("grant_type") == "access_token":
            self._verify(password, registry, "access_token")
            return {"access_token": password}
        claims = self._verify(password, registry, "refresh_token")
        return {"access_token": self._scoped(registry, claims["sub"], wanted)}

    async def _manifest(self, request: web.Request) -> Mapping[str, Any]:
        host, repository = request.host, request.match_info["repository"]
        registry = self._registry(request, host)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        realm, scope = f"{self._server.origin}/oauth2/token", f"repository:{repository}:pull"
        challenge = f'Bearer realm="{realm}",service="{host}",scope="{scope}"'
        if scheme != "Bearer":
            _denied(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
        claims = self._verify(token, registry, "access_token")
        if not any(row["name"] == repository and "pull" in row["actions"] for row in claims["access"]):
            _denied(401, "UNAUTHORIZED", "insufficient scope", {"WWW-Authenticate": challenge})
        return {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}

    def _registry(self, request: web.Request, service: str) -> Registry:
        registry = self.by_host.get(service)
        if registry is None or request.host != service:
            _denied(404, "NAME_UNKNOWN", "no such registry")
        if registry.firewalled:
            _denied(403, "DENIED", "client with IP '192.0.2.1' is not allowed access")
        return registry

    def _issue(self, registry: Registry, client: str, kind: str, life: str, **claims: Any) -> str:
        now = int(time.time())
        known = {"iss": "Azure Container Registry", "aud": registry.host, "sub": client, "iat": now, "nbf": now}
        document = {
            **known,
            "exp": now + self._lives[life],
            "grant_type": kind,
            "jti": str(uuid.uuid4()),
            **claims,
        }
        return jwt.encode(document, self._key, algorithm="RS256")

    def _scoped(self, registry: Registry, client: str, scopes: Sequence[str]) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = [
                action for action in actions.split(",") if action == "pull" and registry.pulls(client, name)
            ]
            if kind == "repository" and granted:
                access.append({"type": kind, "name": name, "actions": granted})
        return self._issue(registry, client, "access_token", "access", access=access)

    def _verify(self, token: str, registry: Registry, kind: str) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token, self._public, algorithms=["RS256"], audience=registry.host
            )
        except jwt.InvalidTokenError:
            _denied(401, "UNAUTHORIZED", "authentication required")
        if claims.get("grant_type") != kind:
            _denied(401, "UNAUTHORIZED", "authentication required")
        return claims


def _basic(request: web.Request) -> tuple[str, str, str]:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        _denied(401, "UNAUTHORIZED", "authentication required")
    user, _, password = base64.b64decode(value).decode().partition(":")
    return user, scheme, password


def _denied(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> NoReturn:
    raise Refusal(status, {"errors": [{"code": code, "message": text}]}, headers)
