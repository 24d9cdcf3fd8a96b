"""Every provider in every identity mode, as a table: what is declared, who it makes us, and whether its login pulls.

Each mode has an identity of its own at its cloud, so that what was asked for it can be told from everything else.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dev.certificates import private_pem, rsa_key, self_signed
from dev.clouds.aws_checks import Keys, Trust
from dev.clouds.azure import Application, Federation
from dev.clouds.google import CLOUD_PLATFORM, WorkloadProvider
from dev.clouds.quay import Federation as RobotFederation
from dev.operator_process import ACCOUNT, NAMESPACE
from tests.clouds.local_clouds import Clouds, Login, pulls

Json = dict[str, Any]
Proof = Callable[[Clouds, str, str], Awaitable[bool]]

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ECR_ALIAS = "123456789012.dkr-ecr.eu-west-1.on.aws"
GAR = "europe-docker.pkg.dev"
POOL = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/clusters"
AUDIENCE = f"{POOL}/providers/prod"
GKE_POOL = "my-project.svc.id.goog"
GKE = (
    f"identitynamespace:{GKE_POOL}:"
    "https://container.googleapis.com/v1/projects/my-project/locations/europe-west1/clusters/prod"
)
_AZURE_USER = "00000000-0000-0000-0000-000000000000"


def role(name: str) -> str:
    """Return the ARN of a role."""
    return f"arn:aws:iam::333333333333:role/{name}"


def sessions(name: str) -> str:
    """Return what the ARN of every session of a role begins with."""
    return f"arn:aws:sts::333333333333:assumed-role/{name}/"


def google_account(name: str) -> str:
    """Return the address of a Google service account."""
    return f"{name}@my-project.iam.gserviceaccount.com"


def client(name: str) -> str:
    """Return the client id of an Azure application."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def azure_host(name: str) -> str:
    """Return a registry of Azure's."""
    return f"{name.replace('-', '')}.azurecr.io"


def principal(namespace: str, account: str) -> str:
    """Return what Google calls a federated service account."""
    return f"principal:{POOL}/subject/system:serviceaccount:{namespace}:{account}"


@dataclasses.dataclass(frozen=True)
class Mode:
    """One provider in one identity mode.

    Attributes:
        name: of the mode and the resource; its namespace is `mode-NAME`, and for the cluster kind every `*-of-NAME`.
        registry: the registry entry.
        identity: of the status row, or what it begins with.
        username: of the login.
        provider: name of the provider.
        known_as: where the ledger has it: kind of login, and identity or what that begins with.
        tenant: it is a namespaced resource.
        accounts: service accounts that it uses: name to annotations.
        secrets: Secrets that it reads: name to data.
        proof: whether a login pulls.
        document: the password of a login that does not end: compared as JSON.
    """

    name: str
    registry: Json
    identity: str
    username: str
    provider: str
    known_as: tuple[str, str]
    tenant: bool = False
    accounts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    proof: Proof | None = None
    document: Json | None = None

    @property
    def namespace(self) -> str:
        """The namespace that it serves."""
        return f"mode-{self.name}"

    @property
    def home(self) -> str:
        """The namespace that its sources are in."""
        return self.namespace if self.tenant else NAMESPACE

    @property
    def servers(self) -> list[str]:
        """The hosts that its login stands under."""
        return [self.registry["server"], *self.registry.get("aliases", [])]

    def issued(self, clouds: Clouds) -> list[Login]:
        """Return the logins that its cloud handed out for it."""
        return clouds.logins(*self.known_as)

    def objects(self) -> list[Json]:
        """Return what is to be applied: namespace and sources, then the resource."""
        meta = {"namespace": self.home}
        kind = "RegistryCredential" if self.tenant else "ClusterRegistryCredential"
        spec: Json = {"registries": [self.registry]}
        if not self.tenant:
            spec["namespaces"] = {"names": [self.namespace, f"*-of-{self.name}"]}
        return [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            *(
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {**meta, "name": name, "annotations": dict(annotations)},
                }
                for name, annotations in self.accounts.items()
            ),
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {**meta, "name": name},
                    "stringData": dict(data),
                }
                for name, data in self.secrets.items()
            ),
            {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": kind,
                "metadata": {"name": self.name, **(meta if self.tenant else {})},
                "spec": spec,
            },
        ]


