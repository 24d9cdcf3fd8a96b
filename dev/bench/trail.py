"""What the API server says that was done, when and by whom: its audit log, read as it grows.

The times are those of one clock, of the one party that sees every request, in microseconds.  Nothing is polled for, so
nothing that measures takes part in what is measured.  A cluster that is not ours keeps its audit log for itself: there
`dev.bench.sightings` tells the same from watches.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One answered request; times in seconds since 1970."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    received: float
    answered: float

    @property
    def done(self) -> bool:
        """Whether it was a write that succeeded."""
        return self.verb in WRITES and self.code < 300


class Evidence(Protocol):
    """Where requests are told from."""

    def read(self) -> Sequence[Request]:
        """Return every request so far, in the order of their answers."""

    def busy(self) -> bool:
        """Whether so much has happened since this was last asked that reading it would disturb what is measured."""


#: Bytes of an audit log: a few requests.
_FEW = 32 * 1024


class Audit:
    """The audit log of a kube-apiserver, from now on.

    Args:
        path: JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = self._size = path.stat().st_size
        self._found: list[Request] = []

    def busy(self) -> bool:
        """Whether the log has grown by more than a few requests since this was last asked."""
        before, self._size = self._size, self._path.stat().st_size
        return self._size - before > _FEW

    def read(self) -> Sequence[Request]:
        """Return every request so far, in the order of their answers."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if (request := parse(line)) is not None:
                    self._found.append(request)
        return self._found


def parse(line: bytes) -> Request | None:
    """Return the request of one line of an audit log, or None where it tells of none that was answered."""
    document = json.loads(line)
    target = document.get("objectRef")
    if target is None or document.get("stage") != "ResponseComplete":
        return None
    part = target.get("subresource", "")
    return Request(
        user=document["user"]["username"],
        verb=document["verb"],
        resource=target.get("resource", "") + (f"/{part}" if part else ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=(document.get("responseStatus") or {}).get("code", 0),
        received=seconds(document["requestReceivedTimestamp"]),
        answered=seconds(document["stageTimestamp"]),
    )


def seconds(text: str) -> float:
    """Return an RFC 3339 time of the API server as seconds since 1970."""
    return datetime.datetime.fromisoformat(text).timestamp()


def by(requests: Iterable[Request], user: str, since: float = 0.0) -> list[Request]:
    """Return the requests of one user that were received since a moment."""
    return [request for request in requests if request.user == user and request.received >= since]


def written(requests: Iterable[Request], resource: str, name: str = "") -> list[Request]:
    """Return the successful writes of a kind, or of the objects of one name of it."""
    return [
        request
        for request in requests
        if request.done and request.resource == resource and name in ("", request.name)
    ]


def counted(requests: Iterable[Request]) -> dict[str, int]:
    """Return how often each verb was used on each kind, the most frequent first; refusals stand apart."""
    counts = collections.Counter(
        f"{request.verb} {request.resource}" + (f" ({request.code})" if request.code >= 300 else "")
        for request in requests
    )
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def births(requests: Iterable[Request], since: float = 0.0) -> dict[Key, float]:
    """Return when each service account was there, by namespace and name."""
    return {
        (request.namespace, request.name): request.answered
        for request in requests
        if request.verb == "create"
        and request.resource == "serviceaccounts"
        and request.done
        and request.answered >= since
    }


def entries(requests: Iterable[Request], user: str) -> dict[Key, float]:
    """Return when `user` had first changed each service account, by namespace and name."""
    found: dict[Key, float] = {}
    for request in requests:
        changed = request.done and request.verb in ("patch", "update")
        if changed and request.user == user and request.resource == "serviceaccounts":
            found.setdefault((request.namespace, request.name), request.answered)
    return found


def delays(born: dict[Key, float], served: dict[Key, float]) -> list[float]:
    """Return the seconds from each birth to its entry; one that was never served is no delay but a defect.

    Raises:
        LookupError: a service account was not served.
    """
    missing = sorted(set(born) - set(served))
    if missing:
        raise LookupError(f"{len(missing)} of {len(born)} service accounts were not served, such as {missing[0]}")
    # A write can be answered before the audit log has the creation that it followed.
    return [max(served[key] - at, 0.0) for key, at in born.items()]
