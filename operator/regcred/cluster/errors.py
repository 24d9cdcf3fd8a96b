"""How calls to the API server fail, by what the caller does about it.

    ApiError
    |-- NotFound       404
    |-- Conflict       409: somebody else was faster; read again and decide again
    |-- Forbidden      403
    |-- Gone           410: the resource version is too old; list again
    |-- Invalid        422
    `-- Unavailable    429, 5xx, redirects, and everything between us and the server

The text holds the status and the server's reason word.  The server's own message may quote what was sent, so
it is left out everywhere but in `detail`, which is for decisions, never for people.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp


class ApiError(Exception):
    """The API server refused a request, or could not be asked.

    Attributes:
        status: the HTTP status; 0 where no answer came.
        reason: the `reason` of the server's Status object, such as `AlreadyExists`.
        detail: the server's message; may quote what was sent: never show or log it.
        causes: the `reason` of every cause the server names, such as `NamespaceTerminating`.
        fields: the path of every field the server refuses.
        retry_after: seconds the server asked to wait, or None.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        detail: str = "",
        causes: tuple[str, ...] = (),
        fields: tuple[str, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        told = f"the API server answered {status} {reason}" if status else reason
        super().__init__(f"{told} ({', '.join(fields[:3])})" if fields else told)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.causes = causes
        self.fields = fields
        self.retry_after = retry_after


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Conflict(ApiError):
    """The object changed since it was read, or a field belongs to somebody else."""


class Forbidden(ApiError):
    """RBAC or admission does not allow it; `terminating` where the namespace is on its way out."""

    @property
    def terminating(self) -> bool:
        """Whether the only obstacle is that the namespace is being deleted."""
        return "NamespaceTerminating" in self.causes or "being terminated" in self.detail


class Gone(ApiError):
    """The resource version or the continue token has expired."""


class Invalid(ApiError):
    """The server's validation refused the object."""


class Unavailable(ApiError):
    """No useful answer: overload, a server error, or no connection."""


#: A reason is one word; what a proxy puts in its place is not shown.
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,127}")
_DIGITS = re.compile(r"[0-9]{1,9}")

_BY_STATUS: dict[int, type[ApiError]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unavailable,
}


#: The longest a server may make a caller wait, in seconds.
_LONGEST = 300.0


def from_response(status: int, body: bytes, headers: Any) -> ApiError:
    """Return the error of an answer with `status` of 300 or more, whoever gave it: a proxy's page is no Status."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = {}
    return from_status(document, status, headers.get("Retry-After", ""))


def from_status(document: Any, status: int = 0, retry_after: str = "") -> ApiError:
    """Return the error that a `Status` object stands for, such as the object of an ERROR watch event."""
    document = document if isinstance(document, dict) else {}
    details = document.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    code = document.get("code")
    status = status or (code if isinstance(code, int) else 500)
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 or status < 400 else ApiError)
    reason = document.get("reason")
    return kind(
        status,
        reason if isinstance(reason, str) and _REASON.fullmatch(reason) else "Unknown",
        detail=str(document.get("message") or ""),
        causes=tuple(
            str(cause.get("reason", ""))
            for cause in (causes if isinstance(causes, list) else ())
            if isinstance(cause, dict)
        ),
        retry_after=_seconds(retry_after) or _seconds(str(details.get("retryAfterSeconds") or "")),
    )


def _seconds(text: str) -> float | None:
    """Return a wait that a server asks for, bounded; None where it asks for none.  A date counts as none."""
    return min(float(text), _LONGEST) if _DIGITS.fullmatch(text) else None


#: What aiohttp and the socket raise when there was no complete answer.
CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


def from_connection(error: BaseException) -> Unavailable:
    """Return the error of a request without an answer; the class name is the only safe part of `error`."""
    return Unavailable(0, f"no answer from the API server ({type(error).__name__})")
