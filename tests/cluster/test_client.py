"""The client: on the real API server, and on a fake one for what a real one never answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import stat
import sys
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors, lease, tokens
from tests.cluster.fake_api import (
    FakeApi,
    breaks,
    by_token,
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
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dev.cluster import Cluster
    from dev.controlplane import ControlPlane
    from tests.cluster.fake_api import Answer

SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture
async def fake() -> AsyncIterator[FakeApi]:
    """A fake API server."""
    async with fake_api() as running:
        yield running


@pytest.fixture
async def client(fake: FakeApi, tmp_path: Path) -> AsyncIterator[api.Client]:
    """A client of the fake API server, with a token that does not change."""
    async with client_of(kubeconfig(tmp_path / "kubeconfig", fake.url, {"token": "t1"})) as made:
        yield made


@pytest.fixture
async def real(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """A client of the real API server, as administrator."""
    async with client_of(control_plane.admin_kubeconfig) as made:
        yield made


async def watched(stream: AsyncIterator[api.WatchEvent], count: int = 1000) -> list[tuple[str, str]]:
    """Take events until there are `count`, or the stream ends: type and name."""
    found: list[tuple[str, str]] = []
    async for type_, body in stream:
        found.append((type_, body["metadata"].get("name", "")))
        if len(found) >= count:
            break
    return found


class TestReal:
    """Against the real API server."""

    async def test_requests(self, real: api.Client, namespace: str) -> None:
        """Objects are created, read, patched, applied and deleted as plain dicts."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        made = await real.request("POST", path, body={"metadata": {"name": "a"}, "data": {"k": "v"}})
        assert made["metadata"]["uid"]
        assert (await real.get(f"{path}/a"))["data"] == {"k": "v"}
        await real.request("PATCH", f"{path}/a", body={"data": {"k": "w"}}, content_type=api.MERGE)
        applied = await real.request(
            "PATCH",
            f"{path}/a",
            params={"fieldManager": "test", "force": "true"},
            body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "x"}},
            content_type=api.APPLY,
            accept=api.METADATA,
        )
        assert applied["kind"] == "PartialObjectMetadata"
        assert "data" not in applied
        assert (await real.get(f"{path}/a"))["data"] == {"k": "x"}
        await real.request("DELETE", f"{path}/a")
        with pytest.raises(errors.NotFound):
            await real.get(f"{path}/a")

    async def test_its_refusals(self, real: api.Client, namespace: str) -> None:
        """Each kind of refusal is an error of its own, whose text quotes nothing that was sent."""
        path = f"/api/v1/namespaces/{namespace}/secrets"
        canary = "c4n4ry"
        body = {"metadata": {"name": "a"}, "stringData": {"k": canary}}
        await real.request("POST", path, body=body)
        with pytest.raises(errors.Conflict) as conflict:
            await real.request("POST", path, body=body)
        assert conflict.value.reason == "AlreadyExists"
        wrong = {"metadata": {"name": f"{canary}_"}, "stringData": {"k": canary}}
        with pytest.raises(errors.Invalid) as invalid:
            await real.request("POST", path, body=wrong)
        assert canary in invalid.value.detail
        assert canary not in str(invalid.value)
        stale = {"metadata": {"resourceVersion": "1"}, "stringData": {"k": "x"}}
        with pytest.raises(errors.Conflict):
            await real.request("PATCH", f"{path}/a", body=stale, content_type=api.MERGE)

    async def test_forbidden(self, control_plane: Cluster, namespace: str) -> None:
        """Without the right, the error is `Forbidden`; a bad token is told by its status."""
        await control_plane.kubectl("create", "serviceaccount", "nobody", f"--namespace={namespace}")
        path = await control_plane.kubeconfig_for_service_account(namespace, "nobody")
        async with client_of(path) as client:
            with pytest.raises(errors.Forbidden) as caught:
                await client.get("/api/v1/namespaces/kube-system/secrets/x")
            assert not caught.value.terminating
        text = path.read_text()
        token = next(line.split()[1] for line in text.splitlines() if "token:" in line)
        path.write_text(text.replace(token, "nonsense"))
        async with client_of(path) as client:
            with pytest.raises(errors.ApiError, match="401"):
                await client.get("/api/v1/namespaces")

    async def test_pages(self, real: api.Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A collection is listed in pages of one resource version, as metadata only where that is wanted."""
        monkeypatch.setattr(api, "PAGE", 3)
        path = f"/api/v1/namespaces/{namespace}/secrets"
        for number in range(8):
            name = f"s{number}"
            await real.request("POST", path, body={"metadata": {"name": name}, "stringData": {"k": "v"}})
        selected = {"fieldSelector": "type=Opaque"}
        pages = [page async for page in real.pages(path, params=selected, metadata=True)]
        assert [len(items) for items, _ in pages] == [3, 3, 2]
        assert len({version for _, version in pages}) == 1
        assert all("data" not in body for items, _ in pages for body in items)
        whole = [body async for items, _ in real.pages(path, params=selected) for body in items]
        assert all("data" in body for body in whole)

    async def test_cached(self, real: api.Client, namespace: str) -> None:
        """The server's watch cache comes to hold the same as a list from storage, and one may watch on from it."""
        path = f"/api/v1/namespaces/{namespace}/secrets"
        for number in range(8):
            name, data = f"s{number}", {"k": "v" * 300_000 if number == 5 else "v"}
            await real.request("POST", path, body={"metadata": {"name": name}, "stringData": data})
        selected = {"fieldSelector": "type=Opaque"}

        async def caught_up() -> bool:
            found = [body async for items, _ in real.cached(path, params=selected) for body in items]
            listed = [body async for items, _ in real.pages(path, params=selected) for body in items]
            # The cache of an old server keeps no order.
            return sorted(map(repr, found)) == sorted(map(repr, listed)) and len(found) == 8

        await eventually(caught_up, "the watch cache to catch up")
        answers = [answer async for answer in real.cached(path, params=selected, metadata=True)]
        names = [body["metadata"]["name"] for items, _ in answers for body in items]
        assert sorted(names) == [f"s{number}" for number in range(8)]
        assert all("data" not in body for items, _ in answers for body in items)
        (version,) = {version for _, version in answers}
        await real.request("DELETE", f"{path}/s7")
        async with contextlib.aclosing(real.watch(path, version, params=selected)) as stream:
            events = [event async for event in _take(stream, 1)]
        assert [(event.type, event.object["metadata"]["name"]) for event in events] == [("DELETED", "s7")]

    async def test_watch(self, real: api.Client, namespace: str) -> None:
        """A watch tells of every change from the list on, by metadata only where that is wanted."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        params = {"fieldSelector": "metadata.name=a"}
        version = [version async for _, version in real.pages(path, params=params)][-1]
        await real.request("POST", path, body={"metadata": {"name": "a"}, "data": {"k": "v"}})
        await real.request("POST", path, body={"metadata": {"name": "b"}})
        await real.request("PATCH", f"{path}/a", body={"data": {"k": "w"}}, content_type=api.MERGE)
        await real.request("DELETE", f"{path}/a")
        async with contextlib.aclosing(real.watch(path, version, params=params, metadata=True)) as stream:
            events = [event async for event in _take(stream, 3)]
        assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        assert {event.object["metadata"]["name"] for event in events} == {"a"}
        assert all("data" not in event.object for event in events)

    async def test_watch_ends_in_order(self, real: api.Client, namespace: str) -> None:
        """After its lifetime the server ends the stream, which is no error; a bookmark comes before."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        version = [version async for _, version in real.pages(path)][-1]
        events = await watched(real.watch(path, version, lifetime=3.0))
        assert {type_ for type_, _ in events} <= {"BOOKMARK", "ADDED"}

    async def test_an_outage(self, owned_control_plane: ControlPlane) -> None:
        """While the API server is away requests fail as unavailable; afterwards the same client works."""
        async with client_of(owned_control_plane.admin_kubeconfig) as client:
            await client.get("/api/v1/namespaces/default")
            await owned_control_plane.stop_apiserver()
            try:
                with pytest.raises(errors.Unavailable):
                    await client.request("GET", "/api/v1/namespaces/default", tries=2)
            finally:
                await owned_control_plane.start_apiserver()
            # The connections of before are dead: nobody notices.
            found = await asyncio.gather(*(client.get("/api/v1/namespaces/default") for _ in range(8)))
            assert {body["metadata"]["name"] for body in found} == {"default"}
            # What it remembers of changes begins with its start.
            async with contextlib.aclosing(client.watch("/api/v1/namespaces", "1", lifetime=5)) as stream:
                with pytest.raises(errors.Gone):
                    await watched(stream)

    async def test_the_token_of_an_account(self, control_plane: Cluster, namespace: str) -> None:
        """A service account's token says for whom it is meant."""
        await control_plane.kubectl("create", "serviceaccount", "me", f"--namespace={namespace}")
        path = await control_plane.kubeconfig_for_service_account(namespace, "me")
        access = api.login(str(path))
        header = (await access.headers())["Authorization"]
        assert tokens.audiences(header) == {control_plane.issuer}


async def _take(stream: AsyncIterator[api.WatchEvent], count: int) -> AsyncIterator[api.WatchEvent]:
    async for one in stream:
        if one.type == "BOOKMARK":
            continue
        yield one
        count -= 1
        if not count:
            return


class TestRetries:
    """What is tried again."""

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_overload_and_faults(self, fake: FakeApi, client: api.Client, status: int) -> None:
        """An answer of 429 or 5xx is tried again; the caller sees the good one."""
        fake.then(refuses(status, "Busy"), refuses(status, "Busy"), says(secret("a", 5)))
        assert (await client.get(f"{SECRETS}/a"))["metadata"]["name"] == "a"
        assert len(fake.requests) == 3

    async def test_not_for_ever(self, fake: FakeApi, client: api.Client) -> None:
        """After four tries the error is the caller's, with its status."""
        fake.then(refuses(503, "ServiceUnavailable"))
        with pytest.raises(errors.Unavailable, match="503 ServiceUnavailable"):
            await client.get(f"{SECRETS}/a")
        assert len(fake.requests) == 4

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, errors.ApiError),
            (403, errors.Forbidden),
            (404, errors.NotFound),
            (409, errors.Conflict),
            (410, errors.Gone),
            (422, errors.Invalid),
        ],
    )
    async def test_refusals_are_final(
        self, fake: FakeApi, client: api.Client, status: int, kind: type[errors.ApiError]
    ) -> None:
        """What will not change by asking again is told at once."""
        fake.then(refuses(status, "No"))
        with pytest.raises(kind) as caught:
            await client.get(f"{SECRETS}/a")
        assert type(caught.value) is kind
        assert len(fake.requests) == 1

    async def test_a_stale_connection(self, fake: FakeApi, client: api.Client) -> None:
        """A connection that the server has closed meanwhile costs nobody an error, for a write neither."""
        fake.then(says(secret("a", 5)), breaks(), says(secret("a", 6)))
        await client.get(f"{SECRETS}/a")
        answer = await client.request("PATCH", f"{SECRETS}/a", body={"data": None}, content_type=api.MERGE)
        assert answer["metadata"]["resourceVersion"] == "6"

    async def test_nobody_listens(self, tmp_path: Path) -> None:
        """Without a server the error names the kind of failure and no address."""
        async with fake_api() as gone:
            url = gone.url
        async with client_of(kubeconfig(tmp_path / "kubeconfig", url, {"token": "t1"})) as client:
            with pytest.raises(errors.Unavailable, match=r"^no answer from the API server \(\w+\)$") as caught:
                await client.request("GET", "/api", tries=2)
            assert caught.value.status == 0

    async def test_no_answer_in_time(self, fake: FakeApi, tmp_path: Path) -> None:
        """A server that accepts and says nothing is given up."""
        fake.then(hangs())
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"token": "t1"})
        async with client_of(path, timeout=0.2) as client:
            with pytest.raises(errors.Unavailable, match="TimeoutError"):
                await client.request("GET", "/api", tries=1)

    async def test_retry_after(self, fake: FakeApi, client: api.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pause a server asks for is kept, with some jitter on top, and bounded."""
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(api.asyncio, "sleep", sleep)
        fake.then(
            refuses(429, "TooManyRequests", headers={"Retry-After": "7"}),
            refuses(429, "TooManyRequests", details={"retryAfterSeconds": 3}),
            refuses(429, "TooManyRequests", headers={"Retry-After": "999999999"}),
            says(secret("a", 5)),
        )
        await client.get(f"{SECRETS}/a")
        assert 7 <= pauses[0] <= 8.75
        assert 3 <= pauses[1] <= 3.75
        assert 30 <= pauses[2] <= 37.5


class TestStrangers:
    """Answers of whatever stands between us and the server."""

    @pytest.mark.parametrize(
        ("document", "content_type"),
        [
            (b"<html>Please log in to the captive portal</html>", "text/html"),
            (b"", "application/json"),
            (b"null", "application/json"),
            (b"[]", "application/json"),
            (b'"c4n4ry"', "application/json"),
            (b'{"metadata": "c4n4ry"}', "application/json"),
            (b'{"metadata": {}}', "application/json"),
            (b"\xff\xfe\x00", "application/json"),
            (b"[" * 100_000, "application/json"),
        ],
    )
    async def test_200_with_nonsense(
        self, fake: FakeApi, client: api.Client, document: bytes, content_type: str
    ) -> None:
        """A page in place of an object is no answer, and no empty list: nothing is concluded from it."""
        fake.then(says(document, content_type=content_type))
        with pytest.raises(errors.Unavailable) as caught:
            _ = [page async for page in client.pages(SECRETS)]
        assert "c4n4ry" not in str(caught.value)

    @pytest.mark.parametrize(
        "answer",
        [
            says({"kind": "List", "metadata": {"resourceVersion": "5"}, "items": [{"spec": "c4n4ry"}]}),
            says({"kind": "List", "metadata": {"resourceVersion": "5"}, "items": ["c4n4ry"]}),
            says({"metadata": {"resourceVersion": "5"}, "items": {}}),
            says({"kind": "List", "metadata": {}, "items": []}),
            says({"kind": {"List": 1}, "metadata": {"resourceVersion": "5"}, "items": []}),
            says(b"<html>c4n4ry</html>"),
            says(b'{"kind": "List", "metadata": {"resourceVersion": "5"}, "items": [{"metadata": {}}'),
            says(b""),
            streams(b'{"kind": "List", "metadata": {"resourceVersion": "5"}, "items": [', cut=True),
            streams(b'{"kind": "List", "metadata": {"resourceVersion": "5"}, "items": [', hang=True),
        ],
    )
    async def test_cached_is_whole_or_nothing(
        self, fake: FakeApi, client: api.Client, answer: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cut answer, a page or anything else in place of a list ends in an error, and nothing is concluded."""
        monkeypatch.setattr(api, "_SILENCE", 0.3)
        fake.then(answer)
        with pytest.raises(errors.Unavailable) as caught:
            _ = [page async for page in client.cached(SECRETS)]
        assert "c4n4ry" not in str(caught.value)

    async def test_cached_in_pieces(self, fake: FakeApi, client: api.Client) -> None:
        """However the answer is cut into pieces, each item comes once, in order, with the list's version."""
        document = json.dumps(listing(*(secret(f"s{number}", number + 1) for number in range(20)))).encode()
        for size in (1, 7, 64):
            pieces = [document[at : at + size] for at in range(0, len(document), size)]
            fake.script[:] = [streams(*pieces)]
            found = [(body["metadata"]["name"], v) async for items, v in client.cached(SECRETS) for body in items]
            assert found == [(f"s{number}", "100") for number in range(20)]
        assert all("resourceVersion=0" in path for _, path, _ in fake.requests)
        fake.script[:] = [says({"kind": "List", "metadata": {"resourceVersion": "7"}, "items": None})]
        assert [answer async for answer in client.cached(SECRETS)] == [([], "7")]

    async def test_items_that_are_none(self, fake: FakeApi, client: api.Client) -> None:
        """An object in place of the items is no answer; null items, as an empty list has them, are none."""
        fake.then(says({"metadata": {"resourceVersion": "5"}, "items": {}}))
        with pytest.raises(errors.Unavailable):
            _ = [page async for page in client.pages(SECRETS)]
        fake.script[:] = [says({"metadata": {"resourceVersion": "5"}, "items": None})]
        assert [page async for page in client.pages(SECRETS)] == [([], "5")]

    @pytest.mark.parametrize(
        "document",
        [
            b"<html>c4n4ry</html>",
            b'{"details": "c4n4ry", "reason": {"a": 1}, "code": "c4n4ry"}',
            b'{"details": ["c4n4ry"], "reason": "two c4n4ry words"}',
            b'{"details": {"causes": "c4n4ry"}}',
            b'{"details": {"causes": ["c4n4ry", null, {"reason": 7}]}}',
            b'{"details": {"retryAfterSeconds": "\\u00b2"}}',
            b"[1, 2]",
            b"\xff",
            b"[" * 100_000,
        ],
    )
    @pytest.mark.parametrize("status", [401, 403, 502])
    async def test_errors_with_nonsense(
        self, fake: FakeApi, client: api.Client, document: bytes, status: int
    ) -> None:
        """Whatever a proxy puts into an error, it is the error of its status, and its text stays out of ours."""
        fake.then(says(document, status=status, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
        with pytest.raises(errors.ApiError) as caught:
            await client.request("GET", f"{SECRETS}/a", tries=1)
        assert caught.value.status == status
        assert isinstance(caught.value, errors.Forbidden) is (status == 403)
        assert "c4n4ry" not in str(caught.value)

    async def test_redirects(self, fake: FakeApi, client: api.Client) -> None:
        """Nobody sends us elsewhere: a redirect is no answer, and our token goes nowhere."""
        async with fake_api() as elsewhere:
            elsewhere.then(says(secret("a", 5)))
            fake.then(says({}, status=302, headers={"Location": f"{elsewhere.url}/steal"}))
            with pytest.raises(errors.Unavailable, match="302"):
                await client.request("GET", f"{SECRETS}/a", tries=1)
            async with contextlib.aclosing(client.watch(SECRETS, "5")) as stream:
                with pytest.raises(errors.Unavailable, match="302"):
                    await watched(stream)
            assert elsewhere.requests == []

    @given(st.binary(max_size=300), st.integers(300, 599), st.text(max_size=20))
    def test_whatever_is_answered(self, body: bytes, status: int, after: str) -> None:
        """Any answer at all makes an error with its status and one word of a reason."""
        error = errors.from_response(status, body, {"Retry-After": after})
        assert error.status == status
        assert error.reason.isalnum()
        assert error.retry_after is None or 0 <= error.retry_after <= 300

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["code", "reason", "message", "details", "causes", "retryAfterSeconds"]), inner
                )
            ),
            max_leaves=10,
        )
    )
    def test_whatever_a_status_holds(self, document: Any) -> None:
        """Any JSON in place of a Status is an error, and raises none of its own."""
        assert errors.from_response(503, json.dumps(document).encode(), {}).status == 503
        assert isinstance(errors.from_status(document), errors.ApiError)


