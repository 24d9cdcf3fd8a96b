"""Our own kinds: their first list, and a look now and then at whether kopf has told everything.

kopf opens a silent stream anew, but does not tell of what went between two of its lists.
"""

from __future__ import annotations

import asyncio
import logging

from regcred import engine, telemetry
from regcred.api import names, resource
from regcred.cluster import client as api
from regcred.cluster import errors, heartbeat, views

_log = logging.getLogger(__name__)

#: How often our own kinds are compared with what kopf has told, as a share of the silence that a watch may keep; and
#: how long, in seconds, an event may be on its way before it counts as missed.
_COMPARED = 2 / 3
_LATE = 2.0
#: Seconds until they are first compared: kopf knows nothing of what goes between our first list and its own.
_FIRST = 5.0


async def listed(client: api.Client, plural: str) -> list[resource.Resource]:
    """Return every resource of one of our kinds.

    Raises:
        errors.ApiError: the API server refused.
    """
    kind = names.KINDS[plural]
    found: list[resource.Resource] = []
    async for items, _ in client.pages(f"/apis/{names.API_VERSION}/{plural}"):
        # The items of a list carry no kind of their own.
        found += [resource.parse({**body, "kind": kind}) for body in items]
    return found


async def run(client: api.Client, built: engine.Engine, moving: heartbeat.Heartbeat, silence: float) -> None:
    """Make good what kopf has missed, for ever.

    Args:
        client: the API client.
        built: what is told.
        moving: says that this part is alive.
        silence: seconds without an event after which a watch counts as dead.
    """
    pause = min(_FIRST, silence * _COMPARED)
    while True:
        moving.beat()
        await asyncio.sleep(pause)
        pause = silence * _COMPARED
        for plural in names.KINDS:
            moving.beat()
            try:
                missed = await _missed(client, plural, built)
            except errors.ApiError as error:
                _log.warning("Could not compare our resources: %s", error)
                continue
            if missed:
                _log.warning("Made good %d missed events of %s", missed, plural)
                telemetry.WATCH_RESTARTS.labels(plural, "missed").inc(missed)


async def _missed(client: api.Client, plural: str, built: engine.Engine) -> int:
    """Compare one of our kinds with what the engine knows of it, put that right, and return how much was missed.

    Only metadata is listed: thousands of tenants have a resource each.
    """
    path, kind = f"/apis/{names.API_VERSION}/{plural}", names.KINDS[plural]
    listed: dict[str, tuple[str, str, str]] = {}
    version = ""
    async for items, page_version in client.pages(path, metadata=True):
        version = version or page_version
        for body in items:
            meta = body["metadata"]
            listed[meta["uid"]] = (meta.get("namespace", ""), meta["name"], meta["resourceVersion"])
    # What has only just happened is on its way.
    await asyncio.sleep(_LATE)
    missed = 0
    for uid, (namespace, name, at) in listed.items():
        if not built.lacks(uid, at):
            continue
        # A list of one: to list and to watch our kinds is all that the operator may.
        chosen = {"fieldSelector": f"metadata.name={name}"}
        collection = resource.path(namespace, name).rpartition("/")[0]
        async for items, _ in client.pages(collection, params=chosen):
            for body in items:
                missed += built.upsert(resource.parse({**body, "kind": kind}))
    for uid, known in list(built.resources.items()):
        if known.kind == kind and uid not in listed and views.newer(version, known.version):
            built.remove(uid)
            missed += 1
    return missed
