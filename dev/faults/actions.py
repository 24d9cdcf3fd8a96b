"""What can go wrong with one exchange.

Every action is a plain value: what it does to the bytes is the proxy's matter, so that a rule can be printed, repeated
and compared.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Delay:
    """Pass everything on, but late: the request, and every part of a stream.

    Attributes:
        seconds: how late.
    """

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Answer in the server's place; it hears nothing.

    Attributes:
        status: HTTP status.
        retry_after: seconds, for a `Retry-After` header.
        reason: of the Status object, as an API server would give it.
        body: sent in place of a Status object.
        headers: further ones.
    """

    status: int
    retry_after: int | None = None
    reason: str = "InternalError"
    body: bytes | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def content(self) -> bytes:
        """Return the body."""
        if self.body is not None:
            return self.body
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
        return json.dumps({**told, "reason": self.reason, "code": self.status, "message": "a fault"}).encode()


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection.

    Attributes:
        after: bytes of the body that still pass; None breaks it before any answer.
        forwarded: whether the server has had the request: a write is then done, and its answer lost.
    """

    after: int | None = None
    forwarded: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Silence:
    """Leave the connection open and say nothing any more, for ever.

    A stream gets its head and then nothing, one that runs already is silenced too, and the bytes that the server sends
    are swallowed.  A single request is never answered.

    Attributes:
        forwarded: whether the server hears a single request.
    """

    forwarded: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Stale:
    """Answer GET and LIST as they were answered first since `remember` was called; what is unknown passes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with bytes that mean nothing.

    Attributes:
        body: the bytes.
        status: HTTP status.
        content_type: what they pretend to be.
    """

    body: bytes = b'{"kind": "Status", \xff\xfe<html>'
    status: int = 200
    content_type: str = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Huge:
    """Answer with a body of many bytes.

    Attributes:
        size: bytes.
        status: HTTP status.
        content_type: what they pretend to be.
    """

    size: int = 10 << 20
    status: int = 200
    content_type: str = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Drip:
    """Pass the answer on a few bytes at a time (slow-loris).

    Attributes:
        size: bytes at a time.
        pause: seconds between them.
    """

    size: int = 1
    pause: float = 0.5


Action = Delay | Answer | Cut | Silence | Stale | Garbage | Huge | Drip
