"""The API server in memory answers as the real one does: the same requests, the same verdicts, the same objects.

All that random histories prove, they prove on `simulated_api`; so every rule of it that they lean on is held here against
a real API server, request by request.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.waiting import eventually
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors, views
from tests.distribution import simulated_api
from tests.distribution.simulated_api import encoded

Json = dict[str, Any]
NAMES = ("regcred", "other")
ACCOUNTS = ("ci", "builder")
#: Requests in one history, and histories.
LENGTH = 25
HISTORIES = 6


@dataclasses.dataclass
class Side:
    """One of the two servers, with what a client knows of it.

    Attributes:
        send: sends a request as the operator does.
        known: path to each identity and version that an object was seen to have, the latest last.
    """

    send: Callable[..., Awaitable[Any]]
    known: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)

    def note(self, path: str, body: Any) -> None:
        """Remember what an answer tells of an object."""
        meta = (body or {}).get("metadata") or {}
        if "uid" in meta and "resourceVersion" in meta:
            pair = (meta["uid"], meta["resourceVersion"])
            seen = self.known.setdefault(path, [])
            if not seen or seen[-1] != pair:
                seen.append(pair)

    def guard(self, path: str, age: int) -> Json:
        """Return the guard for a write: of the object as it is, or as it was so many versions ago; {} where unknown."""
        seen = self.known.get(path)
        if not seen:
            return {}
        uid, version = seen[max(len(seen) - 1 - age, 0)]
        return {"uid": uid, "resourceVersion": version}


class Both:
    """The same history on both servers.

    Args:
        real: an administrator's client.
        namespace: of the real server; the simulated one has the same.
        tokens: whether the real server's controllers make tokens for accounts.
    """

    def __init__(self, real: api.Client, namespace: str, *, tokens: bool) -> None:
        self._tokens = tokens
        self.simulated = simulated_api.SimulatedApi()
        self._real_client = real
        self._namespace = namespace
        self.real = Side(real.request)
        self.fake = Side(self.simulated.request)

    def path(self, kind: str, name: str) -> str:
        """Return where an object is."""
        return f"/api/v1/namespaces/{self._namespace}/{kind}/{name}"

    async def operator(self, method: str, path: str, make: Callable[[Side], Json], **more: Any) -> None:
        """Send a request of the operator to both, and compare verdicts and objects."""
        verdicts = [await self._verdict(side, method, path, make(side), **more) for side in (self.real, self.fake)]
        assert verdicts[0] == verdicts[1], f"{method} {path}: really {verdicts[0]}, simulated {verdicts[1]}"
        await self.compare(path)

    @staticmethod
    async def _verdict(side: Side, method: str, path: str, body: Json, **more: Any) -> str:
        try:
            answer = await side.send(method, path, body=body, **more)
        except errors.ApiError as error:
            return type(error).__name__
        if method != "DELETE":
            side.note(path, answer)
        return "done" if method != "DELETE" or answer.get("kind") == "Status" else "waits"

    async def compare(self, path: str) -> None:
        """Compare an object on both, as far as the operator can tell it apart, and note its versions."""
        bodies = []
        for side in (self.real, self.fake):
            try:
                body = await side.send("GET", path)
            except errors.NotFound:
                bodies.append(None)
                side.known.pop(path, None)
            else:
                side.note(path, body)
                bodies.append(_comparable(path, body))
        assert bodies[0] == bodies[1], path

    async def stranger(self, path: str, manager: str, change: Callable[[Json], None]) -> None:
        """Let somebody else change an object on both, by reading it and writing it whole."""
        if path not in self.simulated.objects:
            return
        self.simulated.update(path, manager, change)
        body = await self._real_client.get(path)
        body["metadata"].pop("managedFields", None)
        change(body)
        await self._real_client.request("PUT", path, params={"fieldManager": manager}, body=body)
        await self.compare(path)

    async def born(self, path: str, manager: str, body: Json) -> None:
        """Let somebody else create an object on both."""
        if path in self.simulated.objects:
            return
        self.simulated.create(path, copy.deepcopy(body), manager)
        collection, _, name = path.rpartition("/")
        whole = copy.deepcopy(body)
        whole.setdefault("metadata", {})["name"] = name
        await self._real_client.request("POST", collection, params={"fieldManager": manager}, body=whole)
        if "/serviceaccounts/" in path and self._tokens:
            # Servers before 1.24 give every account a token, and write its name into the account.
            async def whole_account() -> bool:
                return bool((await self._real_client.get(path)).get("secrets"))

            await eventually(whole_account, f"the token of {path}", seconds=60, every=0.05)
        # Some servers do not tell who wrote what of an account: the operator then does without.
        written = await self._real_client.get(path)
        self.simulated.objects[path].tracked = "managedFields" in written["metadata"]
        await self.compare(path)

    async def gone(self, path: str) -> None:
        """Let somebody else delete an object on both."""
        if path in self.simulated.objects:
            self.simulated.remove(path)
            await self._real_client.request("DELETE", path)
            await self.compare(path)


def _comparable(path: str, body: Json) -> Any:
    """Return what the operator reads of an object, and what it has put there."""
    nothing = {"uid": "", "version": ""}
    if "/serviceaccounts/" in path:
        return dataclasses.replace(views.account(body), **nothing)
    view = dataclasses.replace(views.secret(body), **nothing)
    # Keyed lists are merged, and in which order is nobody's concern.
    view = dataclasses.replace(view, owners=tuple(sorted(view.owners)))
    owners = sorted(owner["uid"] for owner in body["metadata"].get("ownerReferences") or [])
    return view, body.get("data") or {}, body["type"], body["metadata"].get("labels") or {}, owners


def secret(side: Side, path: str, *, password: str, owners: list[Json], age: int | None) -> Json:
    """Return the body of an apply-patch as the writer sends it; without a guard where `age` is None."""
    guard = {} if age is None else side.guard(path, age)
    contributors = {owner["uid"]: {"from": f"{names.CLUSTER_KIND}/{owner['name']}"} for owner in owners}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": path.rpartition("/")[2],
            **guard,
            "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY},
            "annotations": {names.REVISION: password, names.CONTRIBUTORS: json.dumps(contributors)},
            "ownerReferences": owners,
        },
        "type": names.SECRET_TYPE,
        "data": {names.SECRET_KEY: encoded(json.dumps({"auths": {"r": {"auth": password}}}).encode())},
    }


class History:
    """What happens, by seeded chance."""

    def __init__(self, both: Both, owners: list[Json], chance: random.Random) -> None:
        self.both = both
        self.owners = owners
        self.chance = chance

    async def step(self) -> None:
        """Let one thing happen."""
        doings = [self.applies] * 4 + [self.attaches] * 3 + [self.deletes, self.strangers, self.strangers]
        await self.chance.choice([*doings, self.births, self.ends])()

    def secret(self) -> str:
        """Return a Secret's path."""
        return self.both.path("secrets", self.chance.choice(NAMES))

    def account(self) -> str:
        """Return an account's path."""
        return self.both.path("serviceaccounts", self.chance.choice(ACCOUNTS))

    async def applies(self) -> None:
        """The operator creates or updates a Secret."""
        path = self.secret()
        password, force = self.chance.choice("pqr"), self.chance.random() < 0.7
        owners = self.chance.choice([self.owners[:1], self.owners, self.owners[1:], []])
        age = self.chance.choice([0, 0, 0, 1, None])
        await self.both.operator(
            "PATCH",
            path,
            lambda side: secret(side, path, password=password, owners=owners, age=age),
            params={"fieldManager": names.MANAGER, "force": "true" if force else "false"},
            content_type=api.APPLY,
            accept=api.METADATA if self.chance.random() < 0.5 else api.JSON,
        )

    async def attaches(self) -> None:
        """The operator writes an account's list, under its guard."""
        path, age = self.account(), self.chance.choice([0, 0, 0, 1])
        entries = self.chance.sample(["theirs", "regcred", "other"], self.chance.randrange(4))
        if path not in self.both.simulated.objects:
            return
        await self.both.operator(
            "PATCH",
            path,
            lambda side: {
                "metadata": side.guard(path, age),
                "imagePullSecrets": [{"name": entry} for entry in entries],
            },
            params={"fieldManager": names.MANAGER},
            content_type=api.MERGE,
        )

    async def deletes(self) -> None:
        """The operator deletes a Secret, under its guard."""
        path, age = self.secret(), self.chance.choice([0, 0, 1])
        if path not in self.both.simulated.objects:
            return
        await self.both.operator(
            "DELETE",
            path,
            lambda side: {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": side.guard(path, age)},
        )

    async def strangers(self) -> None:
        """Somebody else changes something."""
        if self.chance.random() < 0.4:
            entries = self.chance.sample(["theirs", "x", "regcred"], self.chance.randrange(3))
            await self.both.stranger(
                self.account(),
                "argocd",
                lambda body: body.update(imagePullSecrets=[{"name": entry} for entry in entries]),
            )
            return
        change = self.chance.choice(
            [
                lambda body: body.update(data={names.SECRET_KEY: encoded(b'{"auths":{}}')}),
                lambda body: body["metadata"].setdefault("annotations", {}).update(theirs="x"),
                lambda body: body["metadata"].setdefault("annotations", {}).pop(names.REVISION, None),
                lambda body: body["metadata"].setdefault("labels", {}).pop(names.MANAGED_BY_LABEL, None),
                lambda body: body["metadata"].update(finalizers=["example.com/hold"]),
                lambda body: body["metadata"].update(finalizers=[]),
                lambda body: body["metadata"].update(ownerReferences=[]),
            ]
        )
        path = self.secret()
        stored = self.both.simulated.objects.get(path)
        if stored is not None and "deletionTimestamp" not in stored.meta:
            await self.both.stranger(path, "kubectl-edit", change)

    async def births(self) -> None:
        """Somebody else creates something."""
        if self.chance.random() < 0.6:
            await self.both.born(
                self.account(), "helm", {"imagePullSecrets": [{"name": "theirs"}], "metadata": {}}
            )
        else:
            data = {names.SECRET_KEY: encoded(b'{"auths":{}}')}
            body = {"type": names.SECRET_TYPE, "data": data, "metadata": {"labels": {"app": "theirs"}}}
            await self.both.born(self.secret(), "helm", body)

    async def ends(self) -> None:
        """Somebody else deletes something."""
        await self.both.gone(self.chance.choice([self.secret(), self.account()]))


@pytest.fixture
async def real(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """An administrator's client."""
    client = api.Client(api.login(str(control_plane.admin_kubeconfig)))
    yield client
    await client.close()


@pytest.fixture
async def owners(real: api.Client, namespace: str) -> AsyncIterator[list[Json]]:
    """References to two objects that are there: the garbage collector watches."""
    collection = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    made = []
    for number in range(2):
        body = {"metadata": {"name": f"{namespace}-{number}"}, "rules": []}
        found = await real.request("POST", collection, body=body)
        made.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "name": found["metadata"]["name"],
                "uid": found["metadata"]["uid"],
            }
        )
    yield made
    for owner in made:
        await real.request("DELETE", f"{collection}/{owner['name']}")


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_the_simulated_server_answers_as_the_real_one(
    control_plane: Cluster, real: api.Client, namespace: str, owners: list[Json], seed: int
) -> None:
    """The same requests in the same order get the same verdicts, and leave the same objects, on both."""
    tokens = control_plane.controllers and control_plane.version < (1, 24)
    both = Both(real, namespace, tokens=tokens)
    history = History(both, owners, random.Random(seed))
    for name in ACCOUNTS:
        await both.born(both.path("serviceaccounts", name), "helm", {"metadata": {}})
    try:
        for _ in range(LENGTH):
            await history.step()
    finally:
        for name in NAMES:
            # What a finalizer holds would hold the namespace.
            change = {"metadata": {"finalizers": None}}
            with contextlib.suppress(errors.NotFound):
                await real.request("PATCH", both.path("secrets", name), body=change, content_type=api.MERGE)
