"""Posts Kubernetes events about our resources: on transitions only, never one a namespace."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import secrets

from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors

_log = logging.getLogger(__name__)
#: What the API server takes of a message, in bytes.
_NOTE = 1024
_DRAIN = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a resource.

    Attributes:
        warning: whether a person should look.
        reason: CamelCase word.
        message: one sentence.
    """

    warning: bool
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """The object an event is about: one of our resources, unless `api_version` says otherwise."""

    kind: str
    namespace: str
    name: str
    uid: str
    version: str
    api_version: str = names.API_VERSION


class Recorder:
    """Posts events in the background; one that cannot be posted is logged and dropped.

    Args:
        client: the API client.
        instance: which replica reports.
    """

    def __init__(self, client: api.Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._tasks: set[asyncio.Task[None]] = set()

    def post(self, subject: Subject, event: Event) -> None:
        """Post `event`; events on cluster-scoped resources stand in the namespace `default`."""
        task = asyncio.create_task(self._post(subject, event), name="event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until everything is posted, five seconds at the most; what is not by then is dropped."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=_DRAIN)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _post(self, subject: Subject, event: Event) -> None:
        namespace = subject.namespace or "default"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{subject.name[:200]}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "name": subject.name,
                "namespace": subject.namespace,
                "uid": subject.uid,
                "resourceVersion": subject.version,
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason[:128],
            "message": _cut(event.message),
            "source": {"component": names.MANAGER, "host": self._instance},
            "reportingComponent": f"{names.GROUP}/operator",
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._client.request("POST", f"/api/v1/namespaces/{namespace}/events", body=body)
        except errors.Conflict:
            pass  # a lost answer made us send it twice
        except errors.ApiError as error:
            if isinstance(error, errors.Forbidden) and error.terminating:
                return  # its namespace is on its way out, and the event would go with it
            _log.warning("Could not post the event %s: %s", event.reason, error)


def _cut(text: str) -> str:
    """Return `text`, cut at the length that is taken, without half a character at its end."""
    return text.encode("utf-8", "replace")[:_NOTE].decode("utf-8", "ignore")
