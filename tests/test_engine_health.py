"""The engine's own decisions: what overtakes what, when a first pass is over, and when a worker is stuck."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.waiting import eventually
from regcred import engine, runtime, settings
from regcred.api import names, resource
from regcred.cluster import heartbeat, mirror
from regcred.distribution import writer


class Logins:
    """A keeper that has nothing to hand out."""

    def __init__(self) -> None:
        self.updated: list[int] = []

    def update(self, parsed: resource.Resource) -> None:
        self.updated.append(parsed.generation)

    def remove(self, uid: str) -> None:
        pass

    def logins(self, uid: str) -> dict[str, Any]:
        return {}

    def expecting(self, uids: Any) -> bool:
        return False

    def secret_names(self) -> frozenset[str]:
        return frozenset({names.DEFAULT_SECRET_NAME})

    def sources(self) -> frozenset[Any]:
        return frozenset()

    def gone(self) -> frozenset[str]:
        return frozenset()

    def left(self) -> dict[str, Any]:
        return {}


class Watches:
    """Everything is listed."""

    def need(self, secret_names: Any, sources: Any) -> None:
        pass

    def synced(self, secret_name: str) -> bool:
        return True

    def refused(self, secret_name: str) -> bool:
        return False


class Hand:
    """A writer that writes nothing, or never comes back."""

    def __init__(self) -> None:
        self.stuck = asyncio.Event()

    async def execute(self, plan: Any, moved: Any = None) -> writer.Result:
        self.stuck.set()
        await asyncio.Event().wait()
        return writer.Result()


def declared(uid: str = "u1", *, version: int, generation: int = 1) -> resource.Resource:
    """A resource of the cluster kind for every namespace."""
    return resource.parse(
        {
            "kind": names.CLUSTER_KIND,
            "metadata": {
                "name": "platform",
                "uid": uid,
                "resourceVersion": str(version),
                "generation": generation,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "registries": [{"server": "quay.io", "login": {"secretRef": {"name": "quay"}}}],
                "namespaces": {},
            },
        }
    )


class Made:
    """An engine with its surroundings."""

    def __init__(self) -> None:
        self.seen = mirror.Mirror(lambda namespace, urgent: self.engine.touch(namespace, urgent))
        self.logins, self.hand = Logins(), Hand()
        self.engine = engine.Engine(
            self.seen,
            self.logins,  # type: ignore[arg-type]
            self.hand,  # type: ignore[arg-type]
            Watches(),
            protected=(),
            workers=2,
        )

    def born(self, name: str, *, secret: bool = False) -> None:
        meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": "5"}
        self.seen.namespaces.upsert({"metadata": meta})
        if secret:
            # Ours, and nobody asks for it: there is something to delete.
            annotations = {names.CONTRIBUTORS: "{}"}
            labels = {names.MANAGED_BY_LABEL: names.MANAGED_BY}
            self.seen.secrets.upsert(
                {
                    "metadata": {
                        **meta,
                        "name": names.DEFAULT_SECRET_NAME,
                        "namespace": name,
                        "annotations": annotations,
                        "labels": labels,
                    }
                }
            )

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.engine.run(lambda: None))
        try:
            yield
            assert not task.done(), "the engine has ended"
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def test_an_old_list_does_not_bring_back_an_old_state() -> None:
    """A list that was read before an event and arrives after it changes nothing."""
    made = Made()
    made.engine.upsert(declared(version=10, generation=2))
    made.engine.upsert(declared(version=9, generation=1))
    assert made.engine.resources["u1"].generation == 2
    assert made.logins.updated == [2]
    made.engine.upsert(declared(version=11, generation=3))
    assert made.logins.updated == [2, 3]


def test_an_old_list_does_not_bring_back_a_removed_resource() -> None:
    """A resource that is gone stays gone, whatever a list that is older still holds; a new one of its name does not."""
    made = Made()
    made.engine.upsert(declared(version=10))
    made.engine.remove("u1")
    assert not made.engine.lacks("u1", "9")
    made.engine.upsert(declared(version=9))
    assert made.engine.resources == {}
    made.engine.upsert(declared("u2", version=12))
    assert set(made.engine.resources) == {"u2"}


def test_what_is_lacking_is_what_is_newer() -> None:
    """Only a resource that is unknown, or known of an earlier version, counts as missed."""
    made = Made()
    assert made.engine.lacks("u1", "9")
    made.engine.upsert(declared(version=10))
    assert [made.engine.lacks("u1", version) for version in ("9", "10", "11")] == [False, False, True]


async def test_a_first_pass_is_over_when_every_namespace_was_looked_at() -> None:
    """Not before the engine runs, and not while a namespace that was there at the start is in work."""
    made = Made()
    assert not made.engine.passed
    made.born("a")
    made.born("b", secret=True)
    async with made.working():
        async with asyncio.timeout(30):
            await made.hand.stuck.wait()
        await eventually(_done(lambda: made.engine.queue.depth == 0), "the queue to be empty")
        assert not made.engine.passed
    calm = Made()
    calm.born("a")
    async with calm.working():
        await eventually(_done(lambda: calm.engine.passed), "the pass to be over")


async def test_a_leader_is_ready_only_after_its_first_pass() -> None:
    """Between the first listing and the engine's start there is nothing to show for it yet."""
    operator = runtime.Operator(settings.Settings())
    assert operator._ready() == ""
    operator._leading = True
    assert operator._ready() == "the first listing is under way"
    made = Made()
    made.born("a")
    operator._engine = made.engine
    assert operator._ready() == "the first pass is under way"
    async with made.working():
        await eventually(_done(lambda: operator._ready() == ""), "readiness")


async def test_liveness_names_the_namespace_in_which_a_worker_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits for ever in one namespace is told, and one that has nothing to do is not."""
    operator = runtime.Operator(settings.Settings())
    made = Made()
    made.engine.heartbeat = heartbeat.Heartbeat(limit=0.2)
    made.born("calm")
    made.born("caught", secret=True)
    operator._parts = {"engine": made.engine.heartbeat}
    async with made.working():
        async with asyncio.timeout(30):
            await made.hand.stuck.wait()
        assert operator._alive() == ""
        await eventually(_done(lambda: "(caught)" in operator._alive()), "liveness to tell")
        assert operator._alive().startswith("the engine has not moved for 0 s")


def _done(check: Any) -> Any:
    async def asked() -> bool:
        return bool(check())

    return asked
