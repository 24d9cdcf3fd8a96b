"""docs/how-to/acr.md says what is so: its resources are valid, and every message in it is one that people see."""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from dev.clouds.azure import TENANT, Application, AzureCloud, Federation, aadsts_body
from dev.clouds.local import Fault
from regcred.api import spec
from regcred.credentials import provider
from regcred.credentials.providers.acr import provider as acr
from tests.credentials.acr_support import (
    CLIENT,
    HOST,
    ISSUER,
    Namespace,
    Pair,
    ask,
    azure,
    by_account,
    cloud,
    cluster_key,
    namespace,
    pair,
)

__all__ = ["azure", "cloud", "cluster_key", "namespace", "pair"]

GUIDE = (Path(__file__).parents[2] / "docs/how-to/acr.md").read_text()
RESOURCES = [
    document
    for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    for document in yaml.safe_load_all(block)
    if document["apiVersion"].startswith("regcred.io/")
]
MODELS = {
    "RegistryCredential": spec.RegistryCredentialSpec,
    "ClusterRegistryCredential": spec.ClusterRegistryCredentialSpec,
}
MESSAGES = {
    row.rstrip(" |").rpartition(" | ")[2]
    for table in re.findall(r"\| (?:Missing|Happens) \| Message \|\n\|---\|---\|\n((?:\|.*\n)+)", GUIDE)
    for row in table.splitlines()
}
BAD_CLOCK = dt.timedelta(minutes=42)


@dataclasses.dataclass
class Scene:
    """Where somebody follows the guide: a local Azure, a namespace, and the operator's environment and disk."""

    azure: AzureCloud
    cluster: Namespace
    environment: pytest.MonkeyPatch
    folder: Path


Situation = Callable[[Scene], provider.Ask | Awaitable[provider.Ask]]
SITUATIONS: dict[str, Situation] = {}
#: Message to the situation that led to it.
SEEN: dict[str, str] = {}


def situation(made: Situation) -> Situation:
    """Add a situation in which somebody who follows the guide has missed a step."""
    SITUATIONS[made.__name__] = made
    return made


def by_secret(cluster: Namespace, **data: bytes) -> provider.Ask:
    """The entry of the section on service principals, with a Secret that holds `data`."""
    cluster.secrets["acr-app"] = data or cluster.secrets["sp"]
    return ask(cluster, secretRef={"name": "acr-app"}, tenantId=TENANT, clientId=CLIENT)


def answered(fault: Fault) -> Situation:
    """Entra answers with a fault, which the local one does not have by itself."""

    def made(scene: Scene) -> provider.Ask:
        scene.azure.fail("entra", fault)
        return by_secret(scene.cluster)

    return made


for known in (7000229, 7000112, 53003, 7654321):
    SITUATIONS[f"aadsts{known}"] = answered(Fault(400, aadsts_body(known)))
for status, location in ((429, ""), (503, ""), (302, "/stolen")):
    SITUATIONS[f"http{status}"] = answered(Fault(status, "", {"Location": location} if location else {}))


@situation
def no_role(scene: Scene) -> provider.Ask:
    scene.azure.create_registry(HOST)
    return by_secret(scene.cluster)


@situation
def firewall(scene: Scene) -> provider.Ask:
    scene.azure.registries.by_host[HOST].firewalled = True
    return by_secret(scene.cluster)


@situation
def no_registry(scene: Scene) -> provider.Ask:
    scene.azure.registries.by_host.clear()
    return by_secret(scene.cluster)


@situation
def no_name(scene: Scene) -> provider.Ask:
    scene.environment.setenv("REGCRED_ACR_ENDPOINT", "https://registry.example.invalid")
    return by_secret(scene.cluster)


def workload(scene: Scene, token_file: str, **variables: str) -> provider.Ask:
    """An entry that the operator's own workload identity serves."""
    for name, value in {"AZURE_FEDERATED_TOKEN_FILE": token_file, "AZURE_TENANT_ID": TENANT, **variables}.items():
        scene.environment.setenv(name, value)
    return ask()


@situation
def no_client(scene: Scene) -> provider.Ask:
    return workload(scene, "/nowhere")


@situation
def no_label(scene: Scene) -> provider.Ask:
    scene.azure.register(Application(CLIENT))
    return ask()


@situation
def no_token_file(scene: Scene) -> provider.Ask:
    return workload(scene, "/nowhere", AZURE_CLIENT_ID=CLIENT)


@situation
async def operator_federation(scene: Scene) -> provider.Ask:
    scene.azure.register(
        Application(CLIENT, federations=[Federation(ISSUER, "system:serviceaccount:team-a:other")])
    )
    path = scene.folder / "token"
    path.write_text(await scene.cluster.request_token("regcred", "api://AzureADTokenExchange"))
    return workload(scene, str(path), AZURE_CLIENT_ID=CLIENT)


@situation
def tenant_ambient(scene: Scene) -> provider.Ask:
    return ask(scene.cluster, tenant=True, ambient=False)


@situation
def cluster_ambient(scene: Scene) -> provider.Ask:
    return ask(scene.cluster, ambient=False)


@situation
def no_managed_identity(scene: Scene) -> provider.Ask:
    scene.azure.applications.clear()
    return ask(clientId=CLIENT)


@situation
def no_metadata_service(scene: Scene) -> provider.Ask:
    scene.environment.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    return ask()


@situation
def no_client_annotation(scene: Scene) -> provider.Ask:
    del scene.cluster.annotations["azure.workload.identity/client-id"]
    return by_account(scene.cluster)


