"""Turns a proof of identity into one of Google's access tokens.  Blocking; runs in a thread.

Each way is one explicit class of google-auth.  `google.auth.default()` and its loaders are not used: they obey
files of any type, ask the network for a project while loading, and start programs that a file names.  Only
`refresh` is called, never `before_request`, which starts a thread of its own for another purpose.

This module is imported when the first Google credential is asked for, google-auth with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.auth import compute_engine, identity_pool, impersonated_credentials
from google.oauth2 import service_account

from regcred.credentials import exchange, provider
from regcred.credentials.providers.gcr import keys as gcr_keys
from regcred.credentials.providers.gcr import transport as gcr_transport
from regcred.credentials.providers.gcr import verdicts as gcr_verdicts

_log = logging.getLogger(__name__)

_JWT = "urn:ietf:params:oauth:token-type:jwt"
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_SUBJECT = re.compile(r"[A-Za-z0-9:@/._=-]{1,256}")
_GKE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_WORKLOAD_IDENTITY = re.compile(r"[a-z0-9.:-]{1,100}\.svc\.id\.goog")
_ACCOUNT_IN_URL = re.compile(
    r"https://iamcredentials\.[a-z0-9.]+/v1/projects/-/serviceAccounts/(?P<email>[^/:]+):generateAccessToken"
)
#: One hour, Google's own limit unless an organisation policy raises it.
_LIFETIME_SECONDS = 3600


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Attributes:
        value: the token; never shown.
        identity: whose it is.
        expires_at: when it ends, UTC, as Google says.
    """

    value: str = dataclasses.field(repr=False)
    identity: str
    expires_at: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What is to be had with a proof of identity.

    Attributes:
        scopes: OAuth scopes of the token.
        target: service account to act as, or "" for the identity itself.
        universe: the domain of Google's APIs.
    """

    scopes: Sequence[str]
    target: str
    universe: str


class _Subject:
    """Hands google-auth a token that we hold already (its `SubjectTokenSupplier`)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_subject_token(self, context: object, request: object) -> str:  # noqa: ARG002 - google-auth's signature
        return self._token


def check_key(key: gcr_keys.Key, universe: str) -> None:
    """See that the private key is one, before it is published as it is.

    Raises:
        InvalidSpec: it is not (reason `SourceInvalid`).
    """
    _signer(key, Order((), "", universe))


def with_key(key: gcr_keys.Key, order: Order, transport: gcr_transport.Transport) -> Token:
    """Sign an assertion with a service account's key, and exchange it.

    Raises:
        ProviderError: see `gcr_verdicts`; InvalidSpec where the private key is none.
    """
    return _finish(_signer(key, order), key.email, order, transport)


def with_subject_token(
    token: str, audience: str, identity: str, order: Order, transport: gcr_transport.Transport
) -> Token:
    """Exchange a token of a service account of Kubernetes: workload identity federation.

    Args:
        token: the Kubernetes token.
        audience: of the exchange: the full name of the workload identity provider.
        identity: the federated principal, for the status.
        order: what is to be had.
        transport: to Google.

    Raises:
        ProviderError: see `gcr_verdicts`.
    """
    return _finish(_federated(token, audience, order), identity, order, transport)


def as_operator(order: Order, environment: Mapping[str, str], transport: gcr_transport.Transport) -> Token:
    """Use the operator's own identity: the file of `GOOGLE_APPLICATION_CREDENTIALS`, else the metadata server.

    The file is a service account's key, or a workload identity federation configuration that reads the token from
    a file, as `gcloud iam workload-identity-pools create-cred-config --credential-source-file` writes it.

    Raises:
        ProviderError: see `gcr_verdicts`; Denied where the file is not usable (`OperatorMisconfigured`).
    """
    path = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    if path:
        credentials, identity = _from_file(pathlib.Path(path), order)
        return _finish(credentials, identity, order, transport)
    credentials = compute_engine.Credentials(  # type: ignore[no-untyped-call]
        scopes=list(order.scopes), universe_domain=order.universe
    )
    token = _finish(credentials, order.target, order, transport)
    if order.target:
        return token
    email = str(credentials.service_account_email)
    known = gcr_keys.EMAIL.fullmatch(email) or _WORKLOAD_IDENTITY.fullmatch(email)
    return dataclasses.replace(token, identity=email if known else "the operator's own identity")


def gke_provider(transport: gcr_transport.Transport) -> str:
    """Return the audience of this GKE cluster's own workload identity provider, from the metadata server.

    Raises:
        InvalidSpec: this is no GKE cluster (reason `AudienceMissing`).
        Retryable: no metadata server answers, which may pass on GKE.
    """
    advice = (
        "gcr.audience is left out, which works on GKE only, and {}; set it to //iam.googleapis.com/projects/"
        "NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER."
    )
    values = []
    problem: provider.ProviderError | None = None
    for path in ("project/project-id", "instance/attributes/cluster-location", "instance/attributes/cluster-name"):
        try:
            answer = transport(gcr_transport.metadata_url(path), headers={"Metadata-Flavor": "Google"})
        except provider.Denied:
            problem = _audience_missing(advice.format("this machine belongs to no GKE cluster"))
        except provider.Retryable as error:
            text = (
                advice.format("no metadata server answers here")
                if error.reason == "Unreachable"
                else error.message
            )
            problem = provider.Retryable(error.reason, text, field="gcr.audience")
        if problem is not None:
            break
        values.append(answer.data.decode("ascii", "replace").strip())
    if problem is None and not all(_GKE_NAME.fullmatch(value) for value in values):
        problem = _audience_missing(advice.format("the metadata server does not name this cluster as GKE does"))
    if problem is not None:
        raise problem
    project, location, name = values
    cluster = f"https://container.googleapis.com/v1/projects/{project}/locations/{location}/clusters/{name}"
    return f"identitynamespace:{project}.svc.id.goog:{cluster}"