def subject(mode: str, *, tenant: bool = False) -> str:
    """Return the subject of the tokens of the account that a mode uses."""
    return f"system:serviceaccount:{f'mode-{mode}' if tenant else NAMESPACE}:{mode}"


# Amazon.


def ecr(name: str, identity: str, block: Json | None = None, *, server: str = ECR, **more: Any) -> Mode:
    """Return a mode of `ecr`."""
    registry = {"server": server, **({"ecr": block} if block is not None else {})}
    registry |= {"aliases": more.pop("aliases")} if "aliases" in more else {}
    return Mode(name, registry, identity, "AWS", "ecr", ("ecr", identity), **more)


def key_pair(keys: Keys) -> dict[str, str]:
    """Return the data of a Secret with an access key."""
    session = {"sessionToken": keys.session_token} if keys.session_token else {}
    return {"accessKeyId": keys.access_key_id, "secretAccessKey": keys.secret_access_key, **session}


def federated_role(clouds: Clouds, name: str, subject_: str) -> str:
    """Make a role that trusts one service account, and return its ARN."""
    clouds.aws.roles[role(name)] = Trust(subjects=frozenset({subject_}))
    return role(name)


async def ecr_modes(clouds: Clouds) -> list[Mode]:
    """Return the modes of `ecr`, with their users, roles and trust made at Amazon."""
    roles = clouds.aws.roles
    federated_role(clouds, "operator", f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
    operator = frozenset({sessions("operator")})
    roles[role("ecr-own-role")] = Trust(principals=operator, external_id="ext-own")
    users = {name: await clouds.aws.create_user(name) for name in ("ecr-keys", "ecr-keys-role", "ecr-public")}
    roles[role("ecr-keys-role")] = Trust(
        principals=frozenset({users["ecr-keys-role"].arn}), external_id="ext-keys"
    )
    session = await clouds.aws.create_session(role("ecr-session"), "somebody")
    annotated = {
        name: {"eks.amazonaws.com/role-arn": federated_role(clouds, name, subject(name, tenant=tenant))}
        for name, tenant in (("ecr-account", False), ("ecr-tenant", True))
    }
    return [
        ecr("ecr-own", sessions("operator")),
        ecr(
            "ecr-own-role",
            sessions("ecr-own-role"),
            {"roleArn": role("ecr-own-role"), "externalId": "ext-own"},
        ),
        ecr(
            "ecr-keys",
            users["ecr-keys"].arn,
            {"secretRef": {"name": "ecr-keys"}},
            secrets={"ecr-keys": key_pair(users["ecr-keys"])},
        ),
        ecr(
            "ecr-keys-role",
            sessions("ecr-keys-role"),
            {"secretRef": {"name": "ecr-keys-role"}, "roleArn": role("ecr-keys-role"), "externalId": "ext-keys"},
            secrets={"ecr-keys-role": key_pair(users["ecr-keys-role"])},
        ),
        ecr(
            "ecr-session",
            sessions("ecr-session"),
            {"secretRef": {"name": "ecr-session"}},
            secrets={"ecr-session": key_pair(session)},
        ),
        ecr(
            "ecr-account",
            sessions("ecr-account"),
            {"serviceAccountRef": {"name": "ecr-account"}},
            aliases=[ECR_ALIAS],
            accounts={"ecr-account": annotated["ecr-account"]},
        ),
        ecr(
            "ecr-account-role",
            sessions("ecr-account-role"),
            {
                "serviceAccountRef": {"name": "ecr-account-role"},
                "roleArn": federated_role(clouds, "ecr-account-role", subject("ecr-account-role")),
            },
            accounts={"ecr-account-role": {}},
        ),
        ecr(
            "ecr-public",
            users["ecr-public"].arn,
            {"secretRef": {"name": "ecr-public"}},
            server="public.ecr.aws",
            secrets={"ecr-public": key_pair(users["ecr-public"])},
        ),
        ecr(
            "ecr-tenant",
            sessions("ecr-tenant"),
            {"serviceAccountRef": {"name": "ecr-tenant"}},
            tenant=True,
            accounts={"ecr-tenant": annotated["ecr-tenant"]},
        ),
    ]


# Google.


def gcr(name: str, identity: str, block: Json | None = None, **more: Any) -> Mode:
    """Return a mode of `gcr`."""

    async def proof(clouds: Clouds, username: str, password: str) -> bool:
        return clouds.google.puller(username, password) == identity

    registry = {"server": GAR, **({"gcr": block} if block is not None else {})}
    return Mode(name, registry, identity, "oauth2accesstoken", "gcr", ("gcr", identity), proof=proof, **more)


def google_key(clouds: Clouds, name: str) -> dict[str, str]:
    """Create an account with a key, and return the data of a Secret that holds it."""
    return {"key.json": json.dumps(clouds.google.create_key(google_account(name)), indent=2)}


def gcr_modes(clouds: Clouds) -> list[Mode]:
    """Return the modes of `gcr`, with their accounts, keys, pools and roles made at Google."""
    google = clouds.google
    google.attached = google_account("node")
    google.cluster = ("my-project", "europe-west1", "prod")
    google.create_provider(AUDIENCE, WorkloadProvider(clouds.issuer, (AUDIENCE,)))
    google.create_provider(GKE, WorkloadProvider(clouds.issuer, (GKE_POOL,)))
    google.allow(google.attached, google_account("gcr-own-impersonate"))
    google.allow(google_account("signer"), google_account("gcr-key-impersonate"))
    google.allow(principal(NAMESPACE, "gcr-annotated"), google_account("gcr-annotated"))
    google.allow(f"{GKE_POOL}[{NAMESPACE}/gcr-gke]", google_account("gcr-gke"))
    keys = {name: google_key(clouds, name) for name in ("gcr-key", "signer", "gcr-json-key")}
    annotation = "iam.gke.io/gcp-service-account"

    async def pulls_by_key(clouds: Clouds, username: str, password: str) -> bool:
        return clouds.google.puller(username, password) == google_account("gcr-json-key")

    return [
        gcr("gcr-own", google.attached),
        gcr(
            "gcr-own-impersonate",
            google_account("gcr-own-impersonate"),
            {"impersonate": google_account("gcr-own-impersonate")},
        ),
        gcr(
            "gcr-key",
            google_account("gcr-key"),
            {"secretRef": {"name": "gcr-key"}},
            secrets={"gcr-key": keys["gcr-key"]},
        ),
        gcr(
            "gcr-key-impersonate",
            google_account("gcr-key-impersonate"),
            {"secretRef": {"name": "signer"}, "impersonate": google_account("gcr-key-impersonate")},
            secrets={"signer": keys["signer"]},
        ),
        dataclasses.replace(
            gcr(
                "gcr-json-key",
                google_account("gcr-json-key"),
                {"secretRef": {"name": "gcr-json-key"}, "keyMode": "JsonKey"},
                secrets={"gcr-json-key": keys["gcr-json-key"]},
            ),
            username="_json_key",
            proof=pulls_by_key,
            document=json.loads(keys["gcr-json-key"]["key.json"]),
        ),
        gcr(
            "gcr-account",
            principal(NAMESPACE, "gcr-account"),
            {"serviceAccountRef": {"name": "gcr-account"}, "audience": AUDIENCE},
            accounts={"gcr-account": {}},
        ),
        gcr(
            "gcr-annotated",
            google_account("gcr-annotated"),
            {"serviceAccountRef": {"name": "gcr-annotated"}, "audience": AUDIENCE},
            accounts={"gcr-annotated": {annotation: google_account("gcr-annotated")}},
        ),
        gcr(
            "gcr-gke",
            google_account("gcr-gke"),
            {"serviceAccountRef": {"name": "gcr-gke"}, "impersonate": google_account("gcr-gke")},
            accounts={"gcr-gke": {}},
        ),
        gcr(
            "gcr-tenant",
            principal("mode-gcr-tenant", "gcr-tenant"),
            {"serviceAccountRef": {"name": "gcr-tenant"}, "audience": AUDIENCE},
            tenant=True,
            accounts={"gcr-tenant": {}},
        ),
    ]


# Azure.


def acr(clouds: Clouds, name: str, block: Json | None = None, *, owner: str = "", **more: Any) -> Mode:
    """Return a mode of `acr`; its registry lets nobody but its client in."""
    host, id_ = azure_host(name), client(owner or name)
    scopes = (block or {}).get("scopes")
    registry = clouds.azure.create_registry(host, pullers=() if scopes else {id_})
    registry.repositories.update({scope: {id_} for scope in scopes or ()})
    kind = "access_token" if scopes else "refresh_token"

    async def proof(clouds: Clouds, username: str, password: str) -> bool:
        told = (username, password)
        mine = await pulls(clouds.azure, clouds.azure.ca, host, "team/app", told)
        others = await pulls(clouds.azure, clouds.azure.ca, host, "other/app", told)
        return mine and others == (not scopes)

    entry = {"server": host, **({"acr": block} if block is not None else {})}
    return Mode(name, entry, id_, _AZURE_USER, "acr", (f"acr {kind}", f"{id_}@{host}"), proof=proof, **more)


def azure_federation(clouds: Clouds, name: str, subject_: str) -> dict[str, str]:
    """Make an application that trusts one service account, and return the annotations that name it."""
    clouds.azure.register(Application(client(name), federations=[Federation(clouds.issuer.name, subject_)]))
    return {
        "azure.workload.identity/client-id": client(name),
        "azure.workload.identity/tenant-id": clouds.azure.tenant,
    }


def azure_secret(clouds: Clouds, name: str) -> dict[str, str]:
    """Make an application with a client secret, and return the data of a Secret that holds it."""
    secret = f"client-secret-{uuid.uuid4().hex}~{name}"
    clouds.azure.register(Application(client(name), secret=secret))
    return {"clientSecret": secret}


def acr_modes(clouds: Clouds) -> list[Mode]:
    """Return the modes of `acr`, with their applications and registries made at Azure."""
    azure = clouds.azure
    resource_id = (
        f"/subscriptions/{uuid.UUID(int=1)}/resourceGroups/rg/providers/Microsoft.ManagedIdentity"
        "/userAssignedIdentities/puller"
    )
    azure.register(Application(client("acr-own"), assigned=True, system=True))
    azure.register(Application(client("acr-own-client"), assigned=True))
    azure.register(Application(client("acr-own-resource"), assigned=True, resource_id=resource_id))
    key = rsa_key()
    certificate = self_signed(key, "puller")
    azure.register(Application(client("acr-certificate"), certificates=[certificate]))
    who = {
        name: {"clientId": client(name), "tenantId": azure.tenant, "secretRef": {"name": name}}
        for name in ("acr-secret", "acr-certificate", "acr-scopes")
    }
    return [
        acr(clouds, "acr-own"),
        acr(clouds, "acr-own-client", {"clientId": client("acr-own-client")}),
        acr(clouds, "acr-own-resource", {"resourceId": resource_id}),
        acr(clouds, "acr-secret", who["acr-secret"], secrets={"acr-secret": azure_secret(clouds, "acr-secret")}),
        acr(
            clouds,
            "acr-certificate",
            who["acr-certificate"],
            secrets={"acr-certificate": {"tls.crt": certificate, "tls.key": private_pem(key)}},
        ),
        acr(
            clouds,
            "acr-scopes",
            {**who["acr-scopes"], "scopes": ["team/app"]},
            secrets={"acr-scopes": azure_secret(clouds, "acr-scopes")},
        ),
        acr(
            clouds,
            "acr-account",
            {"serviceAccountRef": {"name": "acr-account"}},
            accounts={"acr-account": azure_federation(clouds, "acr-account", subject("acr-account"))},
        ),
        acr(
            clouds,
            "acr-tenant",
            {"serviceAccountRef": {"name": "acr-tenant"}},
            tenant=True,
            accounts={"acr-tenant": azure_federation(clouds, "acr-tenant", subject("acr-tenant", tenant=True))},
        ),
    ]


# The plugin.


def quay(clouds: Clouds, name: str, *, tenant: bool = False) -> Mode:
    """Return a mode of the plugin `quay-federation`."""
    server = clouds.quay
    robot = f"shop+{name.replace('-', '_')}"
    federation = RobotFederation(clouds.issuer.name, subject(name, tenant=tenant), (f"https://{server.host}",))
    server.federate(robot, federation)

    async def proof(clouds: Clouds, username: str, password: str) -> bool:
        return await pulls(clouds.quay, clouds.quay.ca, clouds.quay.host, "shop/app", (username, password))

    entry = {
        "server": server.host,
        "tls": {"caBundle": server.ca},
        "plugin": {"name": "quay-federation", "config": {"robot": robot, "serviceAccountRef": {"name": name}}},
    }
    known_as = ("quay-federation", robot)
    accounts = {name: {}}
    return Mode(
        name, entry, robot, robot, "quay-federation", known_as, tenant=tenant, accounts=accounts, proof=proof
    )


async def all_modes(clouds: Clouds) -> list[Mode]:
    """Return every mode that the operator's first identities allow."""
    return [
        *await ecr_modes(clouds),
        *gcr_modes(clouds),
        *acr_modes(clouds),
        quay(clouds, "quay-account"),
        quay(clouds, "quay-tenant", tenant=True),
    ]


async def outage_modes(clouds: Clouds) -> list[Mode]:
    """Return a mode for each provider whose identity does not hang on the operator's environment."""
    user = await clouds.aws.create_user("out-ecr")
    acr_block = {"clientId": client("out-acr"), "tenantId": clouds.azure.tenant, "secretRef": {"name": "out-acr"}}
    return [
        ecr("out-ecr", user.arn, {"secretRef": {"name": "out-ecr"}}, secrets={"out-ecr": key_pair(user)}),
        gcr(
            "out-gcr",
            google_account("out-gcr"),
            {"secretRef": {"name": "out-gcr"}},
            secrets={"out-gcr": google_key(clouds, "out-gcr")},
        ),
        acr(clouds, "out-acr", acr_block, secrets={"out-acr": azure_secret(clouds, "out-acr")}),
        quay(clouds, "out-quay"),
    ]


def ambient_modes(clouds: Clouds) -> list[Mode]:
    """Return a mode for each cloud whose identity is the operator's second one."""
    clouds.azure.register(
        Application(
            client("workload"),
            federations=[Federation(clouds.issuer.name, f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}")],
        )
    )
    return [
        ecr("ambient-ecr", sessions("pod"), server=ECR.replace("eu-west-1", "eu-central-1")),
        gcr("ambient-gcr", principal(NAMESPACE, ACCOUNT), {"scopes": [CLOUD_PLATFORM]}),
        acr(clouds, "ambient-acr", owner="workload"),
    ]


def third_ambient_modes(clouds: Clouds) -> list[Mode]:
    """Return the same declarations as they come out for the operator's third identity."""
    second = ambient_modes(clouds)
    return [
        ecr("ambient-ecr", sessions("node"), server=second[0].registry["server"]),
        gcr("ambient-gcr", google_account("key-file"), {"scopes": [CLOUD_PLATFORM]}),
        second[2],
    ]
