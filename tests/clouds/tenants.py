"""What the tests of tenants share: entries as a tenant declares them, and how they end."""

from __future__ import annotations

import contextlib
from typing import Any

from dev.waiting import eventually
from regcred.cluster import errors
from tests.clouds import cloud_names
from tests.e2e.conftest import World

Json = dict[str, Any]
KINDS = "/apis/regcred.io/v1alpha1/namespaces/{}/registrycredentials"
ACR = "tenants.azurecr.io"
WHO = {"clientId": cloud_names.client("tenant"), "tenantId": "72f988bf-86f1-41af-91ab-2d7cd011db47"}


async def declared(world: World, namespace: str, *registries: Json) -> dict[str, Json]:
    """Declare each entry in a resource of its own; those that the API server itself refuses are left out.

    Returns:
        Name of the resource to its body once it is settled.
    """
    path = KINDS.format(namespace)
    names = []
    for number, registry in enumerate(registries):
        body = {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "RegistryCredential",
            "metadata": {"name": f"entry-{number}"},
            "spec": {"registries": [registry]},
        }
        with contextlib.suppress(errors.Invalid):
            await world.api.request("POST", path, body=body)
            names.append(f"entry-{number}")

    async def settled() -> dict[str, Json] | None:
        found = {item["metadata"]["name"]: item async for items, _ in world.api.pages(path) for item in items}
        return {name: found[name] for name in names} if all(map(_settled, found.values())) else None

    return await eventually(settled, "every entry to be settled", every=0.3)


def _settled(body: Json) -> bool:
    status = body.get("status") or {}
    rows = status.get("registries") or [{}]
    stalled = any(row["type"] == "Stalled" for row in status.get("conditions") or [])
    return stalled or rows[0].get("reason", "Progressing") != "Progressing"


def row_of(body: Json) -> Json:
    """Return the status row of a resource with one registry; of one whose spec is refused, its condition Stalled."""
    rows = body["status"].get("registries")
    if rows:
        return rows[0]
    return next(row for row in body["status"]["conditions"] if row["type"] == "Stalled")
