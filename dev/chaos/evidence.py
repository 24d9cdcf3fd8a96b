"""What the totals are made of: the audit log, a watch of every change, and a search for canaries.

Nothing here asks the operator how it fared.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import datetime
import json
import secrets
from pathlib import Path
from typing import Any

from dev.audit import AuditLog, Request
from dev.canaries import Search, all_objects, allowed_in, texts_of
from dev.controlplane import ControlPlane
from dev.operator_process import NAMESPACE
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors

_PROTECTED = ("kube-system", "kube-public", "kube-node-lease", NAMESPACE)
#: What the operator may write, as the audit log names it.
_ALLOWED = {
    ("patch", "secrets", "", "regcred"),
    ("delete", "secrets", "", "regcred"),
    ("patch", "secrets", "", "cache"),
    ("delete", "secrets", "", "cache"),
    ("patch", "serviceaccounts", "", "any"),
    ("create", "serviceaccounts", "token", "any"),
    ("patch", "clusterregistrycredentials", "status", "any"),
    ("patch", "registrycredentials", "status", "any"),
    ("create", "events", "", "any"),
    ("create", "leases", "", "any"),
    ("update", "leases", "", "any"),
}
#: Seconds that a login may have ended before its Secret counts as expired: clocks show whole seconds.
_GRACE = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """What must all be 0 at the end of a run."""

    lost_foreign_entries: int
    wrong_writes: int
    double_writes: int
    expired_secrets_seen: int
    orphans: int
    canaries_found: int

    @property
    def holds(self) -> bool:
        """Whether all are."""
        return not any(dataclasses.astuple(self))


class Evidence:
    """Gathers from the first experiment to the last.

    Attributes:
        planted: (namespace, account) to UID, of accounts that hold an entry of somebody else.
        logs: of every operator.
        metrics: of every operator at its end.
        lost_answers: how the names of namespaces begin in which answers were lost, to how many: there so many writes
            may have been sent again.
        details: what the totals count, in words.
    """

    def __init__(self, cluster: ControlPlane, client: api.Client, user: str) -> None:
        if cluster.audit_log is None:
            raise RuntimeError("there is no audit log to read")
        self.planted: dict[tuple[str, str], str] = {}
        self.logs: list[Path] = []
        self.metrics: list[str] = []
        self.lost_answers: dict[str, int] = {}
        self.details: list[str] = []
        self.audit = AuditLog(cluster.audit_log)
        self._cluster = cluster
        self._client = client
        self._user = user
        self._canaries: set[str] = set()
        self._ends: dict[str, tuple[float, str]] = {}
        self._expired: set[tuple[str, str]] = set()
        self._lost = 0
        self._tasks: list[asyncio.Task[None]] = []

    def canary(self) -> str:
        """Return a new password that is looked for at the end."""
        made = f"c4n4ry{secrets.token_hex(16)}"
        self.look_for(made)
        return made

    def look_for(self, password: str) -> None:
        """Look for this password at the end, too."""
        self._canaries.add(password)

    def writes(self, since: int = 0, *, resource: str = "", namespace: str = "") -> list[Request]:
        """Return what the operator has written so far, from the `since`-th write on."""
        return [
            row
            for row in self.audit.writes(self._user)[since:]
            if resource in ("", row.resource) and namespace in ("", row.namespace)
        ]

    async def begin(self) -> list[asyncio.Task[None]]:
        """Begin to watch."""
        self._tasks = [
            asyncio.create_task(
                self._follow("secrets", "/api/v1/secrets", {"fieldSelector": "metadata.name=regcred"})
            ),
            asyncio.create_task(self._follow("serviceaccounts", "/api/v1/serviceaccounts", {})),
            asyncio.create_task(self._look()),
        ]
        return self._tasks

    async def _follow(self, resource: str, path: str, params: dict[str, str]) -> None:
        """Take in every change of every object; the version is kept through every interruption."""
        version = ""
        while True:
            try:
                if not version:
                    listed = await self._client.request("GET", path, params=params, accept=api.METADATA_LIST)
                    version = listed["metadata"]["resourceVersion"]
                async for event in self._client.watch(path, version, params=params, metadata=True, silence=600):
                    meta = event.object["metadata"]
                    version = meta["resourceVersion"]
                    self._take(event.type, resource, meta)
            except errors.Gone:
                version = ""
            except errors.ApiError:
                await asyncio.sleep(0.2)

    def _take(self, kind: str, resource: str, meta: dict[str, Any]) -> None:
        if kind == "BOOKMARK":
            return
        if resource != "secrets":
            return
        self._ends.pop(meta["namespace"], None)
        ours = names.CONTRIBUTORS in (meta.get("annotations") or {})
        if kind in ("ADDED", "MODIFIED") and ours:
            with contextlib.suppress(ValueError, KeyError, AttributeError):
                rows = json.loads(meta["annotations"][names.SERVERS])
                ends = [
                    (datetime.datetime.fromisoformat(row["expires"]).timestamp(), server)
                    for server, row in rows.items()
                    if row.get("expires")
                ]
                if ends:
                    self._ends[meta["namespace"]] = min(ends)

    async def _look(self) -> None:
        """Look at every Secret that stands, all the time: has a login in it ended?"""
        while True:
            now = datetime.datetime.now(datetime.UTC).timestamp()
            for namespace, (end, server) in self._ends.items():
                if end + _GRACE < now:
                    self._expired.add((namespace, server))
            await asyncio.sleep(0.5)

    async def count_lost(self, client: api.Client) -> None:
        """Count the entries of somebody else that are gone though their account is not."""
        planted, self.planted = self.planted, {}
        for (namespace, account), uid in planted.items():
            try:
                body = await client.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")
            except errors.NotFound:
                continue
            listed = [entry["name"] for entry in body.get("imagePullSecrets") or []]
            if body["metadata"]["uid"] == uid and "theirs" not in listed:
                self._lost += 1
                self.details.append(f"lost: an entry of {namespace}/{account}")

    async def totals(self) -> Totals:
        """Return the totals; every resource is deleted and an operator has cleaned up after them."""
        await asyncio.sleep(2)
        for task in self._tasks:
            if task.done():
                # One that has ended by itself has seen nothing since: the totals would be worth nothing.
                task.result()
        return Totals(
            lost_foreign_entries=self._lost,
            wrong_writes=self._wrong(),
            double_writes=self._double(),
            expired_secrets_seen=len(self._expired),
            orphans=await self._orphans(),
            canaries_found=await self._found(),
        )

    def _wrong(self) -> int:
        """Count the writes of the operator outside of what it may write."""
        wrong = 0
        for row in self.audit.writes(self._user):
            name = row.name if row.resource == "secrets" else "any"
            if row.namespace == NAMESPACE and name.startswith("regcred-cache-"):
                name = "cache"
            allowed = (row.verb, row.resource, row.subresource, name) in _ALLOWED
            targets = row.resource in ("secrets", "serviceaccounts") and not row.subresource
            if not allowed or (targets and row.namespace in _PROTECTED and name != "cache"):
                wrong += 1
                self.details.append(f"wrong: {row.verb} {row.resource} {row.namespace}/{row.name}")
        return wrong

    def _double(self) -> int:
        """Count the successful writes of the operator that changed nothing: the answer's version is the one sent.

        One without a version is a creation; if it met what was there already, it changed nothing either.
        """
        found: collections.Counter[str] = collections.Counter()
        for row in self.audit.writes(self._user):
            kind = row.resource == "serviceaccounts" or (row.resource == "secrets" and row.name == "regcred")
            if not kind or row.subresource or row.verb != "patch":
                continue
            sent, answered = (body.get("metadata", {}).get("resourceVersion") for body in (row.sent, row.answered))
            if sent == answered or (not sent and row.code == 200):
                where = next((begin for begin in self.lost_answers if row.namespace.startswith(begin)), "")
                found[where] += 1
                if not where:
                    self.details.append(f"double: {row.resource} {row.namespace}/{row.name}")
        return sum(max(0, number - self.lost_answers.get(where, 0)) for where, number in found.items())

    async def _orphans(self) -> int:
        """Count what is left of resources that are gone: Secrets, entries that dangle, kept logins, finalizers."""
        left = 0
        label = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
        ending = {
            body["metadata"]["name"]
            for body in (await self._client.get("/api/v1/namespaces"))["items"]
            if body["metadata"].get("deletionTimestamp")
        }
        found = await self._client.request("GET", "/api/v1/secrets", params={"labelSelector": label})
        for body in found["items"]:
            if body["metadata"]["namespace"] not in ending:
                left += 1
                self.details.append(f"orphan: Secret {body['metadata']['namespace']}/{body['metadata']['name']}")
        for body in (await self._client.get("/api/v1/serviceaccounts"))["items"]:
            meta, listed = body["metadata"], body.get("imagePullSecrets") or []
            if meta["namespace"] not in ending and {"name": "regcred"} in listed:
                left += 1
                self.details.append(f"orphan: entry of {meta['namespace']}/{meta['name']}")
        return left

    async def _found(self) -> int:
        """Count the places where a canary stands that it may not stand in."""
        search = Search({"canary": self._canaries}) if self._canaries else None
        if search is None:
            return 0
        found = 0
        for body in await all_objects(self._cluster):
            text = texts_of(body)
            if search.kinds_in(text) and not {"login", "source"} & allowed_in(body):
                found += 1
                self.details.append(f"canary: {body['kind']} {body['metadata']['name']}")
        described = await self._cluster.kubectl("describe", "crcred,rcred,events", "-A")
        texts = [("describe", described), *(("metrics", text) for text in self.metrics)]
        texts += [
            (log.name, log.read_text(encoding="utf-8", errors="replace")) for log in self.logs if log.exists()
        ]
        for where, text in texts:
            if search.kinds_in(text):
                found += 1
                self.details.append(f"canary: {where}")
        return found
