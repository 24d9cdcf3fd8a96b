"""The provider blocks of a registry entry: how its login is had.

An entry holds exactly one of them, or none where the host tells the provider and its defaults do.  The text
below a field is what `kubectl explain` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import pydantic

from regcred.api import model, texts
from regcred.api.model import Model, Rule, when

_SECRETS_ELSEWHERE = "secrets never stand in a resource; put it into a Secret and name that by secretRef"

Arn = Annotated[
    str,
    pydantic.Field(
        min_length=20,
        max_length=600,
        pattern="^arn:aws(-[a-z]{1,8}){0,2}:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}$",
    ),
    model.Says("must be the ARN of an IAM role, such as arn:aws:iam::123456789012:role/puller"),
]
ExternalId = Annotated[
    str,
    pydantic.Field(min_length=2, max_length=1224, pattern="^[A-Za-z0-9_+=,.@:/-]+$"),
    model.Says("must be 2 to 1224 letters, digits or characters of _+=,.@:/-, as the role's trust policy has it"),
]
Region = Annotated[
    str,
    pydantic.Field(min_length=5, max_length=32, pattern="^[a-z]{2,4}(-[a-z]{2,12}){1,2}-[0-9]{1,2}$"),
    model.Says("must be an AWS region, such as eu-west-1"),
]
GoogleAudience = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=512,
        pattern=(
            "^(//iam\\.googleapis\\.com/projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{1,64}"
            "/providers/[a-z0-9-]{1,64}|identitynamespace:[a-z0-9.:-]{1,100}\\.svc\\.id\\.goog:"
            "https://(container|gkehub)\\.googleapis\\.com/[A-Za-z0-9/._-]{1,300})$"
        ),
    ),
    model.Says(
        "must be the full name of a workload identity provider, such as //iam.googleapis.com/projects/123456/"
        "locations/global/workloadIdentityPools/pool/providers/cluster, or for GKE identitynamespace:"
        "PROJECT.svc.id.goog:https://container.googleapis.com/v1/projects/PROJECT/locations/LOCATION/clusters/NAME"
    ),
]
GoogleAccount = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=254,
        pattern="^[a-z0-9][a-z0-9-]{0,99}@([a-z0-9-]{1,63}\\.){1,8}gserviceaccount\\.com$",
    ),
    model.Says(
        "must be the e-mail address of a Google service account, such as puller@my-project.iam.gserviceaccount.com"
    ),
]
Scope = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=128, pattern="^https://www\\.[a-z0-9.-]+/auth/[a-z0-9._-]+$"),
    model.Says(
        "must be an OAuth scope of Google, such as https://www.googleapis.com/auth/cloud-platform.read-only"
    ),
]
TenantId = Annotated[
    str,
    pydantic.Field(
        min_length=3,
        max_length=253,
        pattern=(
            "^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
            "|[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)+)$"
        ),
    ),
    model.Says(
        "must be the id of an Entra tenant (a GUID such as 72f988bf-86f1-41af-91ab-2d7cd011db47) or its domain"
    ),
]
ClientId = Annotated[
    str,
    pydantic.Field(min_length=36, max_length=36, pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
    model.Says(
        "must be the client id of an application or managed identity: a GUID such as "
        "6b1f2a0e-8c1d-4e55-9a36-0d5a1f7c9b42, not its name and not its object id"
    ),
]
ResourceId = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=512,
        pattern=(
            "^/subscriptions/[0-9a-fA-F-]{36}/resource[gG]roups/[^/ ]+/providers/"
            "[mM]icrosoft\\.[mM]anaged[iI]dentity/user[aA]ssigned[iI]dentities/[A-Za-z0-9_-]+$"
        ),
    ),
    model.Says(
        "must be the resource id of a managed identity: /subscriptions/<GUID>/resourceGroups/<group>/providers/"
        "Microsoft.ManagedIdentity/userAssignedIdentities/<name>"
    ),
]
AzureAudience = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=128,
        pattern="^https://(containerregistry|management)\\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?/?$",
    ),
    model.Says(
        "must be the audience of a registry or of the resource manager, such as "
        "https://containerregistry.azure.net or https://management.azure.com"
    ),
]


class SecretRef(Model):
    """A Secret that is read."""

    hints: ClassVar[Mapping[str, str]] = {
        "namespace": "a Secret is always read from the namespace of a RegistryCredential, or from the "
        "operator's own for a ClusterRegistryCredential; remove the field",
        "key": "the Secret's type tells its keys; remove the field",
    }

    name: texts.ObjectName = pydantic.Field(examples=["dockerhub"])
    """Name of the Secret. It is read from the resource's own namespace (RegistryCredential) or from the
    operator's (ClusterRegistryCredential); a change of it is noticed and published."""


