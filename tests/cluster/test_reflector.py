"""The reflector: a store that stays equal to a collection, whatever happens to lists and streams."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors, reflector
from tests.cluster.fake_api import (
    FakeApi,
    client_of,
    event,
    expired,
    fake_api,
    hangs,
    kubeconfig,
    listing,
    refuses,
    says,
    secret,
    streams,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from aiohttp import web

    from dev.cluster import Cluster
    from dev.controlplane import ControlPlane

SECRETS = "/api/v1/namespaces/default/secrets"


class Recorder:
    """A store that remembers what it holds, and every call.

    Attributes:
        rows: (namespace, name) to resource version.
        calls: every call, in order.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], str] = {}
        self.calls: list[tuple[str, Any]] = []

    def upsert(self, body: dict[str, Any]) -> bool:
        meta = body["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        before, self.rows[key] = self.rows.get(key), meta["resourceVersion"]
        self.calls.append(("upsert", meta["name"]))
        return before != self.rows[key]

    def remove(self, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        self.rows.pop((meta.get("namespace", ""), meta["name"]), None)
        self.calls.append(("remove", meta["name"]))

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> bool:
        kept = set(seen)
        gone = set(self.rows) - kept
        self.rows = {key: value for key, value in self.rows.items() if key in kept}
        self.calls.append(("replace", version))
        return bool(gone)

    def names(self) -> set[str]:
        return {name for _, name in self.rows}


class Running:
    """A reflector at work."""

    def __init__(self, client: api.Client, collection: reflector.Collection, **more: Any) -> None:
        self.store = Recorder()
        self.states: list[str] = []
        self.pauses: list[float] = []
        self.restarts: list[str] = []
        self.reflector = reflector.Reflector(
            client,
            collection,
            self.store,
            on_state=self._state,
            on_restart=self.restarts.append,
            sleep=self._sleep,
            **more,
        )

    def _state(self, about: reflector.Reflector) -> None:
        self.states.append("listed" if about.error is None else type(about.error).__name__)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[Running]:
        task = asyncio.create_task(self.reflector.run())
        try:
            yield self
            assert not task.done(), "the reflector has ended"
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def holds(self, *names: str) -> None:
        async def same() -> bool:
            return self.store.names() == set(names)

        await eventually(same, f"the store to hold {names}", every=0.01)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[tuple[FakeApi, Running]]:
    """A fake API server, and a reflector of its Secrets that never really waits."""
    async with fake_api() as running:
        path = kubeconfig(tmp_path / "kubeconfig", running.url, {"token": "t1"})
        async with client_of(path) as client:
            yield running, Running(client, reflector.Collection("secrets", SECRETS), silence=0.3)


class TestReal:
    """Against the real API server."""

    async def test_follows_a_collection(self, control_plane: Cluster, namespace: str) -> None:
        """What is there is listed, and every change arrives."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        async with client_of(control_plane.admin_kubeconfig) as client:
            await client.request("POST", path, body={"metadata": {"name": "a"}})
            running = Running(client, reflector.Collection("configmaps", path, {"labelSelector": "!x"}))
            async with running.working():
                async with asyncio.timeout(20):
                    await running.reflector.synced.wait()
                assert "a" in running.store.names()
                others = running.store.names() - {"a"}
                await client.request("POST", path, body={"metadata": {"name": "b"}})
                await running.holds("a", "b", *others)
                await client.request(
                    "PATCH", f"{path}/a", body={"metadata": {"labels": {"x": "y"}}}, content_type=api.MERGE
                )
                # For a selector, what does not match any more is gone.
                await running.holds("b", *others)
                await client.request("DELETE", f"{path}/b")
                await running.holds(*others)
                assert running.states == ["listed"]

    async def test_many_pages(
        self, control_plane: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A collection of several pages is whole after the first listing, and replaced in one go."""
        monkeypatch.setattr(api, "PAGE", 7)
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        selector = {"labelSelector": "many=yes"}
        async with client_of(control_plane.admin_kubeconfig) as client:
            for number in range(20):
                metadata = {"name": f"c{number}", "labels": {"many": "yes"}}
                await client.request("POST", path, body={"metadata": metadata})
            running = Running(client, reflector.Collection("configmaps", path, selector, metadata=True))
            async with running.working():
                await running.holds(*(f"c{number}" for number in range(20)))
                async with asyncio.timeout(20):
                    await running.reflector.synced.wait()
                assert [call for call, _ in running.store.calls].count("replace") == 1

    async def test_an_outage(self, owned_control_plane: ControlPlane, namespace: str) -> None:
        """What was created and deleted while the API server was away is noticed when it is back."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        params = {"labelSelector": "outage=yes"}

        def body(name: str) -> dict[str, Any]:
            return {"metadata": {"name": name, "labels": {"outage": "yes"}}}

        async with client_of(owned_control_plane.admin_kubeconfig) as client:
            await client.request("POST", path, body=body("before"))
            collection = reflector.Collection("configmaps", path, params)
            store, seen = Recorder(), []
            watched = reflector.Reflector(
                client, collection, store, on_state=lambda about: seen.append(about.error is None)
            )
            task = asyncio.create_task(watched.run())
            try:

                async def holds_before() -> bool:
                    return store.names() == {"before"}

                await eventually(holds_before, "the first listing", every=0.02)
                await owned_control_plane.stop_apiserver()
                await owned_control_plane.start_apiserver()
                await client.request("POST", path, body=body("after"))
                await client.request("DELETE", f"{path}/before")

                async def holds_after() -> bool:
                    return store.names() == {"after"}

                await eventually(holds_after, "the changes during the outage", every=0.05)
                assert not task.done()
                assert watched.error is None
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def test_a_right_that_comes_later(self, control_plane: Cluster, namespace: str) -> None:
        """A collection that RBAC refuses is told as such, and followed as soon as it is allowed."""
        await control_plane.kubectl("create", "serviceaccount", "late", f"--namespace={namespace}")
        path = await control_plane.kubeconfig_for_service_account(namespace, "late")
        async with client_of(path) as client:
            collection = reflector.Collection("configmaps", f"/api/v1/namespaces/{namespace}/configmaps")
            store = Recorder()
            told: list[str] = []

            def state(about: reflector.Reflector) -> None:
                told.append(type(about.error).__name__ if about.error else "listed")

            watched = reflector.Reflector(
                client, collection, store, on_state=state, sleep=lambda _: asyncio.sleep(0.05)
            )
            task = asyncio.create_task(watched.run())
            try:

                async def refused() -> bool:
                    return isinstance(watched.error, errors.Forbidden)

                await eventually(refused, "the refusal", every=0.02)
                assert not watched.synced.is_set()
                rule = ("--verb=list,watch", "--resource=configmaps", f"--namespace={namespace}")
                await control_plane.kubectl("create", "role", "late", *rule)
                await control_plane.kubectl(
                    *("create", "rolebinding", "late", "--role=late", f"--serviceaccount={namespace}:late"),
                    f"--namespace={namespace}",
                )
                async with asyncio.timeout(30):
                    await watched.synced.wait()
                assert watched.error is None
                assert told == ["Forbidden", "listed"]
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class TestLists:
    """Lists, as they go wrong."""

    async def test_expires_between_two_pages(self, fake: tuple[FakeApi, Running]) -> None:
        """A listing that takes too long begins again, and nothing is forgotten because of half of one."""
        server, running = fake
        server.then(
            says(listing(secret("a", 1), secret("b", 2), version=100)),
            streams(expired()),
            says(listing(secret("a", 1), version=110, more="next")),
            refuses(410, "Expired"),
            says(listing(secret("a", 1), secret("c", 111), version=120)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("a", "c")
        replaced = [version for call, version in running.store.calls if call == "replace"]
        assert replaced == ["100", "120"]

    async def test_that_always_expire_are_not_hammered(self, fake: tuple[FakeApi, Running]) -> None:
        """A server whose lists always expire is asked less and less often."""
        server, running = fake
        server.then(refuses(410, "Expired"))
        async with running.working():

            async def many() -> bool:
                return len(running.pauses) >= 12

            await eventually(many, "many attempts", every=0.01)
        assert running.pauses[0] <= 0.5
        assert min(running.pauses[8:12]) >= 5.0
        assert max(running.pauses) <= 10.0

    async def test_watches_that_always_expire_are_not_hammered(self, fake: tuple[FakeApi, Running]) -> None:
        """A server that calls its newest version expired is asked less and less often, and the store stays."""
        server, running = fake

        async def answer(request: web.Request) -> web.StreamResponse:
            if "watch" in request.query:
                return await streams(expired())(request)
            return await says(listing(secret("a", 1)))(request)

        server.then(answer)
        async with running.working():

            async def many() -> bool:
                return len(running.pauses) >= 12

            await eventually(many, "many attempts", every=0.01)
            assert running.store.names() == {"a"}
        assert min(running.pauses[8:12]) >= 5.0
        assert running.states == ["listed"]

    async def test_empties_nothing_on_nonsense(self, fake: tuple[FakeApi, Running]) -> None:
        """A page of a proxy in place of a list takes nothing out of the store."""
        server, running = fake
        server.then(
            says(listing(secret("a", 1))),
            streams(expired()),
            *[says(b"<html>Log in</html>", content_type="text/html")] * 4,
            *[says({"metadata": {}})] * 4,
            says(listing(secret("a", 1), secret("b", 2))),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("a", "b")
        assert ("remove", "a") not in running.store.calls
        assert running.states == ["listed", "Unavailable", "listed"]

    async def test_backs_off(self, fake: tuple[FakeApi, Running], caplog: pytest.LogCaptureFixture) -> None:
        """Failures are tried later and later, up to ten seconds, or thirty for a refusal; the log tells of two."""
        server, running = fake
        server.then(refuses(403, "Forbidden"))
        async with running.working():

            async def many() -> bool:
                return len(running.pauses) >= 15

            await eventually(many, "many attempts", every=0.01)
        assert 15.0 <= running.pauses[12] <= 30.0
        assert running.states == ["Forbidden"]
        warned = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(warned) == 2

    async def test_patience_is_bounded(self, fake: tuple[FakeApi, Running]) -> None:
        """A proxy that asks us to come back next week is asked again in half a minute."""
        server, running = fake
        server.then(refuses(400, "Bad", headers={"Retry-After": "604800"}))
        async with running.working():

            async def some() -> bool:
                return len(running.pauses) >= 3

            await eventually(some, "some attempts", every=0.01)
        assert max(running.pauses) <= 30.0


class TestStreams:
    """Streams, as they go wrong."""

    async def test_silent_ones(self, fake: tuple[FakeApi, Running]) -> None:
        """A stream that is half open is left and everything listed anew, counted, and what happened in the gap is there."""
        server, running = fake
        server.then(
            says(listing(secret("a", 1), version=100)),
            streams(event("ADDED", secret("b", 105)), hang=True),
            says(listing(secret("b", 105), secret("c", 107), version=110)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("b", "c")
            assert running.restarts == ["silent"]

    async def test_quiet_ones(self, fake: tuple[FakeApi, Running]) -> None:
        """Where the list after a silence brings no news, the next silences lead to a new stream, which tells of all."""
        server, running = fake
        same = says(listing(secret("a", 1), version=100))
        server.then(
            same,
            streams(hang=True),
            same,
            *[streams(hang=True)] * 3,
            streams(event("ADDED", secret("b", 105)), hang=True),
        )
        async with running.working():
            await running.holds("a", "b")
            assert running.restarts == ["silent"]
        asked = [path for _, path, _ in server.requests]
        assert ["limit" in path for path in asked[:7]] == [True, False, True, False, False, False, False]
        assert all("resourceVersion=100" in path for path in asked[3:7])

    async def test_quiet_ones_for_long(self, fake: tuple[FakeApi, Running]) -> None:
        """Now and then it is listed anew all the same: a server's memory may have stopped without a word."""
        server, running = fake
        same = says(listing(secret("a", 1), version=100))
        server.then(
            same,
            streams(hang=True),
            same,
            *[streams(hang=True)] * 8,
            says(listing(secret("b", 105), version=110)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("b")
            assert running.restarts == ["silent", "silent"]

    async def test_ones_that_are_silent_for_ever(self, fake: tuple[FakeApi, Running]) -> None:
        """Where silence has hidden something, each silence leads to a new list, until one brings no news."""
        server, running = fake
        server.then(
            says(listing(secret("a", 1), version=100)),
            streams(hang=True),
            says(listing(secret("b", 105), version=110)),
            streams(hang=True),
            says(listing(version=120)),
            streams(hang=True),
            says(listing(secret("c", 125), version=130)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("c")
            assert running.restarts == ["silent"] * 3

    async def test_dripping_ones(self, fake: tuple[FakeApi, Running]) -> None:
        """A stream whose bytes never make an event is as silent as one without bytes."""
        server, running = fake
        drip: list[bytes | float] = [part for _ in range(40) for part in (b" ", 0.05)]
        server.then(
            says(listing(version=100)),
            streams(*drip, hang=True),
            says(listing(secret("a", 107))),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("a")
            assert running.restarts == ["silent"]

    async def test_cut_ones(self, fake: tuple[FakeApi, Running]) -> None:
        """A stream that is cut in the middle of an event is taken up after the last whole one."""
        server, running = fake
        server.then(
            says(listing(version=100)),
            streams(event("ADDED", secret("a", 105)), event("ADDED", secret("b", 106))[:-9], cut=True),
            streams(event("ADDED", secret("b", 106)), hang=True),
        )
        async with running.working():
            await running.holds("a", "b")
        assert "resourceVersion=105" in server.requests[2][1]

    async def test_bookmarks(self, fake: tuple[FakeApi, Running]) -> None:
        """A bookmark moves the place where the next stream begins, and touches nothing."""
        server, running = fake
        server.then(
            says(listing(secret("a", 1), version=100)),
            streams(event("BOOKMARK", {"metadata": {"resourceVersion": "500"}}), 0.05, cut=True),
            streams(event("ADDED", secret("b", 501)), hang=True),
        )
        async with running.working():
            await running.holds("a", "b")
        assert "resourceVersion=500" in server.requests[2][1]

    async def test_expired(self, fake: tuple[FakeApi, Running]) -> None:
        """After 410 everything is listed anew, and what was deleted meanwhile goes."""
        server, running = fake
        server.then(
            says(listing(secret("a", 1), secret("b", 2), version=100)),
            streams(event("ADDED", secret("c", 105)), expired()),
            says(listing(secret("a", 1), secret("d", 200), version=210)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("a", "d")
        assert "resourceVersion=210" in server.requests[3][1]

    async def test_errors_in_the_stream(self, fake: tuple[FakeApi, Running]) -> None:
        """A server's trouble in a stream leads to another stream, and to a new list only if it goes on."""
        server, running = fake
        broken = streams(event("ERROR", {"code": 500, "reason": "InternalError"}))
        server.then(
            says(listing(secret("a", 1), version=100)),
            *[broken] * 6,
            says(listing(secret("b", 2), version=200)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("b")
        assert sum("limit" in path for _, path, _ in server.requests) == 2
        assert running.states == ["listed", "Unavailable", "listed"]

    async def test_nonsense_in_the_stream(self, fake: tuple[FakeApi, Running]) -> None:
        """Lines that are no events end the stream, and never the reflector."""
        server, running = fake
        lines = (b"null\n", b"[]\n", b"{}\n", b"<html>\n", b'{"type": "ADDED", "object": {"metadata": null}}\n')
        server.then(
            says(listing(secret("a", 1), version=100)),
            *(streams(line) for line in lines),
            streams(event("ADDED", secret("b", 101)), hang=True),
        )
        async with running.working():
            await running.holds("a", "b")

    async def test_streams_that_end_at_once(self, fake: tuple[FakeApi, Running]) -> None:
        """A proxy that ends every stream at once is not hammered."""
        server, running = fake

        async def answer(request: web.Request) -> web.StreamResponse:
            if "watch" in request.query:
                return await streams()(request)
            return await says(listing(secret("a", 1)))(request)

        server.then(answer)
        async with running.working():

            async def many() -> bool:
                return len(running.pauses) >= 15

            await eventually(many, "many streams", every=0.01)
        assert running.pauses[0] <= 0.1
        assert min(running.pauses[10:15]) >= 5.0
        assert sum("limit" in path for _, path, _ in server.requests) == 1

    async def test_that_never_begin(self, fake: tuple[FakeApi, Running]) -> None:
        """Watches that are accepted and never answered lead to a new list in the end."""
        server, running = fake

        async def answer(request: web.Request) -> web.StreamResponse:
            return await (hangs() if "watch" in request.query else says(listing(secret("a", 1))))(request)

        server.then(answer)
        async with running.working():

            async def relisted() -> bool:
                return sum("limit" in path for _, path, _ in server.requests) >= 2

            await eventually(relisted, "a second list", every=0.05)
            assert running.store.names() == {"a"}

    async def test_forbidden_watches(self, fake: tuple[FakeApi, Running]) -> None:
        """A right to list without a right to watch is told, and the list still serves."""
        server, running = fake

        async def answer(request: web.Request) -> web.StreamResponse:
            if "watch" in request.query:
                return await refuses(403, "Forbidden")(request)
            return await says(listing(secret("a", 1)))(request)

        server.then(answer)
        async with running.working():
            await running.holds("a")

            async def told() -> bool:
                return "Forbidden" in running.states

            await eventually(told, "the refusal", every=0.01)

    async def test_a_full_list_now_and_then(
        self, fake: tuple[FakeApi, Running], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After some hours everything is listed anew, whatever the streams have said."""
        monkeypatch.setattr(reflector, "_RELIST_EVERY", 0.2)
        server, running = fake
        server.then(
            says(listing(secret("a", 1), secret("missed", 2), version=100)),
            streams(event("ADDED", secret("b", 105)), 0.5),
            says(listing(secret("a", 1), secret("b", 105), version=110)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("a", "b")
        assert running.states == ["listed"]


class TestHealth:
    """What probes and metrics see."""

    async def test_when_it_was_heard_of(self, fake: tuple[FakeApi, Running]) -> None:
        """A refusal is a sign of life; a connection that is lost is none."""
        server, running = fake
        server.then(refuses(403, "Forbidden"))
        running.reflector.heard_at = 0.0
        async with running.working():

            async def heard() -> bool:
                return running.reflector.heard_at > 0

            await eventually(heard, "the refusal to count", every=0.01)

    async def test_restarts(self, fake: tuple[FakeApi, Running]) -> None:
        """It counts how often it had to begin anew."""
        server, running = fake
        server.then(
            says(listing(version=100)),
            streams(expired()),
            says(listing(secret("a", 1), version=110)),
            streams(hang=True),
        )
        async with running.working():
            await running.holds("a")
            assert running.reflector.restarts == 1


async def test_a_cache_that_cannot_be_watched_on(tmp_path: Path) -> None:
    """The first list comes from the server's cache; where its version has expired, the next comes from storage."""
    async with fake_api() as running:
        path = kubeconfig(tmp_path / "kubeconfig", running.url, {"token": "t1"})
        async with client_of(path) as client:
            of_secrets = Running(client, reflector.Collection("secrets", SECRETS, cached=True), silence=0.3)
            running.then(
                says(listing(secret("old", 5), version=6)),
                streams(expired()),
                says(listing(secret("new", 50), version=60)),
                streams(event("ADDED", secret("newer", 61)), hang=True),
            )
            async with of_secrets.working():
                await of_secrets.holds("new", "newer")
            lists = [path for _, path, _ in running.requests if "watch=true" not in path]
            assert ["resourceVersion=0" in path for path in lists] == [True, False]
