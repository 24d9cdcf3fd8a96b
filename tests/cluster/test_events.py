"""Events about our resources, on the real API server."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dev.waiting import eventually
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import events
from tests.cluster.fake_api import breaks, client_of, fake_api, hangs, kubeconfig, refuses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

    from dev.cluster import Cluster


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """A client of the real API server."""
    async with client_of(control_plane.admin_kubeconfig) as made:
        yield made


async def posted(client: api.Client, namespace: str, name: str) -> list[dict[str, Any]]:
    """The events about an object of this name."""
    params = {"fieldSelector": f"involvedObject.name={name}"}
    return [
        body
        async for items, _ in client.pages(f"/api/v1/namespaces/{namespace}/events", params=params)
        for body in items
    ]


class TestReal:
    """What arrives."""

    async def test_of_a_namespaced_resource(self, client: api.Client, namespace: str) -> None:
        """It stands in the resource's namespace, names it, and kubectl finds it by the resource."""
        recorder = events.Recorder(client, "pod-1")
        subject = events.Subject(names.NAMESPACED_KIND, namespace, "quay", "uid-1", "5")
        recorder.post(subject, events.Event(True, "SourceMissing", "the Secret x does not exist; create it"))
        await recorder.drain()
        (found,) = await posted(client, namespace, "quay")
        assert (found["type"], found["reason"]) == ("Warning", "SourceMissing")
        assert found["message"] == "the Secret x does not exist; create it"
        assert found["involvedObject"] == {
            "apiVersion": names.API_VERSION,
            "kind": names.NAMESPACED_KIND,
            "name": "quay",
            "namespace": namespace,
            "uid": "uid-1",
            "resourceVersion": "5",
        }
        assert (found["source"]["component"], found["reportingInstance"]) == ("regcred", "pod-1")
        assert found["firstTimestamp"]

    async def test_of_a_cluster_resource(self, client: api.Client, namespace: str) -> None:
        """It stands in the namespace `default`, where kubectl describe looks for it."""
        name = f"platform-{namespace}"
        recorder = events.Recorder(client, "pod-1")
        recorder.post(
            events.Subject(names.CLUSTER_KIND, "", name, "uid-1", ""),
            events.Event(False, "Ready", "3 registries in 5 namespaces"),
        )
        await recorder.drain()
        (found,) = await posted(client, "default", name)
        assert (found["type"], found["metadata"]["namespace"]) == ("Normal", "default")
        assert "namespace" not in found["involvedObject"]

    @pytest.mark.parametrize(
        ("message", "kept"),
        [
            ("x" * 5000, "x" * 1024),
            ("\u00e4" * 5000, "\u00e4" * 512),
            ("a" + "\U0001f511" * 600, "a" + "\U0001f511" * 255),
        ],
    )
    async def test_long_ones(self, client: api.Client, namespace: str, message: str, kept: str) -> None:
        """A message of any length is accepted, cut at a whole character; so are long names and reasons."""
        recorder = events.Recorder(client, "i" * 300)
        subject = events.Subject(names.NAMESPACED_KIND, namespace, "n" * 253, "uid-1", "5")
        recorder.post(subject, events.Event(False, "R" * 300, message))
        await recorder.drain()
        (found,) = await posted(client, namespace, "n" * 253)
        assert found["message"] == kept
        assert len(found["reason"]) == 128

    async def test_many(self, client: api.Client, namespace: str) -> None:
        """Fifty at once all arrive, each under a name of its own."""
        recorder = events.Recorder(client, "pod-1")
        subject = events.Subject(names.NAMESPACED_KIND, namespace, "quay", "uid-1", "5")
        for number in range(50):
            recorder.post(subject, events.Event(False, "Ready", f"number {number}"))
        await recorder.drain()
        found = await posted(client, namespace, "quay")
        assert {event["message"] for event in found} == {f"number {number}" for number in range(50)}

    async def test_in_a_namespace_that_ends(
        self, client: api.Client, namespace: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An event about what ends with its namespace is dropped without a word."""
        held = {"metadata": {"name": "held", "finalizers": ["test.regcred.io/held"]}}
        await client.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=held)
        await client.request("DELETE", f"/api/v1/namespaces/{namespace}")
        recorder = events.Recorder(client, "pod-1")
        subject = events.Subject(names.NAMESPACED_KIND, namespace, "quay", "uid-1", "5")
        recorder.post(subject, events.Event(False, "Ready", "it works"))
        await recorder.drain()
        assert caplog.messages == []
        freed = {"metadata": {"finalizers": None}}
        await client.request(
            "PATCH", f"/api/v1/namespaces/{namespace}/configmaps/held", body=freed, content_type=api.MERGE
        )

    async def test_without_the_right(
        self, control_plane: Cluster, namespace: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An event that may not be posted is logged and dropped; posting never raises."""
        await control_plane.kubectl("create", "serviceaccount", "mute", f"--namespace={namespace}")
        path = await control_plane.kubeconfig_for_service_account(namespace, "mute")
        async with client_of(path) as client:
            recorder = events.Recorder(client, "pod-1")
            subject = events.Subject(names.NAMESPACED_KIND, namespace, "quay", "uid-1", "5")
            recorder.post(subject, events.Event(True, "Denied", "c4n4ry"))
            await recorder.drain()
        assert "Could not post the event Denied: the API server answered 403 Forbidden" in caplog.text
        assert "c4n4ry" not in caplog.text


class TestFaults:
    """Against a fake API server."""

    async def test_a_lost_answer(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """An event whose answer was lost is sent again under the same name, and "already there" is fine."""
        async with fake_api() as fake:
            bodies: list[dict[str, Any]] = []

            async def lose(request: web.Request) -> web.StreamResponse:
                bodies.append(json.loads(await request.read()))
                answer = breaks() if len(bodies) == 1 else refuses(409, "AlreadyExists")
                return await answer(request)

            fake.then(lose)
            async with client_of(kubeconfig(tmp_path / "k", fake.url, {"token": "t"})) as client:
                recorder = events.Recorder(client, "pod-1")
                subject = events.Subject(names.NAMESPACED_KIND, "team-a", "quay", "uid-1", "5")
                recorder.post(subject, events.Event(False, "Ready", "all is well"))
                await recorder.drain()
            assert len(bodies) == 2
            assert bodies[0]["metadata"]["name"] == bodies[1]["metadata"]["name"]
        assert caplog.text == ""

    async def test_an_end_that_does_not_wait(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be posted by the end is dropped, and leaves no task."""
        monkeypatch.setattr(events, "_DRAIN", 0.2)
        async with fake_api() as fake:
            fake.then(hangs())
            async with client_of(kubeconfig(tmp_path / "k", fake.url, {"token": "t"})) as client:
                recorder = events.Recorder(client, "pod-1")
                subject = events.Subject(names.NAMESPACED_KIND, "team-a", "quay", "uid-1", "5")
                for _ in range(5):
                    recorder.post(subject, events.Event(False, "Ready", "all is well"))

                async def under_way() -> bool:
                    return len(fake.requests) == 5

                await eventually(under_way, "the requests", every=0.01)
                async with asyncio.timeout(5):
                    await recorder.drain()
                await asyncio.sleep(0)
                assert not [task for task in asyncio.all_tasks() if task.get_name() == "event"]
                await recorder.drain()
