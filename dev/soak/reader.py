"""The continuous reader: sees every pull Secret and every service account as they change, and judges them.

It has a client of its own, and the ends of logins come from who handed them out; what the operator says of itself it
only compares.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import dataclasses
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from dev.bench import bare
from dev.operator_process import NAMESPACE
from dev.soak.world import World
from dev.token_server import encode_basic

Json = dict[str, Any]
Key = tuple[str, str]

NAME = "regcred"
#: Looks a second at the ends of all logins.
LOOKS = 4
#: Seconds before its end in which a login could have been renewed, had the API server been there.
EXCUSED = 60.0
_LOST = (bare.Refused, aiohttp.ClientError, TimeoutError, ValueError, OSError)


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen."""

    kind: str
    where: str
    what: str
    at: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """One login in one Secret; `ends` is None where it does not end."""

    server: str
    username: str
    password: str = dataclasses.field(repr=False)
    ends: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """The foreign entries of an account were seen to change."""

    account: Key
    version: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    listed: bool


class Ledger:
    """What rivals have written into accounts: whatever else changes a foreign entry was not them.

    Attributes:
        versions: resource versions that their writes were answered with.
        uncertain: what they sent and got no answer to, by account.
        contents: what they wrote, by account: all that a list after a gap can be held against.
    """

    def __init__(self) -> None:
        self.versions: set[str] = set()
        self.uncertain: dict[Key, list[tuple[str, ...]]] = collections.defaultdict(list)
        self.contents: dict[Key, list[tuple[str, ...]]] = collections.defaultdict(list)

    def explains(self, change: Change) -> bool:
        """Whether rivals made this change."""
        if change.version in self.versions:
            return True
        return change.after in (self.contents if change.listed else self.uncertain).get(change.account, ())


