"""The engine marks what a change concerns, once, waits for what comes in a moment, and lets nothing lie."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

import pytest

from dev.waiting import eventually
from regcred import dockerconfig, engine
from regcred.api import names, spec
from regcred.api import resource as api_resource
from regcred.cluster import mirror
from regcred.distribution import writer
from tests.distribution import simulated_api

QUAY = "quay.io"
NAMESPACES = ("team-a", "team-b", "team-c")


class Logins:
    """The keeper, as far as the engine asks it."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, tuple[dockerconfig.Login, str, datetime.datetime | None]]] = {}
        self.updated: list[str] = []
        self.awaited: set[str] = set()
        self.names = {names.DEFAULT_SECRET_NAME}
        self.scopes: dict[str, tuple[spec.Namespaces, ...]] = {}

    def update(self, resource: api_resource.Resource) -> None:
        self.updated.append(resource.name)
        if resource.spec is not None:
            self.names.add(resource.spec.secret_name)

    def remove(self, uid: str) -> None:
        self.held.pop(uid, None)

    def logins(self, uid: str) -> Any:
        return self.held.get(uid, {})

    def expecting(self, uids: Iterable[str]) -> bool:
        return bool(self.awaited & set(uids))

    def secret_names(self) -> frozenset[str]:
        return frozenset(self.names)

    def sources(self) -> frozenset[Any]:
        return frozenset()

    def gone(self) -> frozenset[str]:
        return frozenset()

    def left(self) -> dict[str, tuple[spec.Namespaces, ...]]:
        return self.scopes

    def rows(self, uid: str) -> Collection[Any]:
        return ()

    def refresh_handled(self, uid: str) -> str:
        return ""


class Watches:
    """Everything is watched."""

    def need(self, secret_names: frozenset[str], sources: Iterable[tuple[str, str]]) -> None:
        """Watch nothing more."""

    def synced(self, secret_name: str) -> bool:
        return True

    def refused(self, secret_name: str) -> bool:
        return False


