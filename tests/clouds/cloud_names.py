"""What things are called at each cloud, made from the name of the mode that they are for."""

from __future__ import annotations

import uuid

from dev.operator_process import NAMESPACE

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


def subject(mode: str, *, tenant: bool = False) -> str:
    """Return the subject of the tokens of the account that a mode uses."""
    return f"system:serviceaccount:{f'mode-{mode}' if tenant else NAMESPACE}:{mode}"
