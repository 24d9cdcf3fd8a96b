"""What a real operator writes is what the admission policies allow, and what one gone bad would write is not."""

from __future__ import annotations

import dataclasses
from collections import Counter

from dev.audit import AuditLog
from regcred.cluster import client as api
from tests.e2e.conftest import Entry, World
from tests.e2e.fenced import misdeeds, writes
from tests.manifests.fence_support import refusals


async def test_every_kind_of_write_passes_the_fence(world: World, entry: Entry, audit: AuditLog) -> None:
    """Create, adopt, attach, renew, put right, carry over, detach, delete: all allowed, and their misuse is not."""
    alpha, beta, gamma = await world.namespaces("alpha", "beta", "gamma")
    await world.cluster.kubectl("create", "serviceaccount", "app", "-n", alpha)
    await world.api.request(
        "PATCH",
        f"/api/v1/namespaces/{alpha}/serviceaccounts/app",
        body={"imagePullSecrets": [{"name": "theirs"}]},
        content_type=api.MERGE,
    )
    await world.cluster.kubectl(
        *("create", "secret", "docker-registry", "regcred", "-n", beta, "--docker-server=theirs.example.com"),
        *("--docker-username=u", "--docker-password=p"),
    )
    await world.cluster.kubectl("annotate", "secret", "regcred", "-n", beta, "regcred.io/adopt=true")
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source), serviceAccounts=["default", "app"])
    await world.served(alpha, beta, gamma)
    await world.login("alice", "renewed")
    await world.served(alpha, beta, gamma, login=("alice", "renewed"))
    await world.cluster.kubectl(
        *("patch", "secret", "regcred", "-n", gamma, "--type=merge", "-p"),
        '{"data":{".dockerconfigjson":"eyJhdXRocyI6e319","more":"eA=="}}',
    )
    await world.served(gamma, login=("alice", "renewed"))
    kept = f"{world.id}-kept"
    server = {"server": "kept.example.com"}
    await world.declare(entry(source, **server), name=kept, deletionPolicy="Retain", namespaces={"names": [alpha]})
    await world.ready(kept)
    await world.cluster.kubectl("delete", "crcred", kept)
    await world.cluster.kubectl("delete", "crcred", world.id)
    await world.bare(beta, gamma)

    seen: Counter[str] = Counter()
    refused = []
    async for write in writes(world.api, audit):
        seen[f"{write.operation} {write.resource} {write.subresource}".strip()] += 1
        refused += [(write, told) for told in refusals(write)]
        for name, bad in misdeeds(write):
            assert refusals(bad), (name, bad)
        assert refusals(dataclasses.replace(write, user="system:admin")) == []
    assert refused == []
    assert {"CREATE secrets", "UPDATE secrets", "DELETE secrets", "UPDATE serviceaccounts"} <= set(seen)
    assert {"UPDATE clusterregistrycredentials status", "CREATE events"} <= set(seen)
