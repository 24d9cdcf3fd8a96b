"""Who we are in Azure: what an entry says of its identity, and the proof that goes with it.

    the operator's own   workload identity where its webhook has set it up, else a managed identity of the node;
                         only where `Ask.ambient`
    a service principal  client secret or certificate from a Secret
    a service account    its token is exchanged (workload identity federation)

Secret and account are of the one namespace that the resource may read from.  Every value is checked here, before
anything is read or sent: the tenant becomes part of a path, and an empty value would send an SDK looking around.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
import re
from collections.abc import Callable, Mapping

from regcred.api import providers as blocks
from regcred.credentials import provider

#: Audience of the Kubernetes token in a federated credential, in every cloud.
FEDERATION_AUDIENCE = "api://AzureADTokenExchange"
CLIENT_ANNOTATION = "azure.workload.identity/client-id"
TENANT_ANNOTATION = "azure.workload.identity/tenant-id"

_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_RESOURCE_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[^/?#\s]{1,90}/providers/microsoft\.managedidentity"
    r"/userassignedidentities/[a-z0-9_-]{1,128}",
    re.IGNORECASE,
)

#: Checks a value, given where it stands, and returns its canonical form.
_Check = Callable[[str, str], str]


class Mode(enum.StrEnum):
    """How an identity proves itself."""

    WORKLOAD = "workload"
    MANAGED = "managed"
    PRINCIPAL = "principal"
    FEDERATED = "federated"


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What an entry says of its identity, checked; "" where it says nothing.

    Attributes:
        mode: how it proves itself.
        tenant: directory, a GUID or a domain.
        client: client id, a GUID.
        resource_id: of a user-assigned managed identity.
        namespace: of the Secret or service account.
        source: name of that Secret or service account.
    """

    mode: Mode
    tenant: str = ""
    client: str = ""
    resource_id: str = ""
    namespace: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        """Who this is, for `Provider.key`."""
        source = f"{self.namespace}/{self.source}" if self.source else ""
        return "|".join((self.mode, source, self.tenant, self.client or self.resource_id.lower()))


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """An identity with its proof, ready to ask for a token.

    Attributes:
        mode: how it proves itself.
        authority: `https://HOST` of Microsoft Entra in its cloud.
        tenant: directory; "" for a managed identity.
        client: client id; "" for a system-assigned identity.
        resource_id: of a user-assigned managed identity, or "".
        origin: where the proof comes from, for error texts, such as `the Secret team-a/acr`.
        subject: subject of the Kubernetes token, for error texts; "" when unknown.
        token_file: path of the operator's own Kubernetes token.
        proof: client secret, Kubernetes token, or certificate with private key; never shown.
        password: of an encrypted certificate; never shown.
        certificate: whether `proof` is a certificate.
    """

    mode: Mode
    authority: str
    tenant: str = ""
    client: str = ""
    resource_id: str = ""
    origin: str = ""
    subject: str = ""
    token_file: str = ""
    proof: bytes = dataclasses.field(default=b"", repr=False)
    password: bytes = dataclasses.field(default=b"", repr=False)
    certificate: bool = False

    def fingerprint(self) -> str:
        """Return a digest that is equal for two principals that may share a token."""
        # A Kubernetes token is new each time; account and client say whom it stands for.
        proof = b"" if self.mode is Mode.FEDERATED else self.proof + b"\0" + self.password
        parts = (
            self.mode,
            self.authority,
            self.tenant,
            self.client,
            self.resource_id,
            self.origin,
            self.token_file,
        )
        return hashlib.sha256("\0".join(parts).encode() + b"\0" + proof).hexdigest()


def identity_of(ask: provider.Ask) -> Identity:
    """Return whose login an entry asks for; nothing is read or sent.

    Raises:
        InvalidSpec: a value cannot be used, two identities are named, or the operator's own is asked for by
            somebody who may not use it (reason `AmbientRefused`).
    """
    block = ask.config if isinstance(ask.config, blocks.AcrBlock) else blocks.AcrBlock()
    tenant = _checked_tenant(block.tenant_id, "acr.tenantId") if block.tenant_id is not None else ""
    client = _checked_client(block.client_id, "acr.clientId") if block.client_id is not None else ""
    account, secret, resource_id = block.service_account_ref, block.secret_ref, block.resource_id or ""
    if block.resource_id is not None and not _RESOURCE_ID.fullmatch(resource_id):
        raise provider.InvalidSpec(
            "InvalidIdentity",
            "The resource id is not one of a managed identity: write /subscriptions/ID/resourceGroups/GROUP"
            "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME.",
            field="acr.resourceId",
        )
    if (account and secret) or (resource_id and (account or secret or client)):
        raise provider.InvalidSpec(
            "TwoIdentities",
            "More than one identity is named: keep one of serviceAccountRef, secretRef and resourceId "
            "(and clientId with the first two only).",
            field="acr.resourceId" if resource_id else "acr.secretRef",
        )
    if account:
        return Identity(Mode.FEDERATED, tenant, client, "", ask.namespace, account.name)
    if secret:
        for value, field in ((tenant, "tenantId"), (client, "clientId")):
            if not value:
                raise provider.InvalidSpec(
                    "IdentityIncomplete",
                    f"A secretRef proves an application, but {field} is missing: say which application of which "
                    "tenant, with clientId and tenantId.",
                    field=f"acr.{field}",
                )
        return Identity(Mode.PRINCIPAL, tenant, client, "", ask.namespace, secret.name)
    if not ask.ambient:
        raise provider.ambient_refused(ask, "acr")
    if resource_id or not os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return Identity(Mode.MANAGED, "", client, resource_id)
    tenant = tenant or _own("AZURE_TENANT_ID", _checked_tenant)
    client = client or _own("AZURE_CLIENT_ID", _checked_client)
    return Identity(Mode.WORKLOAD, tenant, client)