class ServiceAccountRef(Model):
    """A service account whose token is exchanged."""

    hints: ClassVar[Mapping[str, str]] = {
        "namespace": "a service account is always taken from the namespace of a RegistryCredential, or from "
        "the operator's own for a ClusterRegistryCredential; remove the field"
    }

    name: texts.ObjectName = pydantic.Field(examples=["puller"])
    """Name of the service account. It is taken from the resource's own namespace (RegistryCredential) or
    from the operator's (ClusterRegistryCredential)."""


_ONE_IDENTITY = Rule(
    "serviceAccountRef and secretRef are two identities; keep one of them",
    lambda block: when(block.service_account_ref and block.secret_ref, "secretRef"),
    "!(has(self.serviceAccountRef) && has(self.secretRef))",
)


class LoginBlock(Model):
    """A user name and password that somebody else manages."""

    hints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("username", "password", "token", "auth"), _SECRETS_ELSEWHERE
    )

    secret_ref: SecretRef = pydantic.Field(examples=[{"name": "dockerhub"}])
    """Secret that holds the login: of type kubernetes.io/basic-auth or Opaque with the keys `username` and
    `password`, or of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg."""


class EcrBlock(Model):
    """Amazon ECR: a token of 12 hours for an AWS identity."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _ONE_IDENTITY,
        Rule(
            "externalId is sent when a role is assumed; set roleArn, or remove externalId",
            lambda block: when(block.external_id and not block.role_arn, "externalId"),
            "!has(self.externalId) || has(self.roleArn)",
        ),
        Rule(
            "AWS takes no external id with the token of a service account; remove externalId",
            lambda block: when(block.external_id and block.service_account_ref, "externalId"),
            "!(has(self.externalId) && has(self.serviceAccountRef))",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("accessKeyId", "secretAccessKey", "sessionToken"), _SECRETS_ELSEWHERE
    )

    role_arn: Arn | None = None
    """ARN of the IAM role to assume, such as arn:aws:iam::123456789012:role/puller. With a serviceAccountRef it
    takes the place of the role in the account's annotation eks.amazonaws.com/role-arn."""
    external_id: ExternalId | None = None
    """External id that the trust policy of roleArn asks for; 2 to 1224 characters."""
    region: Region | None = None
    """AWS region to ask, such as eu-west-1. Needed only where the host does not name it, as a host of your
    own in front of ECR; refused where it does."""
    service_account_ref: ServiceAccountRef | None = None
    """Service account whose token is exchanged for the role (IAM roles for service accounts). Neither this nor
    secretRef: the operator's own identity, where its settings allow that."""
    secret_ref: SecretRef | None = None
    """Secret with the static keys `accessKeyId` and `secretAccessKey`, and `sessionToken` if they are
    temporary."""


class GcrBlock(Model):
    """Google Artifact Registry and gcr.io: a token of one hour, or a service account's key."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _ONE_IDENTITY,
        Rule(
            "audience is whom the token of serviceAccountRef is for; set serviceAccountRef, or remove audience",
            lambda block: when(block.audience and not block.service_account_ref, "audience"),
            "!has(self.audience) || has(self.serviceAccountRef)",
        ),
        Rule(
            "keyMode JsonKey publishes the key in secretRef; set secretRef, or remove keyMode",
            lambda block: when(block.key_mode == "JsonKey" and not block.secret_ref, "keyMode"),
            "self.keyMode != 'JsonKey' || has(self.secretRef)",
        ),
        Rule(
            "keyMode JsonKey publishes the key itself, so impersonate and scopes have no effect; "
            "remove them, or set keyMode: Token",
            lambda block: when(block.key_mode == "JsonKey" and (block.impersonate or block.scopes), "keyMode"),
            "self.keyMode != 'JsonKey' || !(has(self.impersonate) || has(self.scopes) && self.scopes.size() > 0)",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = dict.fromkeys(("key", "keyFile", "serviceAccountKey"), _SECRETS_ELSEWHERE)

    service_account_ref: ServiceAccountRef | None = None
    """Service account whose token is exchanged by workload identity federation. Neither this nor secretRef:
    the operator's own identity, where its settings allow that."""
    audience: GoogleAudience | None = None
    """Full name of the workload identity provider that trusts this cluster, such as
    //iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/pool/providers/cluster.
    For workload identity of GKE, identitynamespace:PROJECT.svc.id.goog:
    followed by https://container.googleapis.com/v1/projects/PROJECT/locations/LOCATION/clusters/NAME."""
    impersonate: GoogleAccount | None = None
    """E-mail address of the Google service account to act as, such as puller@my-project.iam.gserviceaccount.com.
    With a serviceAccountRef it takes the place of the annotation iam.gke.io/gcp-service-account."""
    secret_ref: SecretRef | None = None
    """Secret with the JSON key of a Google service account under `key.json`."""
    key_mode: Literal["Token", "JsonKey"] = "Token"
    """What becomes of the key in secretRef: Token exchanges it for tokens of one hour; JsonKey publishes the key
    itself, which never expires, and whoever reads the pull Secret holds it. Default Token."""
    scopes: Annotated[
        tuple[Scope, ...], pydantic.Field(max_length=16, json_schema_extra=model.listed_as_set())
    ] = ()
    """OAuth scopes of the token. Left out: read-only access,
    https://www.googleapis.com/auth/cloud-platform.read-only."""