class World:
    """Three namespaces with a default account each, and the engine at work on them."""

    def __init__(self) -> None:
        self.api = simulated_api.SimulatedApi()
        self.seen = mirror.Mirror(lambda namespace, urgent: self.engine.touch(namespace, urgent))
        self.logins = Logins()
        hand = writer.Writer(self.api, self.seen)  # type: ignore[arg-type]
        self.engine = engine.Engine(self.seen, self.logins, hand, Watches(), protected=())  # type: ignore[arg-type]
        for name in NAMESPACES:
            self.seen.namespaces.upsert({"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}})
            path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            account = self.api.create(path, {"metadata": {}}, "kube-controller-manager")
            self.seen.accounts.upsert(account.rendered())

    def declare(self, name: str, *, refresh: str = "", generation: int = 1, **spec: Any) -> str:
        """Create or change a cluster resource for all namespaces; return its UID."""
        parsed = api_resource.parse(
            {
                "kind": names.CLUSTER_KIND,
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "generation": generation,
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "annotations": {names.REFRESH: refresh} if refresh else {},
                },
                "spec": {
                    "registries": [{"server": f"{name}.example.com", "login": {"secretRef": {"name": "x"}}}],
                    "namespaces": {"names": ["*"]},
                    **spec,
                },
            }
        )
        assert not parsed.problems
        self.engine.upsert(parsed)
        return parsed.uid

    def publish(self, uid: str, server: str, password: str, expires: datetime.datetime | None = None) -> None:
        """Let a login arrive."""
        login = dockerconfig.Login("user", password)
        self.logins.held.setdefault(uid, {})[server] = (login, f"version-{password}", expires)
        self.logins.awaited.discard(uid)
        self.engine.published(frozenset({uid}))

    def has(self, name: str = names.DEFAULT_SECRET_NAME) -> list[dict[str, str]]:
        """Return server to password of every namespace's Secret of a name."""
        found = [self.api.objects.get(f"/api/v1/namespaces/{each}/secrets/{name}") for each in NAMESPACES]
        return [
            {
                server: login.password
                for server, login in dockerconfig.parse(simulated_api.content_of(stored.body)).logins.items()
            }
            if stored is not None
            else {}
            for stored in found
        ]

    def writes(self) -> int:
        """Return how often a Secret was written."""
        return sum(1 for _, path, _, _ in self.api.log if "/secrets/" in path)

    async def everywhere(self, wanted: dict[str, str], name: str = names.DEFAULT_SECRET_NAME) -> None:
        """Wait until every namespace has just these logins and there is nothing to do."""

        async def done() -> bool:
            return self.has(name) == [wanted] * len(NAMESPACES) and not self.engine.queue.busy

        await eventually(done, f"{wanted} everywhere", seconds=30, every=0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    running = asyncio.create_task(made.engine.run(lambda: None))
    await asyncio.sleep(0)
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_one_plan_a_namespace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a first login and its Secrets and entries everywhere, each namespace is planned once."""
    uid = world.declare("a")
    world.logins.awaited.add(uid)
    planned: list[str] = []
    observe = world.engine._observe
    monkeypatch.setattr(
        world.engine, "_observe", lambda name, *rest: (planned.append(name), observe(name, *rest))[1]
    )
    await eventually(_idle(world), "the first look", seconds=30, every=0.01)
    planned.clear()
    world.publish(uid, QUAY, "one")
    await world.everywhere({QUAY: "one"})
    assert sorted(planned) == sorted(NAMESPACES)
    assert world.engine.facts(uid).count.attached == 3  # type: ignore[union-attr]


async def test_refresh_alone_plans_nothing(world: World) -> None:
    """A wish for fresh logins goes to the keeper; no namespace is looked at until there is something new."""
    uid = world.declare("a")
    world.publish(uid, QUAY, "one")
    await world.everywhere({QUAY: "one"})
    world.declare("a", refresh="now")
    assert world.logins.updated == ["a", "a"]
    assert not world.engine.queue.busy
    facts = world.engine.facts(uid)
    assert facts is not None
    assert not facts.pending
    world.publish(uid, QUAY, "two")
    await world.everywhere({QUAY: "two"})


async def test_many_first_logins_are_one_write(world: World) -> None:
    """Resources that are created together are written together, though their logins come one by one."""
    uids = [f"uid-{name}" for name in "abcde"]
    world.logins.awaited |= set(uids)
    for name in "abcde":
        world.declare(name)
    for number, uid in enumerate(uids):
        world.publish(uid, f"r{number}.example.com", "pw")
        await asyncio.sleep(0.01)
    await world.everywhere({f"r{number}.example.com": "pw" for number in range(5)})
    assert world.writes() == len(NAMESPACES)


async def test_a_slow_provider_does_not_hold_up_the_others(world: World) -> None:
    """What has arrived is handed out soon, even if the first login of another resource never comes."""
    world.logins.awaited.add("uid-slow")
    world.declare("slow")
    uid = world.declare("a")
    world.publish(uid, QUAY, "one")
    await world.everywhere({QUAY: "one"})
    assert world.logins.awaited == {"uid-slow"}


async def test_who_has_nothing_goes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces without any login are served before those where one is only renewed."""
    uid = world.declare("a", namespaces={"names": ["team-a", "team-b"]})
    world.publish(uid, QUAY, "one")
    await eventually(_idle(world), "the first logins", seconds=30, every=0.01)
    planned: list[str] = []
    observe = world.engine._observe
    monkeypatch.setattr(
        world.engine, "_observe", lambda name, *rest: (planned.append(name), observe(name, *rest))[1]
    )
    world.declare("a", generation=2)
    await world.everywhere({QUAY: "one"})
    assert planned[0] == "team-c"


async def test_an_urgent_namespace_waits_for_nobody(world: World) -> None:
    """A namespace that is born gets what there is at once."""
    uid = world.declare("a")
    world.publish(uid, QUAY, "one")
    await world.everywhere({QUAY: "one"})
    world.logins.awaited.add("uid-slow")
    world.declare("slow")
    world.seen.namespaces.upsert({"metadata": {"name": "new", "uid": "uid-new", "resourceVersion": "9"}})

    async def there() -> bool:
        return "/api/v1/namespaces/new/secrets/regcred" in world.api.objects

    await eventually(there, "the new namespace to be served", seconds=30, every=0.001)


async def test_a_login_that_ends_gives_way(world: World) -> None:
    """When the winner's login ends and nothing newer has come, the living login of the other resource is handed out."""
    now = datetime.datetime.now(datetime.UTC)
    first, second = world.declare("a"), world.declare("b")
    world.publish(second, QUAY, "lives")
    world.publish(first, QUAY, "ends", now + datetime.timedelta(seconds=1))
    await world.everywhere({QUAY: "ends"})
    await world.everywhere({QUAY: "lives"})


async def test_a_new_name_lets_go_of_the_old_one(world: World) -> None:
    """A resource that moves to another Secret name leaves nothing under the old one, without anybody's event."""
    uid = world.declare("a")
    world.publish(uid, QUAY, "one")
    await world.everywhere({QUAY: "one"})
    world.declare("a", generation=2, secretName="other")
    await world.everywhere({QUAY: "one"}, "other")
    await world.everywhere({}, names.DEFAULT_SECRET_NAME)
    listed = [account.pull_secrets for account in world.seen.accounts]
    assert listed == [("other",)] * 3


async def test_what_went_unseen() -> None:
    """Where the Secret of a resource that is gone went while nobody watched, its entry goes, and no other's does."""
    made = World()
    for name in NAMESPACES:
        path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        made.api.update(
            path, "argocd", lambda body: body.update(imagePullSecrets=[{"name": "x"}, {"name": "regcred"}])
        )
        made.seen.accounts.upsert(made.api.objects[path].rendered())
    made.logins.scopes = {"regcred": (spec.Namespaces(names=("team-a", "gone-*")),)}
    running = asyncio.create_task(made.engine.run(lambda: None))
    await asyncio.sleep(0)
    await eventually(_idle(made), "everything to be looked at", seconds=30, every=0.01)
    running.cancel()
    listed = {account.namespace: account.pull_secrets for account in made.seen.accounts}
    assert listed == {"team-a": ("x",), "team-b": ("x", "regcred"), "team-c": ("x", "regcred")}


async def test_what_was_planned_is_looked_at_again(world: World) -> None:
    """Where an answer is not what was written, the namespace is planned again."""
    uid = world.declare("a")
    apply = world.api._apply
    once = iter([True])

    def meddling(path: str, *rest: Any, **more: Any) -> Any:
        answer = apply(path, *rest, **more)
        if "team-b" in path and next(once, False):
            world.api.update(path, "admission", lambda body: body.update(data={}))
            return world.api.objects[path].rendered()
        return answer

    world.api._apply = meddling  # type: ignore[method-assign]
    world.publish(uid, QUAY, "one")
    await world.everywhere({QUAY: "one"})
    assert world.writes() == len(NAMESPACES) + 1


def _idle(world: World) -> Any:
    async def idle() -> bool:
        return not world.engine.queue.busy

    return idle
