"""Memory: what the keeper with all three SDKs takes for 50 identities, and that renewing them does not add to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dev.certificates import Pair, private_pem, public_pem, rsa_key
from dev.clouds.google import WorkloadProvider
from dev.operator_process import ROOT
from dev.processes import run
from tests.clouds import cloud_names, makers
from tests.clouds.hub import Hub
from tests.clouds.local_clouds import Clouds, start_clouds

IDENTITIES = 50
#: Rounds in which caches, pools and the heap's arenas fill up.
WARM_UP = 2
RENEWALS = 1000
#: MiB that may come and go for reasons of the allocator; a leak of 20 KiB a renewal would be seen.
SLACK = 20.0


@pytest.fixture
async def own_clouds(tmp_path: Path) -> AsyncIterator[tuple[Clouds, Path, str]]:
    """Clouds of the test's own, the file with their authority, and the key of the issuer that they believe."""
    key = rsa_key()
    public, _ = Pair(public_pem(key), private_pem(key)).write(tmp_path, "issuer")
    async with start_clouds(public, "https://issuer.example.test") as clouds:
        (tmp_path / "ca.pem").write_text(clouds.azure.ca)
        yield clouds, tmp_path / "ca.pem", private_pem(key)


async def work_for(clouds: Clouds, key: str) -> dict[str, Any]:
    """Return 50 identities: of each cloud some with a stored key, and some federated."""
    work: dict[str, Any] = {
        "issuer": clouds.issuer.name,
        "key": key,
        "secrets": {},
        "accounts": {},
        "registries": [],
    }
    clouds.google.create_provider(cloud_names.AUDIENCE, WorkloadProvider(clouds.issuer, (cloud_names.AUDIENCE,)))
    for number in range(IDENTITIES):
        name, cloud, federated = f"id-{number}", number % 3, number % 2 == 0
        source = {"serviceAccountRef" if federated else "secretRef": {"name": name}}
        subject = cloud_names.subject(name)
        if cloud == 0:
            role = makers.federated_role(clouds, name, subject)
            work["accounts"][name] = {"eks.amazonaws.com/role-arn": role}
            if not federated:
                work["secrets"][name] = makers.key_pair(await clouds.aws.create_user(name))
            registry = {"server": cloud_names.ECR, "ecr": source}
        elif cloud == 1:
            work["accounts"][name] = {}
            if not federated:
                work["secrets"][name] = makers.google_key(clouds, name)
            more = {"audience": cloud_names.AUDIENCE} if federated else {}
            registry = {"server": cloud_names.GAR, "gcr": {**source, **more}}
        else:
            host = cloud_names.azure_host(name)
            clouds.azure.create_registry(host, pullers={cloud_names.client(name)})
            if federated:
                work["accounts"][name] = makers.azure_federation(clouds, name, subject)
            else:
                work["secrets"][name] = makers.azure_secret(clouds, name)
            more = {} if federated else {"clientId": cloud_names.client(name), "tenantId": clouds.azure.tenant}
            registry = {"server": host, "acr": {**source, **more}}
        work["registries"].append(registry)
    return work


@pytest.mark.slow
@pytest.mark.usefixtures("outage")  # which lasts anyway
async def test_memory_does_not_grow(
    own_clouds: tuple[Clouds, Path, str], tmp_path: Path, figures: dict[str, Any]
) -> None:
    """Fifty identities at three clouds are renewed 1,000 times, and the process is no larger than before."""
    clouds, ca_file, key = own_clouds
    work = await work_for(clouds, key)
    work["rounds"] = WARM_UP + RENEWALS // IDENTITIES
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AZURE_", "GOOGLE_"))
    }
    environment = {
        **clean,
        "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT))),
        "SSL_CERT_FILE": str(ca_file),
        "REQUESTS_CA_BUNDLE": str(ca_file),
        "AZURE_AUTHORITY_HOST": clouds.azure.origin,
        "REGCRED_ACR_ENDPOINT": clouds.azure.origin,
        **clouds.google.environment(),
        **clouds.aws.environment(),
    }
    done = await run(
        *(sys.executable, "-m", "tests.clouds.memory_probe"),
        env=environment,
        cwd=ROOT,
        stdin=json.dumps(work),
        seconds=600,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["wrong"] for row in told] == [[]] * (work["rounds"] + 1)
    logins = sum(len(clouds.logins(name, "")) for name in ("ecr", "gcr", "acr refresh_token"))
    assert logins == IDENTITIES * work["rounds"]
    before, after = told[WARM_UP]["memory"], told[-1]["memory"]
    figures["memory"] = {
        "MiB before the first login": round(told[0]["memory"], 1),
        "MiB after the first 50 logins of 50 identities": round(told[1]["memory"], 1),
        f"MiB after {WARM_UP * IDENTITIES} logins": round(before, 1),
        f"MiB after {RENEWALS} renewals more": round(after, 1),
    }
    assert after - before < SLACK


async def test_memory_of_the_operator(hub: Hub, figures: dict[str, Any]) -> None:
    """The whole operator with all three SDKs in use, 35 identities and 1,000 namespaces is reported."""
    figures["MiB of the operator with all SDKs in use"] = round(hub.operator.memory(), 1)
    assert hub.operator.memory() > 0
