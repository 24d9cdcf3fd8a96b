"""A thousand namespaces and one resource with three clouds."""

from __future__ import annotations

from typing import Any

from dev.operator_process import NAMESPACE
from tests.clouds import modes
from tests.clouds.local_clouds import Clouds

MANY = 1000
NAME = "many"
HOST = modes.azure_host(NAME)
#: Where the ledger has the logins of each cloud.
KNOWN_AS = {
    "ecr": ("ecr", modes.sessions(NAME)),
    "gcr": ("gcr", modes.principal(NAMESPACE, NAME)),
    "acr": ("acr refresh_token", f"{modes.client(NAME)}@{HOST}"),
}


def many_objects(clouds: Clouds) -> list[dict[str, Any]]:
    """Return the account and the resource, with what it needs made at each cloud."""
    role = modes.federated_role(clouds, NAME, modes.subject(NAME))
    annotations = {"eks.amazonaws.com/role-arn": role, **modes.azure_federation(clouds, NAME, modes.subject(NAME))}
    clouds.azure.create_registry(HOST, pullers={modes.client(NAME)})
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
                    {"server": modes.ECR, "ecr": account},
                    {"server": modes.GAR, "gcr": {**account, "audience": modes.AUDIENCE}},
                    {"server": HOST, "acr": account},
                ],
                "namespaces": {"selector": {"matchLabels": {"many": "yes"}}},
            },
        },
    ]


async def has_logins(clouds: Clouds, number: int) -> bool:
    """Whether each cloud has handed out so many logins for it."""
    return all(len(clouds.logins(*known)) >= number for known in KNOWN_AS.values())
