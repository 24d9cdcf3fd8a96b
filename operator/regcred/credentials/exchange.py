"""One careful HTTPS request to a token endpoint, and what every token exchange makes of the answer.

Whoever sends a credential over the network needs the same care: only https, no redirect followed, time and body
bounded, a private CA beside the system's, and an error text that is ours.  It stands here once, for the built-in
providers and for plugins (docs/plugins.md).

Environment of the operator: `HTTPS_PROXY` and `NO_PROXY` are honoured; CAs of `SSL_CERT_FILE` and
`REQUESTS_CA_BUNDLE` are trusted besides the system's.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime as dt
import email.utils
import functools
import json
import os
import ssl
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

import regcred
from regcred.credentials import provider

#: Bytes of an answer at most; a token endpoint's is some kilobytes.
MAX_BODY = 256 * 1024
#: Seconds for a whole request, and for its connection.
TIMEOUT = 20.0
CONNECT_TIMEOUT = 5.0
#: Seconds to wait after an answer that asks for patience without saying how long, and at most.
PATIENCE = 60.0
MAX_PATIENCE = 3600.0
#: Seconds by which two clocks may differ before we say so.
SKEW = 120.0

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a token endpoint answered.

    Attributes:
        status: HTTP status.
        headers: by case-insensitive name.
        body: at most `MAX_BODY` bytes; never shown, for it may hold a token.
    """

    status: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    body: bytes = dataclasses.field(repr=False)

    def json(self) -> Mapping[str, Any]:
        """Return the body as a JSON object, or an empty one when it is anything else."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    def text(self, name: str) -> str:
        """Return the string at `name` of the JSON object, or "" when there is none."""
        value = self.json().get(name)
        return value if isinstance(value, str) else ""


class BoundedResponse(aiohttp.ClientResponse):
    """A response that refuses to hold more than `MAX_BODY` bytes, whoever reads it (an SDK too)."""

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            aiohttp.ClientPayloadError: it is longer than `MAX_BODY`.
        """
        if self._body is None:
            body = bytearray()
            async for part in self.content.iter_any():
                body += part
                if len(body) > MAX_BODY:
                    self.close()
                    raise aiohttp.ClientPayloadError("the body is too long")
            self._body = bytes(body)
        return self._body


async def open_session(*, ca_bundle: str = "") -> aiohttp.ClientSession:
    """Return a session for a few requests with credentials; the caller closes it (`async with`).

    It reads nothing from the environment: aiohttp's own way to honour proxies also sends logins of `~/.netrc`.
    A proxy is given with each request (`proxy_of`).

    Args:
        ca_bundle: PEM of CAs to trust besides the system's.

    Raises:
        InvalidSpec: `ca_bundle` is not PEM (field `tls.caBundle`).
        Retryable: a CA file of the operator's environment is not.
    """
    context = await asyncio.to_thread(_ssl_context, ca_bundle)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=8),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"regcred/{regcred.__version__}"},
        response_class=BoundedResponse,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=CONNECT_TIMEOUT),
        trust_env=False,
    )


async def send(
    method: str,
    url: str,
    *,
    what: str,
    headers: Mapping[str, str] | None = None,
    form: Sequence[tuple[str, str]] | None = None,
    ca_bundle: str = "",
) -> Answer:
    """Send one request that holds a credential and return the answer, whatever its status.

    A redirect is returned, never followed: the credential was meant for one host.

    Args:
        method: `GET` or `POST`.
        url: https only.
        what: how an error text calls the other side, such as `The token endpoint of r.io`.
        headers: more headers.
        form: fields of an urlencoded body.
        ca_bundle: PEM of CAs to trust besides the system's.

    Raises:
        InvalidSpec: `ca_bundle` is not PEM.
        Retryable: no whole answer came (reason `Unreachable`).
        ValueError: the URL is not https, a mistake of the caller.
    """
    if not url.startswith("https://"):
        raise ValueError("credentials go over https only")
    async with await open_session(ca_bundle=ca_bundle) as session:
        try:
            async with session.request(
                method,
                url,
                headers=headers,
                data=aiohttp.FormData(form) if form is not None else None,
                proxy=proxy_of(url),
                allow_redirects=False,
            ) as response:
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = unreachable(error, what)
    raise failure  # outside the handler: the foreign exception is no part of ours


def proxy_of(url: str) -> str | None:
    """Return the proxy that the operator's environment names for an address, or None."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def unreachable(error: BaseException, what: str) -> provider.Retryable:
    """Return the error for a request that got no whole answer, with words of our own for the cause."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        cause = "its name does not resolve"
    elif isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        cause = "the proxy of the operator's environment does not let the request through"
    elif isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        cause = "its TLS certificate is not trusted; a private CA goes into tls.caBundle or SSL_CERT_FILE"
    elif isinstance(error, TimeoutError):
        cause = "no answer came in time"
    elif isinstance(error, aiohttp.ClientPayloadError):
        cause = "its answer broke off or was too long"
    elif isinstance(error, aiohttp.ClientConnectionError | OSError):
        cause = "the connection was refused or broke off"
    else:
        cause = "its answer is not HTTP"
    return provider.Retryable("Unreachable", f"{what} cannot be reached: {cause}.")


