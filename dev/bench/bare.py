"""The bare client: asyncio, aiohttp, and nothing but the writes.

It knows beforehand what the operator has to find out, decides nothing and remembers nothing.  Verbs, guards, media
types, sizes and the number of requests in flight are those of regcred.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
KEY = ".dockerconfigjson"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
#: Requests in flight: what regcred's setting `concurrency` is by default.
WIDTH = 32

Json = dict[str, Any]
Item = TypeVar("Item")


class Refused(RuntimeError):
    """The API server answered with an error."""


class Client:
    """Sends requests as the user of a kubeconfig with a token and everything inside.

    Args:
        kubeconfig: as `dev.cluster.write_kubeconfig` makes it.
        width: connections at the most.
    """

    def __init__(self, kubeconfig: Path, width: int = WIDTH) -> None:
        document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster = document["clusters"][0]["cluster"]
        authority = cluster.get("certificate-authority-data")
        context = ssl.create_default_context(cadata=base64.b64decode(authority).decode() if authority else None)
        self._server: str = cluster["server"].rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=width, ssl=context, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {document['users'][0]['user']['token']}"},
            timeout=aiohttp.ClientTimeout(total=120, sock_connect=10),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def send(
        self, method: str, path: str, body: bytes | None = None, content_type: str = JSON, accept: str = JSON
    ) -> Json:
        """Send one request, once, and return the answer.

        Raises:
            Refused: it was not answered with 2xx.
        """
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        async with self._session.request(method, self._server + path, data=body, headers=headers) as response:
            content = await response.read()
            if response.status >= 300:
                raise Refused(f"{method} {path.partition('?')[0]}: {response.status}")
            answer: Json = json.loads(content)
            return answer

    async def pages(self, path: str, accept: str = JSON) -> list[Json]:
        """Return every item of a collection."""
        items: list[Json] = []
        token = ""
        while True:
            mark = "&" if "?" in path else "?"
            answer = await self.send("GET", f"{path}{mark}limit=500&continue={token}", accept=accept)
            items += answer["items"] or []
            token = answer["metadata"].get("continue") or ""
            if not token:
                return items

    async def watch(self, path: str, version: str, accept: str = JSON) -> AsyncIterator[Json]:
        """Yield the events of a collection since a resource version, until the server ends it."""
        mark = "&" if "?" in path else "?"
        url = f"{self._server}{path}{mark}watch=true&resourceVersion={version}&timeoutSeconds=3600"
        async with self._session.get(
            url, headers={"Accept": accept}, timeout=aiohttp.ClientTimeout(total=None)
        ) as response:
            async for line in response.content:
                yield json.loads(line)


async def spread(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], width: int = WIDTH) -> None:
    """Do `work` on every item, `width` at once."""
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(lane())


class Writer:
    """Hands a Secret out as regcred does: the Secret by apply-patch, then the accounts by guarded merge-patch.

    Args:
        client: sends the requests.
        name: of the Secret, other than regcred's.
        sample: a Secret that regcred has written, for the bodies to be of the same size.
        owners: what the owner references name instead of regcred's resources; they outlive the run.
    """

    def __init__(self, client: Client, name: str, sample: Json, owners: Sequence[Json]) -> None:
        self._client = client
        self.name = name
        self._sample = sample
        self._owners = owners
        self._tail = secret_tail(name, sample, owners)
        self._known: dict[str, tuple[str, str]] = {}

    async def write(self, namespace: str) -> None:
        """Create or update the Secret of one namespace."""
        known = self._known.get(namespace)
        guard = f'"uid":"{known[0]}","resourceVersion":"{known[1]}",' if known else ""
        force = "true" if known else "false"
        answer = await self._client.send(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/secrets/{self.name}?fieldManager=bench&force={force}",
            b'{"apiVersion":"v1","kind":"Secret","metadata":{' + guard.encode() + self._tail,
            APPLY,
            METADATA,
        )
        self._known[namespace] = (answer["metadata"]["uid"], answer["metadata"]["resourceVersion"])

    async def attach(self, account: Json) -> None:
        """Add the Secret to one account, given as it is."""
        meta = account["metadata"]
        entries = [*(account.get("imagePullSecrets") or []), {"name": self.name}]
        await self._client.send(
            "PATCH",
            f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{meta['name']}?fieldManager=bench",
            json.dumps(
                {
                    "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
                    "imagePullSecrets": entries,
                },
                separators=(",", ":"),
            ).encode(),
            MERGE,
        )

    async def distribute(self, accounts: Mapping[str, Sequence[Json]]) -> None:
        """Write the Secret of every namespace and attach its accounts."""

        async def one(namespace: str) -> None:
            await self.write(namespace)
            for account in accounts[namespace]:
                await self.attach(account)

        await spread(accounts, one)

    async def renew(self, namespaces: Iterable[str]) -> None:
        """Write a Secret with other data, of the same size, over every one that stands."""
        self._sample = renewed(self._sample)
        self._tail = secret_tail(self.name, self._sample, self._owners)
        await spread(namespaces, self.write)

    async def follow(self, wanted: Callable[[str, str], bool], version: str) -> None:
        """Serve every wanted account, by namespace and name, the moment it is born; for ever."""
        async with asyncio.TaskGroup() as group:
            async for event in self._client.watch("/api/v1/serviceaccounts", version):
                meta = event["object"]["metadata"]
                if event["type"] == "ADDED" and wanted(meta["namespace"], meta["name"]):
                    group.create_task(self._serve(event["object"]))

    async def _serve(self, account: Json) -> None:
        meta = account["metadata"]
        if meta["namespace"] not in self._known:
            await self.write(meta["namespace"])
        while True:
            try:
                await self.attach(account)
            except Refused:
                # Somebody else has changed it since.
                where = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{meta['name']}"
                account = await self._client.send("GET", where)
            else:
                return


def secret_tail(name: str, sample: Json, owners: Sequence[Json]) -> bytes:
    """Return the body of an apply-patch without its beginning, where uid and resourceVersion stand if known."""
    meta = sample["metadata"]
    metadata = {
        "name": name,
        "labels": meta["labels"],
        "annotations": meta["annotations"],
        "ownerReferences": list(owners[: len(meta.get("ownerReferences", ()))]),
    }
    rest = {"type": sample["type"], "data": sample["data"]}
    compact = (",", ":")
    return (json.dumps(metadata, separators=compact)[1:] + "," + json.dumps(rest, separators=compact)[1:]).encode()


def renewed(sample: Json) -> Json:
    """Return a Secret with one password turned round, so that the server has as many other bytes to write."""
    document = json.loads(base64.b64decode(sample["data"][KEY]))
    row = document["auths"][min(document["auths"])]
    row["password"] = row["password"][::-1]
    data = base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()
    return {**sample, "data": {KEY: data}}
