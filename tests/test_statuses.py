"""Statuses are written side by side, each for itself, and never by a replica that may not write."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from dev.waiting import eventually
from regcred import reporting, statuses
from regcred.api import names, resource
from regcred.cluster import errors, events, lease
from regcred.distribution import tally


async def until(check: Callable[[], bool], what: str) -> None:
    """Wait for something here."""

    async def asked() -> bool:
        return check()

    await eventually(asked, what, every=0.01)


class Api:
    """An API server that answers when it is let."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.at_once = self.most = 0
        self.gate = asyncio.Event()
        self.failing: set[str] = set()

    async def request(self, method: str, path: str, **_: Any) -> None:
        assert method == "PATCH"
        name = path.split("/")[-2]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if name in self.failing:
            raise errors.Unavailable(503, "busy")
        self.written.append(name)


class Silent:
    """Nobody listens to events."""

    def post(self, subject: events.Subject, event: events.Event) -> None:
        pass


def facts(name: str) -> reporting.Facts:
    """A tenant's resource whose one namespace is served."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.NAMESPACED_KIND,
        "metadata": {"name": name, "namespace": name, "uid": name, "generation": 1, "resourceVersion": "1"},
        "spec": {"registries": [{"server": "one.example", "login": {"secretRef": {"name": "x"}}}]},
    }
    return reporting.Facts(resource.parse(body), [], tally.Count(matched=1, synced=1))


@contextlib.asynccontextmanager
async def writing(api: Api, found: Any = facts, guard: Any = lambda: None) -> Any:
    """A writer at work."""
    writer = statuses.StatusWriter(api, Silent(), found)  # type: ignore[arg-type]
    task = asyncio.create_task(writer.run(guard))
    try:
        yield writer, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_several_at_once() -> None:
    """Thousands of resources do not wait for each other's answers, and the API server gets no more than eight at once."""
    api = Api()
    async with writing(api) as (writer, _):
        for number in range(40):
            writer.changed(f"t-{number:02d}")
        await until(lambda: api.at_once == 8, "eight statuses to be under way")
        api.gate.set()
        await until(lambda: len(api.written) == 40, "all to be written")
    assert api.most == 8
    assert len(set(api.written)) == 40


async def test_a_failure_stays_alone() -> None:
    """One that the API server refuses, or that cannot even be made, keeps no other from being written."""
    api = Api()
    api.gate.set()
    api.failing = {"t-03"}

    def found(uid: str) -> reporting.Facts:
        if uid == "t-05":
            raise RuntimeError("a defect")
        return facts(uid)

    async with writing(api, found) as (writer, task):
        for number in range(12):
            writer.changed(f"t-{number:02d}")
        await until(lambda: len(api.written) == 10, "the others to be written")
        assert not task.done()
    assert not {"t-03", "t-05"} & set(api.written)


async def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """While many namespaces are left the status is written every few seconds; the end of the pass is told at once."""
    monkeypatch.setattr(statuses, "_PACE", 0.01)
    api, left = Api(), 100
    api.gate.set()

    def found(uid: str) -> reporting.Facts:
        nonlocal left
        left = max(left - 1, 0)
        return dataclasses.replace(facts(uid), pending=left)

    async with writing(api, found) as (writer, _):

        async def looked() -> bool:
            writer.changed("t")
            return left == 0

        await eventually(looked, "the end of the pass", every=0.02)
        await until(lambda: len(api.written) > 1, "its status")
    # The first, the last, and on a slow machine one now and then.
    assert len(api.written) < 10


async def test_removed_while_others_are_written() -> None:
    """A resource that goes before its turn has no status written."""
    api = Api()
    async with writing(api) as (writer, _):
        for number in range(9):
            writer.changed(f"t-{number:02d}")
        await until(lambda: api.at_once == 8, "eight statuses to be under way")
        writer.removed("t-08")
        api.gate.set()
        await until(lambda: len(api.written) == 8, "the others to be written")
        assert writer.heartbeat.stuck() is None
    assert "t-08" not in api.written


async def test_without_the_lease_nothing_is_written() -> None:
    """The loss of the Lease ends the writer, whatever is due."""
    api = Api()
    api.gate.set()

    def guard() -> None:
        raise lease.LeaseLost("gone")

    async with writing(api, guard=guard) as (writer, task):
        writer.changed("t-00")
        await asyncio.wait([task], timeout=30)
        with pytest.raises(BaseExceptionGroup) as caught:
            task.result()
    assert caught.group_contains(lease.LeaseLost)
    assert api.written == []