def _audience_missing(text: str) -> provider.InvalidSpec:
    return provider.InvalidSpec("AudienceMissing", text, field="gcr.audience")


def _signer(key: gcr_keys.Key, order: Order) -> Any:
    info = {
        "type": "service_account",
        "client_email": key.email,
        "private_key_id": key.key_id,
        "private_key": key.private_key,
        # Whatever the key says, an assertion goes to Google's present address.
        "token_uri": gcr_transport.oauth_url(order.universe),
        "universe_domain": order.universe,
    }
    with contextlib.suppress(Exception):  # whatever a parser of PEM may raise
        signer = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            info, scopes=list(order.scopes)
        )
        signer.sign_bytes(b"regcred")  # a key of another kind loads, and fails only here
        return signer
    raise provider.InvalidSpec(
        "SourceInvalid",
        f"The private_key in the key of {key.email} is no RSA key in PEM; store the key file again, unchanged.",
        field=gcr_keys.FIELD,
    )


def _federated(token: str, audience: str, order: Order) -> Any:
    return identity_pool.Credentials(  # type: ignore[no-untyped-call]
        audience=audience,
        subject_token_type=_JWT,
        token_url=gcr_transport.sts_url(order.universe),
        subject_token_supplier=_Subject(token),
        scopes=list(order.scopes),
        universe_domain=order.universe,
    )


def _acting_as(source: Any, target: str, order: Order) -> Any:
    return impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
        source_credentials=source,
        target_principal=target,
        target_scopes=list(order.scopes),
        lifetime=_LIFETIME_SECONDS,
        iam_endpoint_override=gcr_transport.iam_url(order.universe, target),
    )


def _finish(credentials: Any, identity: str, order: Order, transport: gcr_transport.Transport) -> Token:
    if order.target:
        credentials, identity = _acting_as(credentials, order.target, order), order.target
    failure = ""
    try:
        credentials.refresh(transport)
    except provider.ProviderError:
        raise
    except Exception as error:  # noqa: BLE001 - an answer with status 200 that google-auth cannot use
        failure = type(error).__name__
    value, expiry = credentials.token, credentials.expiry
    if failure or not isinstance(value, str) or not _TOKEN.fullmatch(value) or expiry is None:
        _log.info("Google's answer held no usable token (%s).", failure or "no token or no expiry")
        raise provider.Retryable(
            "UnexpectedAnswer",
            "Google's answer held no usable token; see whether a proxy or portal stands before it.",
        )
    expires_at = expiry.replace(tzinfo=datetime.UTC)  # google-auth's is UTC without saying so
    if expires_at <= datetime.datetime.now(datetime.UTC):
        raise provider.Retryable(
            "ClockSkew",
            "Google handed out a token that has ended already by our clock; set the clock of the operator's node.",
        )
    return Token(value, identity, expires_at)


def _from_file(path: pathlib.Path, order: Order) -> tuple[Any, str]:
    """Return the credentials of the operator's own file, and whose they are."""
    what = "The file of GOOGLE_APPLICATION_CREDENTIALS"
    raw = _read(path, what)
    try:
        info = json.loads(raw)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict) or info.get("type") != "external_account":
        try:
            key = gcr_keys.parse(raw, what, order.universe)
        except provider.InvalidSpec as error:
            text = error.message
        else:
            return _signer(key, order), key.email
        raise _misconfigured(text)
    source = info.get("credential_source")
    if not isinstance(source, dict) or set(source) - {"file", "format"} or not isinstance(source.get("file"), str):
        raise _misconfigured(f"{what} must take its token from a file, not from an address or a program.")
    audience = str(info.get("audience", ""))
    if info.get("token_url") != gcr_transport.sts_url(order.universe):
        raise _misconfigured(f"{what} has a token_url that is not {gcr_transport.sts_url(order.universe)}.")
    token = _subject_token(_read(pathlib.Path(source["file"]), f"The token that {what.lower()} names"), source)
    credentials = _federated(token, audience, order)
    if url := info.get("service_account_impersonation_url"):
        match = _ACCOUNT_IN_URL.fullmatch(str(url))
        if match is None or not gcr_keys.EMAIL.fullmatch(match["email"]):
            raise _misconfigured(f"{what} has a service_account_impersonation_url that is not Google's.")
        return _acting_as(credentials, match["email"], order), match["email"]
    subject = str(exchange.jwt_claims(token).get("sub", ""))
    return credentials, gcr_verdicts.principal(audience, subject if _SUBJECT.fullmatch(subject) else "")


def _read(path: pathlib.Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        pass
    raise _misconfigured(f"{what} cannot be read; see that it is mounted.")


def _subject_token(raw: bytes, source: Mapping[str, Any]) -> str:
    """Return the token in a file, plain or in a field of JSON; a line break at its end is no part of it."""
    form = source.get("format") or {}
    text = raw.decode("utf-8", "replace")
    if isinstance(form, dict) and form.get("type") == "json":
        try:
            text = json.loads(text)[form.get("subject_token_field_name")]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = ""
    if not isinstance(text, str) or not _TOKEN.fullmatch(text.strip()):
        raise _misconfigured("The file that GOOGLE_APPLICATION_CREDENTIALS leads to holds no token.")
    return text.strip()


def _misconfigured(text: str) -> provider.Denied:
    # Denied, not InvalidSpec: nobody changes the resource for it, so it must be tried again by itself.
    return provider.Denied("OperatorMisconfigured", text)
