"""The cache of last good logins, on the real API server."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime as dt
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import dockerconfig
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.credentials import cache, provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dev.cluster import Cluster
    from dev.controlplane import ControlPlane

NOW = dt.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
LOGIN = dockerconfig.Login("user", "c4n4ry")


def accepted(**more: Any) -> cache.Accepted:
    grant = provider.Grant(
        {"one.example": LOGIN, "two.example": dockerconfig.Login("other", "p\u00e4ss:word")},
        "arn:aws:sts::123456789012:assumed-role/x",
        NOW,
        NOW + dt.timedelta(hours=12),
        ("a note",),
    )
    standing = cache.Accepted(
        "ecr", "ecr|key", grant, {"one.example": "v1", "two.example": "v2"}, {"source": "77"}, "org/app:v1@system"
    )
    return dataclasses.replace(standing, **more)


def record(uid: str = "uid-1", **entries: cache.Accepted) -> cache.Record:
    found = {name.replace("_", "."): value for name, value in (entries or {"one_example": accepted()}).items()}
    return cache.Record(uid, "ClusterRegistryCredential/platform", ("regcred", "older"), found)


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """A client of the real API server."""
    made = api.Client(api.login(str(control_plane.admin_kubeconfig)))
    yield made
    await made.close()


async def secrets(client: api.Client, namespace: str) -> dict[str, dict[str, Any]]:
    """The cache Secrets of a namespace by name."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    params = {"labelSelector": "app.kubernetes.io/component=credential-cache"}
    return {
        body["metadata"]["name"]: body async for items, _ in client.pages(path, params=params) for body in items
    }


