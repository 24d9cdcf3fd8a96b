"""The life of a cluster: namespaces come and go, rivals edit accounts and Secrets, resources are edited.

Everything is chosen by seeded chance; what fails because the API server is down is simply not done.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dev.operator_process import NAMESPACE
from dev.soak import world as stage
from dev.soak.reader import NAME, Ledger, Reader
from dev.token_server import PULL, User
from regcred.cluster import errors

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
#: Namespaces alive at a time, tenants not counted.
POPULATION = 92
#: Seconds that the old password of the private registry goes on being good, and pause between changes of it.
GRACE = 80.0
ROTATION = 150.0
_FLEETING = 4


class Churn:
    """Everybody but the operator.

    Args:
        world: where.
        reader: what stands.
        ledger: gets told what is written into accounts.
        chance: decides.
    """

    def __init__(self, world: stage.World, reader: Reader, ledger: Ledger, chance: random.Random) -> None:
        self._world = world
        self._reader = reader
        self._ledger = ledger
        self._chance = chance
        self._born = 0
        self._login = 0
        self._fleeting = 0
        self.alive: list[str] = []
        self.counts: dict[str, int] = {}

    async def populate(self) -> None:
        """Create the first namespaces."""
        while len(self.alive) < POPULATION:
            with contextlib.suppress(errors.Conflict):
                await self._create_namespace()

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            for pause, act in (
                (3.0, self._namespaces),
                (9.0, self._relabel),
                (4.0, self._account),
                (1.5, self._entries),
                (45.0, self._remove_ours),
                (11.0, self._spoil_secret),
                (17.0, self._delete_secret),
                (23.0, self._edit_resource),
                (31.0, self._ask_refresh),
                (70.0, self._suspend),
                (13.0, self._fleeting_resource),
            ):
                group.create_task(self._again(pause, act))
            group.create_task(self._rotate())

    async def _again(self, pause: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * pause)
            with contextlib.suppress(errors.ApiError):
                await act()
                name = act.__name__.strip("_").replace("_", " ")
                self.counts[name] = self.counts.get(name, 0) + 1

    async def _send(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        return await self._world.client.request(method, path, body=body, content_type=content_type, tries=1)

    # Namespaces.

    async def _namespaces(self) -> None:
        if len(self.alive) > POPULATION or (len(self.alive) > POPULATION - 8 and self._chance.random() < 0.5):
            name = self._chance.choice(self.alive)
            await self._send("DELETE", f"/api/v1/namespaces/{name}")
            self.alive.remove(name)
        else:
            await self._create_namespace()

    async def _create_namespace(self) -> None:
        # Now and then a name comes again, while the namespace of that name is perhaps still ending.
        name = f"soak-{self._born if self._chance.random() < 0.9 else self._chance.randrange(self._born + 1)}"
        self._born += 1
        labels = {stage.LABEL: "yes" if self._chance.random() < 0.9 else "no", "team": self._chance.choice("abc")}
        await self._send("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        self.alive.append(name)
        if self._chance.random() < 0.5:
            await self._create_account(name, "builder")

    async def _relabel(self) -> None:
        name = self._chance.choice(self.alive)
        key, value = self._chance.choice(
            [
                (stage.LABEL, "yes"),
                (stage.LABEL, "no"),
                ("team", "a"),
                ("team", "b"),
                ("regcred.io/ignore", "true"),
                ("regcred.io/ignore", None),
                ("regcred.io/ignore", None),
            ]
        )
        await self._send("PATCH", f"/api/v1/namespaces/{name}", {"metadata": {"labels": {key: value}}}, MERGE)

    # Accounts.

    async def _account(self) -> None:
        namespace = self._chance.choice(self.alive)
        name = self._chance.choice(["builder", "app", "other"])
        if (namespace, name) in self._reader.accounts:
            await self._send("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
        else:
            await self._create_account(namespace, name)

    async def _create_account(self, namespace: str, name: str) -> None:
        foreign = tuple(f"own-{self._chance.randrange(100)}" for _ in range(self._chance.randrange(3)))
        foreign = tuple(dict.fromkeys(foreign))
        body = {"metadata": {"name": name}, "imagePullSecrets": [{"name": each} for each in foreign]}
        await self._write(
            (namespace, name), foreign, "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", body
        )

    async def _write(self, account: tuple[str, str], foreign: tuple[str, ...], *request: Any) -> None:
        """Send a rival's write, and note what becomes of it."""
        self._ledger.contents[account].append(foreign)
        try:
            answer = await self._send(*request)
        except errors.ApiError as error:
            if error.status == 0 or error.status >= 500:
                self._ledger.uncertain[account].append(foreign)
            raise
        self._ledger.versions.add(answer["metadata"]["resourceVersion"])

    async def _entries(self) -> None:
        """A rival adds or takes away an entry of its own, by read and guarded write, as a controller would."""
        namespace, name = self._chance.choice(sorted(self._reader.accounts))
        if not namespace.startswith(("soak-", "tenant-")):
            return
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        body = await self._world.client.get(path)
        entries = [entry["name"] for entry in body.get("imagePullSecrets") or []]
        foreign = [entry for entry in entries if entry != NAME]
        if foreign and self._chance.random() < 0.5:
            entries.remove(self._chance.choice(foreign))
        else:
            entries.insert(self._chance.randrange(len(entries) + 1), f"rival-{self._chance.randrange(1000)}")
        entries = list(dict.fromkeys(entries))
        left = tuple(entry for entry in entries if entry != NAME)
        body["imagePullSecrets"] = [{"name": entry} for entry in entries]
        await self._write((namespace, name), left, "PUT", path, body)

    async def _remove_ours(self) -> None:
        """A rival takes our entry away; at so many accounts that none of them sees it three times in ten minutes."""
        listing = sorted(key for key, entries in self._reader.lists.items() if NAME in entries)
        if not listing:
            return
        namespace, name = self._chance.choice(listing)
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        body = await self._world.client.get(path)
        left = tuple(row["name"] for row in body.get("imagePullSecrets") or [] if row["name"] != NAME)
        body["imagePullSecrets"] = [{"name": entry} for entry in left]
        await self._send("PUT", path, body)

    # Secrets.

    async def _spoil_secret(self) -> None:
        if not self._reader.secrets:
            return
        namespace = self._chance.choice(sorted(self._reader.secrets))
        rubbish = base64.b64encode(json.dumps({"auths": {}}).encode()).decode()
        body = {"data": {".dockerconfigjson": rubbish}}
        await self._send("PATCH", f"/api/v1/namespaces/{namespace}/secrets/{NAME}", body, MERGE)

    async def _delete_secret(self) -> None:
        if self._reader.secrets:
            namespace = self._chance.choice(sorted(self._reader.secrets))
            await self._send("DELETE", f"/api/v1/namespaces/{namespace}/secrets/{NAME}")

    # Resources.

    async def _edit_resource(self) -> None:
        teams = self._chance.sample("abc", self._chance.randrange(1, 3))
        spec = {
            "namespaces": {
                "selector": {
                    "matchLabels": None,
                    "matchExpressions": [{"key": "team", "operator": "In", "values": sorted(teams)}],
                },
                "exclude": self._chance.choice([[], ["soak-*7"], ["tenant-*", "soak-1*"]]),
            },
            "serviceAccounts": self._chance.choice([["default"], ["default", "builder"], ["*"]]),
        }
        await self._send("PATCH", f"{stage.KINDS}/clusterregistrycredentials/edited", {"spec": spec}, MERGE)

    async def _ask_refresh(self) -> None:
        name = self._chance.choice(["platform", "private", "edited"])
        body = {"metadata": {"annotations": {"regcred.io/refresh-requested-at": str(time.time_ns())}}}
        await self._send("PATCH", f"{stage.KINDS}/clusterregistrycredentials/{name}", body, MERGE)

    async def _suspend(self) -> None:
        """Suspend a resource for less than the time that its logins have to spare."""
        path = f"{stage.KINDS}/clusterregistrycredentials/{self._chance.choice(['edited', 'private'])}"
        await self._send("PATCH", path, {"spec": {"suspend": True}}, MERGE)
        await asyncio.sleep(self._chance.uniform(1, 15))
        await self._until_done("PATCH", path, {"spec": {"suspend": False}})

    async def _fleeting_resource(self) -> None:
        path = f"{stage.KINDS}/clusterregistrycredentials"
        known = [item["metadata"]["name"] async for items, _ in self._world.client.pages(path) for item in items]
        names = sorted(name for name in known if name.startswith("fleeting-"))
        if len(names) >= _FLEETING or (names and self._chance.random() < 0.5):
            await self._send("DELETE", f"{path}/{self._chance.choice(names)}")
            return
        self._fleeting += 1
        number = self._fleeting
        server = {"server": f"fleeting-{number}.example.test", "login": {"secretRef": {"name": stage.LOGIN}}}
        body = stage.cluster_resource(
            f"fleeting-{number}", [server], {"names": [f"soak-*{number % 10}"]}, ["default"]
        )
        await self._send("POST", path, body)

    async def _rotate(self) -> None:
        """Change the password of the private registry, as its owner would: new user, new source, old user gone."""
        tokens = self._world.registry.tokens
        assert tokens is not None  # noqa: S101 - it was started with one
        while True:
            await asyncio.sleep(ROTATION)
            self._login += 1
            fresh = stage.login_secret(self._login)["stringData"]
            user = User(fresh["password"], {"private/*": PULL})
            tokens.users[fresh["username"]] = self._world.registry.users[fresh["username"]] = user
            path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{stage.LOGIN}"
            await self._until_done("PATCH", path, {"stringData": fresh})
            self.counts["rotate"] = self.counts.get("rotate", 0) + 1
            await asyncio.sleep(GRACE)
            old = f"puller-{self._login - 1}"
            self._world.registry.users.pop(old, None)
            tokens.users.pop(old, None)

    async def _until_done(self, method: str, path: str, body: Json) -> None:
        while True:
            try:
                await self._send(method, path, body, MERGE)
            except errors.ApiError:
                await asyncio.sleep(0.5)
            else:
                return
