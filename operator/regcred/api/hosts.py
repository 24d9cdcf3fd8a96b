"""Which cloud a registry's host belongs to, by its name alone.

The patterns are used twice: by the API, which lets an entry name no provider where the host tells it, and by
the providers.  They are written for RE2 (the API server and CEL use it), so without look-around, and apply to
the lower-case server of an entry: a host, maybe with a repository prefix after it.
"""

from __future__ import annotations

import re

#: Private ECR: the host names account and region.  Grammar of the kubelet's own credential provider for ECR,
#: without upper case (cloud-provider-aws, cmd/ecr-credential-provider).
ECR_PRIVATE = (
    r"^[0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9][a-z0-9_-]*\."
    r"(amazonaws\.(com(\.cn)?|eu)|on\.(aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov"
    r"|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)(/|$)"
)
#: ECR Public, under both of its names.
ECR_PUBLIC = r"^(public\.ecr\.aws|ecr-public\.aws\.com)(/|$)"
#: Artifact Registry, with the gcr.io names it took over, and Google's sovereign cloud in France.
GOOGLE = r"^(([a-z0-9-]+\.)?gcr\.io|[a-z0-9-]+-docker\.pkg\.dev|([a-z0-9-]+-)?docker\.s3nsregistry\.fr)(/|$)"
_AZURE_NAME = r"^[a-z0-9-]+(\.[a-z0-9]+\.geo)?\.azurecr\."
#: Azure Container Registry in each cloud: NAME.azurecr.io, and NAME.REGION.geo.azurecr.io, one replica of the same.
AZURE = {
    "Public": _AZURE_NAME + r"io(/|$)",
    "China": _AZURE_NAME + r"cn(/|$)",
    "USGovernment": _AZURE_NAME + r"us(/|$)",
}

_PROVIDERS = {
    "ecr": re.compile(f"{ECR_PRIVATE}|{ECR_PUBLIC}"),
    "gcr": re.compile(GOOGLE),
    "acr": re.compile("|".join(AZURE.values())),
}


def provider_of(server: str) -> str | None:
    """Return the name of the built-in provider that the host belongs to: `ecr`, `gcr`, `acr`, or None.

    Args:
        server: as in a registry entry: lower case, no scheme.
    """
    return next((name for name, pattern in _PROVIDERS.items() if pattern.search(server)), None)


def azure_cloud_of(server: str) -> str | None:
    """Return the Azure cloud that the host belongs to: `Public`, `China`, `USGovernment`, or None."""
    return next((cloud for cloud, pattern in AZURE.items() if re.search(pattern, server)), None)


def names_region(server: str) -> bool:
    """Whether the host is one of private ECR, which names its AWS region."""
    return re.search(ECR_PRIVATE, server) is not None
