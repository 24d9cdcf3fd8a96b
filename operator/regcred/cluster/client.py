"""A thin client for the Kubernetes API on one limited aiohttp session.

Requests are plain dicts: the typed classes of the `kubernetes` package cost a third of the speed and 100 MB for
nothing regcred needs.  Watches have a pool of their own, so that they never take a connection from a write.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp

import regcred
from regcred.cluster import errors, items
from regcred.cluster.access import Login, login

__all__ = ["APPLY", "JSON", "MERGE", "METADATA", "METADATA_LIST", "Client", "Login", "WatchEvent", "login"]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"

#: The answer holds the object's metadata only: no login ever travels back to us.
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

PAGE = 500
_TRIES = 4
#: Bytes of a body that is not written in one go.
_LARGE = 256 * 1024
#: Seconds that a server may make one request wait.
_LONGEST = 30.0
#: Seconds without a byte after which a list that is read as it comes counts as dead.
_SILENCE = 30.0


class WatchEvent(NamedTuple):
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: dict[str, Any]


class Client:
    """Sends requests to the API server.

    Args:
        access: how to reach it.
        connections: the most requests at once, watches apart.
        timeout: seconds for one request, watches apart.
        observe: called with the verb and the status of each answer, 0 where there was none; watches apart.
    """

    def __init__(
        self,
        access: Login,
        *,
        connections: int = 32,
        timeout: float = 30.0,
        observe: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self.access = access
        self._observe = observe
        # Waiting for one of the connections counts towards the whole, and not as a server that does not answer.
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=10.0)
        #: Raises when nothing may be written any more.  Asked when a write has its connection: whatever a request has
        #: waited for until then, be it that the whole process was stopped, nothing comes between.
        self.fence: Callable[[], None] = lambda: None
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(self._connected)
        tracing.on_connection_create_end.append(self._connected)
        # Compression costs both sides more processor time than the bytes are worth between them.
        headers = {"User-Agent": f"regcred/{regcred.__version__}", "Accept-Encoding": "identity"}
        self._session = aiohttp.ClientSession(
            trace_configs=[tracing],
            connector=aiohttp.TCPConnector(limit=connections, ssl=access.ssl, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
        )
        self._watches = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=access.ssl),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._watches.close()

    async def _connected(self, _: aiohttp.ClientSession, context: Any, __: object) -> None:
        if context.trace_request_ctx != "GET":
            self.fence()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        tries: int = _TRIES,
        urgent: bool = False,
    ) -> Any:
        """Send one request and return the decoded answer.

        Answers of 429 and 5xx and lost connections are tried again with jitter, as long as the server asks to.
        Callers guard their writes with uid and resourceVersion, so a repeated write is safe.  A refused token is
        read anew, and the request sent once more.

        Args:
            method: the HTTP verb.
            path: below the server's address, such as `/api/v1/namespaces`.
            params: the query.
            body: a JSON-like document, or bytes already encoded.
            content_type: the media type of the body.
            accept: the media type wanted.
            tries: how often at the most, a refused token apart.
            urgent: do not wait for a connection while others are busy, nor ask the fence, as the Lease must not.

        Raises:
            errors.ApiError: its subclass says what to do.
        """
        data = body if isinstance(body, bytes | None) else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Accept": accept} | ({"Content-Type": content_type} if data is not None else {})
        attempt, refused = 1, False
        while True:
            try:
                return await self._send(method, path, params, data, headers, urgent=urgent, fresh=refused)
            except errors.ApiError as error:
                if error.status == 401 and not refused:
                    refused = True
                    continue
                if attempt == tries or not isinstance(error, errors.Unavailable):
                    raise
                # The first lost connection is most often a stale keep-alive: try again at once.
                pause = 0.0 if error.status == 0 and attempt == 1 else 0.2 * 2**attempt * random.random()
                if error.retry_after:
                    pause = min(error.retry_after, _LONGEST) * random.uniform(1.0, 1.25)
            attempt += 1
            await asyncio.sleep(pause)

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        *,
        urgent: bool,
        fresh: bool,
    ) -> Any:
        authorization = await self.access.headers(fresh=fresh)
        try:
            async with (self._watches if urgent else self._session).request(
                method,
                self.access.server + path,
                params=params,
                # A large body is sent piece by piece, so that others run meanwhile.
                data=io.BytesIO(data) if data is not None and len(data) > _LARGE else data,
                headers=headers | authorization,
                timeout=self._timeout,
                trace_request_ctx=method,
                proxy=self.access.proxy,
                # The API server sends nobody elsewhere, and our login goes nowhere else.
                allow_redirects=False,
            ) as response:
                content = await response.read()
                self._observe(method, response.status)
                if response.status < 300:
                    return json.loads(content) if content else None
                raise errors.from_response(response.status, content, response.headers)
        except errors.CONNECTION_ERRORS as failure:
            self._observe(method, 0)
            raise errors.from_connection(failure) from None
        except (ValueError, RecursionError):
            raise errors.Unavailable(0, "the API server's answer was not JSON") from None

    async def get(self, path: str, *, accept: str = JSON) -> dict[str, Any]:
        """Return the object at `path`."""
        return _object(await self.request("GET", path, accept=accept))

    async def pages(
        self, path: str, *, params: Mapping[str, str] | None = None, metadata: bool = False
    ) -> AsyncGenerator[tuple[list[dict[str, Any]], str], None]:
        """List in pages of 500: the items of each page, and the list's resource version.

        Raises:
            errors.Gone: the listing took too long and has to begin again.
        """
        token = ""
        accept = METADATA_LIST if metadata else JSON
        while True:
            query = {**(params or {}), "limit": str(PAGE), **({"continue": token} if token else {})}
            answer = _object(await self.request("GET", path, params=query, accept=accept))
            # A list without items may hold null in their place.
            meta, items = answer["metadata"], answer.get("items")
            items = [] if items is None else items
            if not isinstance(items, list) or not meta.get("resourceVersion"):
                raise errors.Unavailable(0, "the API server's answer was not a list")
            token = meta.get("continue") or ""
            yield items, str(meta["resourceVersion"])
            if not token:
                return

    async def cached(
        self, path: str, *, params: Mapping[str, str] | None = None, metadata: bool = False
    ) -> AsyncGenerator[tuple[list[dict[str, Any]], str], None]:
        """List from the API server's watch cache: items as they arrive, and the list's resource version.

        A server before 1.31 answers a list with a selector from etcd, where it reads every object of the kind; its
        cache knows them already.  The cache may lag behind etcd, and pages nothing, so the answer is decoded as it
        comes.
        Source: kubernetes.io, "Kubernetes API concepts", semantics of resourceVersion="0".

        Raises:
            errors.ApiError: the server refused, or its answer was cut or is not a list.
        """
        query = {**(params or {}), "resourceVersion": "0"}
        accept = METADATA_LIST if metadata else JSON
        decoder = items.Decoder()
        async with self._stream(path, query, accept=accept, silence=_SILENCE) as response:
            try:
                async for chunk in response.content.iter_chunked(_LARGE):
                    if found := decoder.feed(chunk):
                        yield [_object(item) for item in found], decoder.version
                decoder.close()
            except (ValueError, RecursionError):
                raise errors.Unavailable(0, "the API server's answer was not a list") from None
            yield [], decoder.version

    @contextlib.asynccontextmanager
    async def _stream(
        self, path: str, query: Mapping[str, str], *, accept: str, silence: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Open an answer that is read as it comes; a refused token is read anew, once."""
        for fresh in (False, True):
            authorization = await self.access.headers(fresh=fresh)
            try:
                async with self._watches.get(
                    self.access.server + path,
                    params=query,
                    headers={"Accept": accept} | authorization,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence),
                    proxy=self.access.proxy,
                    allow_redirects=False,
                ) as response:
                    if response.status == 401 and not fresh:
                        continue
                    if response.status >= 300:
                        raise errors.from_response(response.status, await response.read(), response.headers)
                    yield response
                    return
            except errors.CONNECTION_ERRORS as failure:
                raise errors.from_connection(failure) from None

    async def watch(
        self,
        path: str,
        resource_version: str,
        *,
        params: Mapping[str, str] | None = None,
        metadata: bool = False,
        lifetime: float = 300.0,
        silence: float = 90.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Watch from `resource_version` until the server ends the stream.

        Args:
            path: the collection.
            resource_version: where to begin.
            params: selectors.
            metadata: ask for the metadata of the objects only.
            lifetime: seconds after which the server is asked to end the stream.
            silence: seconds without a byte after which the stream counts as dead; bookmarks come once in a minute, or
                in a minute and a quarter.  Source: kubernetes `storage/cacher`.

        Raises:
            errors.Gone: `resource_version` is too old.
            errors.ApiError: anything else the server said, or silence.
        """
        query = {
            **(params or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(lifetime)),
        }
        async with self._stream(path, query, accept=METADATA if metadata else JSON, silence=silence) as response:
            async for line in _lines(response.content):
                yield _event(line)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, of any length; what a cut stream has left of one is dropped."""
    buffer = bytearray()
    async for chunk in content.iter_any():
        searched = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0


def _event(line: bytes) -> WatchEvent:
    """Return the event of one line.

    Raises:
        errors.ApiError: the server reports an error, or it is no event.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise errors.Unavailable(0, "the watch delivered something that is not an event")
    if event["type"] == "ERROR":
        raise errors.from_status(event.get("object"))
    body = _object(event.get("object"))
    if not body["metadata"].get("resourceVersion"):
        raise errors.Unavailable(0, "the watch delivered something that is not an event")
    return WatchEvent(event["type"], body)


def _object(answer: Any) -> dict[str, Any]:
    """Return an answer that is an object of the API: what stands between us and the server may answer anything.

    Raises:
        errors.Unavailable: it is not.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("metadata"), dict):
        raise errors.Unavailable(0, "the API server's answer was not an object")
    return answer
