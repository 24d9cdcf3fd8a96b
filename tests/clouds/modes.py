"""Every provider in every identity mode, as tables."""

from __future__ import annotations

import dataclasses
import json
import uuid

from dev.certificates import private_pem, rsa_key, self_signed
from dev.clouds.aws_checks import Trust
from dev.clouds.azure import Application, Federation
from dev.clouds.google import CLOUD_PLATFORM, WorkloadProvider
from dev.operator_process import ACCOUNT, NAMESPACE
from tests.clouds import cloud_names, makers
from tests.clouds.local_clouds import Clouds
from tests.clouds.mode import Mode

#: Modes whose identity is another one where the operator's own comes from workload identity and not from the node.
MOVED = frozenset({"acr-own", "acr-own-client"})


async def ecr_modes(clouds: Clouds) -> list[Mode]:
    """Return the modes of `ecr`, with their users, roles and trust made at Amazon."""
    roles = clouds.aws.roles
    makers.federated_role(clouds, "operator", f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
    operator = frozenset({cloud_names.sessions("operator")})
    roles[cloud_names.role("ecr-own-role")] = Trust(principals=operator, external_id="ext-own")
    users = {name: await clouds.aws.create_user(name) for name in ("ecr-keys", "ecr-keys-role", "ecr-public")}
    roles[cloud_names.role("ecr-keys-role")] = Trust(
        principals=frozenset({users["ecr-keys-role"].arn}), external_id="ext-keys"
    )
    session = await clouds.aws.create_session(cloud_names.role("ecr-session"), "somebody")
    annotated = {
        name: {
            "eks.amazonaws.com/role-arn": makers.federated_role(
                clouds, name, cloud_names.subject(name, tenant=tenant)
            )
        }
        for name, tenant in (("ecr-account", False), ("ecr-tenant", True))
    }
    return [
        makers.ecr("ecr-own", cloud_names.sessions("operator")),
        makers.ecr(
            "ecr-own-role",
            cloud_names.sessions("ecr-own-role"),
            {"roleArn": cloud_names.role("ecr-own-role"), "externalId": "ext-own"},
        ),
        makers.ecr(
            "ecr-keys",
            users["ecr-keys"].arn,
            {"secretRef": {"name": "ecr-keys"}},
            secrets={"ecr-keys": makers.key_pair(users["ecr-keys"])},
        ),
        makers.ecr(
            "ecr-keys-role",
            cloud_names.sessions("ecr-keys-role"),
            {
                "secretRef": {"name": "ecr-keys-role"},
                "roleArn": cloud_names.role("ecr-keys-role"),
                "externalId": "ext-keys",
            },
            secrets={"ecr-keys-role": makers.key_pair(users["ecr-keys-role"])},
        ),
        makers.ecr(
            "ecr-session",
            cloud_names.sessions("ecr-session"),
            {"secretRef": {"name": "ecr-session"}},
            secrets={"ecr-session": makers.key_pair(session)},
        ),
        makers.ecr(
            "ecr-account",
            cloud_names.sessions("ecr-account"),
            {"serviceAccountRef": {"name": "ecr-account"}},
            aliases=[cloud_names.ECR_ALIAS],
            accounts={"ecr-account": annotated["ecr-account"]},
        ),
        makers.ecr(
            "ecr-account-role",
            cloud_names.sessions("ecr-account-role"),
            {
                "serviceAccountRef": {"name": "ecr-account-role"},
                "roleArn": makers.federated_role(
                    clouds, "ecr-account-role", cloud_names.subject("ecr-account-role")
                ),
            },
            accounts={"ecr-account-role": {}},
        ),
        makers.ecr(
            "ecr-public",
            users["ecr-public"].arn,
            {"secretRef": {"name": "ecr-public"}},
            server="public.ecr.aws",
            secrets={"ecr-public": makers.key_pair(users["ecr-public"])},
        ),
        makers.ecr(
            "ecr-tenant",
            cloud_names.sessions("ecr-tenant"),
            {"serviceAccountRef": {"name": "ecr-tenant"}},
            tenant=True,
            accounts={"ecr-tenant": annotated["ecr-tenant"]},
        ),
    ]


def gcr_modes(clouds: Clouds) -> list[Mode]:
    """Return the modes of `gcr`, with their accounts, keys, pools and roles made at Google."""
    google = clouds.google
    google.attached = cloud_names.google_account("node")
    google.cluster = ("my-project", "europe-west1", "prod")
    google.create_provider(cloud_names.AUDIENCE, WorkloadProvider(clouds.issuer, (cloud_names.AUDIENCE,)))
    google.create_provider(cloud_names.GKE, WorkloadProvider(clouds.issuer, (cloud_names.GKE_POOL,)))
    google.allow(google.attached, cloud_names.google_account("gcr-own-impersonate"))
    google.allow(cloud_names.google_account("signer"), cloud_names.google_account("gcr-key-impersonate"))
    google.allow(cloud_names.principal(NAMESPACE, "gcr-annotated"), cloud_names.google_account("gcr-annotated"))
    google.allow(f"{cloud_names.GKE_POOL}[{NAMESPACE}/gcr-gke]", cloud_names.google_account("gcr-gke"))
    keys = {name: makers.google_key(clouds, name) for name in ("gcr-key", "signer", "gcr-json-key")}
    annotation = "iam.gke.io/gcp-service-account"

    async def pulls_by_key(clouds: Clouds, username: str, password: str) -> bool:
        return clouds.google.puller(username, password) == cloud_names.google_account("gcr-json-key")

    return [
        makers.gcr("gcr-own", google.attached),
        makers.gcr(
            "gcr-own-impersonate",
            cloud_names.google_account("gcr-own-impersonate"),
            {"impersonate": cloud_names.google_account("gcr-own-impersonate")},
        ),
        makers.gcr(
            "gcr-key",
            cloud_names.google_account("gcr-key"),
            {"secretRef": {"name": "gcr-key"}},
            secrets={"gcr-key": keys["gcr-key"]},
        ),
        makers.gcr(
            "gcr-key-impersonate",
            cloud_names.google_account("gcr-key-impersonate"),
            {"secretRef": {"name": "signer"}, "impersonate": cloud_names.google_account("gcr-key-impersonate")},
            secrets={"signer": keys["signer"]},
        ),
        dataclasses.replace(
            makers.gcr(
                "gcr-json-key",
                cloud_names.google_account("gcr-json-key"),
                {"secretRef": {"name": "gcr-json-key"}, "keyMode": "JsonKey"},
                secrets={"gcr-json-key": keys["gcr-json-key"]},
            ),
            username="_json_key",
            proof=pulls_by_key,
            document=json.loads(keys["gcr-json-key"]["key.json"]),
        ),
        makers.gcr(
            "gcr-account",
            cloud_names.principal(NAMESPACE, "gcr-account"),
            {"serviceAccountRef": {"name": "gcr-account"}, "audience": cloud_names.AUDIENCE},
            accounts={"gcr-account": {}},
        ),
        makers.gcr(
            "gcr-annotated",
            cloud_names.google_account("gcr-annotated"),
            {"serviceAccountRef": {"name": "gcr-annotated"}, "audience": cloud_names.AUDIENCE},
            accounts={"gcr-annotated": {annotation: cloud_names.google_account("gcr-annotated")}},
        ),
        makers.gcr(
            "gcr-gke",
            cloud_names.google_account("gcr-gke"),
            {"serviceAccountRef": {"name": "gcr-gke"}, "impersonate": cloud_names.google_account("gcr-gke")},
            accounts={"gcr-gke": {}},
        ),
        makers.gcr(
            "gcr-tenant",
            cloud_names.principal("mode-gcr-tenant", "gcr-tenant"),
            {"serviceAccountRef": {"name": "gcr-tenant"}, "audience": cloud_names.AUDIENCE},
            tenant=True,
            accounts={"gcr-tenant": {}},
        ),
    ]


def acr_modes(clouds: Clouds) -> list[Mode]:
    """Return the modes of `acr`, with their applications and registries made at Azure."""
    azure = clouds.azure
    resource_id = (
        f"/subscriptions/{uuid.UUID(int=1)}/resourceGroups/rg/providers/Microsoft.ManagedIdentity"
        "/userAssignedIdentities/puller"
    )
    own = [Federation(clouds.issuer.name, f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}")]
    azure.register(Application(cloud_names.client("acr-own"), assigned=True, system=True, federations=own))
    azure.register(Application(cloud_names.client("acr-own-client"), assigned=True, federations=own))
    azure.register(Application(cloud_names.client("acr-own-resource"), assigned=True, resource_id=resource_id))
    key = rsa_key()
    certificate = self_signed(key, "puller")
    azure.register(Application(cloud_names.client("acr-certificate"), certificates=[certificate]))
    who = {
        name: {"clientId": cloud_names.client(name), "tenantId": azure.tenant, "secretRef": {"name": name}}
        for name in ("acr-secret", "acr-certificate", "acr-scopes")
    }
    return [
        makers.acr(clouds, "acr-own"),
        makers.acr(clouds, "acr-own-client", {"clientId": cloud_names.client("acr-own-client")}),
        makers.acr(clouds, "acr-own-resource", {"resourceId": resource_id}),
        makers.acr(
            clouds,
            "acr-secret",
            who["acr-secret"],
            secrets={"acr-secret": makers.azure_secret(clouds, "acr-secret")},
        ),
        makers.acr(
            clouds,
            "acr-certificate",
            who["acr-certificate"],
            secrets={"acr-certificate": {"tls.crt": certificate, "tls.key": private_pem(key)}},
        ),
        makers.acr(
            clouds,
            "acr-scopes",
            {**who["acr-scopes"], "scopes": ["team/app"]},
            secrets={"acr-scopes": makers.azure_secret(clouds, "acr-scopes")},
        ),
        makers.acr(
            clouds,
            "acr-account",
            {"serviceAccountRef": {"name": "acr-account"}},
            accounts={
                "acr-account": makers.azure_federation(clouds, "acr-account", cloud_names.subject("acr-account"))
            },
        ),
        makers.acr(
            clouds,
            "acr-tenant",
            {"serviceAccountRef": {"name": "acr-tenant"}},
            tenant=True,
            accounts={
                "acr-tenant": makers.azure_federation(
                    clouds, "acr-tenant", cloud_names.subject("acr-tenant", tenant=True)
                )
            },
        ),
    ]


async def all_modes(clouds: Clouds) -> list[Mode]:
    """Return every mode that the operator's first identities allow."""
    return [
        *await ecr_modes(clouds),
        *gcr_modes(clouds),
        *acr_modes(clouds),
        makers.quay(clouds, "quay-account"),
        makers.quay(clouds, "quay-tenant", tenant=True),
    ]


async def outage_modes(clouds: Clouds) -> list[Mode]:
    """Return a mode for each provider whose identity does not hang on the operator's environment."""
    user = await clouds.aws.create_user("out-ecr")
    acr_block = {
        "clientId": cloud_names.client("out-acr"),
        "tenantId": clouds.azure.tenant,
        "secretRef": {"name": "out-acr"},
    }
    return [
        makers.ecr(
            "out-ecr", user.arn, {"secretRef": {"name": "out-ecr"}}, secrets={"out-ecr": makers.key_pair(user)}
        ),
        makers.gcr(
            "out-gcr",
            cloud_names.google_account("out-gcr"),
            {"secretRef": {"name": "out-gcr"}},
            secrets={"out-gcr": makers.google_key(clouds, "out-gcr")},
        ),
        makers.acr(clouds, "out-acr", acr_block, secrets={"out-acr": makers.azure_secret(clouds, "out-acr")}),
        makers.quay(clouds, "out-quay"),
    ]


def ambient_modes(clouds: Clouds) -> list[Mode]:
    """Return a mode for each cloud whose identity is the operator's second one."""
    return [
        makers.ecr(
            "ambient-ecr", cloud_names.sessions("pod"), server=cloud_names.ECR.replace("eu-west-1", "eu-central-1")
        ),
        makers.gcr("ambient-gcr", cloud_names.principal(NAMESPACE, ACCOUNT), {"scopes": [CLOUD_PLATFORM]}),
        makers.acr(clouds, "ambient-acr", owner="acr-own"),
    ]


def third_ambient_modes(clouds: Clouds) -> list[Mode]:
    """Return the same declarations as they come out for the operator's third identity."""
    second = ambient_modes(clouds)
    return [
        makers.ecr("ambient-ecr", cloud_names.sessions("node"), server=second[0].registry["server"]),
        makers.gcr("ambient-gcr", cloud_names.google_account("key-file"), {"scopes": [CLOUD_PLATFORM]}),
        second[2],
    ]
