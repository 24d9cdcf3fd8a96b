"""The writes of a real operator as admission would have seen them, and what the fence says to them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any

from dev.audit import AuditLog
from dev.audit import Request as Answered
from regcred.cluster import client as api
from tests.manifests.fence_support import OPERATOR, Request

Json = dict[str, Any]
_OPERATIONS = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}


async def writes(client: api.Client, log: AuditLog) -> AsyncIterator[Request]:
    """Yield every write of the operator that was carried out, with the object before and after it.

    Objects are read as they stood at that revision, which the store keeps for some minutes.
    """
    last: dict[tuple[str, str], Json | None] = {}
    for row in log.writes(OPERATOR):
        new, old = await _states(client, row)
        if row.verb == "delete" and old is None:
            old = last.get((row.namespace, row.name))
            if old is None:
                # Something of an earlier test: nobody knows what it was.
                continue
        last[row.namespace, row.name] = new
        operation = "CREATE" if row.verb == "patch" and old is None else _OPERATIONS[row.verb]
        yield Request(
            operation, row.resource, row.name, row.namespace, row.group, row.subresource, new=new, old=old
        )


async def _states(client: api.Client, row: Answered) -> tuple[Json | None, Json | None]:
    if row.subresource or row.resource in {"events", "leases"}:
        # What is asked about a token stands in its answer; some servers log no more of it.
        return row.sent or row.answered, {}
    if row.verb == "delete":
        known = (row.sent.get("preconditions") or {}).get("resourceVersion", "")
        return None, await _at(client, row, known) if known else None
    version = row.answered["metadata"]["resourceVersion"]
    before = (row.sent.get("metadata") or {}).get("resourceVersion") or str(int(version) - 1)
    return await _at(client, row, version), await _at(client, row, before)


async def _at(client: api.Client, row: Answered, version: str) -> Json | None:
    """Return the object as it stood, or None where it did not."""
    found = await client.request(
        "GET",
        f"/api/v1/namespaces/{row.namespace}/{row.resource}",
        params={
            "fieldSelector": f"metadata.name={row.name}",
            "resourceVersion": version,
            "resourceVersionMatch": "Exact",
        },
    )
    return next(iter(found["items"]), None)


def misdeeds(request: Request) -> Iterator[tuple[str, Request]]:
    """Yield what an operator gone bad would make of a write, each with a name."""
    yield "elsewhere", dataclasses.replace(request, resource="configmaps", group="", subresource="")
    kind = "/".join(filter(None, (request.resource, request.subresource)))
    for name, change in _MISDEEDS.get(kind, {}).items() if request.new is not None else ():
        new = copy.deepcopy(request.new)
        change(new)
        yield name, dataclasses.replace(request, new=new, name=new.get("metadata", {}).get("name", request.name))
    if request.old and request.resource == "secrets":
        yield "of somebody else", dataclasses.replace(request, old=_bare(request.old))
    if request.subresource == "status":
        yield "the resource itself", dataclasses.replace(request, subresource="")


def _bare(body: Json) -> Json:
    bare = copy.deepcopy(body)
    bare["metadata"].pop("labels", None)
    bare["metadata"].pop("annotations", None)
    return bare


def _lose_foreign(body: Json) -> None:
    body["imagePullSecrets"] = [{"name": "evil"}]


def _rename(body: Json) -> None:
    body["metadata"]["name"] = "other"


_MISDEEDS: dict[str, dict[str, Any]] = {
    "secrets": {
        "type": lambda body: body.update(type="kubernetes.io/service-account-token"),
        "label": lambda body: body["metadata"].pop("labels"),
        "name": _rename,
        "finalizer": lambda body: body["metadata"].update(finalizers=["regcred.io/x"]),
        "owner": lambda body: body["metadata"].update(ownerReferences=[{"apiVersion": "v1", "kind": "Pod"}]),
    },
    "serviceaccounts": {
        "foreign entries": _lose_foreign,
        "token": lambda body: body.update(automountServiceAccountToken=True),
        "identity": lambda body: body["metadata"].update(annotations={"iam.gke.io/gcp-service-account": "x"}),
    },
    "serviceaccounts/token": {
        "no audience": lambda body: body["spec"].pop("audiences"),
        "another audience": lambda body: body["spec"].update(audiences=["https://kubernetes.default.svc"]),
    },
    "leases": {"name": _rename},
    "events": {"about a pod": lambda body: body["involvedObject"].update(apiVersion="v1")},
}
