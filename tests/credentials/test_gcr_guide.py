"""The guide for Google says what is so: its resources are valid, and its messages are the ones that people see."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.clouds.google import GoogleCloud
from dev.clouds.google_faults import FAULTS, IAM, METADATA, OAUTH, STS
from regcred.api import spec
from regcred.credentials import provider
from regcred.credentials.providers.gcr import GcrProvider
from tests.credentials import gcr_support as support
from tests.credentials.gcr_support import AUDIENCE, OTHER, PULLER, OneNamespace, ask

GUIDE = (Path(__file__).parents[2] / "docs" / "how-to" / "google.md").read_text()
RESOURCES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
MODELS = {
    "RegistryCredential": spec.RegistryCredentialSpec,
    "ClusterRegistryCredential": spec.ClusterRegistryCredentialSpec,
}
KEY = {"secretRef": {"name": "puller-key"}}
ACTING = support.account_block(impersonate=PULLER)


@pytest.fixture
async def cloud() -> AsyncIterator[GoogleCloud]:
    """A Google that believes the cluster, and has an identity for the machine."""
    async with GoogleCloud() as running:
        support.trust(running)
        running.create_account(PULLER)
        running.attached = OTHER
        yield running


async def said(gcr: GcrProvider, entry: provider.Ask) -> str:
    """Return what the status says."""
    with pytest.raises(provider.ProviderError) as refusal:
        await gcr.fetch(entry)
    return f"`{refusal.value.reason}`: {refusal.value.message}"


def assert_told(message: str) -> None:
    assert message in re.sub(r"\s+", " ", GUIDE)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: json.dumps(resource["spec"])[-60:])
def test_resources_of_the_guide_are_valid(resource: dict[str, Any]) -> None:
    """Every resource in the guide is accepted by the API."""
    assert MODELS[resource["kind"]].model_validate(resource["spec"]).registries


@pytest.mark.parametrize(
    ("endpoint", "case", "block"),
    [
        (METADATA, "no identity", {}),
        (METADATA, "no role", {}),
        (STS, "no such pool", support.account_block()),
        (STS, "issuer unreachable", support.account_block()),
        (STS, "wrong issuer or keys", support.account_block()),
        (STS, "audience not allowed", support.account_block()),
        (STS, "condition", support.account_block()),
        (STS, "stale", support.account_block()),
        (STS, "API off", support.account_block()),
        (STS, "scope", support.account_block()),
        (IAM, "no role", ACTING),
        (IAM, "no account", ACTING),
        (IAM, "API off", ACTING),
        (IAM, "node scope", {"impersonate": PULLER}),
        (OAUTH, "key deleted", KEY),
        (OAUTH, "account deleted", KEY),
    ],
)
async def test_refusals_are_told_as_they_are(
    cloud: GoogleCloud, endpoint: str, case: str, block: dict[str, Any]
) -> None:
    """Each of Google's refusals stands in the guide in the very words of the status."""
    cluster = OneNamespace()
    cluster.store("puller-key", cloud.create_key(PULLER, support.signing_key()))
    cloud.fail(endpoint, FAULTS[endpoint, case])
    entry = ask(cluster, block, tenant="serviceAccountRef" in block or "secretRef" in block)
    assert_told(await said(GcrProvider(cloud.environment()), entry))


async def test_a_missing_role_of_a_key_is_told(cloud: GoogleCloud) -> None:
    """A key that may not act as the other account is told with the role it needs."""
    cluster = OneNamespace()
    cluster.store("puller-key", cloud.create_key(OTHER, support.signing_key()))
    assert_told(await said(GcrProvider(cloud.environment()), ask(cluster, {**KEY, "impersonate": PULLER})))


@pytest.mark.parametrize("answers", [True, False])
async def test_a_missing_audience_is_told(cloud: GoogleCloud, *, answers: bool) -> None:
    """Where the audience is left out and this is not GKE, the guide says what is seen."""
    environment = cloud.environment() if answers else {"REGCRED_GOOGLE_METADATA_URL": "http://127.0.0.1:9"}
    entry = ask(OneNamespace(), {"serviceAccountRef": {"name": "gar-puller"}})
    assert_told(await said(GcrProvider(environment), entry))


async def test_what_the_operator_lacks_is_told(cloud: GoogleCloud) -> None:
    """No consent, no metadata server, no file: each has its line."""
    cluster = OneNamespace()
    nobody = {"REGCRED_GOOGLE_METADATA_URL": "http://127.0.0.1:9"}
    assert_told(await said(GcrProvider(cloud.environment()), ask(cluster, {})))
    assert_told(await said(GcrProvider(nobody), ask(cluster, {}, tenant=False)))
    gone = {"GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent"}
    assert_told(await said(GcrProvider(gone), ask(cluster, {}, tenant=False)))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"not a key",
        lambda _: json.dumps({"type": "external_account", "audience": AUDIENCE}).encode(),
        lambda key: base64.b64encode(json.dumps(key).encode()),
        lambda key: json.dumps({**key, "private_key": "-----BEGIN"}).encode(),
        lambda key: json.dumps({**key, "token_uri": "https://example.com"}).encode(),
    ],
)
async def test_what_is_wrong_with_a_key_is_told(cloud: GoogleCloud, change: Any) -> None:
    """Each mishap of a stored key has its line."""
    cluster = OneNamespace()
    cluster.store("puller-key", change(cloud.create_key(PULLER, support.signing_key())))
    assert_told(await said(GcrProvider(cloud.environment()), ask(cluster, KEY)))