class TestWatch:
    """Streams, as they go wrong."""

    async def test_lines_in_pieces(self, fake: FakeApi, client: api.Client) -> None:
        """Events are lines of any length, however they are cut into packets."""
        big = secret("big", 6)
        big["metadata"]["annotations"] = {"a": "x" * 300_000}
        whole = event("ADDED", secret("a", 5)) + event("ADDED", big) + event("DELETED", secret("a", 7))
        pieces: list[bytes | float] = []
        for start in range(0, len(whole), 70_001):
            pieces += [whole[start : start + 70_001], 0.01]
        fake.then(streams(*pieces))
        assert await watched(client.watch(SECRETS, "4")) == [("ADDED", "a"), ("ADDED", "big"), ("DELETED", "a")]
        assert fake.requests[0][1].startswith(f"{SECRETS}?watch=true&allowWatchBookmarks=true&resourceVersion=4")

    @pytest.mark.parametrize("cut", [True, False])
    async def test_cut_in_the_middle_of_a_line(self, fake: FakeApi, client: api.Client, cut: bool) -> None:
        """What was whole is delivered; the rest of a line is dropped, and a broken stream is told."""
        fake.then(streams(event("ADDED", secret("a", 5)), event("ADDED", secret("b", 6))[:-20], 0.05, cut=cut))
        found: list[tuple[str, str]] = []
        with pytest.raises(errors.Unavailable) if cut else contextlib.nullcontext():
            async for type_, body in client.watch(SECRETS, "4"):
                found.append((type_, body["metadata"]["name"]))
        assert found == [("ADDED", "a")]

    async def test_expired(self, fake: FakeApi, client: api.Client) -> None:
        """A version that is too old is `Gone`, by an event as by a status."""
        fake.then(streams(event("ADDED", secret("a", 5)), expired()), refuses(410, "Expired"))
        for _ in range(2):
            async with contextlib.aclosing(client.watch(SECRETS, "4")) as stream:
                with pytest.raises(errors.Gone):
                    await watched(stream)

    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            (event("ERROR", {"code": 500, "reason": "InternalError"}), errors.Unavailable),
            (event("ERROR", {"code": 403, "reason": "Forbidden"}), errors.Forbidden),
            (event("ERROR", {}), errors.Unavailable),
            (b'{"type": "ERROR", "object": "c4n4ry"}\n', errors.Unavailable),
            (b"null\n", errors.Unavailable),
            (b"\n", errors.Unavailable),
            (b'"ADDED"\n', errors.Unavailable),
            (b'{"type": "ADDED"}\n', errors.Unavailable),
            (b'{"type": "ADDED", "object": {"metadata": {}}}\n', errors.Unavailable),
            (b'{"type": ["ADDED"], "object": {"metadata": {"resourceVersion": "5"}}}\n', errors.Unavailable),
            (b"<html>c4n4ry</html>\n", errors.Unavailable),
            (b"[" * 100_000 + b"\n", errors.Unavailable),
            (b"\xff\xfe\n", errors.Unavailable),
        ],
    )
    async def test_what_is_no_event(
        self, fake: FakeApi, client: api.Client, line: bytes, kind: type[errors.ApiError]
    ) -> None:
        """An error or nonsense in the stream is an error of ours without any of its text."""
        fake.then(streams(line))
        with pytest.raises(errors.ApiError) as caught:
            await watched(client.watch(SECRETS, "4"))
        assert type(caught.value) is kind
        assert "c4n4ry" not in str(caught.value)

    async def test_silence(self, fake: FakeApi, client: api.Client) -> None:
        """A stream that has gone silent counts as dead; any byte keeps it alive."""
        fake.then(streams(event("BOOKMARK", secret("", 5)), 0.3, event("BOOKMARK", secret("", 6)), hang=True))
        found: list[str] = []
        with pytest.raises(errors.Unavailable, match="Timeout"):
            async for _, body in client.watch(SECRETS, "4", silence=0.6):
                found.append(body["metadata"]["resourceVersion"])
        assert found == ["5", "6"]

    async def test_silence_from_the_beginning(self, fake: FakeApi, client: api.Client) -> None:
        """A server that accepts a watch and never answers counts as dead too."""
        fake.then(hangs())
        with pytest.raises(errors.Unavailable, match="Timeout"):
            await watched(client.watch(SECRETS, "4", silence=0.2))

    async def test_closing_it_closes_the_connection(self, fake: FakeApi, client: api.Client) -> None:
        """A watch that is left takes its connection with it."""
        fake.then(streams(event("ADDED", secret("a", 5)), hang=True))
        async with contextlib.aclosing(client.watch(SECRETS, "4")) as stream:
            await watched(stream, count=1)
            assert len(client._watches.connector._acquired) == 1  # type: ignore[union-attr]
        assert len(client._watches.connector._acquired) == 0  # type: ignore[union-attr]


