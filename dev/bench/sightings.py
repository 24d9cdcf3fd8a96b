"""Evidence for a cluster whose audit log is not ours to read: what watches show, as if it were requests.

A write is seen when its event arrives here, which is later than the answer by a moment, and the same for both who are
compared.  Who wrote is told by the names: `regcred` is the operator's.  Refusals and reads are not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from dev.bench import bare, trail

_MARK = "bench"


class Sightings:
    """The evidence.

    Args:
        operator: user name of the operator.
        other: user name of the bare client.
    """

    def __init__(self, operator: str, other: str) -> None:
        self._operator = operator
        self._other = other
        self._found: list[trail.Request] = []
        self._entries: dict[trail.Key, frozenset[str]] = {}

    def read(self) -> Sequence[trail.Request]:
        """Return every write that was seen so far."""
        return self._found

    def busy(self) -> bool:
        """Return False: events are taken in as they come, so there is nothing to put off."""
        return False

    def account(self, kind: str, body: bare.Json, at: float) -> None:
        """Take in an event of a service account."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        now = frozenset(entry["name"] for entry in body.get("imagePullSecrets") or ())
        added = now - self._entries.get(key, frozenset())
        self._entries[key] = now
        if kind == "ADDED":
            self._saw("create", "serviceaccounts", key, self._other, at)
        for name in added:
            self._saw("patch", "serviceaccounts", key, self._who(name), at)

    def secret(self, kind: str, body: bare.Json, at: float) -> None:
        """Take in an event of a Secret."""
        meta = body["metadata"]
        if meta["name"] == "regcred" or meta["name"].startswith(_MARK):
            verb = "delete" if kind == "DELETED" else "patch"
            self._saw(verb, "secrets", (meta["namespace"], meta["name"]), self._who(meta["name"]), at)

    def resource(self, kind: str, body: bare.Json, at: float) -> None:
        """Take in an event of a resource of ours."""
        verb = "create" if kind == "ADDED" else "patch"
        self._saw(verb, "clusterregistrycredentials", ("", body["metadata"]["name"]), self._other, at)

    def _who(self, name: str) -> str:
        return self._operator if name == "regcred" else self._other

    def _saw(self, verb: str, resource: str, key: trail.Key, user: str, at: float) -> None:
        self._found.append(trail.Request(user, verb, resource, *key, 200, at, at))


@contextlib.asynccontextmanager
async def watching(client: bare.Client, operator: str, other: str) -> AsyncIterator[Sightings]:
    """Watch what the scenarios write, from now on."""
    found = Sightings(operator, other)
    sources = {
        "/api/v1/serviceaccounts": found.account,
        "/api/v1/secrets": found.secret,
        "/apis/regcred.io/v1alpha1/clusterregistrycredentials": found.resource,
    }
    versions = {path: (await client.send("GET", f"{path}?limit=1"))["metadata"] for path in sources}

    async def follow(path: str) -> None:
        accept = bare.METADATA if path.endswith("/secrets") else bare.JSON
        async for event in client.watch(path, versions[path]["resourceVersion"], accept):
            if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                sources[path](event["type"], event["object"], time.time())

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(path)) for path in sources]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
