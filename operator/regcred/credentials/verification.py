"""Does a login work?  Asked the way a container runtime asks: by the registry's own pull handshake.

A login is proven on the manifest of a repository, since nothing less proves it: `/v2/` answers 200 to users
without any right, token endpoints hand tokens to anybody, and a login that the registry refuses breaks the pull
of a public image too.  The handshake begins without a login, as registries expect, and sends it only to where
the registry's challenge says and `challenge.speaks_for` allows.

    HEAD manifest --200--> nothing was asked (ANONYMOUS_OK)
      `--401 Basic--> HEAD with the login
      `--401 Bearer--> token endpoint (POST as OAuth2, else GET) --> HEAD with the token

What the registry's answers mean differs by vendor; the rules with a vendor's name beside them were seen there.
Answers that say nothing about the login (429, 5xx, a proxy's page) are never taken as a refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import json
import logging
import re
import ssl
from collections.abc import Collection, Mapping, Sequence

import aiohttp
import yarl

from regcred import dockerconfig
from regcred.credentials import challenge, guard

_log = logging.getLogger(__name__)

#: Seconds for one request; a handshake takes five at most.
TIMEOUT = 10.0
#: Registries that are spoken to without TLS when they do not speak it, as container runtimes do.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Where Docker Hub's images are.
_HUB_HOST = "registry-1.docker.io"

_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
#: Texts of a 400 or 403 by which a registry means the login, not the right: ECR's, GitLab's, and common ones.
_MEANS_LOGIN = re.compile(
    rb"token has expired|reauthenticate|authorization token is (?:invalid|malformed)|HTTP Basic: Access denied"
    rb"|(?:incorrect|invalid) (?:username|user name|credentials)|bad credentials",
    re.IGNORECASE,
)
#: The token endpoint of GHCR answers 403 to a wrong password.
_FORBIDS_BAD_LOGIN = frozenset({"ghcr.io"})


class Outcome(enum.Enum):
    """What a handshake showed."""

    OK = "Verified"
    ANONYMOUS_OK = "AnonymousPull"
    NOT_FOUND = "RepositoryNotFound"
    DENIED = "AccessDenied"
    BAD_CREDENTIALS = "BadCredentials"
    UNREACHABLE = "RegistryUnreachable"
    UNKNOWN = "Inconclusive"

    @property
    def accepts(self) -> bool | None:
        """True where the login is proven to pull, False where it is proven not to, None where nothing is."""
        return {Outcome.OK: True, Outcome.DENIED: False, Outcome.BAD_CREDENTIALS: False}.get(self)

    @property
    def reason(self) -> str:
        """CamelCase word for a condition."""
        return self.value


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a handshake showed, with a sentence for people that holds no secret."""

    outcome: Outcome
    message: str