class TestTokens:
    """Tokens that change while we run."""

    async def test_a_rotated_token_file(self, fake: FakeApi, tmp_path: Path) -> None:
        """A token that was refused is read anew at once, even for a single try, and the request sent again."""
        token = tmp_path / "token"
        token.write_text("old")
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"tokenFile": str(token)})
        fake.then(by_token("new", says(secret("a", 5))))
        async with client_of(path) as client:
            await client.access.headers()
            client.access._read_at -= 10  # it was read a while ago
            token.write_text("new")
            await client.request("GET", f"{SECRETS}/a", tries=1)
        assert [header for _, _, header in fake.requests] == ["Bearer old", "Bearer new"]

    async def test_a_rotated_token_of_a_watch(self, fake: FakeApi, tmp_path: Path) -> None:
        """A watch that is refused goes on with the new token, without a new list."""
        token = tmp_path / "token"
        token.write_text("old")
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"tokenFile": str(token)})
        fake.then(by_token("new", streams(event("ADDED", secret("a", 5)))))
        async with client_of(path) as client:
            await client.access.headers()
            client.access._read_at -= 10
            token.write_text("new")
            assert await watched(client.watch(SECRETS, "4")) == [("ADDED", "a")]

    async def test_a_token_that_is_no_good(self, fake: FakeApi, client: api.Client) -> None:
        """A token that is refused and does not change costs two requests, and the error has its status."""
        fake.then(refuses(401, "Unauthorized"))
        with pytest.raises(errors.ApiError, match="401 Unauthorized") as caught:
            await client.get(f"{SECRETS}/a")
        assert type(caught.value) is errors.ApiError
        assert len(fake.requests) == 2
        with pytest.raises(errors.ApiError, match="401"):
            await watched(client.watch(SECRETS, "4"))
        assert len(fake.requests) == 4

    async def test_many_that_are_refused_at_once(self, fake: FakeApi, tmp_path: Path) -> None:
        """Of thirty requests that are refused together one reads the new token for all."""
        runs = tmp_path / "runs"
        plugin = tmp_path / "plugin"
        plugin.write_text(
            f"#!{sys.executable}\nimport json\n"
            f"open({str(runs)!r}, 'a').write('x')\n"
            f"count = len(open({str(runs)!r}).read())\n"
            "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
            " 'status': {'token': 'old' if count == 1 else 'new'}}))\n"
        )
        plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
        user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": str(plugin),
                "interactiveMode": "Never",
            }
        }
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, user)
        fake.then(by_token("new", says(secret("a", 5))))
        async with client_of(path) as client:
            await asyncio.gather(*(client.get(f"{SECRETS}/a") for _ in range(30)))
        assert len(runs.read_text()) == 2

    async def test_a_token_that_cannot_be_read(
        self, fake: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """While the token cannot be read the last one goes on being used, and the log says so once."""
        token = tmp_path / "token"
        token.write_text("old")
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"tokenFile": str(token)})
        fake.then(refuses(401, "Unauthorized"), says(secret("a", 5)))
        async with client_of(path) as client:
            await client.access.headers()
            client.access._read_at -= 10
            token.unlink()
            await client.get(f"{SECRETS}/a")
        assert {header for _, _, header in fake.requests} == {"Bearer old"}
        assert caplog.text.count("Could not read the login") == 1

    async def test_a_login_that_never_could_be_read(
        self, fake: FakeApi, client: api.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without any token the error is one of an API server that cannot be asked, and is tried again."""

        def fails(_: Any) -> None:
            raise RuntimeError("c4n4ry")

        monkeypatch.setattr(client.access.configuration, "refresh_api_key_hook", fails)
        with pytest.raises(errors.Unavailable, match="cannot be read") as caught:
            await client.request("GET", f"{SECRETS}/a", tries=2)
        assert "c4n4ry" not in str(caught.value)
        with pytest.raises(errors.Unavailable):
            await watched(client.watch(SECRETS, "4"))
        assert fake.requests == []

    async def test_a_rotated_ca(self, control_plane: Cluster, tmp_path: Path) -> None:
        """A CA file that was replaced is trusted from the next reading of the token on."""
        if control_plane.ca_file is None:
            pytest.skip("this cluster's CA is not in a file")
        path = tmp_path / "kubeconfig"
        path.write_text(control_plane.admin_kubeconfig.read_text())
        access = api.login(str(path))
        assert isinstance(access.ssl, ssl.SSLContext)
        replaced = tmp_path / "ca.crt"
        replaced.write_text(control_plane.ca_file.read_text())
        os.utime(replaced, (1, 1))
        access.configuration.ssl_ca_cert = str(replaced)
        access.ssl = ssl.create_default_context()
        await access.headers(fresh=False)
        assert len(access.ssl.get_ca_certs()) >= 1
        del access


class TestConnections:
    """How many connections there are."""

    async def test_are_limited(self, fake: FakeApi, tmp_path: Path) -> None:
        """No more requests than allowed are sent at once; the others wait, and none fails for it."""
        busy, most = 0, 0

        async def slow(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.02)
            busy -= 1
            return await says(secret("a", 5))(request)

        fake.then(slow)
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"token": "t1"})
        async with client_of(path, connections=4) as client:
            await asyncio.gather(*(client.get(f"{SECRETS}/a") for _ in range(40)))
        assert most == 4

    async def test_what_is_urgent_does_not_wait(self, fake: FakeApi, tmp_path: Path) -> None:
        """While all connections are busy, a watch and an urgent request have theirs."""
        going = asyncio.Event()

        async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            if request.path.endswith("/slow"):
                await going.wait()
            return await says(secret("a", 5))(request)

        fake.then(answer)
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"token": "t1"})
        async with client_of(path, connections=2) as client:
            slow = [asyncio.create_task(client.get(f"{SECRETS}/slow")) for _ in range(10)]
            while len(fake.requests) < 2:
                await asyncio.sleep(0.01)
            await client.request("GET", f"{SECRETS}/a", urgent=True)
            assert not any(task.done() for task in slow)
            going.set()
            await asyncio.gather(*slow)

    async def test_the_user_agent(self, fake: FakeApi, client: api.Client) -> None:
        """The API server's audit log shows who we are."""
        seen: list[str] = []

        async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            seen.append(request.headers["User-Agent"])
            return await says(secret("a", 5))(request)

        fake.then(answer)
        await client.get(f"{SECRETS}/a")
        assert seen[0].startswith("regcred/")


class TestFence:
    """Where nothing may be written any more, nothing is: not even what waited for its turn."""

    @staticmethod
    def fall() -> None:
        """Forbid."""
        raise lease.LeaseLost("gone")

    async def test_no_write_passes(self, fake: FakeApi, client: api.Client) -> None:
        """On a new connection and on one that is there, every write is stopped; reading and the Lease go on."""
        fake.then(says(secret("a", 1)))
        client.fence = self.fall
        for _ in ("a new connection", "one that is there"):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                with pytest.raises(lease.LeaseLost):
                    await client.request(method, SECRETS, body={})
            assert await client.get(SECRETS) == secret("a", 1)
        await client.request("PUT", SECRETS, body={}, urgent=True)
        assert [method for method, _, _ in fake.requests] == ["GET", "GET", "PUT"]

    async def test_what_waits_is_asked_when_its_turn_comes(self, fake: FakeApi, tmp_path: Path) -> None:
        """A write that waits for a connection is stopped when it gets one, and so is one that is tried again."""
        go_on = asyncio.Event()

        async def slow(_: web.Request) -> web.Response:
            await go_on.wait()
            return web.json_response({}, status=503)

        fake.then(slow)
        path = kubeconfig(tmp_path / "kubeconfig", fake.url, {"token": "t1"})
        async with client_of(path, connections=1) as client:
            first = asyncio.create_task(client.request("PATCH", SECRETS, body={}))
            while not fake.requests:
                await asyncio.sleep(0)
            second = asyncio.create_task(client.request("PATCH", SECRETS, body={}))
            await asyncio.sleep(0)
            client.fence = self.fall
            go_on.set()
            for task in (first, second):
                with pytest.raises(lease.LeaseLost):
                    await task
        assert len(fake.requests) == 1


class TestLogin:
    """Where the configuration comes from."""

    def test_no_configuration(self, tmp_path: Path) -> None:
        """A kubeconfig that is missing is told by the package's own error."""
        import kubernetes.config  # noqa: PLC0415

        with pytest.raises(kubernetes.config.ConfigException):
            api.login(str(tmp_path / "missing"))

    async def test_no_token_at_all(self, fake: FakeApi, tmp_path: Path) -> None:
        """With certificates alone there is no Authorization header."""
        access = api.login(str(kubeconfig(tmp_path / "kubeconfig", fake.url, {})))
        assert await access.headers() == {}

    def test_proxies(self, fake_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy from the environment is used, unless NO_PROXY names the server."""
        path = str(kubeconfig(tmp_path / "kubeconfig", fake_url, {"token": "t"}))
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
        monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert api.login(path).proxy == "http://proxy.example:3128"
        monkeypatch.setenv("NO_PROXY", "api.fake.example")
        monkeypatch.setenv("no_proxy", "api.fake.example")
        assert api.login(path).proxy is None


@pytest.fixture
def fake_url() -> str:
    """An address that nobody listens on."""
    return "http://api.fake.example:8080"


class TestAudiences:
    """`tokens.audiences`."""

    @given(st.text(max_size=200))
    def test_whatever_text(self, text: str) -> None:
        """Any text has a set of audiences, mostly empty."""
        assert isinstance(tokens.audiences(text), frozenset)

    @pytest.mark.parametrize(
        ("claims", "found"),
        [
            ({"aud": ["a", "b"]}, {"a", "b"}),
            ({"aud": "a"}, {"a"}),
            ({"aud": 3}, set()),
            ({}, set()),
            ([], set()),
            ("text", set()),
        ],
    )
    def test_claims(self, claims: Any, found: set[str]) -> None:
        """A list or one text is read; anything else names none."""
        import base64  # noqa: PLC0415

        middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        assert tokens.audiences(f"Bearer e30.{middle}.sig") == found


def test_names_are_not_invented() -> None:
    """The runtime and others find login and client in one module."""
    assert uuid.uuid4()
    assert {"Client", "Login", "login"} <= set(api.__all__)
