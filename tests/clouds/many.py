"""A thousand namespaces and one resource with three clouds."""

from __future__ import annotations

from typing import Any

from dev.operator_process import NAMESPACE
from tests.clouds import cloud_names, makers
from tests.clouds.local_clouds import Clouds

MANY = 1000
NAME = "many"
HOST = cloud_names.azure_host(NAME)
#: Where the ledger has the logins of each cloud.
KNOWN_AS = {
    "ecr": ("ecr", cloud_names.sessions(NAME)),
    "gcr": ("gcr", cloud_names.principal(NAMESPACE, NAME)),
    "acr": ("acr refresh_token", f"{cloud_names.client(NAME)}@{HOST}"),
}


def many_objects(clouds: Clouds) -> list[dict[str, Any]]:
    """Return the account and the resource, with what it needs made at each cloud."""
    role = makers.federated_role(clouds, NAME, cloud_names.subject(NAME))
    annotations = {
        "eks.amazonaws.com/role-arn": role,
        **makers.azure_federation(clouds, NAME, cloud_names.subject(NAME)),
    }
    clouds.azure.create_registry(HOST, pullers={cloud_names.client(NAME)})
    account = {"serviceAccountRef": {"name": NAME}}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "annotations": annotations},
        },
        {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "ClusterRegistryCredential",
            "metadata": {"name": NAME},
            "spec": {
                "registries": [
                    {"server": cloud_names.ECR, "ecr": account},
                    {"server": cloud_names.GAR, "gcr": {**account, "audience": cloud_names.AUDIENCE}},
                    {"server": HOST, "acr": account},
                ],
                "namespaces": {"selector": {"matchLabels": {"many": "yes"}}},
            },
        },
    ]


async def has_logins(clouds: Clouds, number: int) -> bool:
    """Whether each cloud has handed out so many logins for it."""
    return all(len(clouds.logins(*known)) >= number for known in KNOWN_AS.values())