@situation
def no_tenant_annotation(scene: Scene) -> provider.Ask:
    del scene.cluster.annotations["azure.workload.identity/tenant-id"]
    return by_account(scene.cluster)


@situation
def bad_tenant(scene: Scene) -> provider.Ask:
    scene.cluster.annotations["azure.workload.identity/tenant-id"] = "my tenant"
    return by_account(scene.cluster)


@situation
def unknown_client(scene: Scene) -> provider.Ask:
    scene.azure.applications.clear()
    return by_account(scene.cluster)


@situation
def unknown_tenant(scene: Scene) -> provider.Ask:
    return by_account(scene.cluster, tenantId="fabrikam.example")


@situation
def issuer(scene: Scene) -> provider.Ask:
    scene.azure.register(Application(CLIENT))
    return by_account(scene.cluster)


@situation
def subject(scene: Scene) -> provider.Ask:
    scene.azure.register(
        Application(CLIENT, federations=[Federation(ISSUER, "system:serviceaccount:team-b:puller")])
    )
    return by_account(scene.cluster)


@situation
def subject_case(scene: Scene) -> provider.Ask:
    scene.azure.register(
        Application(CLIENT, federations=[Federation(ISSUER, "system:serviceaccount:Team-a:puller")])
    )
    return by_account(scene.cluster)


@situation
def audience(scene: Scene) -> provider.Ask:
    row = Federation(ISSUER, "system:serviceaccount:team-a:puller", "api://AzureADTokenExchangeChina")
    scene.azure.register(Application(CLIENT, federations=[row]))
    return by_account(scene.cluster)


@situation
def private_issuer(scene: Scene) -> provider.Ask:
    scene.azure.issuers.clear()
    return by_account(scene.cluster)


@situation
def clock(scene: Scene) -> provider.Ask:
    theirs = email.utils.format_datetime(dt.datetime.now(dt.UTC) - BAD_CLOCK, usegmt=True)
    scene.azure.fail("entra", Fault(401, aadsts_body(700024), {"Date": theirs}))
    return by_account(scene.cluster)


@situation
def empty_secret(scene: Scene) -> provider.Ask:
    return by_secret(scene.cluster, password=b"x")


@situation
def whole_output(scene: Scene) -> provider.Ask:
    return by_secret(scene.cluster, clientSecret=b'{"appId": "x", "password": "y"}')


@situation
def wrong_secret(scene: Scene) -> provider.Ask:
    return by_secret(scene.cluster, clientSecret=b"another")


@situation
def expired_secret(scene: Scene) -> provider.Ask:
    scene.azure.register(Application(CLIENT, secret="old", secret_expired=True))
    return by_secret(scene.cluster, clientSecret=b"old")


@situation
def bad_certificate(scene: Scene) -> provider.Ask:
    return by_secret(scene.cluster, certificate=b"no certificate")


@situation
def unknown_certificate(scene: Scene) -> provider.Ask:
    other = Pair.make(b"x")
    return by_secret(scene.cluster, certificate=f"{other.key}{other.certificate}".encode())


@situation
def scope(scene: Scene) -> provider.Ask:
    scene.azure.create_registry(HOST).repositories = {"shop/web": {CLIENT}}
    return by_account(scene.cluster, scopes=["shop/web", "shop/api"])


@situation
def data_endpoint(scene: Scene) -> provider.Ask:
    return ask(scene.cluster, "contoso.westeurope.data.azurecr.io")


@situation
def not_azure(scene: Scene) -> provider.Ask:
    return ask(scene.cluster, server="registry.example.com")


@situation
def two_clouds(scene: Scene) -> provider.Ask:
    return ask(scene.cluster, cloud="China")


@situation
def unknown_audience(scene: Scene) -> provider.Ask:
    return by_account(scene.cluster, audience="https://containerregistry.example.net")


@situation
def bad_authority(scene: Scene) -> provider.Ask:
    scene.environment.setenv("AZURE_AUTHORITY_HOST", "http://login.example.test")
    return by_account(scene.cluster)


@situation
def no_route(scene: Scene) -> provider.Ask:
    scene.environment.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    return by_account(scene.cluster)


@situation
def untrusted(scene: Scene) -> provider.Ask:
    scene.environment.delenv("SSL_CERT_FILE")
    return by_account(scene.cluster)


@pytest.mark.parametrize("name", SITUATIONS)
async def test_message(
    name: str, azure: AzureCloud, namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever misses a step sees the message that the guide has for it, to the letter."""
    made = SITUATIONS[name](Scene(azure, namespace, monkeypatch, tmp_path))
    with pytest.raises(provider.ProviderError) as error:
        await acr.AcrProvider().fetch(made if isinstance(made, provider.Ask) else await made)
    message = error.value.message
    assert message in MESSAGES
    assert SEEN.setdefault(message, name) == name, "two situations, one message"


def test_every_message_is_tried() -> None:
    """The guide has no message that no situation leads to, since no two situations share one."""
    assert len(MESSAGES) == len(SITUATIONS)


@pytest.mark.parametrize("number", range(len(RESOURCES)))
def test_resource(number: int) -> None:
    """Every resource in the guide is accepted by the API."""
    document = RESOURCES[number]
    assert MODELS[document["kind"]].model_validate(document["spec"]).registries


def test_links() -> None:
    """Every link within the guide leads to a heading."""
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in GUIDE.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= headings
