"""The one way to Google's token endpoints.

google-auth knows the grants; its own transport is not used.  With tenants' keys and tokens at hand it does too
much: it obeys any URL, follows redirects with the credentials, writes bearer tokens to the DEBUG log, and takes
`~/.netrc` over the header it was given.  This one takes its place, and judges the answers where they arrive:

    google-auth --> Transport --> oauth2, sts, iamcredentials, metadata; nothing else
                        |
                gcr_verdicts.verdict --> ProviderError, which passes through google-auth

That also ends google-auth's inner retries (16 s and 6 calls at a sick metadata server): only the keeper
decides when to try again.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

import requests
import urllib3.exceptions

import regcred
from regcred.credentials import exchange, provider
from regcred.credentials.providers.gcr import verdicts as gcr_verdicts
from regcred.credentials.providers.gcr.verdicts import Endpoint, Scene

#: Where the operator's own environment sends an endpoint instead: for private endpoints, and for tests.
OVERRIDES: Mapping[Endpoint, str] = {
    Endpoint.OAUTH: "REGCRED_GOOGLE_OAUTH2_URL",
    Endpoint.STS: "REGCRED_GOOGLE_STS_URL",
    Endpoint.IAM: "REGCRED_GOOGLE_IAMCREDENTIALS_URL",
    Endpoint.METADATA: "REGCRED_GOOGLE_METADATA_URL",
}

_PATHS = {
    Endpoint.OAUTH: re.compile("/token"),
    Endpoint.STS: re.compile("/v1/token"),
    Endpoint.IAM: re.compile(r"/v1/projects/-/serviceAccounts/[a-z0-9.@-]+:generateAccessToken"),
    Endpoint.METADATA: re.compile("/computeMetadata/v1/[A-Za-z0-9/_-]*"),
}
_METADATA_HOSTS = frozenset({"metadata.google.internal", "169.254.169.254"})
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
_METADATA_SECONDS = 3.0  # it is one hop away; google-auth's own figure
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def oauth_url(universe: str) -> str:
    """Return where a signed assertion becomes a token."""
    return f"https://oauth2.{universe}/token"


def sts_url(universe: str) -> str:
    """Return where a foreign token becomes one of Google's."""
    return f"https://sts.{universe}/v1/token"


def iam_url(universe: str, email: str) -> str:
    """Return where a token becomes one of the service account `email`."""
    return f"https://iamcredentials.{universe}/v1/projects/-/serviceAccounts/{email}:generateAccessToken"


def target_of(url: str) -> str:
    """Return the service account in an address made by `iam_url`, or ""."""
    return url.rpartition("/")[2].removesuffix(":generateAccessToken") if "/serviceAccounts/" in url else ""


def metadata_url(path: str) -> str:
    """Return the address of a value of the metadata server."""
    return f"http://metadata.google.internal/computeMetadata/v1/{path}"


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """The three attributes that google-auth reads from a response."""

    status: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    data: bytes = dataclasses.field(repr=False)


