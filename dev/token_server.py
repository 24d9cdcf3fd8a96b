"""A small token server of the kind big registries have in front of them.

Most real registries do not check a password themselves: they send the client to a token endpoint, which
checks it and answers with a signed, short-lived token that says what may be pulled. Denials then arrive in
another place and shape than with htpasswd, and that difference is what this server lets us see.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import hmac
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from dev.certificates import rsa_key, self_signed
from dev.ports import free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from cryptography.hazmat.primitives.asymmetric import rsa

SERVICE = "regcred-dev-registry"
ISSUER = "regcred-dev-tokens"
PULL = frozenset({"pull"})
PUSH = frozenset({"pull", "push", "delete"})

_LONG_AGO_SECONDS = 3600


@dataclass(frozen=True)
class User:
    """A password and, per repository (a shell glob), what its owner may do there."""

    password: str
    rights: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def allowed(self, repository: str, wanted: frozenset[str]) -> frozenset[str]:
        """Those of the wanted actions this user may do."""
        matching = [actions for glob, actions in self.rights.items() if fnmatch.fnmatchcase(repository, glob)]
        return wanted & frozenset().union(*matching)


@dataclass(frozen=True)
class Exchange:
    """One request that was answered: by whom ("" is nobody), for what, with which HTTP status."""

    user: str
    scopes: tuple[str, ...]
    status: int


@dataclass
class TokenServer:
    """The server's knobs and its record; `users`, `token_seconds` and `expired` may be changed at any time.

    With `expired` every token it issues has ended an hour ago. `certificate` is what the registry needs to
    check signatures. `exchanges` remembers every request.
    """

    users: dict[str, User]
    anonymous: User = field(default_factory=lambda: User(""))
    token_seconds: int = 60
    expired: bool = False
    exchanges: list[Exchange] = field(default_factory=list)
    url: str = ""
    _key: rsa.RSAPrivateKey = field(default_factory=rsa_key)

    @property
    def certificate(self) -> str:
        """The signing key, inside a certificate, as PEM text."""
        return self_signed(self._key, ISSUER)

    def token(self, subject: str, scopes: tuple[str, ...]) -> str:
        """A signed token for what the user of that name may do of these scopes."""
        user = self.users.get(subject, self.anonymous)
        now = int(time.time()) - (_LONG_AGO_SECONDS + self.token_seconds if self.expired else 0)
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self.token_seconds,
            "jti": uuid.uuid4().hex,
            "access": [access for scope in scopes if (access := _granted(user, scope))],
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": _key_id(self._key)})

    async def answer(self, request: web.Request) -> web.Response:
        """GET of the token endpoint, as the distribution project specifies it."""
        scopes = tuple(scope for value in request.query.getall("scope", []) for scope in value.split())
        header = request.headers.get("Authorization")
        name, password = decode_basic(header) if header else ("", "")
        if header and not self._knows(name, password):
            self.exchanges.append(Exchange(name, scopes, 401))
            error = {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
            return web.json_response(error, status=401, headers={"WWW-Authenticate": 'Basic realm="tokens"'})
        self.exchanges.append(Exchange(name, scopes, 200))
        return web.json_response({"token": self.token(name, scopes), "expires_in": self.token_seconds})

    def _knows(self, name: str, password: str) -> bool:
        user = self.users.get(name)
        return user is not None and hmac.compare_digest(user.password.encode(), password.encode())


def encode_basic(name: str, password: str) -> str:
    """The value of an Authorization header with this login."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def decode_basic(header: str) -> tuple[str, str]:
    """Name and password of an Authorization header; both empty where it has none."""
    kind, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded, validate=True).decode() if kind.lower() == "basic" else ""
    except ValueError:
        text = ""
    name, _, password = text.partition(":")
    return name, password


@contextlib.asynccontextmanager
async def start_token_server(
    users: Mapping[str, User], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[TokenServer]:
    """A token server on a free loopback port; its `url` is the registry's `realm`."""
    server = TokenServer(dict(users))
    application = web.Application()
    application.router.add_get("/token", server.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/token"
        yield server
    finally:
        await runner.cleanup()


def _granted(user: User, scope: str) -> dict[str, object] | None:
    kind, _, rest = scope.partition(":")
    repository, _, actions = rest.rpartition(":")
    allowed = user.allowed(repository, frozenset(actions.split(","))) if kind == "repository" else frozenset()
    return {"type": kind, "name": repository, "actions": sorted(allowed)} if allowed else None


def _key_id(key: rsa.RSAPrivateKey) -> str:
    """The identifier by which docker-registry finds the key: that of the libtrust library."""
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))
