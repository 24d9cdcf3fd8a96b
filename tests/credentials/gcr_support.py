"""What the tests of Google's provider share: a cluster of one namespace, and asks of every kind."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt

from dev.certificates import public_pem, rsa_key
from dev.clouds.google import GoogleCloud, WorkloadProvider
from dev.clouds.issuers import Issuer
from regcred.api.providers import GcrBlock
from regcred.credentials import provider

SERVER = "europe-docker.pkg.dev"
PULLER = "puller@my-project.iam.gserviceaccount.com"
OTHER = "other@my-project.iam.gserviceaccount.com"
POOL = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/clusters"
AUDIENCE = f"{POOL}/providers/prod"
GKE = (
    "identitynamespace:my-project.svc.id.goog:"
    "https://container.googleapis.com/v1/projects/my-project/locations/europe-west1/clusters/prod"
)
MEMBER = f"principal:{POOL}/subject/system:serviceaccount:team-a:gar-puller"
GKE_MEMBER = "my-project.svc.id.goog[team-a/gar-puller]"
ISSUER = "https://kubernetes.example.com"


@functools.cache
def signing_key() -> Any:
    """One RSA key for all tests: making one takes long."""
    return rsa_key()


@functools.cache
def other_key() -> Any:
    """A key that nobody trusts."""
    return rsa_key()


class OneNamespace:
    """The cluster as a provider sees it, with tokens signed like an API server's."""

    def __init__(self, namespace: str = "team-a") -> None:
        self.namespace = namespace
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.accounts: dict[str, dict[str, str]] = {"gar-puller": {}}
        self.reads: list[str] = []
        self.tokens: list[str] = []
        self.key = signing_key()
        self.issued_at_offset = 0

    def store(self, name: str, key: Mapping[str, Any] | bytes | str, entry: str = "key.json") -> str:
        """Store a key in a Secret."""
        raw = (
            key
            if isinstance(key, bytes)
            else (key if isinstance(key, str) else json.dumps(key, indent=2)).encode()
        )
        self.secrets[name] = {"": b"Opaque", entry: raw}
        return name

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        self.reads.append(f"secret {name}")
        return self.secrets[name]

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        self.reads.append(f"account {name}")
        return provider.ServiceAccount(self.namespace, name, "uid", self.accounts[name])

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        self.reads.append(f"token {service_account} {audience} {seconds}")
        now = int(time.time()) + self.issued_at_offset
        claims = {
            "iss": ISSUER,
            "aud": [audience],
            "sub": f"system:serviceaccount:{self.namespace}:{service_account}",
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
        }
        self.tokens.append(jwt.encode(claims, self.key, algorithm="RS256"))
        return self.tokens[-1]


def ask(
    cluster: OneNamespace,
    block: Mapping[str, Any] | None = None,
    *,
    server: str = SERVER,
    aliases: tuple[str, ...] = (),
    tenant: bool = True,
    ambient: bool | None = None,
) -> provider.Ask:
    """Return the ask of an entry with this `gcr` block, None where the entry has none."""
    return provider.Ask(
        server=server,
        servers=(server, *aliases),
        config=None if block is None else GcrBlock.model_validate(block),
        tenant=tenant,
        ambient=not tenant if ambient is None else ambient,
        namespace=cluster.namespace,
        ca_bundle="",
        cluster=cluster,
    )


def key_block(**more: Any) -> dict[str, Any]:
    """Return the block for a key in the Secret `key`."""
    return {"secretRef": {"name": "key"}, **more}


def account_block(**more: Any) -> dict[str, Any]:
    """Return the block for the service account `gar-puller`."""
    return {"serviceAccountRef": {"name": "gar-puller"}, "audience": AUDIENCE, **more}


def trust(cloud: GoogleCloud, name: str = AUDIENCE, *, condition: str = ".*", allowed: str = "") -> None:
    """Let a workload identity provider of the cloud believe the tokens of `OneNamespace`."""
    pool = name.split(":")[1] if name.startswith("identitynamespace:") else name
    issuer = Issuer(ISSUER, public_pem(signing_key()))
    cloud.create_provider(name, WorkloadProvider(issuer, (allowed or pool,), condition))