class Transport:
    """A `google.auth.transport.Request` with four addresses, one deadline and no redirect.

    Of the operator's environment it honours, on purpose, `HTTPS_PROXY` and `NO_PROXY` (never for the metadata
    server), `REQUESTS_CA_BUNDLE` or else `SSL_CERT_FILE` in place of the built-in CAs, `GCE_METADATA_HOST`, and
    the variables of `OVERRIDES`.  It reads no `~/.netrc`.  A tenant has no part in any of these.

    Args:
        scene: who asks, for the texts of errors.
        environment: the operator's own environment.
        deadline: `time.monotonic()` by which everything has to be over.
    """

    def __init__(self, scene: Scene, environment: Mapping[str, str], deadline: float) -> None:
        self._scene = scene
        self._environment = environment
        self._deadline = deadline

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> Response:
        """Send one request and return its answer, whose status is 200.

        Args:
            url: one of Google's token endpoints, at its own address.
            method: of HTTP.
            body: of the request.
            headers: of the request.

        Raises:
            ProviderError: the address is another one (then nothing is sent), or the answer is no success.
        """
        endpoint = self._endpoint_of(url)
        outcome = self._send(endpoint, method, self._moved(endpoint, url), body, dict(headers or {}))
        # Raised outside any except block: a foreign exception holds the request, and with it the token.
        if isinstance(outcome, provider.ProviderError):
            raise outcome
        if outcome.status != 200:
            answer = exchange.Answer(outcome.status, outcome.headers, outcome.data)
            raise gcr_verdicts.verdict(endpoint, answer, self._scene, target_of(url))
        if endpoint is Endpoint.METADATA and outcome.headers.get("Metadata-Flavor") != "Google":
            raise gcr_verdicts.unexpected(endpoint, self._scene)
        return outcome

    def _endpoint_of(self, url: str) -> Endpoint:
        parts = urllib.parse.urlsplit(url)
        metadata = _METADATA_HOSTS | {self._environment.get("GCE_METADATA_HOST") or "metadata.google.internal"}
        for endpoint, path in _PATHS.items():
            if not path.fullmatch(parts.path):
                continue
            if endpoint is Endpoint.METADATA:
                known = parts.scheme == "http" and parts.netloc in metadata
            else:
                known = parts.scheme == "https" and parts.netloc == f"{endpoint.value}.{self._scene.universe}"
            if known:
                return endpoint
        raise provider.InvalidSpec(
            "AddressRefused", "The credential names an address that is not Google's; nothing was sent there."
        )

    def _moved(self, endpoint: Endpoint, url: str) -> str:
        """Return where `url` is to be found, which only the operator's environment can change."""
        name = OVERRIDES[endpoint]
        base = self._environment.get(name, "").rstrip("/")
        if not base:
            return url
        parts = urllib.parse.urlsplit(base)
        plain = endpoint is Endpoint.METADATA or parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and plain)):
            raise provider.InvalidSpec(
                "OperatorMisconfigured",
                f"The environment variable {name} of the operator is no https address (http on loopback only).",
            )
        asked = urllib.parse.urlsplit(url)
        return base + asked.path + (f"?{asked.query}" if asked.query else "")

    def _send(
        self, endpoint: Endpoint, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> Response | provider.ProviderError:
        local = endpoint is Endpoint.METADATA
        connect, read = (_METADATA_SECONDS, _METADATA_SECONDS) if local else (_CONNECT_SECONDS, _READ_SECONDS)
        left = self._deadline - time.monotonic()
        if left <= 0:
            return self._unreachable(endpoint, requests.Timeout())
        verify = self._environment.get("REQUESTS_CA_BUNDLE") or self._environment.get("SSL_CERT_FILE") or True
        if isinstance(verify, str) and not pathlib.Path(verify).exists():
            return provider.Retryable(
                "OperatorMisconfigured",
                "REQUESTS_CA_BUNDLE or SSL_CERT_FILE in the operator's environment names no existing file.",
            )
        headers["User-Agent"] = f"regcred/{regcred.__version__}"
        try:
            with requests.Session() as session:
                session.trust_env = False
                with session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=(min(connect, left), min(read, left)),
                    allow_redirects=False,
                    stream=True,
                    verify=verify,
                    proxies={} if local else requests.utils.get_environ_proxies(url),
                ) as reply:
                    data = self._read(reply.raw)
                    if data is None:
                        return gcr_verdicts.unexpected(endpoint, self._scene)
                    return Response(reply.status_code, reply.headers, data)
        except (OSError, urllib3.exceptions.HTTPError, UnicodeError) as error:
            return self._unreachable(endpoint, error)

    def _read(self, raw: Any) -> bytes | None:
        """Return a body, or None for a flood or a trickle, so that no answer can hold the thread."""
        data = bytearray()
        while piece := raw.read1(65536, decode_content=True):
            data += piece
            if len(data) > exchange.MAX_BODY or time.monotonic() > self._deadline:
                return None
        return bytes(data)

    def _unreachable(self, endpoint: Endpoint, error: Exception) -> provider.Retryable:
        if endpoint is Endpoint.METADATA:
            return provider.Retryable(
                "Unreachable",
                "No metadata server of Google's answers here. On GKE, let the operator reach it through network "
                "policies; elsewhere, give the entry a serviceAccountRef with an audience, or a secretRef.",
            )
        if isinstance(error, requests.exceptions.ProxyError):
            cause = "the proxy of the operator's environment does not let the request through"
        elif isinstance(error, requests.exceptions.SSLError | ssl.SSLError | urllib3.exceptions.SSLError):
            cause = (
                "its TLS certificate is not trusted; the CA of a proxy that inspects TLS goes into "
                "REQUESTS_CA_BUNDLE"
            )
        elif isinstance(error, requests.exceptions.Timeout | TimeoutError | urllib3.exceptions.TimeoutError):
            cause = "no answer came in time"
        else:
            cause = "its name does not resolve, or the connection was refused or broke off"
        what = self._scene.name_of(endpoint)
        return provider.Retryable("Unreachable", f"{what} cannot be reached: {cause}.")