async def prove(identity: Identity, ask: provider.Ask, authority: str) -> Principal:
    """Read what proves an identity.

    Args:
        identity: whose.
        ask: for its cluster.
        authority: `https://HOST` of Microsoft Entra in the registry's cloud.

    Raises:
        InvalidSpec: Secret or account are missing, may not be read, or do not hold what is needed.
    """
    principal = Principal(identity.mode, authority, identity.tenant, identity.client, identity.resource_id)
    if identity.mode is Mode.WORKLOAD:
        return dataclasses.replace(principal, token_file=os.environ.get("AZURE_FEDERATED_TOKEN_FILE", ""))
    if identity.mode is Mode.PRINCIPAL:
        return _from_secret(principal, identity, await ask.cluster.read_secret(identity.source))
    if identity.mode is Mode.FEDERATED:
        account = await ask.cluster.read_service_account(identity.source)
        principal = dataclasses.replace(
            principal,
            client=identity.client or _annotated(account, CLIENT_ANNOTATION, "clientId", _checked_client),
            tenant=identity.tenant or _annotated(account, TENANT_ANNOTATION, "tenantId", _checked_tenant),
            origin=f"the service account {account.namespace}/{account.name} {account.uid}",
            subject=f"system:serviceaccount:{account.namespace}:{account.name}",
        )
        token = await ask.cluster.request_token(account.name, FEDERATION_AUDIENCE)
        return dataclasses.replace(principal, proof=token.encode())
    return principal


def _from_secret(principal: Principal, identity: Identity, data: Mapping[str, bytes]) -> Principal:
    """Take client secret or certificate out of a Secret; keys are known in any spelling (`client-secret` too)."""
    held = {re.sub(r"[^a-z]", "", key.lower()).removeprefix("azure"): value for key, value in data.items() if key}
    origin = f"the Secret {identity.namespace}/{identity.source}"
    secret = held.get("clientsecret", b"").rstrip(b"\r\n")
    certificate = held.get("certificate") or held.get("clientcertificate") or b""
    if "tlscrt" in held and "tlskey" in held:
        certificate = held["tlskey"].rstrip() + b"\n" + held["tlscrt"]
    if bool(secret) == bool(certificate.strip()):
        raise _bad_source(
            origin,
            "must hold a client secret (key clientSecret) or a certificate (keys tls.crt and tls.key, or "
            "certificate), not empty, and not both",
        )
    if certificate:
        password = held.get("certificatepassword") or held.get("clientcertificatepassword") or b""
        return dataclasses.replace(
            principal, origin=origin, proof=certificate, password=password.rstrip(b"\r\n"), certificate=True
        )
    if not re.fullmatch(rb"[\x21-\x7e]{1,1024}", secret):
        raise _bad_source(
            origin, "holds a clientSecret with spaces or unprintable characters: store the secret's value alone"
        )
    return dataclasses.replace(principal, origin=origin, proof=secret)


def bad_certificate(origin: str) -> provider.InvalidSpec:
    """Return the error for a certificate that cannot sign."""
    return _bad_source(
        origin,
        "holds no usable certificate: it takes an RSA private key and its certificate as PEM, or PKCS #12 under "
        "certificate; with certificatePassword where they are encrypted",
    )


def _bad_source(origin: str, objection: str) -> provider.InvalidSpec:
    return provider.InvalidSpec(
        "SourceInvalid", f"{origin[:1].upper()}{origin[1:]} {objection}.", field="acr.secretRef.name"
    )


def _annotated(account: provider.ServiceAccount, annotation: str, field: str, check: _Check) -> str:
    value = account.annotations.get(annotation, "")
    if not value:
        raise provider.InvalidSpec(
            "IdentityIncomplete",
            f"The service account {account.namespace}/{account.name} has no annotation {annotation}: "
            f"add it, or set acr.{field}.",
            field=f"acr.{field}",
        )
    return check(value, f"annotation {annotation} of the service account {account.namespace}/{account.name}")


def _own(variable: str, check: _Check) -> str:
    value = os.environ.get(variable, "")
    if not value:
        annotation = CLIENT_ANNOTATION if variable == "AZURE_CLIENT_ID" else TENANT_ANNOTATION
        raise provider.InvalidSpec(
            "IdentityIncomplete",
            f"The operator's own workload identity has no {variable}: annotate the operator's service account "
            f"with {annotation} and restart it, or set acr.{'clientId' if 'CLIENT' in variable else 'tenantId'}.",
            field="acr",
        )
    return check(value, f"variable {variable} of the operator")


def _checked_tenant(value: str, where: str) -> str:
    """Return a tenant in lower case: a GUID or a domain, so nothing that changes the path it becomes part of."""
    text = value.lower()
    if not (_GUID.fullmatch(text) or _DOMAIN.fullmatch(text)):
        raise provider.InvalidSpec(
            "InvalidIdentity",
            f"The tenant in {where} is neither a GUID nor a domain: write the directory id, or a domain such as "
            "contoso.onmicrosoft.com.",
            field=where if where.startswith("acr.") else "acr.tenantId",
        )
    return text


def _checked_client(value: str, where: str) -> str:
    text = value.lower()
    if not _GUID.fullmatch(text):
        raise provider.InvalidSpec(
            "InvalidIdentity",
            f"The client id in {where} is no GUID: write the application (client) id, not a name or object id.",
            field=where if where.startswith("acr.") else "acr.clientId",
        )
    return text
