"""The end of the soak: does everything stand as it should, is nothing left behind, and what does the evidence say?"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dev.audit import Request
from dev.operator_process import NAMESPACE
from dev.soak import world as stage
from dev.soak.reader import NAME, Violation
from dev.waiting import NeverHappenedError, eventually
from regcred.cluster import errors

Json = dict[str, Any]

#: All that the operator may ever write: resource and subresource.
ALLOWED = {
    ("secrets", ""),
    ("serviceaccounts", ""),
    ("serviceaccounts", "token"),
    ("leases", ""),
    ("events", ""),
    ("clusterregistrycredentials", "status"),
    ("registrycredentials", "status"),
}
_PROTECTED = {"kube-system", "kube-public", "kube-node-lease"}
_TOKEN = re.compile(rb"[A-Za-z0-9_./+=~-]{12,}")


async def listed(world: stage.World, path: str, **query: str) -> list[Json]:
    """Return all objects at a path."""
    return [item async for items, _ in world.client.pages(path, params=query) for item in items]


async def converged(world: stage.World) -> list[Violation]:
    """Wait until every namespace has the login of every resource that wants it, and no other has any."""
    last: list[Violation] = []

    async def check() -> bool:
        nonlocal last
        try:
            last = [Violation("not converged", namespace, what) for namespace, what in await _differences(world)]
        except errors.ApiError as error:
            last = [Violation("not converged", "cluster", str(error))]
        return not last

    try:
        await eventually(check, "everything to stand as it should", seconds=300, every=1)
    except NeverHappenedError:
        return last
    return []


async def _differences(world: stage.World) -> list[tuple[str, str]]:
    """What the pull Secrets should hold, worked out anew from the resources, without a line of the operator's."""
    namespaces = await listed(world, "/api/v1/namespaces")
    resources = await listed(world, f"{stage.KINDS}/clusterregistrycredentials")
    secrets = {
        item["metadata"]["namespace"]: item
        for item in await listed(world, "/api/v1/secrets", fieldSelector=f"metadata.name={NAME}")
    }
    found = []
    for body in namespaces:
        name, labels = body["metadata"]["name"], body["metadata"].get("labels") or {}
        if not name.startswith(("soak-", "tenant-")) or "deletionTimestamp" in body["metadata"]:
            continue
        wanted: set[str] = set()
        if labels.get("regcred.io/ignore") != "true":
            for resource in resources:
                if _selects(resource["spec"]["namespaces"], name, labels):
                    wanted |= {row["server"] for row in resource["spec"]["registries"]}
            if name.startswith("tenant-"):
                wanted |= {stage.ECR, stage.tenant_host(int(name.removeprefix("tenant-")))}
        held: set[str] = set()
        if name in secrets:
            row = secrets[name]["metadata"]["annotations"].get("regcred.io/servers", "{}")
            held = set(json.loads(row))
        if wanted != held:
            found.append((name, f"wants {sorted(wanted)}, holds {sorted(held)}"))
    return found


def _selects(spec: Json, name: str, labels: Json) -> bool:
    def fits(glob: str) -> bool:
        return re.fullmatch(glob.replace("*", ".*"), name) is not None

    selector = spec.get("selector") or {}
    chosen = any(map(fits, spec.get("names") or []))
    if selector:
        chosen = chosen or (
            all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
            and all(labels.get(row["key"]) in row["values"] for row in selector.get("matchExpressions") or [])
        )
    return chosen and not any(map(fits, spec.get("exclude") or []))


async def orphans(world: stage.World) -> list[Violation]:
    """Delete every resource, and wait until nothing of ours is left: Secrets, entries, cached logins."""
    for item in await listed(world, f"{stage.KINDS}/clusterregistrycredentials"):
        await world.client.request(
            "DELETE", f"{stage.KINDS}/clusterregistrycredentials/{item['metadata']['name']}"
        )
    for item in await listed(world, f"{stage.KINDS}/registrycredentials"):
        meta = item["metadata"]
        await world.client.request(
            "DELETE", f"{stage.KINDS}/namespaces/{meta['namespace']}/registrycredentials/{meta['name']}"
        )
    last: list[Violation] = []

    async def check() -> bool:
        nonlocal last
        last = [
            Violation("orphan", item["metadata"]["namespace"], f"Secret {item['metadata']['name']}")
            for item in await listed(
                world, "/api/v1/secrets", labelSelector="app.kubernetes.io/managed-by=regcred"
            )
            if item["metadata"]["name"] == NAME or item.get("data")
        ]
        last += [
            Violation("orphan", item["metadata"]["namespace"], f"entry in account {item['metadata']['name']}")
            for item in await listed(world, "/api/v1/serviceaccounts")
            if {"name": NAME} in (item.get("imagePullSecrets") or [])
        ]
        return not last

    try:
        await eventually(check, "nothing to be left", seconds=300, every=1)
    except NeverHappenedError:
        return last
    return []


def wrong_writes(requests: Iterable[Request]) -> list[Violation]:
    """Return every write of the operator to something that it has no business with."""
    return [
        Violation("wrong write", f"{row.namespace}/{row.resource}/{row.name}", f"{row.verb} at {row.at}")
        for row in requests
        if row.is_write
        and row.code < 400
        and (
            (row.resource, row.subresource) not in ALLOWED
            or row.namespace in _PROTECTED
            or (row.resource == "secrets" and row.namespace != NAMESPACE and row.name != NAME)
            or (row.resource == "secrets" and row.namespace == NAMESPACE and not row.name.startswith("regcred"))
        )
    ]


def canaries(secrets: set[str], texts: dict[str, bytes]) -> list[Violation]:
    """Return each place in which something secret stands.

    Args:
        secrets: values that were handed out; the planted ones have the canary in them.
        texts: places, and all that stands there.
    """
    known = {value.encode() for value in secrets}
    marks = (stage.CANARY.encode(), b"eyJhbGciOi")
    found = []
    for place, text in texts.items():
        words = collections.Counter(word for word in _TOKEN.findall(text) if word in known)
        number = sum(words.values()) + sum(text.count(mark) for mark in marks)
        if number:
            found.append(Violation("canary", place, f"{number} times"))
    return found


async def texts(world: stage.World, logs: Sequence[Path]) -> dict[str, bytes]:
    """Return everything in which nothing secret may stand."""
    found = {f"log {path.name}": path.read_bytes() for path in logs}
    for path in (
        "/api/v1/events",
        f"{stage.KINDS}/clusterregistrycredentials",
        f"{stage.KINDS}/registrycredentials",
        "/api/v1/configmaps",
        "/apis/coordination.k8s.io/v1/leases",
    ):
        found[path] = json.dumps(await listed(world, path)).encode()
    secrets = await listed(world, "/api/v1/secrets", fieldSelector=f"metadata.name={NAME}")
    found["metadata of pull Secrets"] = json.dumps([item["metadata"] for item in secrets]).encode()
    for each in world.replicas:
        if each.process.running:
            found[f"metrics of {each.name}"] = (await each.process.metrics()).encode()
    return found
