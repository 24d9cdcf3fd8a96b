"""Where the soak happens: a control plane, three clouds, a private registry, two replicas and their resources."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dev.bench import bare
from dev.certificates import Authority
from dev.clouds import aws as amazon
from dev.clouds import aws_checks, google_faults
from dev.clouds.azure import Application, AzureCloud, Federation
from dev.clouds.google import GoogleCloud, WorkloadProvider
from dev.clouds.issuers import Issuer, unverified
from dev.clouds.local import Fault
from dev.controlplane import ControlPlane, owned, start_control_plane
from dev.operator_process import NAMESPACE, ROOT, install
from dev.registry import Registry, start_registry
from dev.replicas import Supervised, make_pods, replica
from dev.scratch import scratch_folder
from dev.token_server import PULL, User
from regcred.cluster import client as api

Json = dict[str, Any]

#: Stands in every secret that is ours to choose; it must be nowhere but in sources and pull Secrets.
CANARY = "c4n4ry-of-the-soak"
#: Seconds that logins live, by cloud.  They are renewed between 40 % and 50 % of it.
LIVES = {"ecr": 180, "gcr": 175, "acr": 170}
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ECR_OTHER = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
GAR = "europe-docker.pkg.dev"
ACR = "soak.azurecr.io"
AUDIENCE = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/clusters/providers/prod"
ROLE = "arn:aws:iam::333333333333:role/soak"
TENANTS = 8
KINDS = "/apis/regcred.io/v1alpha1"
LABEL = "soak"
LOGIN = "soak-login"
_ACCOUNT = "soak"
_ACTIONS = (amazon.ECR, amazon.ASSUME, amazon.FEDERATE, amazon.WHO)
_ENDPOINTS = (google_faults.OAUTH, google_faults.STS, google_faults.IAM)


def tenant(number: int) -> str:
    """The namespace of a tenant."""
    return f"tenant-{number}"


def tenant_host(number: int) -> str:
    """The registry of a tenant."""
    return f"tenant{number}.azurecr.io"


@dataclasses.dataclass
class World:
    """Everything that takes part.

    Attributes:
        cluster: the control plane.
        client: an administrator's client, for those who change things.
        eyes: a client of its own kind, for the one who reads.
        registry: with a token server in front.
        replicas: both.
        folder: of logs.
        api_away: when the API server was away: from and to, seconds of the epoch.
    """

    cluster: ControlPlane
    client: api.Client
    eyes: bare.Client
    aws: amazon.Aws
    google: GoogleCloud
    azure: AzureCloud
    registry: Registry
    replicas: list[Supervised]
    folder: Path
    api_away: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def end(self, username: str, password: str) -> float | None:
        """When a login ends by the word of who handed it out; None where it does not end, 0 where it has ended."""
        if username == "AWS":
            return self.aws.ends.get(password)
        if username == "oauth2accesstoken":
            try:
                return self.google.issued(password).expires_at
            except KeyError:
                return 0.0 if password in self.google.tokens() else None
        ends = unverified(password, 1).get("exp")
        return float(ends) if ends is not None else None

    def secrets(self) -> set[str]:
        """Everything secret that a cloud has handed out; what is ours to choose has the canary in it."""
        keys = self.aws._known.values()  # noqa: SLF001 - only the server has them all
        steps = {value for each in keys for value in (each.secret_access_key, each.session_token)}
        return (set(self.aws.ends) | set(self.google.tokens()) | steps) - {""}

    def clouds_go_down(self) -> None:
        """Let every cloud fail until `clouds_come_back`."""
        for action in _ACTIONS:
            self.aws.fail(action, aws_checks.Fault(503, "ServiceUnavailable", CANARY), times=10_000)
        for endpoint in _ENDPOINTS:
            self.google.fail(endpoint, Fault(503, f"busy {CANARY}"), times=10_000)
        for endpoint in ("entra", "exchange", "token"):
            self.azure.fail(endpoint, Fault(500, {"error": CANARY}), times=10_000)

    def clouds_come_back(self) -> None:
        """End the outage."""
        self.aws.recover()
        self.google.heal()
        self.azure.heal()


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Set everything up; nothing is declared yet."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = owned(await stack.enter_async_context(start_control_plane()))
        assert cluster.public_key is not None  # noqa: S101 - it is ours
        folder = stack.enter_context(scratch_folder("soak"))
        await install(cluster, ROOT / "manifests" / "overlays" / "tenant-sources")
        await cluster.restart_controller_manager()
        issuer = Issuer.of(cluster.issuer, cluster.public_key)
        authority = Authority("the clouds of the soak")
        aws = await stack.enter_async_context(
            amazon.start_aws(issuer=aws_checks.Issuer(issuer.name, issuer.public_key), life=LIVES["ecr"])
        )
        google = await stack.enter_async_context(GoogleCloud(authority, lifetime=LIVES["gcr"]))
        azure = await stack.enter_async_context(AzureCloud(authority))
        azure.lives.update(refresh=LIVES["acr"], access=LIVES["acr"])
        azure.trust(issuer)
        google.create_provider(AUDIENCE, WorkloadProvider(issuer, (AUDIENCE,)))
        subject = f"system:serviceaccount:{NAMESPACE}:{_ACCOUNT}"
        aws.roles[ROLE] = aws_checks.Trust(subjects=frozenset({subject}))
        _application(azure, issuer, _ACCOUNT, subject, ACR)
        trust_tenants(aws)
        for number in range(TENANTS):
            who = f"system:serviceaccount:{tenant(number)}:puller"
            _application(azure, issuer, tenant(number), who, tenant_host(number))
        users = {"puller-0": User(f"{CANARY}-0", {"private/*": PULL})}
        registry = await stack.enter_async_context(start_registry(users, auth="token"))
        await registry.push("private/app", "1")
        await make_pods(cluster, "regcred-a", "regcred-b")
        await _accounts(cluster)
        (folder / "clouds.pem").write_text(azure.ca)
        environment = {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT))),
            "SSL_CERT_FILE": str(folder / "clouds.pem"),
            "REQUESTS_CA_BUNDLE": str(folder / "clouds.pem"),
            "AWS_REGION": "eu-west-1",
            "AZURE_AUTHORITY_HOST": azure.origin,
            "REGCRED_ACR_ENDPOINT": azure.origin,
            **google.environment(),
            **aws.environment(),
        }
        replicas = [
            Supervised(
                replica(cluster, folder / f"{name}.log", name, "--log-level=DEBUG", environment=environment)
            )
            for name in ("regcred-a", "regcred-b")
        ]
        client = api.Client(api.login(str(cluster.admin_kubeconfig)))
        stack.push_async_callback(client.close)
        eyes = bare.Client(await cluster.kubeconfig_for_service_account(NAMESPACE, "soak-reader"))
        stack.push_async_callback(eyes.close)
        for each in replicas:
            stack.push_async_callback(each.stop)
        yield World(cluster, client, eyes, aws, google, azure, registry, replicas, folder)


def _client_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _application(azure: AzureCloud, issuer: Issuer, name: str, subject: str, host: str) -> None:
    azure.register(Application(_client_id(name), federations=[Federation(issuer.name, subject)]))
    azure.create_registry(host, pullers={_client_id(name)})


def _annotations(name: str) -> dict[str, str]:
    return {
        "eks.amazonaws.com/role-arn": ROLE,
        "azure.workload.identity/client-id": _client_id(name),
        "azure.workload.identity/tenant-id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
    }


async def _accounts(cluster: ControlPlane) -> None:
    """Make the accounts that the clouds trust, and the reader's."""
    homes = [(NAMESPACE, _ACCOUNT, _ACCOUNT), *((tenant(n), "puller", tenant(n)) for n in range(TENANTS))]
    await cluster.apply(
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant(n)}} for n in range(TENANTS)),
        *(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": namespace, "annotations": _annotations(who)},
            }
            for namespace, name, who in homes
        ),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "soak-reader", "namespace": NAMESPACE},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "soak-reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "soak-reader", "namespace": NAMESPACE}],
        },
    )


