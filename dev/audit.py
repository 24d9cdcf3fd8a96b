"""Reads the API server's audit log: who wrote what, and how often."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What a token that is bound to a pod says besides its account.
POD = "authentication.kubernetes.io/pod-name"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One answered request.

    Attributes:
        at: when it was answered, RFC 3339 with microseconds.
        began: when it arrived.
        pod: that the user's token is bound to, or "".
        sent, answered: the bodies, where the control plane was told to keep them for this user.
    """

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    at: str
    began: str = ""
    pod: str = ""
    sent: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    answered: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def is_write(self) -> bool:
        """Whether it meant to change something."""
        return self.verb in WRITES


class AuditLog:
    """The audit log from one moment on.

    Args:
        path: JSON lines, as kube-apiserver writes them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size

    def requests(self, user: str = "") -> Iterator[Request]:
        """Yield every request since this object was made, of `user` only where given."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                document: dict[str, Any] = json.loads(line)
                # A request that was refused with 401 has no user.
                who = document["user"].get("username", "")
                if (user and who != user) or document.get("stage") != "ResponseComplete":
                    continue
                target = document.get("objectRef") or {}
                yield Request(
                    user=who,
                    verb=document["verb"],
                    group=target.get("apiGroup", ""),
                    resource=target.get("resource", ""),
                    subresource=target.get("subresource", ""),
                    namespace=target.get("namespace", ""),
                    name=target.get("name", ""),
                    code=(document.get("responseStatus") or {}).get("code", 0),
                    at=document["stageTimestamp"],
                    began=document["requestReceivedTimestamp"],
                    pod=((document["user"].get("extra") or {}).get(POD) or [""])[0],
                    sent=document.get("requestObject") or {},
                    answered=document.get("responseObject") or {},
                )

    def writes(self, user: str) -> list[Request]:
        """Return the writes of `user` since this object was made, those that were refused left out."""
        return [request for request in self.requests(user) if request.is_write and request.code < 400]
