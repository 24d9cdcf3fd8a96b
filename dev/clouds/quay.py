"""Quay on loopback: robots that trust service accounts, and a registry that lets them pull.

    async with Quay(Authority("test")) as quay:
        quay.trust(Issuer.of(cluster.issuer, cluster.public_key))
        quay.federate("shop+puller", Federation(cluster.issuer, "system:serviceaccount:shop:puller"))

A Kubernetes token is believed only by its issuer's public key; issuer, subject and, where the federation lists
some, audience must fit (github.com/quay/quay, util/security/federated_robot_auth.py).
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jwt
from aiohttp import web

from dev.certificates import Authority, public_pem, rsa_key
from dev.clouds.issuers import Issuer, audiences, unverified
from dev.clouds.local import LocalServer


@dataclasses.dataclass(frozen=True)
class Federation:
    """What a robot trusts: the tokens of one account of one cluster.

    Attributes:
        issuer: `iss`.
        subject: `sub`.
        audiences: one of them must be in `aud`; none means that `aud` is not looked at.
    """

    issuer: str
    subject: str
    audiences: tuple[str, ...] = ()


class Quay(LocalServer):
    """A Quay with robots.

    Attributes:
        ca: PEM of the authority of its certificate.
        life: seconds of a login.
        host: `127.0.0.1:PORT`.
    """

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.ca = authority.certificate
        self.life = 3600
        self.robots: dict[str, list[Federation]] = {}
        self.issuers: dict[str, Issuer] = {}
        self._key = rsa_key()
        self._public = public_pem(self._key)
        self.route("GET", "/oauth2/federation/robot/token", "federation", self._federation)
        self.route("GET", "/v2/auth", "docker-token", self._docker_token)
        self.route("*", "/v2/{repository:.+}/manifests/{reference}", "manifest", self._manifest)
        self.route("*", "/stolen", "stolen", self._stolen)

    @property
    def host(self) -> str:
        """Where it is, as a server in a registry entry."""
        return f"127.0.0.1:{self.port}"

    def federate(self, robot: str, federation: Federation) -> None:
        """Let a robot trust a service account."""
        self.robots.setdefault(robot, []).append(federation)

    def trust(self, issuer: Issuer) -> None:
        """Make the keys of a cluster's issuer known."""
        self.issuers[issuer.name] = issuer

    async def _federation(self, request: web.Request) -> web.Response:
        robot, token = _basic(request)
        said = unverified(token, 1)
        issuer = self.issuers.get(str(said.get("iss")))
        known = [row for row in self.robots.get(robot, []) if row.issuer == said.get("iss")]
        if issuer is None or not known:
            return _refused(f"issuer {said.get('iss')} not configured for this robot")
        try:
            claims = issuer.claims(token)
        except jwt.InvalidTokenError:
            return _refused("Invalid token")
        if not any(_fits(row, claims) for row in known):
            return _refused("Token does not match robot")
        return web.json_response({"token": self._issue(robot)})

    async def _docker_token(self, request: web.Request) -> web.Response:
        robot, password = _basic(request)
        try:
            claims = jwt.decode(password, self._public, algorithms=["RS256"], audience=self.host)
        except jwt.InvalidTokenError:
            return _refused("Invalid bearer token")
        if claims["sub"] != robot:
            return _refused("Invalid bearer token")
        organization = robot.partition("+")[0]
        scope = request.query.get("scope", "")
        granted = scope if scope.startswith(f"repository:{organization}/") else ""
        return web.json_response({"token": self._issue(robot, scope=granted)})

    async def _manifest(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        wanted = f"repository:{request.match_info['repository']}:pull"
        challenge = f'Bearer realm="{self.origin}/v2/auth",service="{self.host}",scope="{wanted}"'
        try:
            claims = jwt.decode(token, self._public, algorithms=["RS256"], audience=self.host)
        except jwt.InvalidTokenError:
            claims = {}
        if scheme != "Bearer" or claims.get("scope") != wanted:
            return web.json_response({"errors": []}, status=401, headers={"WWW-Authenticate": challenge})
        return web.json_response({"schemaVersion": 2})

    async def _stolen(self, _: web.Request) -> web.Response:
        return web.json_response({"token": "x.y.z"})

    def _issue(self, robot: str, **claims: Any) -> str:
        now = int(time.time())
        known = {"iss": "quay", "aud": self.host, "sub": robot, "iat": now, "nbf": now, "exp": now + self.life}
        return jwt.encode({**known, **claims}, self._key, algorithm="RS256")


def _fits(row: Federation, claims: Mapping[str, Any]) -> bool:
    return claims["sub"] == row.subject and (not row.audiences or bool({*row.audiences} & {*audiences(claims)}))


def _basic(request: web.Request) -> tuple[str, str]:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return "", ""
    user, _, password = base64.b64decode(value).decode().partition(":")
    return user, password


def _refused(text: str) -> web.Response:
    return web.json_response({"error": text}, status=401)
