"""What Amazon checks and moto does not: signatures, service account tokens, trust policies.

A login that a server hands to anybody proves nothing about who asked. So every call that passes through
`dev.clouds.aws` is judged here first, with the rules written down independently of the SDK that is tested.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt

if TYPE_CHECKING:
    from collections.abc import Mapping

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request"
    r", SignedHeaders=(?P<headers>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_CLOCK_SLACK = dt.timedelta(minutes=5)
_MUST_BE_SIGNED = {"host", "x-amz-date"}


@dataclass(frozen=True)
class Fault:
    """An answer that is no success.

    Attributes:
        status: the HTTP status.
        code: Amazon's error code; "" for an answer that is not Amazon's (then `message` is the body).
        message: the error's text.
        headers: sent with it.
        behaviour: `answer`, or `hang` (never answer) or `close` (drop the connection).
    """

    status: int = 400
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    behaviour: str = "answer"


@dataclass(frozen=True)
class Keys:
    """Credentials that the server knows, and whose they are."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    arn: str = ""


@dataclass(frozen=True)
class Trust:
    """A role's trust policy.

    Attributes:
        subjects: service accounts that may take the role on, as `system:serviceaccount:NAMESPACE:NAME`.
        principals: ARNs (of users, or prefixes of role sessions) that may take it on.
        audience: the `aud` that the policy asks of a service account's token.
        external_id: the `sts:ExternalId` that it asks of a principal; "" for none.
    """

    subjects: frozenset[str] = frozenset()
    principals: frozenset[str] = frozenset()
    audience: str = "sts.amazonaws.com"
    external_id: str = ""


@dataclass(frozen=True)
class Issuer:
    """A cluster as an IAM OIDC provider knows it: whose tokens, and for which audiences."""

    url: str
    public_key: str
    audiences: frozenset[str] = frozenset({"sts.amazonaws.com"})


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Signed:
    """A good signature: by which keys, for which region and service."""

    keys: Keys
    region: str
    service: str


def check_signature(request: Request, known: Mapping[str, Keys], *, json: bool) -> Signed | Fault:
    """Recompute a signature of version 4 from the secret that belongs to the id it names.

    Args:
        request: the request; its query string is empty with the services we have.
        known: access key id to keys.
        json: whether the service speaks JSON, which has other names for the same errors.
    """
    match = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        return Fault(
            403, "MissingAuthenticationTokenException" if json else "MissingAuthenticationToken", "no signature"
        )
    keys = known.get(match["id"])
    if keys is None or request.headers.get("X-Amz-Security-Token", "") != keys.session_token:
        code, status = ("UnrecognizedClientException", 400) if json else ("InvalidClientTokenId", 403)
        return Fault(status, code, f"The security token included in the request is invalid: {match['id']}")
    time = request.headers.get("X-Amz-Date", "")
    names = match["headers"].split(";")
    signature_code = "InvalidSignatureException" if json else "SignatureDoesNotMatch"
    if not _MUST_BE_SIGNED.issubset(names) or not time.startswith(match["date"]):
        return Fault(403, signature_code, "host and date must be signed")
    if abs(dt.datetime.now(dt.UTC) - _parsed(time)) > _CLOCK_SLACK:
        return Fault(403, signature_code, f"Signature expired: {time} is now earlier than it may be")
    canonical = "\n".join(
        [
            *(request.method, request.path, ""),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
            *("", match["headers"], hashlib.sha256(request.body).hexdigest()),
        ]
    )
    scope = "/".join([match["date"], match["region"], match["service"], "aws4_request"])
    text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + keys.secret_access_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), match["signature"]):
        return Fault(403, signature_code, f"Credential={match['id']} does not match the signature")
    return Signed(keys, match["region"], match["service"])


def check_token(token: str, role_arn: str, issuer: Issuer | None, roles: Mapping[str, Trust]) -> str | Fault:
    """Judge a service account's token as STS does: issuer, signature, times, audience, then the role's trust.

    Returns:
        The subject, or what STS answers.
    """
    try:
        claimed = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return Fault(400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT.")
    if issuer is None or claimed.get("iss") != issuer.url:
        text = f"No OpenIDConnect provider found in your account for {claimed.get('iss')}"
        return Fault(400, "InvalidIdentityToken", text)
    try:
        claims = jwt.decode(
            token,
            issuer.public_key,
            algorithms=["RS256"],
            audience=list(issuer.audiences),
            issuer=issuer.url,
            options={"require": ["exp", "iat", "sub", "aud"]},
        )
    except jwt.ExpiredSignatureError:
        return Fault(
            400, "ExpiredTokenException", "Token expired: current date/time must be before the expiration"
        )
    except jwt.InvalidAudienceError:
        return Fault(400, "InvalidIdentityToken", "Incorrect token audience")
    except jwt.InvalidTokenError:
        return Fault(400, "InvalidIdentityToken", "The ID Token's signature could not be verified")
    trust = roles.get(role_arn)
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if trust is None or claims["sub"] not in trust.subjects or audiences != [trust.audience]:
        return Fault(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    return str(claims["sub"])


def check_assume(caller: Keys, role_arn: str, external_id: str, roles: Mapping[str, Trust]) -> Fault | None:
    """Judge an AssumeRole as STS does: may this caller take on that role, with that external id?"""
    trust = roles.get(role_arn)
    allowed = trust is not None and any(caller.arn.startswith(arn) for arn in trust.principals)
    if trust is None or not allowed or (trust.external_id and trust.external_id != external_id):
        text = f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
        return Fault(403, "AccessDenied", text)
    return None


def _parsed(time: str) -> dt.datetime:
    try:
        return dt.datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        return dt.datetime.min.replace(tzinfo=dt.UTC)