class Reader:
    """Watches, and remembers what is wrong.

    Args:
        world: where.
        ledger: what rivals have done.
        chance: for what is looked at more closely.
    """

    def __init__(self, world: World, ledger: Ledger, chance: random.Random) -> None:
        self.violations: list[Violation] = []
        self.namespaces: dict[str, Json] = {}
        self.secrets: dict[str, list[Held]] = {}
        self.accounts: dict[Key, tuple[str, ...]] = {}
        self.lists: dict[Key, tuple[str, ...]] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.least_left = float("inf")
        self.least_where = ""
        self._world = world
        self._ledger = ledger
        self._chance = chance
        self._changes: list[Change] = []
        self._ended: dict[tuple[str, str, str], float] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("/api/v1/namespaces", self._namespace), name="read namespaces")
            group.create_task(
                self._follow(f"/api/v1/secrets?fieldSelector=metadata.name%3D{NAME}", self._secret),
                name="read secrets",
            )
            group.create_task(self._follow("/api/v1/serviceaccounts", self._account), name="read accounts")
            group.create_task(self._look(), name="look at ends")
            group.create_task(self._ask(), name="ask the registry")

    # Watching.

    async def _follow(self, path: str, take: Any) -> None:
        while True:
            try:
                async for kind, body in self._events(path):
                    take(kind, body)
            except _LOST:
                self.counts["watches begun anew"] += 1
                await asyncio.sleep(0.2)

    async def _events(self, path: str) -> AsyncIterator[tuple[str, Json]]:
        listed = await self._world.eyes.send("GET", path)
        yield "LIST", listed
        version = listed["metadata"]["resourceVersion"]
        while True:
            async for event in self._world.eyes.watch(path, version):
                body = event["object"]
                if event["type"] == "ERROR":
                    return
                version = body["metadata"]["resourceVersion"]
                self.counts["events read"] += 1
                yield event["type"], body

    def _namespace(self, kind: str, body: Json) -> None:
        if kind == "LIST":
            self.namespaces = {item["metadata"]["name"]: item for item in body["items"]}
        elif kind == "DELETED":
            self.namespaces.pop(body["metadata"]["name"], None)
        else:
            self.namespaces[body["metadata"]["name"]] = body

    def _secret(self, kind: str, body: Json) -> None:
        if kind == "LIST":
            self.secrets = {item["metadata"]["namespace"]: self._held(item) for item in body["items"]}
        elif kind == "DELETED":
            self.secrets.pop(body["metadata"]["namespace"], None)
        else:
            self.secrets[body["metadata"]["namespace"]] = self._held(body)

    def _held(self, body: Json) -> list[Held]:
        """Read the logins of a Secret as a kubelet would; rivals write rubbish, which holds none."""
        self.counts["Secrets read"] += 1
        try:
            auths = json.loads(base64.b64decode((body.get("data") or {})[".dockerconfigjson"]))["auths"]
            rows = [(server, row["username"], row["password"]) for server, row in auths.items()]
        except (ValueError, KeyError, TypeError, binascii.Error):
            return []
        return [Held(server, user, password, self._world.end(user, password)) for server, user, password in rows]

    def _account(self, kind: str, body: Json) -> None:
        if kind == "LIST":
            known = self.accounts
            self.accounts, self.lists = {}, {}
            for item in body["items"]:
                self._account_seen(item, known, listed=True)
        elif kind == "DELETED":
            self.accounts.pop(_key(body), None)
            self.lists.pop(_key(body), None)
        else:
            self._account_seen(body, self.accounts, listed=False)

    def _account_seen(self, body: Json, known: dict[Key, tuple[str, ...]], *, listed: bool) -> None:
        key, version = _key(body), body["metadata"]["resourceVersion"]
        entries = tuple(entry["name"] for entry in body.get("imagePullSecrets") or [])
        foreign = tuple(name for name in entries if name != NAME)
        if len(set(entries)) != len(entries):
            self._wrong("entry twice in an account", "/".join(key), str(entries))
        before = known.get(key)
        if before is not None and before != foreign:
            self._changes.append(Change(key, version, before, foreign, listed))
        self.accounts[key] = foreign
        self.lists[key] = entries

    # Judging.

    async def _look(self) -> None:
        """See several times a second whether anything has ended that a pod would be given."""
        while True:
            now = time.time()
            for namespace, logins in self.secrets.items():
                if self._going(namespace):
                    continue
                for held in logins:
                    if held.ends is None:
                        continue
                    self.counts["looks at a login"] += 1
                    left = held.ends - now
                    if left < self.least_left and held.ends:
                        self.least_left, self.least_where = left, f"{namespace} {held.server}"
                    if left <= 0:
                        await self._confirm(namespace, held)
            await asyncio.sleep(1 / LOOKS)

    async def _confirm(self, namespace: str, held: Held) -> None:
        """Count a login that has ended, if it still stands there by a fresh reading."""
        key = (namespace, held.server, held.password)
        if key in self._ended:
            return
        body = await self._read(namespace)
        if body is None or self._going(namespace) or held not in self._held(body):
            return
        self._ended[key] = time.time()
        ends = held.ends or 0.0
        if any(since < ends and until > ends - EXCUSED for since, until in self._world.api_away):
            # Nobody can renew what he cannot write: told, but not held against the operator.
            self.counts["logins that ended with the API server away shortly before"] += 1
            return
        self._wrong("expired login in a Secret", f"{namespace} {held.server}", f"ended {held.ends or 0:.0f}")

    async def _ask(self) -> None:
        """Ask the private registry's token server, now and then, whether a login that stands in a Secret is good."""
        host = self._world.registry.host
        assert self._world.registry.tokens is not None  # noqa: S101 - it was started with one
        url = self._world.registry.tokens.url
        async with aiohttp.ClientSession() as session:
            while True:
                await asyncio.sleep(1.0)
                if not self.secrets:
                    continue
                namespace = self._chance.choice(sorted(self.secrets))
                held = next((row for row in self.secrets[namespace] if row.server == host), None)
                if held is None or self._going(namespace):
                    continue
                self.counts["logins tried at the registry"] += 1
                if await _good(session, url, held):
                    continue
                body = await self._read(namespace)
                if body is not None and held in self._held(body) and not self._going(namespace):
                    self._wrong("login that the registry refuses", namespace, held.username)

    async def _read(self, namespace: str) -> Json | None:
        try:
            return await self._world.eyes.send("GET", f"/api/v1/namespaces/{namespace}/secrets/{NAME}")
        except _LOST:
            return None

    def _going(self, namespace: str) -> bool:
        body = self.namespaces.get(namespace)
        return body is None or "deletionTimestamp" in body["metadata"] or namespace == NAMESPACE

    def _wrong(self, kind: str, where: str, what: str) -> None:
        self.violations.append(Violation(kind, where, what))
        print(f"VIOLATION {kind}: {where}: {what}", flush=True)

    def judge_changes(self) -> None:
        """Hold every change of a foreign entry against what rivals have done, once they are done."""
        for change in self._changes:
            if not self._ledger.explains(change):
                self._wrong(
                    "foreign entry changed", "/".join(change.account), f"{change.before} became {change.after}"
                )
        self.counts["changes of foreign entries, all by their owners"] = len(self._changes)
        self._changes.clear()


def _key(body: Json) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


async def _good(session: aiohttp.ClientSession, url: str, held: Held) -> bool:
    headers = {"Authorization": encode_basic(held.username, held.password)}
    params = {"service": "regcred-dev-registry", "scope": "repository:private/app:pull"}
    async with session.get(url, headers=headers, params=params) as answer:
        return answer.status == 200
