"""A small HTTP server that answers what a real API server never would: for faults alone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from regcred.cluster import client as api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass
class FakeApi:
    """The server.

    Attributes:
        url: its address.
        script: what it answers, request by request; the last answer is repeated.
        requests: (method, path with query, Authorization) of every request.
    """

    url: str = ""
    script: list[Answer] = dataclasses.field(default_factory=list)
    requests: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)

    def then(self, *answers: Answer) -> FakeApi:
        """Answer this next."""
        self.script.extend(answers)
        return self

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, request.headers.get("Authorization", "")))
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await answer(request)


@contextlib.asynccontextmanager
async def fake_api() -> AsyncIterator[FakeApi]:
    """A running server on loopback."""
    fake = FakeApi()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake._handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def kubeconfig(path: Path, url: str, user: dict[str, Any]) -> Path:
    """Write a kubeconfig for `url`; JSON is YAML too."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": user}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "current-context": "fake",
    }
    path.write_text(json.dumps(document))
    return path


@contextlib.asynccontextmanager
async def client_of(path: Path, **more: Any) -> AsyncIterator[api.Client]:
    """A client with that kubeconfig."""
    client = api.Client(api.login(str(path)), **more)
    try:
        yield client
    finally:
        await client.close()


# Answers.


def says(
    document: Any,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> Answer:
    """Answer with a document: JSON, unless it is text or bytes already."""

    async def answer(_: web.Request) -> web.Response:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return web.Response(status=status, body=body, headers=headers, content_type=content_type)

    return answer


def refuses(status: int, reason: str, *, headers: dict[str, str] | None = None, **details: Any) -> Answer:
    """Answer with a Status object."""
    document = {"kind": "Status", "status": "Failure", "reason": reason, "code": status, **details}
    return says(document, status=status, headers=headers)


def breaks() -> Answer:
    """Close the connection without an answer."""

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return answer


def hangs() -> Answer:
    """Never answer."""

    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    return answer


def streams(*parts: bytes | float, cut: bool = False, hang: bool = False) -> Answer:
    """Send these parts, with a pause in seconds between them; then end in order, cut off, or stay silent."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in parts:
            if isinstance(part, bytes):
                await response.write(part)
            else:
                await asyncio.sleep(part)
        if hang:
            await asyncio.Event().wait()
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


def by_token(good: str, answer: Answer) -> Answer:
    """Answer only whoever shows this token, and everybody else with 401."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == f"Bearer {good}":
            return await answer(request)
        return await refuses(401, "Unauthorized")(request)

    return checked


def secret(name: str, version: int, namespace: str = "default") -> dict[str, Any]:
    """The metadata of a Secret."""
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": str(version)}
    }


def listing(*items: dict[str, Any], version: int = 100, more: str = "") -> dict[str, Any]:
    """A list, or a page of one."""
    metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    return {"kind": "List", "metadata": metadata, "items": list(items)}


def event(type_: str, body: dict[str, Any]) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": type_, "object": body}).encode() + b"\n"


def expired() -> bytes:
    """The line by which an API server says that a resource version is too old."""
    return event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