def passing_failure(answer: Answer, what: str) -> provider.Retryable | None:
    """Return the error of an answer that says nothing about the credential, or None when it may say something.

    Such are redirects (a captive portal), 407, 408, 429, every 5xx, and whatever carries `Retry-After`.
    """
    status, patience = answer.status, retry_after(answer.headers)
    if status == 429 or (patience is not None and status >= 400):
        return provider.Throttled(
            "Throttled", f"{what} asks for patience (HTTP {status}).", after=patience or PATIENCE
        )
    if 300 <= status < 400:
        return provider.Retryable(
            "Redirected",
            f"{what} answers with a redirect (HTTP {status}), which is not followed with a credential; "
            "see whether a proxy or portal stands before it.",
        )
    if status == 407:
        return provider.Retryable("Unreachable", f"The proxy before {what[:1].lower()}{what[1:]} wants a login.")
    if status == 408 or status >= 500:
        return provider.Retryable("ProviderUnavailable", f"{what} has a fault of its own (HTTP {status}).")
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` (a number or a date) asks for, 1 to `MAX_PATIENCE`; None without."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isdecimal():
        seconds = float(text[:6])
    else:
        date = _http_date(text)
        if date is None:
            return None
        seconds = (date - _now()).total_seconds()
    return min(max(seconds, 1.0), MAX_PATIENCE)


def clock_offset(headers: Mapping[str, str]) -> float:
    """Return the seconds by which our clock is ahead of the answer's `Date`; 0 when it tells none."""
    date = _http_date(headers.get("Date", ""))
    return 0.0 if date is None else (_now() - date).total_seconds()


def clock_remark(offset: float) -> str:
    """Return a sentence about clocks that differ by `offset` seconds, or "" when they agree well enough."""
    if abs(offset) < SKEW:
        return ""
    side = "ahead of" if offset > 0 else "behind"
    return f"The clock of the operator's node is {abs(offset) / 60:.0f} minutes {side} the provider's; set it."


def jwt_claims(token: str) -> Mapping[str, Any]:
    """Return what a JWT says of itself, unverified; {} when it is no JWT.

    Good for its expiry and for naming who we are, never for deciding what is allowed.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def jwt_expiry(token: str, what: str) -> dt.datetime:
    """Return when a JWT that was just handed to us ends, UTC, as its `exp` says.

    Args:
        token: the JWT.
        what: who handed it out, for the error text.

    Raises:
        Retryable: it has no usable `exp` (reason `UnexpectedAnswer`), or has ended already by our clock
            (reason `ClockSkew`).
    """
    expiry = _time(jwt_claims(token).get("exp"))
    if expiry is None:
        raise provider.Retryable(
            "UnexpectedAnswer", f"{what} handed out a token that does not say when it ends; it is not used."
        )
    if expiry <= _now():
        raise provider.Retryable(
            "ClockSkew",
            f"{what} handed out a token that has ended already by our clock; "
            "set the clock of the operator's node.",
        )
    return expiry


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _time(seconds: object) -> dt.datetime | None:
    """Return a JWT's NumericDate as a time, or None when it is none."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _http_date(text: str) -> dt.datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=dt.UTC)


def _ssl_context(ca_bundle: str) -> ssl.SSLContext:
    defaults = ssl.get_default_verify_paths()
    paths = [os.environ.get(name, "") for name in _CA_VARIABLES]
    stamps = {path: _stamp(path) for path in (*paths, defaults.cafile or "", defaults.capath or "") if path}
    files = tuple(path for path in paths if stamps.get(path))
    try:
        _made_context("", files, tuple(stamps.items()))
    except (ssl.SSLError, OSError):
        raise provider.Retryable(
            "OperatorMisconfigured",
            f"{' or '.join(_CA_VARIABLES)} in the operator's environment names a file that holds no PEM certificates.",
        ) from None
    try:
        return _made_context(ca_bundle, files, tuple(stamps.items()))
    except (ssl.SSLError, ValueError):
        raise provider.InvalidSpec(
            "InvalidCABundle",
            "The CA bundle is not a list of PEM certificates; write the CA certificates as PEM blocks.",
            field="tls.caBundle",
        ) from None


@functools.lru_cache(maxsize=8)
def _made_context(ca_bundle: str, ca_files: Sequence[str], _stamps: object) -> ssl.SSLContext:
    """Load the CAs, which takes 0.1 s; again when a file has changed."""
    context = ssl.create_default_context()
    for path in ca_files:
        context.load_verify_locations(cafile=path)
    if ca_bundle:
        context.load_verify_locations(cadata=ca_bundle)
    return context


def _stamp(path: str) -> int:
    """Return when a file has last changed, 0 when it is not there."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - a plain question to the system
    except OSError:
        return 0
