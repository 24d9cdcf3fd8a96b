"""Single Secrets are followed by asking, whatever the answers are, and nobody is asked more often than said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev.waiting import eventually
from regcred.cluster import polling
from tests.cluster.fake_api import FakeApi, client_of, fake_api, kubeconfig, refuses, says, secret

Told = list[tuple[str, str, str | None]]


@pytest.fixture
async def following(tmp_path: Path) -> AsyncIterator[tuple[FakeApi, polling.Poller, Told]]:
    """A fake API server, and a poller of its Secrets that asks every 20 milliseconds."""
    told: Told = []
    async with fake_api() as fake:
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"token": "t1"})
        async with client_of(path) as client:
            poller = polling.Poller(client, lambda *row: told.append(row), every=0.02)
            running = asyncio.create_task(poller.run())
            yield fake, poller, told
            assert not running.done()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def heard(told: Told, *rows: tuple[str, str, str | None]) -> None:
    async def same() -> bool:
        return told == list(rows)

    await eventually(same, f"{rows} to be told", every=0.01)


async def test_changes(following: tuple[FakeApi, polling.Poller, Told], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change is told once: what is there, what is new, and what is gone."""
    monkeypatch.setattr(polling, "_FIRST", 0.01)
    fake, poller, told = following
    fake.then(says(secret("a", 5)))
    poller.need([("default", "a")])
    await heard(told, ("default", "a", "5"))
    fake.script[:] = [says(secret("a", 6))]
    await heard(told, ("default", "a", "5"), ("default", "a", "6"))
    fake.script[:] = [refuses(404, "NotFound")]
    await heard(told, ("default", "a", "5"), ("default", "a", "6"), ("default", "a", None))
    assert {path for _, path, _ in fake.requests} == {"/api/v1/namespaces/default/secrets/a"}


@pytest.mark.parametrize("status", [403, 500])
async def test_no_answer(
    following: tuple[FakeApi, polling.Poller, Told], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """An error says nothing about the Secret, and it is asked for again."""
    monkeypatch.setattr(polling, "_FIRST", 0.01)
    fake, poller, told = following
    fake.then(refuses(status, "Whatever"))
    poller.need([("default", "a")])

    async def asked_twice() -> bool:
        return len(fake.requests) > 4

    await eventually(asked_twice, "a second question", every=0.01)
    assert told == []
    fake.script[:] = [says(secret("a", 5))]
    await heard(told, ("default", "a", "5"))


async def test_not_needed_any_more(
    following: tuple[FakeApi, polling.Poller, Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody needs any more is not asked for, and told anew when it is needed again."""
    monkeypatch.setattr(polling, "_FIRST", 0.01)
    fake, poller, told = following
    fake.then(says(secret("a", 5)))
    poller.need([("default", "a")])
    await heard(told, ("default", "a", "5"))
    poller.need([])
    assert len(poller) == 0
    poller.need([("default", "a")])
    await heard(told, ("default", "a", "5"), ("default", "a", "5"))
