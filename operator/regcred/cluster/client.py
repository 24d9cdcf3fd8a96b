"""A thin client for the Kubernetes API on one limited aiohttp session.

The `kubernetes` package says where the server is and how to log in (kubeconfig, exec plugins, in-cluster token);
requests are plain dicts.  The typed classes of that package cost a third of the speed and 100 MB for nothing
regcred needs.  Watches have a pool of their own, so that they never take a connection from a write.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pathlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import aiohttp
import kubernetes.client
import kubernetes.config

import regcred
from regcred.cluster import errors

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"

#: The answer holds the object's metadata only: no login ever travels back to us.
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

PAGE = 500
_TRIES = 4
_HEADER_LIFE = 30.0  # seconds a bearer token is used before the source is asked again
_log = logging.getLogger(__name__)


class WatchEvent(NamedTuple):
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: dict[str, Any]


class Login:
    """Reads the bearer token and the certificates of a `kubernetes` configuration, as often as they change.

    The configuration's own hook re-reads the in-cluster token file or runs the exec plugin when due; both block,
    so they run in a thread, at most every 30 seconds.
    """

    def __init__(self, configuration: kubernetes.client.Configuration) -> None:
        self.configuration = configuration
        self.server: str = configuration.host.rstrip("/")
        self.proxy: str | None = configuration.proxy
        self.ssl = self._context()
        self._header: dict[str, str] = {}
        self._read_at = float("-inf")
        self._ca_mtime = self._mtime()
        self._lock = asyncio.Lock()

    def _mtime(self) -> float:
        path = self.configuration.ssl_ca_cert
        return pathlib.Path(path).stat().st_mtime if path and pathlib.Path(path).exists() else 0.0

    def _context(self) -> ssl.SSLContext | bool:
        if not self.server.startswith("https:"):
            return False
        context = ssl.create_default_context(cafile=self.configuration.ssl_ca_cert or None)
        if self.configuration.cert_file:
            context.load_cert_chain(self.configuration.cert_file, self.configuration.key_file)
        if not self.configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def headers(self, *, fresh: bool = False) -> dict[str, str]:
        """Return the Authorization header; `fresh` after the server refused the last one."""
        if not fresh and time.monotonic() - self._read_at < _HEADER_LIFE:
            return self._header
        async with self._lock:
            if fresh or time.monotonic() - self._read_at >= _HEADER_LIFE:
                self._header = await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
        return self._header

    def _read(self) -> dict[str, str]:
        # A rotated CA is added to the live context: new connections trust it, old ones stay open.
        if isinstance(self.ssl, ssl.SSLContext) and (mtime := self._mtime()) != self._ca_mtime:
            self.ssl.load_verify_locations(self.configuration.ssl_ca_cert)
            self._ca_mtime = mtime
        token = self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": token} if token else {}


def login(kubeconfig: str | None = None, context: str | None = None) -> Login:
    """Return how to reach the cluster: the given kubeconfig, else in-cluster, else the user's own.

    Args:
        kubeconfig: path, or None for the default order.
        context: the context in that kubeconfig, or None for its current one.

    Raises:
        kubernetes.config.ConfigException: there is no usable configuration.
    """
    configuration = kubernetes.client.Configuration()
    if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        kubernetes.config.load_incluster_config(client_configuration=configuration)
    else:
        kubernetes.config.load_kube_config(
            config_file=kubeconfig, context=context, client_configuration=configuration
        )
    return Login(configuration)


class Client:
    """Sends requests to the API server.

    Args:
        access: how to reach it.
        connections: the most requests at once, watches apart.
        timeout: seconds for one request, watches apart.
    """

    def __init__(self, access: Login, *, connections: int = 32, timeout: float = 30.0) -> None:
        self.access = access
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=10.0)
        headers = {"User-Agent": f"regcred/{regcred.__version__}"}
        self._session = aiohttp.ClientSession(
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
    ) -> Any:
        """Send one request and return the decoded answer.

        Answers of 429 and 5xx and lost connections are tried again with jitter, as long as the server asks to.
        Callers guard their writes with uid and resourceVersion, so a repeated write is safe.

        Args:
            method: the HTTP verb.
            path: below the server's address, such as `/api/v1/namespaces`.
            params: the query.
            body: a JSON-like document, or bytes already encoded.
            content_type: the media type of the body.
            accept: the media type wanted.
            tries: how often at the most.

        Raises:
            errors.ApiError: its subclass says what to do.
        """
        data = body if isinstance(body, bytes | None) else json.dumps(body, separators=(",", ":")).encode()
        fresh = False
        for attempt in range(1, tries + 1):
            headers = {"Accept": accept, **await self.access.headers(fresh=fresh)}
            if data is not None:
                headers["Content-Type"] = content_type
            error: errors.ApiError
            try:
                async with self._session.request(
                    method,
                    self.access.server + path,
                    params=params,
                    data=data,
                    headers=headers,
                    timeout=self._timeout,
                    proxy=self.access.proxy,
                ) as response:
                    content = await response.read()
                    if response.status < 400:
                        return json.loads(content) if content else None
                    error = errors.from_response(response.status, content, response.headers)
            except errors.CONNECTION_ERRORS as failure:
                error = errors.from_connection(failure)
            except ValueError:
                error = errors.Unavailable(0, "the API server's answer was not JSON")
            if error.status == 401 and not fresh:
                fresh = True
                continue
            if attempt == tries or not isinstance(error, errors.Unavailable):
                raise error
            # The first lost connection is most often a stale keep-alive: try again at once.
            pause = 0.0 if error.status == 0 and attempt == 1 else 0.2 * 2**attempt * random.random()
            await asyncio.sleep(min(error.retry_after or pause, 30.0))
        raise AssertionError("unreachable")  # pragma: no cover

    async def get(self, path: str, *, accept: str = JSON) -> dict[str, Any]:
        """Return the object at `path`."""
        answer: dict[str, Any] = await self.request("GET", path, accept=accept)
        return answer

    async def pages(
        self, path: str, *, params: Mapping[str, str] | None = None, metadata: bool = False
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """List in pages of 500: the items of each page, and the list's resource version.

        Raises:
            errors.Gone: the listing took too long and has to begin again.
        """
        token = ""
        accept = METADATA_LIST if metadata else JSON
        while True:
            query = {**(params or {}), "limit": str(PAGE), **({"continue": token} if token else {})}
            answer = await self.request("GET", path, params=query, accept=accept)
            meta = answer.get("metadata") or {}
            token = meta.get("continue") or ""
            yield answer.get("items") or [], str(meta.get("resourceVersion") or "")
            if not token:
                return

    async def watch(
        self,
        path: str,
        resource_version: str,
        *,
        params: Mapping[str, str] | None = None,
        metadata: bool = False,
        lifetime: float = 300.0,
        silence: float = 75.0,
    ) -> AsyncIterator[WatchEvent]:
        """Watch from `resource_version` until the server ends the stream.

        Args:
            path: the collection.
            resource_version: where to begin.
            params: selectors.
            metadata: ask for the metadata of the objects only.
            lifetime: seconds after which the server is asked to end the stream.
            silence: seconds without a byte after which the stream counts as dead; bookmarks come every minute.

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
        headers = {"Accept": METADATA if metadata else JSON, **await self.access.headers()}
        try:
            async with self._watches.get(
                self.access.server + path,
                params=query,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=silence),
                proxy=self.access.proxy,
            ) as response:
                if response.status >= 400:
                    if response.status == 401:
                        await self.access.headers(fresh=True)
                    raise errors.from_response(response.status, await response.read(), response.headers)
                buffer = bytearray()
                async for chunk in response.content.iter_any():
                    buffer += chunk
                    while (end := buffer.find(b"\n")) >= 0:
                        line = bytes(buffer[:end])
                        del buffer[: end + 1]
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise errors.from_status(event.get("object") or {})
                        yield WatchEvent(event["type"], event["object"])
        except errors.CONNECTION_ERRORS as failure:
            raise errors.from_connection(failure) from None
        except (ValueError, KeyError):
            raise errors.Unavailable(0, "the watch delivered something that is not an event") from None