class TestReal:
    """Saved and loaded."""

    async def test_comes_back_as_it_was(self, client: api.Client, namespace: str) -> None:
        """Everything of a record survives, to the microsecond and to the last character."""
        forever = accepted(grant=dataclasses.replace(accepted().grant, expires_at=None), proof="", sources={})
        first, second = record(), record("uid-2", a_example=forever, b_example=accepted())
        kept = cache.Cache(client, namespace)
        await kept.save(first)
        await kept.save(second)
        assert await cache.Cache(client, namespace).load() == {"uid-1": first, "uid-2": second}

    async def test_what_stands_in_the_cluster(self, client: api.Client, namespace: str) -> None:
        """It is one Secret a resource, of a type of its own, labelled, and named by its resource for people."""
        await cache.Cache(client, namespace).save(record())
        (body,) = (await secrets(client, namespace)).values()
        assert body["metadata"]["name"] == "regcred-cache-uid-1"
        assert body["type"] == "regcred.io/cache"
        assert body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "regcred"
        assert body["metadata"]["annotations"]["regcred.io/resource"] == "ClusterRegistryCredential/platform"
        assert "c4n4ry" not in json.dumps(body["metadata"])

    async def test_is_saved_once(self, client: api.Client, namespace: str) -> None:
        """A record that is kept already costs no write, not even after a restart."""
        await cache.Cache(client, namespace).save(record())
        (before,) = (await secrets(client, namespace)).values()
        kept = cache.Cache(client, namespace)
        await kept.load()
        assert kept.keeps(record())
        await kept.save(record())
        (after,) = (await secrets(client, namespace)).values()
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        changed = record(one_example=accepted(versions={"one.example": "v9", "two.example": "v2"}))
        assert not kept.keeps(changed)
        await kept.save(changed)
        assert await cache.Cache(client, namespace).load() == {"uid-1": changed}

    async def test_what_is_dropped_is_gone(self, client: api.Client, namespace: str) -> None:
        """A login that is not in the record any more is not in the cluster any more."""
        kept = cache.Cache(client, namespace)
        await kept.save(record(one_example=accepted(), two_example=accepted()))
        await kept.save(record(two_example=accepted()))
        (body,) = (await secrets(client, namespace)).values()
        stored = json.loads(base64.b64decode(body["data"]["record.json"]))
        assert list(stored["entries"]) == ["two.example"]

    async def test_deleted(self, client: api.Client, namespace: str) -> None:
        """A forgotten record goes; forgetting what is not there is fine; a new one can follow."""
        kept = cache.Cache(client, namespace)
        await kept.save(record())
        for _ in range(2):
            await kept.delete("uid-1")
        assert await secrets(client, namespace) == {}
        assert not kept.keeps(record())
        await kept.save(record())
        assert len(await secrets(client, namespace)) == 1

    async def test_deleted_by_somebody_else(self, client: api.Client, namespace: str) -> None:
        """A record that somebody deletes comes back with the next change, or after a restart."""
        kept = cache.Cache(client, namespace)
        await kept.save(record())
        await client.request("DELETE", f"/api/v1/namespaces/{namespace}/secrets/regcred-cache-uid-1")
        again = cache.Cache(client, namespace)
        assert await again.load() == {}
        await again.save(record())
        assert len(await secrets(client, namespace)) == 1

    async def test_many(self, client: api.Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Records of several pages are all loaded."""
        monkeypatch.setattr(api, "PAGE", 4)
        kept = cache.Cache(client, namespace)
        await asyncio.gather(*(kept.save(record(f"uid-{number}")) for number in range(11)))
        assert set(await cache.Cache(client, namespace).load()) == {f"uid-{number}" for number in range(11)}

    async def test_a_copy_under_another_name(
        self, client: api.Client, namespace: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A backup that somebody restored under another name does not stand for the resource."""
        await cache.Cache(client, namespace).save(record())
        (body,) = (await secrets(client, namespace)).values()
        stored = json.loads(base64.b64decode(body["data"]["record.json"]))
        stored["entries"] = {}
        copy = {
            "metadata": {"name": "aaa-backup", "labels": body["metadata"]["labels"]},
            "data": {"record.json": base64.b64encode(json.dumps(stored).encode()).decode()},
        }
        await client.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body=copy)
        assert await cache.Cache(client, namespace).load() == {"uid-1": record()}
        assert "aaa-backup" in caplog.text

    async def test_what_cannot_be_read(
        self, client: api.Client, namespace: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One record that is damaged is left out and named in the log, without its content; the others are fine."""
        kept = cache.Cache(client, namespace)
        await kept.save(record())
        labels = {"app.kubernetes.io/component": "credential-cache"}
        damaged = ["", "c4n4ry", "[]", "{}", '{"format": 9}', '{"format": 1, "uid": "c4n4ry"}']
        for number, text in enumerate(damaged):
            body = {
                "metadata": {"name": f"regcred-cache-bad-{number}", "labels": labels},
                "data": {"record.json": base64.b64encode(text.encode()).decode()},
            }
            await client.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body=body)
        empty = {"metadata": {"name": "regcred-cache-empty", "labels": labels}}
        await client.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body=empty)
        assert await cache.Cache(client, namespace).load() == {"uid-1": record()}
        assert caplog.text.count("Left out the cache Secret") == len(damaged) + 1
        assert "c4n4ry" not in caplog.text

    async def test_without_the_right(self, control_plane: Cluster, namespace: str) -> None:
        """A cache that may not be written fails with the API's error, and claims nothing as kept."""
        await control_plane.kubectl("create", "serviceaccount", "op", f"--namespace={namespace}")
        path: Path = await control_plane.kubeconfig_for_service_account(namespace, "op")
        client = api.Client(api.login(str(path)))
        try:
            kept = cache.Cache(client, namespace)
            with pytest.raises(errors.Forbidden):
                await kept.save(record())
            with pytest.raises(errors.Forbidden):
                await kept.load()
            assert not kept.keeps(record())
        finally:
            await client.close()

    async def test_too_large(self, client: api.Client, namespace: str) -> None:
        """A record that no Secret can hold is refused by the server, and not taken for kept."""
        big = dockerconfig.Login("user", "x" * 1_100_000)
        grant = provider.Grant({"one.example": big}, "me", NOW)
        kept = cache.Cache(client, namespace)
        with pytest.raises(errors.ApiError):
            await kept.save(record(one_example=accepted(grant=grant, versions={"one.example": "v"})))
        assert await secrets(client, namespace) == {}

    async def test_an_outage(self, owned_control_plane: ControlPlane, namespace: str) -> None:
        """A save that fails because the API server is away can be repeated."""
        client = api.Client(api.login(str(owned_control_plane.admin_kubeconfig)))
        try:
            kept = cache.Cache(client, namespace)
            await owned_control_plane.stop_apiserver()
            try:
                with pytest.raises(errors.Unavailable):
                    await kept.save(record())
            finally:
                await owned_control_plane.start_apiserver()
            assert not kept.keeps(record())
            await kept.save(record())
            assert kept.keeps(record())
        finally:
            await client.close()


class TestNothing:
    """Records without logins."""

    def test_is_kept_by_not_being_there(self) -> None:
        """A resource that never had a login needs no record; one that had, needs an empty one."""
        kept = cache.Cache(None, "home")  # type: ignore[arg-type]
        empty = cache.Record("uid-1", "r", ("regcred",), {})
        assert kept.keeps(empty)
        assert not kept.keeps(record())


times = st.datetimes(timezones=st.just(dt.UTC))
words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: ":" not in text and not text.startswith("\ufeff")
)