def login_secret(number: int) -> Json:
    """The source of the private registry's login, in its so-manieth version."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/basic-auth",
        "metadata": {"name": LOGIN, "namespace": NAMESPACE},
        "stringData": {"username": f"puller-{number}", "password": f"{CANARY}-{number}"},
    }


def resources(registry: Registry) -> list[Json]:
    """What is declared for the whole soak."""
    account = {"serviceAccountRef": {"name": _ACCOUNT}}
    platform = cluster_resource(
        "platform",
        [
            {"server": ECR, "ecr": account},
            {"server": GAR, "gcr": {**account, "audience": AUDIENCE}},
            {"server": ACR, "acr": account},
        ],
        {"selector": {"matchLabels": {LABEL: "yes"}}},
        ["default", "builder"],
    )
    private = cluster_resource(
        "private",
        [
            {
                "server": registry.host,
                "login": {"secretRef": {"name": LOGIN}},
                "verify": {"repository": "private/app", "reference": "1"},
            }
        ],
        {"names": ["soak-*", "tenant-*"]},
        ["*"],
    )
    edited = cluster_resource(
        "edited",
        [{"server": ECR_OTHER, "ecr": account}],
        {"selector": {"matchLabels": {"team": "a"}}},
        ["default"],
    )
    tenants = [
        {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "RegistryCredential",
            "metadata": {"name": "own", "namespace": tenant(number)},
            "spec": {
                "registries": [
                    {"server": tenant_host(number), "acr": {"serviceAccountRef": {"name": "puller"}}},
                    {
                        "server": ECR,
                        "ecr": {"serviceAccountRef": {"name": "puller"}, "roleArn": tenant_role(number)},
                    },
                ]
            },
        }
        for number in range(TENANTS)
    ]
    return [platform, private, edited, *tenants]


def tenant_role(number: int) -> str:
    """A role that trusts the account of one tenant."""
    return f"arn:aws:iam::333333333333:role/{tenant(number)}"


def cluster_resource(name: str, registries: list[Json], namespaces: Json, accounts: list[str]) -> Json:
    """A resource of the cluster kind."""
    return {
        "apiVersion": "regcred.io/v1alpha1",
        "kind": "ClusterRegistryCredential",
        "metadata": {"name": name},
        "spec": {"registries": registries, "namespaces": namespaces, "serviceAccounts": accounts},
    }


def trust_tenants(aws: amazon.Aws) -> None:
    """Make the tenants' roles."""
    for number in range(TENANTS):
        subject = f"system:serviceaccount:{tenant(number)}:puller"
        aws.roles[tenant_role(number)] = aws_checks.Trust(subjects=frozenset({subject}))
