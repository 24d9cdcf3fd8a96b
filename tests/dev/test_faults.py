"""The fault proxy: what no rule names passes unchanged, and what one names fails exactly so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from dev.cluster import Cluster
from dev.faults import (
    Answer,
    Ask,
    Cut,
    Delay,
    Drip,
    FaultProxy,
    Garbage,
    Huge,
    Silence,
    Stale,
    fault_proxy,
    read_ask,
)
from dev.registry import Registry
from regcred.cluster import client as api
from regcred.cluster import errors
from tests.cluster.fake_api import client_of


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/namespaces", {}, ("list", "namespaces", "", "", "")),
        ("GET", "/api/v1/namespaces/a", {}, ("get", "namespaces", "", "", "a")),
        ("GET", "/api/v1/secrets", {"watch": "true"}, ("watch", "secrets", "", "", "")),
        ("PATCH", "/api/v1/namespaces/a/secrets/s", {}, ("patch", "secrets", "", "a", "s")),
        (
            "POST",
            "/api/v1/namespaces/a/serviceaccounts/x/token",
            {},
            ("create", "serviceaccounts", "token", "a", "x"),
        ),
        (
            "PATCH",
            "/apis/regcred.io/v1alpha1/clusterregistrycredentials/c/status",
            {},
            ("patch", "clusterregistrycredentials", "status", "", "c"),
        ),
        ("GET", "/v2/private/app/manifests/1", {}, ("get", "", "", "", "")),
        ("DELETE", "/version", {}, ("delete", "", "", "", "")),
    ],
)
def test_requests_are_read_as_the_api_server_reads_them(
    method: str, path: str, query: dict[str, str], expected: tuple[str, ...]
) -> None:
    """Verb, resource, namespace and name are those that RBAC and the audit log know."""
    assert read_ask(method, path, query) == Ask(method, path, *expected)


@pytest.fixture
async def proxy(control_plane: Cluster) -> AsyncIterator[FaultProxy]:
    """A proxy before the real API server."""
    async with fault_proxy(control_plane.url, ca_file=control_plane.ca_file) as running:
        yield running


@pytest.fixture
async def client(
    proxy: FaultProxy, control_plane: Cluster, namespace: str
) -> AsyncIterator[tuple[api.Client, str]]:
    """A service account that may do everything in a namespace, going through the proxy; and the path of its ConfigMaps."""
    kubectl = control_plane.kubectl
    await kubectl("create", "serviceaccount", "worker", "-n", namespace)
    await kubectl(
        "create", "rolebinding", "worker", "--clusterrole=admin", f"--serviceaccount={namespace}:worker", "-n", namespace
    )  # fmt: skip
    through = proxy.cluster(control_plane, namespace)
    async with client_of(await through.kubeconfig_for_service_account(namespace, "worker"), timeout=5.0) as made:
        yield made, f"/api/v1/namespaces/{namespace}/configmaps"


async def _create(client: api.Client, path: str, name: str) -> None:
    await client.request("POST", path, body={"metadata": {"name": name}})


async def _names(client: api.Client, path: str) -> set[str]:
    found = await client.request("GET", path, tries=1)
    return {item["metadata"]["name"] for item in found["items"]} - {"kube-root-ca.crt"}


async def test_everything_passes_unchanged(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """Reads, writes and watches go through with the caller's own rights, and each is counted."""
    made, path = client
    await _create(made, path, "a")
    listed = await made.request("GET", path)
    assert "a" in {item["metadata"]["name"] for item in listed["items"]}
    with pytest.raises(errors.Forbidden):
        await made.request("GET", "/api/v1/nodes")
    stream = made.watch(path, listed["metadata"]["resourceVersion"], lifetime=20)
    pending: asyncio.Future[Any] = asyncio.ensure_future(anext(stream))
    await _create(made, path, "b")
    event = await asyncio.wait_for(pending, 20)
    assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "b")
    await stream.aclose()
    assert proxy.counts["create", "configmaps"] == 2
    assert proxy.counts["watch", "configmaps"] == 1
    assert [seen.status for seen in proxy.seen if seen.ask.resource == "nodes"] == [403]


