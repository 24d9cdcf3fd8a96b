"""What no API server at hand can be made to answer: a refused eviction is waited for, as long as the server asks."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from regcred import telemetry
from regcred.api import names, resource
from regcred.cluster import events, mirror
from regcred.eviction import evictor
from tests.cluster.fake_api import FakeApi, client_of, fake_api, kubeconfig

Json = dict[str, Any]
CREATED = dt.datetime.now(dt.UTC).replace(microsecond=0)
SERVERS = '{"r.io":{"from":"ClusterRegistryCredential/platform","uid":"asks"}}'


def asking() -> resource.Resource:
    spec = {
        "registries": [{"server": "r.io", "login": {"secretRef": {"name": "x"}}}],
        "namespaces": {},
        "pods": {"restartStuck": True},
    }
    meta = {"name": "platform", "uid": "asks", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return resource.parse({"kind": names.CLUSTER_KIND, "metadata": meta, "spec": spec})


def meta(name: str, **more: Any) -> Json:
    return {"namespace": "a", "name": name, "uid": name, "resourceVersion": "5", **more}


def account(since: dt.datetime) -> Json:
    managed = {
        "manager": "regcred",
        "time": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fieldsV1": {"f:imagePullSecrets": {}},
    }
    return {"metadata": meta("default", managedFields=[managed]), "imagePullSecrets": [{"name": "regcred"}]}


def pod(name: str = "web-0") -> Json:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "401 Unauthorized"}}
    return {
        "metadata": meta(
            name,
            creationTimestamp=CREATED.strftime("%Y-%m-%dT%H:%M:%SZ"),
            ownerReferences=[{"kind": "ReplicaSet", "name": "web", "controller": True}],
        ),
        "spec": {"containers": [{"name": "c", "image": "r.io/app"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "state": waiting}]},
    }


class Server:
    """An API server with one pod that is stuck, and an answer to its eviction."""

    def __init__(self, fake: FakeApi, since: dt.datetime, *evictions: tuple[int, Json]) -> None:
        self.since = since
        self.evictions = list(evictions)
        self.sent: list[Json] = []
        self.told: list[Json] = []
        fake.then(self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/api/v1":
            return web.json_response({"resources": [{"name": "pods/eviction", "version": "v1beta1"}]})
        if path == "/apis/policy":
            return web.json_response({"preferredVersion": {"version": "v1"}})
        if path.endswith("/serviceaccounts/default"):
            return web.json_response(account(self.since))
        if path.endswith("/eviction"):
            self.sent.append(await request.json())
            status, headers = self.evictions.pop(0) if len(self.evictions) > 1 else self.evictions[0]
            return web.json_response({"kind": "Status", "code": status}, status=status, headers=headers)
        if path.endswith("/events"):
            self.told.append(await request.json())
            return web.json_response({}, status=201)
        if path == "/api/v1/pods" and "watch" in request.query:
            await asyncio.sleep(60)
        items = [pod()] if path == "/api/v1/pods" else []
        return web.json_response({"metadata": {"resourceVersion": "9"}, "items": items})


def seen() -> mirror.Mirror:
    known = mirror.Mirror(lambda _, __: None)
    known.namespaces.upsert({"metadata": {"name": "a", "uid": "a", "resourceVersion": "1"}})
    known.accounts.upsert(account(CREATED))
    marks = {names.CONTRIBUTORS: '{"asks":{"from":"ClusterRegistryCredential/platform"}}', names.SERVERS: SERVERS}
    labels = {names.MANAGED_BY_LABEL: names.MANAGED_BY}
    known.secrets.upsert({"metadata": meta("regcred", labels=labels, annotations=marks)})
    return known


async def until(check: Any) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.02)


async def test_a_refused_eviction_is_tried_again_and_told_once(tmp_path: Path) -> None:
    """429 is a budget's no: it is counted and told once, and after a while the very same pod is tried again."""
    async with fake_api() as fake:
        server = Server(fake, CREATED, (429, {}), (429, {}), (201, {}))
        async with client_of(kubeconfig(tmp_path / "kubeconfig", fake.url, {})) as client:
            recorder = events.Recorder(client, "test")
            before = telemetry.POD_EVICTIONS.labels("blocked")._value.get()
            evicting = evictor.Evictor(
                client, seen(), lambda: [asking()], recorder, pace=0.0, patience=0.1, tick=0.1
            )
            task = asyncio.create_task(evicting.run(lambda: None))
            await until(lambda: len(server.sent) == 3)
            await recorder.drain()
            await until(lambda: len(server.told) == 2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    preconditions = {"uid": "web-0", "resourceVersion": "5"}
    assert all(sent["deleteOptions"]["preconditions"] == preconditions for sent in server.sent)
    assert all(sent["apiVersion"] == "policy/v1beta1" for sent in server.sent)
    assert [told["reason"] for told in server.told] == ["EvictionBlocked", "EvictedStuckPod"]
    assert "disruption budget" in server.told[0]["message"]
    assert telemetry.POD_EVICTIONS.labels("blocked")._value.get() - before == 2


async def test_a_pod_that_the_server_says_is_younger_stays(tmp_path: Path) -> None:
    """The account is read anew before anything is done: a list that is older than the pod means a list of its own."""
    async with fake_api() as fake:
        server = Server(fake, CREATED - dt.timedelta(seconds=1), (201, {}))
        async with client_of(kubeconfig(tmp_path / "kubeconfig", fake.url, {})) as client:
            evicting = evictor.Evictor(client, seen(), lambda: [asking()], events.Recorder(client, "test"))
            task = asyncio.create_task(evicting.run(lambda: None))
            await until(lambda: any("serviceaccounts/default" in path for _, path, _ in fake.requests))
            await until(lambda: "web-0" in evicting._not_before)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert server.sent == []


async def test_no_eviction_after_the_lease_is_lost(tmp_path: Path) -> None:
    """The guard is asked before each eviction, and ends it all where another replica may work."""

    class LostError(Exception):
        pass

    def guard() -> None:
        raise LostError

    async with fake_api() as fake:
        server = Server(fake, CREATED, (201, {}))
        async with client_of(kubeconfig(tmp_path / "kubeconfig", fake.url, {})) as client:
            evicting = evictor.Evictor(client, seen(), lambda: [asking()], events.Recorder(client, "test"))
            with pytest.raises(LostError):
                async with asyncio.timeout(60):
                    await evicting.run(guard)
    assert server.sent == []