class _Settled(Exception):
    """Ends the handshake before its last answer."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.verdict = Verdict(outcome, message)


async def verify(
    session: aiohttp.ClientSession | None,
    server: str,
    repository: str,
    reference: str,
    login: dockerconfig.Login,
    *,
    ca_bundle: str = "",
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - of each request, not of the whole
    tenant: bool = False,
    insecure_hosts: Collection[str] = LOOPBACK,
) -> Verdict:
    """Try whether `login` may pull an image.

    Args:
        session: of `guard.open_session` with the same `tenant`, to use connections again.  With any other
            session, or None, the handshake has one of its own.
        server: canonical; a path in it is not asked about.
        repository: below the host, such as `org/app`; on Docker Hub `app` is `library/app`.
        reference: tag or digest.
        login: what to prove.
        ca_bundle: PEM of the CAs that are trusted in place of the system's.
        timeout: seconds for each request.
        tenant: whether a namespaced resource asks: link-local and loopback addresses are refused.
        insecure_hosts: hosts, without port, that are tried without TLS when they do not speak it; never for a
            tenant nor where a CA bundle is given.
    """
    host = "docker.io" if server == dockerconfig.DOCKER_HUB else server.partition("/")[0]
    if "*" in host:
        return Verdict(Outcome.UNKNOWN, "The server holds a wildcard, so there is no one registry to ask.")
    try:
        image = dockerconfig.normalise_image(f"{host}/{repository}{'@' if ':' in reference else ':'}{reference}")
        tls = await _tls(ca_bundle)
        async with contextlib.AsyncExitStack() as stack:
            if session is None or not guard.serves(session, tenant=tenant):
                session = await stack.enter_async_context(guard.open_session(tenant=tenant))
            handshake = _Handshake(
                session=session,
                host=_HUB_HOST if host == "docker.io" else host,
                repository=image.repository,
                reference=image.reference,
                login=login,
                tls=tls,
                timeout=timeout,
                plain=not tenant and not ca_bundle and _bare(host) in insecure_hosts,
            )
            return await handshake.run()
    except dockerconfig.BadImage:
        return Verdict(
            Outcome.UNKNOWN, "The repository and tag to verify are no image name; correct verify.repository."
        )
    except _Settled as settled:
        return settled.verdict


def _bare(host: str) -> str:
    """Return a host without port and brackets."""
    return re.sub(r":[0-9]+$", "", host).strip("[]")


async def _tls(ca_bundle: str) -> ssl.SSLContext:
    try:
        return await asyncio.to_thread(_context, ca_bundle)
    except (ssl.SSLError, ValueError):
        pass
    raise _Settled(Outcome.UNREACHABLE, "The CA bundle is no list of PEM certificates; correct tls.caBundle.")


# Making a context reads the system's certificates, 20 ms; and connections are reused only within one context.
@functools.lru_cache(maxsize=128)
def _context(ca_bundle: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca_bundle or None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Handshake:
    """One try: the arguments of `verify`, checked; `plain` allows to go without TLS."""

    session: aiohttp.ClientSession
    host: str
    repository: str
    reference: str
    login: dockerconfig.Login
    tls: ssl.SSLContext
    timeout: float
    plain: bool

    @property
    def _what(self) -> str:
        return f"The registry {self.host}"

    @property
    def _image(self) -> str:
        return f"{self.repository}{'@' if ':' in self.reference else ':'}{self.reference}"

    async def run(self) -> Verdict:
        """Begin without a login and follow the challenge."""
        scheme = "https"
        try:
            answer = await self._manifest(scheme)
        except _Settled:
            if not self.plain:
                raise
            scheme = "http"
            answer = await self._manifest(scheme)
        if answer.status != 401:
            return self._unasked(answer)
        challenges = {
            offered.scheme: offered.parameters
            for offered in reversed(challenge.parse(answer.headers.getall("WWW-Authenticate", [])))
        }
        _log.debug("%s asks for %s", self._what, " or ".join(sorted(challenges)) or "nothing that we know")
        if "bearer" in challenges:
            token = await self._token(scheme, challenges["bearer"])
            return self._judge(await self._manifest(scheme, f"Bearer {token}"), basic=False)
        if "basic" in challenges:
            return self._judge(await self._manifest(scheme, f"Basic {self.login.auth}"), basic=True)
        return Verdict(
            Outcome.UNKNOWN, f"{self._what} answers 401 and offers neither Basic nor Bearer, as registries do."
        )

    def _unasked(self, answer: guard.Answer) -> Verdict:
        """Judge an answer to the request without login, other than 401."""
        if _is_manifest(answer):
            return Verdict(
                Outcome.ANONYMOUS_OK,
                f"{self._what} gives {self._image} to anybody, so the login of user {self.login.username} was not "
                "tried; name a private repository in verify.repository.",
            )
        if answer.status == 404:
            return Verdict(
                Outcome.NOT_FOUND, f"{self._what} has no {self._image} and asked for no login; correct verify."
            )
        return self._odd(answer, self._what)

    def _judge(self, answer: guard.Answer, *, basic: bool) -> Verdict:
        """Judge the answer to the request with the login, or with the token that it gave."""
        user, status = f"user {self.login.username}", answer.status
        if _is_manifest(answer) or (300 <= status < 400):
            return Verdict(Outcome.OK, f"{self._what} lets {user} pull {self._image}.")
        if status == 404:
            return Verdict(
                Outcome.NOT_FOUND,
                f"{self._what} accepts the login of {user} and has no {self._image}, or hides it from this user.",
            )
        if status in {400, 403} and _MEANS_LOGIN.search(answer.body):
            return self._bad(self._what, status)
        if status == 403:
            return self._denied(self._what, status)
        if status == 401 and basic:
            return self._bad(self._what, status)
        if status == 401:
            errors = {
                offered.parameters.get("error", "")
                for offered in challenge.parse(answer.headers.getall("WWW-Authenticate", []))
            }
            if "invalid_token" in errors:
                return Verdict(
                    Outcome.UNKNOWN,
                    f"{self._what} does not accept the tokens of its own token endpoint (HTTP 401).",
                )
            return self._denied(self._what, status)
        return self._odd(answer, self._what)

    def _bad(self, what: str, status: int) -> Verdict:
        return Verdict(
            Outcome.BAD_CREDENTIALS,
            f"{what} answered {status} to the password of user {self.login.username}: "
            "it is wrong, expired or revoked; renew it.",
        )

    def _denied(self, what: str, status: int) -> Verdict:
        return Verdict(
            Outcome.DENIED,
            f"{what} answered {status} to user {self.login.username} for {self.repository}: "
            "grant this user the right to pull, or correct verify.repository.",
        )

    def _odd(self, answer: guard.Answer, what: str) -> Verdict:
        """Judge an answer that says nothing about the login."""
        status = answer.status
        if status == 429:
            text = "asks for patience"
        elif status >= 500:
            text = "has a fault of its own"
        elif 300 <= status < 400:
            text = "answers with a redirect, which is not followed"
        elif status < 300:
            text = "answers with something that is no manifest; see whether a proxy or portal stands before it"
        else:
            text = "answers in a way that says nothing about the login"
        return Verdict(Outcome.UNKNOWN, f"{what} {text} (HTTP {status}).")

    async def _manifest(self, scheme: str, authorization: str = "") -> guard.Answer:
        """Ask for the manifest, with HEAD, which registries do not count as a pull."""
        url = yarl.URL(f"{scheme}://{self.host}/v2/{self.repository}/manifests/{self.reference}")
        headers = {"Accept": _MANIFESTS} | ({"Authorization": authorization} if authorization else {})
        answer = await self._send("HEAD", url, self._what, headers=headers)
        # A few servers know no HEAD; and only the body tells ECR's "expired" from "not allowed".
        if answer.status == 405 or (authorization and answer.status in {400, 403}):
            answer = await self._send("GET", url, self._what, headers=headers)
        return answer

    async def _token(self, scheme: str, parameters: Mapping[str, str]) -> str:
        """Have a token for the repository from the endpoint that the challenge names."""
        realm = self._realm(scheme, parameters)
        what = f"The token endpoint {realm.host} of the registry {self.host}"
        scope = parameters.get("scope") or f"repository:{self.repository}:pull"
        service = [("service", parameters["service"])] if parameters.get("service") else []
        form = [
            ("grant_type", "password"),
            *service,
            ("scope", scope),
            ("client_id", "regcred"),
            ("username", self.login.username),
            ("password", self.login.password),
        ]
        answer = await self._send("POST", realm, what, form=form)
        if answer.status in {400, 401, 404, 405, 501}:
            # As containerd does: GCR, ACR, Artifactory and others know the older way only.
            query = [*service, *(("scope", part) for part in scope.split(" ") if part)]
            headers = {"Authorization": f"Basic {self.login.auth}"}
            answer = await self._send("GET", realm.extend_query(query), what, headers=headers)
        if answer.status == 200:
            return self._token_in(answer, what)
        verdict = self._no_token(answer, what, realm.host or "")
        raise _Settled(verdict.outcome, verdict.message)

    def _no_token(self, answer: guard.Answer, what: str, host: str) -> Verdict:
        if answer.status == 401 or (answer.status in {400, 403} and _MEANS_LOGIN.search(answer.body)):
            return self._bad(what, answer.status)
        if answer.status == 403:
            # Artifact Registry checks the right here already.
            return (self._bad if host in _FORBIDS_BAD_LOGIN else self._denied)(what, answer.status)
        return self._odd(answer, what)

    def _realm(self, scheme: str, parameters: Mapping[str, str]) -> yarl.URL:
        """Return the token endpoint's address, if a login may go there."""
        try:
            realm = yarl.URL(parameters.get("realm", ""))
            host = (realm.host or "").rstrip(".")
        except ValueError:
            realm, host = yarl.URL(), ""
        if realm.scheme not in {"https", "http"} or not host or realm.user or realm.password:
            raise _Settled(Outcome.UNKNOWN, f"{self._what} names no usable address as its token endpoint.")
        if realm.scheme == "http" and scheme != "http":
            raise _Settled(Outcome.UNKNOWN, f"{self._what} wants the login sent without TLS, which is refused.")
        if not challenge.speaks_for(host, _bare(self.host)):
            raise _Settled(
                Outcome.UNKNOWN,
                f"{self._what} wants the login sent to a host of another domain, which is refused; "
                "this registry's login cannot be verified.",
            )
        return realm.with_fragment(None)

    def _token_in(self, answer: guard.Answer, what: str) -> str:
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            for name in ("token", "access_token"):
                token = document.get(name)
                if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token):
                    return token
        raise _Settled(Outcome.UNKNOWN, f"{what} answers without a token (HTTP 200).")

    async def _send(
        self,
        method: str,
        url: yarl.URL,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Sequence[tuple[str, str]] | None = None,
    ) -> guard.Answer:
        try:
            return await guard.send(
                self.session,
                method,
                url,
                what=what,
                tls=self.tls,
                timeout=self.timeout,
                headers=headers,
                form=form,
            )
        except guard.NoAnswer as error:
            raise _Settled(Outcome.UNREACHABLE, str(error)) from None


def _is_manifest(answer: guard.Answer) -> bool:
    """Say whether an answer is a registry's yes, not the page of a proxy or portal that says 200 to all."""
    return 200 <= answer.status < 300 and not answer.headers.get("Content-Type", "").startswith("text/html")
