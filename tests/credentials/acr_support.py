"""What the tests of the ACR provider share: a local Azure, asks, and a namespace with Secrets and accounts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from dev.certificates import Authority, private_pem, public_pem, rsa_key, self_signed
from dev.clouds.azure import TENANT, Application, AzureCloud, Federation
from dev.clouds.issuers import Issuer
from regcred.api import providers as blocks
from regcred.credentials import provider

HOST = "contoso.azurecr.io"
CLIENT = "6b1f2a0e-8c1d-4e55-9a36-0d5a1f7c9b42"
OTHER = "0f0e0d0c-0b0a-4909-8807-060504030201"
RESOURCE_ID = (
    f"/subscriptions/{OTHER}/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
)
SECRET = "canary-client-secret-7~Qx"
ISSUER = "https://issuer.example.test"
SUBJECT = "system:serviceaccount:team-a:puller"


@dataclasses.dataclass
class Namespace:
    """Stands in for the cluster where a test needs Secrets and tokens of its own making."""

    secrets: dict[str, Mapping[str, bytes]] = dataclasses.field(default_factory=dict)
    annotations: dict[str, str] = dataclasses.field(default_factory=dict)
    token: dict[str, Any] = dataclasses.field(default_factory=dict)
    key: str = ""
    audiences: list[str] = dataclasses.field(default_factory=list)

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        return {"": b"Opaque", **self.secrets[name]}

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        return provider.ServiceAccount("team-a", name, "uid-1", self.annotations)

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        self.audiences.append(audience)
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:team-a:{service_account}",
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
        }
        return jwt.encode({**claims, **self.token}, self.key, algorithm="RS256")


def ask(
    cluster: Any = None,
    *aliases: str,
    server: str = HOST,
    tenant: bool = False,
    ambient: bool = True,
    ca_bundle: str = "",
    namespace: str = "team-a",
    **block: Any,
) -> provider.Ask:
    """An entry for `server`, with the fields of its `acr` block as they stand in YAML."""
    return provider.Ask(
        server=server,
        servers=(server, *aliases),
        config=blocks.AcrBlock(**block) if block else None,
        tenant=tenant,
        ambient=ambient,
        namespace=namespace,
        ca_bundle=ca_bundle,
        cluster=cluster or Namespace(),
    )


def by_secret(cluster: Any, **more: Any) -> provider.Ask:
    """An entry whose identity is a service principal in the Secret `sp`."""
    return ask(cluster, secretRef={"name": "sp"}, tenantId=TENANT, clientId=CLIENT, **more)


def by_account(cluster: Any, **more: Any) -> provider.Ask:
    """An entry whose identity is the service account `puller`."""
    return ask(cluster, serviceAccountRef={"name": "puller"}, **more)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A service principal's key and certificate, in the shapes that people store them in."""

    key: str
    certificate: str
    bundle: bytes

    @classmethod
    def make(cls, password: bytes) -> Pair:
        key = rsa_key()
        certificate = self_signed(key, "puller")
        bundle = pkcs12.serialize_key_and_certificates(
            b"puller",
            key,
            x509.load_pem_x509_certificate(certificate.encode()),
            None,
            serialization.BestAvailableEncryption(password),
        )
        return cls(private_pem(key), certificate, bundle)


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A certificate; its PKCS #12 bundle has the password `canary-password`."""
    return Pair.make(b"canary-password")


@pytest.fixture(scope="module")
def cluster_key() -> Any:
    """The key that signs the stand-in cluster's tokens."""
    return rsa_key()


@pytest.fixture(scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[AzureCloud, Path]]:
    """One local Azure for the module, and the file with its CA."""
    async with AzureCloud(Authority("Azure, locally")) as running:
        ca_file = tmp_path_factory.mktemp("azure") / "ca.pem"
        ca_file.write_text(running.ca)
        yield running, ca_file


@pytest.fixture
def azure(
    cloud: tuple[AzureCloud, Path], cluster_key: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AzureCloud]:
    """A local Azure as new, found through the operator's environment: one identity with every kind of proof."""
    running, ca_file = cloud
    for name in ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", running.origin)
    monkeypatch.setenv("REGCRED_ACR_ENDPOINT", running.origin)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", running.imds.origin)
    running.applications.clear()
    running.registries.by_host.clear()
    running.issuers.clear()
    running.trust(Issuer(ISSUER, public_pem(cluster_key)))
    running.register(
        Application(
            CLIENT,
            secret=SECRET,
            certificates=[pair.certificate],
            federations=[Federation(ISSUER, SUBJECT)],
            resource_id=RESOURCE_ID,
            assigned=True,
            system=True,
        )
    )
    running.create_registry(HOST, pullers={CLIENT})
    yield running
    running.heal()
    running.imds.heal()
    running.stolen.clear()
    running.lives.update(entra=3600, refresh=3 * 3600, access=75 * 60)


@pytest.fixture
def namespace(cluster_key: Any, pair: Pair) -> Namespace:
    """A namespace with the Secret `sp` and the account `puller`, both as they should be."""
    return Namespace(
        secrets={"sp": {"clientSecret": SECRET.encode()}},
        annotations={
            "azure.workload.identity/client-id": CLIENT,
            "azure.workload.identity/tenant-id": TENANT,
        },
        key=private_pem(cluster_key),
    )