class AcrBlock(Model):
    """Azure Container Registry: a token of three hours for an Entra identity."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _ONE_IDENTITY,
        Rule(
            "secretRef holds what proves an application; set clientId and tenantId to say which",
            lambda block: when(block.secret_ref and not (block.client_id and block.tenant_id), "secretRef"),
            "!has(self.secretRef) || has(self.clientId) && has(self.tenantId)",
        ),
        Rule(
            "resourceId names a managed identity by itself; remove clientId, serviceAccountRef and secretRef, "
            "or remove resourceId",
            lambda block: when(
                block.resource_id and (block.client_id or block.service_account_ref or block.secret_ref),
                "resourceId",
            ),
            "!has(self.resourceId) || !(has(self.clientId) || has(self.serviceAccountRef) || has(self.secretRef))",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("clientSecret", "password", "certificate"), _SECRETS_ELSEWHERE
    )

    tenant_id: TenantId | None = None
    """Entra tenant of the identity: its id (a GUID) or domain. With a serviceAccountRef it takes the place of
    the annotation azure.workload.identity/tenant-id."""
    client_id: ClientId | None = None
    """Client id (a GUID) of the application or managed identity. With a serviceAccountRef it takes the place
    of the annotation azure.workload.identity/client-id; alone, it picks one of the node's managed
    identities."""
    resource_id: ResourceId | None = None
    """Resource id of the node's managed identity to use, in place of clientId:
    /subscriptions/<GUID>/resourceGroups/<group>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>."""
    service_account_ref: ServiceAccountRef | None = None
    """Service account whose token is exchanged (workload identity). Neither this nor secretRef: the operator's
    own identity, where its settings allow that."""
    secret_ref: SecretRef | None = None
    """Secret that proves the application clientId: its `clientSecret`, or its certificate as `tls.crt` and
    `tls.key`."""
    cloud: Literal["Public", "China", "USGovernment"] | None = None
    """Azure cloud. Left out: told by the host (azurecr.io, azurecr.cn, azurecr.us), else Public."""
    audience: AzureAudience | None = None
    """Audience of the Entra token. Left out: https://containerregistry.azure.net, right for all clouds."""
    scopes: Annotated[
        tuple[texts.Repository, ...], pydantic.Field(max_length=16, json_schema_extra=model.listed_as_set())
    ] = ()
    """Repositories, by full name, that the login is narrowed to, for pulls only; its life is then 75 minutes in
    place of three hours. Left out: whatever the identity may do in this registry."""


class PluginBlock(Model):
    """A provider that was installed beside the operator."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "ecr, gcr, acr and login are built in; use the block of that name in place of plugin",
            lambda block: when(block.name in {"ecr", "gcr", "acr", "login"}, "name"),
            "!(self.name in ['ecr', 'gcr', 'acr', 'login'])",
        ),
    )

    name: texts.PluginName = pydantic.Field(examples=["quay-federation"])
    """Name of the provider: its entry point in the group regcred.providers."""
    config: texts.PluginConfig = pydantic.Field(default_factory=dict)
    """What the provider is told, as its documentation says; at most 64 keys. It is public to whoever reads the
    resource: no secrets here."""
