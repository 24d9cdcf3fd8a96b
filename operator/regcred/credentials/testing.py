"""What the tests of a provider need: an entry, a namespace, and a token endpoint with TLS on loopback.

For authors of plugins (docs/plugins.md).  The operator itself never imports this.

    async with token_endpoint(answer) as endpoint:
        entry = ask(endpoint.host, {"robot": "x"}, Namespace(), ca_bundle=endpoint.ca)
        grant = await MyProvider().fetch(entry)
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import ipaddress
import json
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from regcred.credentials import provider


@dataclasses.dataclass
class Namespace:
    """Stands in for `provider.Cluster`: one namespace with Secrets and service accounts.

    Attributes:
        name: of the namespace.
        secrets: name to data.
        accounts: name of a service account to its annotations.
        asked: audience and account of every token that was asked for.
    """

    name: str = "team-a"
    secrets: dict[str, Mapping[str, bytes]] = dataclasses.field(default_factory=dict)
    accounts: dict[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        """Return the Secret's data, with its type under the key `""`."""
        if name not in self.secrets:
            raise self._missing("Secret", name)
        return {"": b"Opaque", **self.secrets[name]}

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        """Return the account."""
        if name not in self.accounts:
            raise self._missing("ServiceAccount", name)
        return provider.ServiceAccount(self.name, name, f"uid-of-{name}", self.accounts[name])

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        """Return a JWT with the claims of a service account's token, not signed by anybody."""
        await self.read_service_account(service_account)
        self.asked.append((audience, service_account))
        return jwt(seconds, aud=[audience], sub=f"system:serviceaccount:{self.name}:{service_account}")

    def _missing(self, kind: str, name: str) -> provider.InvalidSpec:
        return provider.InvalidSpec("SourceMissing", f"the {kind} {name} does not exist; create it")


@dataclasses.dataclass
class Endpoint:
    """A running token endpoint.

    Attributes:
        host: `127.0.0.1:PORT`.
        ca: PEM of the CA that signed its certificate.
        calls: how often it was called.
    """

    host: str
    ca: str
    calls: int = 0


def ask(
    server: str, config: object, cluster: provider.Cluster, *, namespace: str = "team-a", **changes: Any
) -> provider.Ask:
    """Return an entry of a namespaced resource, as the operator hands it to a provider.

    Args:
        server: canonical server of the entry.
        config: the provider's block; for a plugin what stands in `plugin.config`.
        cluster: such as a `Namespace`.
        namespace: of the resource.
        changes: other attributes of `provider.Ask`.
    """
    plain = provider.Ask(
        server=server,
        servers=(server,),
        config=config,
        tenant=True,
        ambient=False,
        namespace=namespace,
        ca_bundle="",
        cluster=cluster,
    )
    return dataclasses.replace(plain, **changes)


def jwt(life: float, **claims: Any) -> str:
    """Return a JWT that ends in `life` seconds, with a signature that nobody should believe."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"iat": now, "exp": now + int(life), **claims}, {"signature": "none"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@contextlib.asynccontextmanager
async def token_endpoint(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Endpoint]:
    """Serve every path over TLS on a free port of 127.0.0.1, with a certificate of a CA made for it.

    Args:
        answer: what it does with a request.
    """
    context, ca = _certificate()
    endpoint = Endpoint("", ca)

    async def counted(request: web.Request) -> web.StreamResponse:
        endpoint.calls += 1
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", counted)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        endpoint.host = f"127.0.0.1:{runner.addresses[0][1]}"
        yield endpoint
    finally:
        await runner.cleanup()


def _certificate() -> tuple[ssl.SSLContext, str]:
    """Return a context with a certificate for 127.0.0.1, and the PEM of that certificate, which is its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "a token endpoint of a test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "server.pem")  # noqa: PTH118 - a plain path for OpenSSL
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                + pem
            )
        context.load_cert_chain(path)
    return context, pem.decode()