async def test_answers_stand_in_for_the_server(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """A rule answers so many times, with its status and Retry-After, and the server hears nothing of it."""
    made, path = client
    with proxy.fault(Answer(429, retry_after=7, reason="TooManyRequests"), verb="create", times=1) as rule:
        with pytest.raises(errors.Unavailable) as caught:
            await made.request("POST", path, body={"metadata": {"name": "a"}}, tries=1)
        assert (caught.value.status, caught.value.retry_after) == (429, 7)
        assert await _names(made, path) == set()
        await _create(made, path, "a")
    assert rule.hits == 1
    for status, kind in (
        (409, errors.Conflict),
        (410, errors.Gone),
        (422, errors.Invalid),
        (503, errors.Unavailable),
    ):
        with proxy.fault(Answer(status), resource="configmaps"), pytest.raises(kind):
            await _names(made, path)
    assert await _names(made, path) == {"a"}


async def test_cut_connections(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """A connection breaks before the request, after it (the write is done), or amid the body."""
    made, path = client
    for name, forwarded in (("lost", False), ("done", True)):
        with proxy.fault(Cut(forwarded=forwarded)), pytest.raises(errors.Unavailable):
            await made.request("POST", path, body={"metadata": {"name": name}}, tries=1)
    assert await _names(made, path) == {"done"}
    with proxy.fault(Cut(after=20)), pytest.raises(errors.Unavailable):
        await _names(made, path)


async def test_silent_streams(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """A stream under way falls silent, with its connection open; a new one after the rule works again."""
    made, path = client
    version = (await made.request("GET", path))["metadata"]["resourceVersion"]
    stream = made.watch(path, version, silence=1.0)
    pending: asyncio.Future[Any] = asyncio.ensure_future(anext(stream))
    while not proxy._streams:
        await asyncio.sleep(0.01)
    with proxy.fault(Silence(), verb="watch") as rule:
        assert rule.hits == 1
        await _create(made, path, "unseen")
        with pytest.raises(errors.Unavailable):
            await pending
    async for event in made.watch(path, version, silence=20.0):
        assert event.object["metadata"]["name"] == "unseen"
        break


async def test_stale_answers(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """Reads are answered from the past while the rule stands."""
    made, path = client
    proxy.remember()
    assert await _names(made, path) == set()
    await _create(made, path, "a")
    with proxy.fault(Stale()):
        assert await _names(made, path) == set()
    assert await _names(made, path) == {"a"}


async def test_bad_bodies(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """Bytes that mean nothing and bodies of megabytes arrive as they are told."""
    made, path = client
    with proxy.fault(Garbage()), pytest.raises(errors.Unavailable, match="not JSON"):
        await _names(made, path)
    with proxy.fault(Huge(size=1 << 20)):
        assert len((await made.request("GET", path))["huge"]) == 1 << 20


async def test_late_and_slow_answers(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """An answer comes late, or byte by byte until the caller's patience ends."""
    made, path = client
    began = time.monotonic()
    with proxy.fault(Delay(0.5)):
        await _names(made, path)
    assert time.monotonic() - began >= 0.5
    with proxy.fault(Drip(pause=0.2)), pytest.raises(errors.Unavailable, match="TimeoutError"):
        await _names(made, path)


async def test_partition(client: tuple[api.Client, str], proxy: FaultProxy) -> None:
    """Within a partition nothing gets through, and streams break; after it everything works."""
    made, path = client
    version = (await made.request("GET", path))["metadata"]["resourceVersion"]
    pending: asyncio.Future[Any] = asyncio.ensure_future(anext(made.watch(path, version)))
    while not proxy._streams:
        await asyncio.sleep(0.01)
    with proxy.partition():
        with pytest.raises(errors.Unavailable):
            await pending
        with pytest.raises(errors.Unavailable):
            await _create(made, path, "a")
    assert await _names(made, path) == set()


async def test_before_a_registry(registry: Registry) -> None:
    """The same proxy stands before a registry: its challenge passes, and a fault takes its place."""
    async with fault_proxy(registry.url, tls=False) as proxy:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{proxy.url}/v2/") as answer:
                assert (answer.status, "Basic" in answer.headers["WWW-Authenticate"]) == (401, True)
            with proxy.fault(Answer(500, body=b"<html>"), path="/v2/*"):
                async with session.get(f"{proxy.url}/v2/") as answer:
                    assert (answer.status, await answer.read()) == (500, b"<html>")
    assert [seen.status for seen in proxy.seen] == [401, 500]
