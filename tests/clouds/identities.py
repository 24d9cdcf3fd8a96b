"""Who the operator itself is at each cloud: three sets of environment variables, with the files that they name."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from dev.cluster import Cluster
from dev.operator_process import ACCOUNT, NAMESPACE, ROOT
from tests.clouds import cloud_names
from tests.clouds.local_clouds import Clouds

_PLUGIN = ROOT / "examples" / "quay-federation"


@dataclasses.dataclass(frozen=True)
class Environments:
    """How the operator finds the clouds, and who it is itself there: one set of variables for each of its identities.

    Attributes:
        first: IRSA; Google's metadata server; the node's managed identities.
        second: EKS Pod Identity; a federation file; Azure workload identity.
        third: EC2 instance metadata; a key file; Azure workload identity.
    """

    first: Mapping[str, str]
    second: Mapping[str, str]
    third: Mapping[str, str]


async def environments(clouds: Clouds, cluster: Cluster, folder: Path) -> Environments:
    """Write what the operator's identities are proven with to files, and return the variables that name them."""

    async def own_token(audience: str) -> Path:
        words = ("create", "token", ACCOUNT, "-n", NAMESPACE, f"--audience={audience}", "--duration=1h")
        path = folder / f"token-{urllib.parse.quote(audience, safe='')}"
        path.write_text((await cluster.kubectl(*words)).strip())
        clouds.planted.add(path.read_text())
        return path

    ca_file = folder / "clouds.pem"
    ca_file.write_text(clouds.azure.ca)
    shared = {
        "PYTHONPATH": os.pathsep.join(map(str, (installed_plugin(folder), ROOT / "operator", ROOT))),
        "SSL_CERT_FILE": str(ca_file),
        "REQUESTS_CA_BUNDLE": str(ca_file),
        "AWS_REGION": "eu-west-1",
        "AZURE_AUTHORITY_HOST": clouds.azure.origin,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": clouds.azure.imds.origin,
        "REGCRED_ACR_ENDPOINT": clouds.azure.origin,
        "REGCRED_QUAY_HOSTS": clouds.quay.host,
        **clouds.google.environment(),
        **clouds.aws.environment(),
    }
    irsa = {
        "AWS_ROLE_ARN": cloud_names.role("operator"),
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(await own_token("sts.amazonaws.com")),
    }
    pod_token = await own_token("pods.eks.amazonaws.com")
    agent = clouds.aws.set_pod_role(
        pod_token.read_text(), await clouds.aws.create_session(cloud_names.role("pod"), "pod")
    )
    clouds.aws.set_node_role(await clouds.aws.create_session(cloud_names.role("node"), "i-0123456789"))
    federation = folder / "federation.json"
    federation.write_text(
        json.dumps(
            {
                "type": "external_account",
                "audience": cloud_names.AUDIENCE,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": "https://sts.googleapis.com/v1/token",
                "credential_source": {"file": str(await own_token(cloud_names.AUDIENCE))},
            }
        )
    )
    key = clouds.google.create_key(cloud_names.google_account("key-file"))
    clouds.planted.add(key["private_key"])
    key_file = folder / "key.json"
    key_file.write_text(json.dumps(key))
    workload = {
        "AZURE_FEDERATED_TOKEN_FILE": str(await own_token("api://AzureADTokenExchange")),
        "AZURE_CLIENT_ID": cloud_names.client("acr-own"),
        "AZURE_TENANT_ID": clouds.azure.tenant,
    }
    return Environments(
        first=shared | irsa,
        second=shared
        | workload
        | {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": agent,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(pod_token),
            "GOOGLE_APPLICATION_CREDENTIALS": str(federation),
        },
        third=shared
        | workload
        | clouds.aws.metadata_environment()
        | {"GOOGLE_APPLICATION_CREDENTIALS": str(key_file)},
    )


def installed_plugin(folder: Path) -> Path:
    """Return a folder for `PYTHONPATH` in which the example plugin is installed, without anything being built."""
    project = tomllib.loads((_PLUGIN / "pyproject.toml").read_text())["project"]
    site = folder / "plugins"
    about = site / "regcred_quay_federation-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items())
        for group, rows in project["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(points))
    (site / "regcred_quay_federation").symlink_to(_PLUGIN / "regcred_quay_federation")
    return site