class TestFormat:
    """The format of a record."""

    @given(
        uid=st.uuids().map(str),
        names=st.lists(st.sampled_from(["regcred", "a", "b"]), unique=True),
        hosts=st.dictionaries(
            st.sampled_from(["a.example", "b.example:5000"]), st.tuples(words, words), min_size=1
        ),
        issued=times,
        ends=st.none() | times,
        notes=st.lists(words, max_size=2),
        proof=words | st.just(""),
    )
    def test_any_record_survives(
        self,
        *,
        uid: str,
        names: list[str],
        hosts: dict[str, tuple[str, str]],
        issued: dt.datetime,
        ends: dt.datetime | None,
        notes: list[str],
        proof: str,
    ) -> None:
        """Encoding and decoding through JSON gives back what went in."""
        logins = {host: dockerconfig.Login(*pair) for host, pair in hosts.items()}
        grant = provider.Grant(logins, "me", issued, ends, tuple(notes))
        entry = cache.Accepted("p", "k", grant, {host: uuid.uuid4().hex for host in logins}, {}, proof)
        original = cache.Record(uid, "r", tuple(names), {"*": entry})
        assert cache._decode(json.loads(json.dumps(cache._encode(original)))) == original

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("uid",), 3),
            (("secretNames",), [3]),
            (("entries", "one.example", "issuedAt"), "2026-03-01T12:00:00"),
            (("entries", "one.example", "expiresAt"), "2026-03-01T12:00:00"),
            (("entries", "one.example", "expiresAt"), 5),
            (("entries", "one.example", "expiresAt"), ""),
            (("entries", "one.example", "logins"), {"one.example": ["user", 7]}),
            (("entries", "one.example", "logins"), {"one.example": ["user"]}),
            (("entries", "one.example", "logins"), {"one.example": ["us:er", "x"]}),
            (("entries", "one.example", "logins"), {"one.example": ["", ""]}),
            (("entries", "one.example", "versions"), {}),
            (("entries", "one.example", "sources"), {"source": None}),
            (("entries", "one.example", "key"), None),
            (("entries", "one.example"), []),
            (("entries",), []),
            (("format",), 2),
        ],
    )
    def test_what_is_not_of_our_making(self, path: tuple[str, ...], value: Any) -> None:
        """A record with anything out of place is refused as a whole where it is read, and not met later on."""
        document = cache._encode(record())
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
            cache._decode(json.loads(json.dumps(document)))

    def test_nothing_secret_shows(self) -> None:
        """A record that gets into a log or a traceback shows no password."""
        assert "c4n4ry" not in repr(record())
