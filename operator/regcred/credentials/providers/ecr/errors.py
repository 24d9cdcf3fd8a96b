"""What an error of AWS or of its SDK means: who must act, how soon to try again, and what to tell people.

Judged by error code and by exception name, never shown: the text of a foreign error may hold key ids, request
ids that differ with every try, and whatever a proxy on the way put there.  What people read is written here.
Pure, and without the SDK, so that the whole table is tested as data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import multidict

from regcred.credentials import exchange, provider

EXPIRED = "ExpiredToken"


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One call to AWS, as messages name it.

    Attributes:
        action: the IAM action, `sts:AssumeRole`.
        subject: who calls, "the access key in Secret team-a/aws".  Never a key.
        region: where the call goes.
        advice: one sentence: what to allow where, when AWS denies the call.
        field: the field of the registry entry that names the identity, "" if it is the operator's own.
        asked: the field that names what is asked for, "" if it is no field's fault.
        static: whether the credentials are keys that only a person renews.
    """

    action: str
    subject: str
    region: str
    advice: str
    field: str = ""
    asked: str = ""
    static: bool = False


_Make = Callable[[Step], provider.ProviderError]


def _retry(reason: str, text: str) -> _Make:
    return lambda step: provider.Retryable(reason, _fill(text, step))


def _deny(reason: str, text: str) -> _Make:
    return lambda step: provider.Denied(reason, _fill(text, step), field=step.field)


def _invalid(reason: str, text: str) -> _Make:
    """A fault of the resource; where the identity is the operator's own, nobody changes the resource for it."""

    def make(step: Step) -> provider.ProviderError:
        field = step.asked or step.field
        return (provider.InvalidSpec if field else provider.Denied)(reason, _fill(text, step), field=field)

    return make


def _fill(text: str, step: Step) -> str:
    return text.format(action=step.action, subject=step.subject, region=step.region, advice=step.advice)


_ACCESS_DENIED = _deny("AccessDenied", "AWS denied {action} to {subject}. {advice}")
_UNKNOWN_IDENTITY = _deny(
    "UnknownIdentity",
    "AWS does not know the credentials of {subject} in {region}: the access key is deleted, inactive, mistyped "
    "or of another partition (credentials never cross from aws to aws-cn, aws-us-gov and so on).",
)
_BAD_SIGNATURE = _deny(
    "BadSignature",
    "AWS refused the signature of {subject}: the secret access key does not belong to its access key id; store "
    "both again. If they are right, compare the clock of the operator's node with true time.",
)
_CLOCK_SKEW = _retry(
    "ClockSkew",
    "AWS refused {action} because the clock of the operator's node differs from true time; "
    "synchronise that clock (NTP).",
)
_PERMANENT = "AWS refused {action} as not valid for {subject} in {region}; "
_THROTTLES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "TooManyRequestsException",
    }
)
_SERVER_FAULT = _retry(
    "ProviderFailed", "AWS had an internal error at {action} in {region}; it is tried again by itself."
)
_NOT_AWS = _retry(
    "UnexpectedAnswer",
    "The answer to {action} in {region} was not AWS's; check the proxy, portal or endpoint between the "
    "operator and AWS (HTTPS_PROXY, NO_PROXY, AWS_ENDPOINT_URL).",
)
_UNKNOWN = _retry(
    "UnexpectedAnswer",
    "AWS answered {action} in {region} with an error that regcred does not know; it is tried again by itself.",
)

_CODES: Mapping[str, _Make] = {
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"), _ACCESS_DENIED),
    **dict.fromkeys(
        (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
            "MissingAuthenticationToken",
            "IncompleteSignature",
        ),
        _UNKNOWN_IDENTITY,
    ),
    **dict.fromkeys(("SignatureDoesNotMatch", "InvalidSignatureException"), _BAD_SIGNATURE),
    **dict.fromkeys(("RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"), _CLOCK_SKEW),
    "IDPCommunicationError": _retry(
        "IssuerUnreachable",
        "AWS could not reach this cluster's token issuer to check the service account; "
        "its OIDC discovery document must be readable from the internet. It is tried again by itself.",
    ),
    "IDPRejectedClaim": _deny(
        "ClaimRejected",
        "The identity provider that AWS asked rejected the token of {subject}; compare the issuer and audiences "
        "of the IAM OIDC provider with this cluster's.",
    ),
    **dict.fromkeys(
        ("RegionDisabledException", "OptInRequired", "SubscriptionRequiredException"),
        _deny(
            "RegionDisabled",
            "The AWS account of {subject} has {region} switched off; enable the region (or its STS endpoint) "
            "in the account settings.",
        ),
    ),
    **dict.fromkeys(
        (
            "MalformedPolicyDocument",
            "MalformedPolicyDocumentException",
            "PackedPolicyTooLarge",
            "PackedPolicyTooLargeException",
        ),
        _deny(
            "PolicyRefused",
            "AWS refused {action} because a policy or tag of the session is malformed or too large; "
            "check the role's trust policy and session tags.",
        ),
    ),
    **dict.fromkeys(
        ("ValidationError", "ValidationException", "InvalidParameterException", "InvalidParameterValue"),
        _invalid("InvalidRequest", _PERMANENT + "check the role's ARN, the external id and the region."),
    ),
    "UnsupportedCommandException": _invalid(
        "UnsupportedRegion",
        _PERMANENT + "the public registry gives logins only in us-east-1 and only to accounts of partition aws.",
    ),
    **dict.fromkeys(("ServerException", "InternalFailure", "ServiceUnavailable"), _SERVER_FAULT),
}

_EXCEPTIONS: Mapping[str, _Make] = {
    "NoCredentialsError": _deny(
        "NoCredentials",
        "The operator has no AWS identity of its own: give its service account a role (IRSA or EKS Pod "
        "Identity) or its node an instance profile that pods can reach, or name ecr.serviceAccountRef or "
        "ecr.secretRef.",
    ),
    **dict.fromkeys(
        ("PartialCredentialsError", "ProfileNotFound", "ConfigNotFound", "ConfigParseError", "InvalidConfigError"),
        _deny(
            "BadConfiguration",
            "The operator's own AWS configuration is incomplete or names a profile that does not exist; "
            "check its AWS_* environment and configuration file.",
        ),
    ),
    **dict.fromkeys(
        ("CredentialRetrievalError", "MetadataRetrievalError"),
        _retry(
            "NoCredentials",
            "The operator's own AWS identity could not be had from its agent or instance metadata; check the Pod "
            "Identity agent, the metadata hop limit, and that NO_PROXY holds 169.254.169.254 and 169.254.170.23.",
        ),
    ),
    **dict.fromkeys(
        (
            "NoRegionError",
            "InvalidRegionError",
            "ParamValidationError",
            "EndpointVariantError",
            "EndpointProviderError",
            "UnknownEndpointError",
        ),
        _invalid("InvalidRequest", "AWS has no {action} for {subject} in {region}; check host, region and role."),
    ),
    "SSLError": _retry(
        "TlsFailed",
        "TLS to AWS failed at {action} in {region}; if a proxy re-signs traffic, "
        "point AWS_CA_BUNDLE of the operator at its CA (an absent file fails the same way).",
    ),
    **dict.fromkeys(
        (
            "ConnectionError",
            "EndpointConnectionError",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "ConnectionClosedError",
            "ProxyConnectionError",
            "HTTPClientError",
        ),
        _retry(
            "Unreachable",
            "AWS could not be reached for {action} in {region}; check DNS, egress rules, the VPC endpoint and "
            "HTTPS_PROXY/NO_PROXY.",
        ),
    ),
}


def verdict(error: BaseException, step: Step) -> provider.ProviderError:
    """Judge an exception that the SDK raised at `step`.

    Args:
        error: any exception; those that are no AWS error at all are retryable, since proxies and captive
            portals make the SDK raise `KeyError` and the like.
        step: what was being done.

    Returns:
        One of our errors, not yet raised, with a message that holds nothing of `error`.
    """
    names = [kind.__name__ for kind in type(error).__mro__]
    if "ClientError" in names:
        return _verdict_on_answer(getattr(error, "response", None) or {}, step)
    known = next((name for name in names if name in _EXCEPTIONS), None)
    return (_EXCEPTIONS[known] if known else _NOT_AWS)(step)


def unexpected(step: Step) -> provider.ProviderError:
    """The error for an answer that came with status 200 and is not what the API promises."""
    return _NOT_AWS(step)


def _verdict_on_answer(response: Mapping[str, Any], step: Step) -> provider.ProviderError:
    said = response.get("Error") or {}
    meta = response.get("ResponseMetadata") or {}
    status = meta.get("HTTPStatusCode") or 0
    headers = multidict.CIMultiDict(meta.get("HTTPHeaders") or {})
    code = str(said.get("Code", ""))
    if code.startswith("InvalidIdentityToken"):
        return _identity_token(str(said.get("Message", "")), step)
    if code in {"ExpiredToken", "ExpiredTokenException"}:
        return _expired(step)
    if code in _CODES:
        make = _CODES[code]
        remark = (
            exchange.clock_remark(exchange.clock_offset(headers)) if make in {_BAD_SIGNATURE, _CLOCK_SKEW} else ""
        )
        return provider.Retryable("ClockSkew", f"AWS refused {step.action}. {remark}") if remark else make(step)
    if code.startswith("Throttl") or code in _THROTTLES or status == 429:
        return _throttled(headers, step)
    if status >= 500:
        return _SERVER_FAULT(step)
    return (_NOT_AWS if code.isdecimal() or not code else _UNKNOWN)(step)


def _expired(step: Step) -> provider.ProviderError:
    if step.static:
        return provider.InvalidSpec(
            EXPIRED,
            f"The session token of {step.subject} has expired; store a new one, or use ecr.serviceAccountRef, "
            "whose credentials regcred renews itself.",
            field=step.field,
        )
    return provider.Retryable(
        EXPIRED,
        f"AWS calls fresh credentials of {step.subject} expired; compare the clock of the operator's node and "
        "of the API server with true time.",
    )


def _identity_token(message: str, step: Step) -> provider.ProviderError:
    """AWS has one code for three faults, of which one passes by itself."""
    text = message.lower()
    if "no openidconnect provider found" in text:
        return provider.Denied(
            "NoOidcProvider",
            "The AWS account of the role has no IAM OIDC provider for this cluster's token issuer; create one "
            "(IAM, identity providers) with the issuer of `kubectl get --raw /.well-known/openid-configuration`.",
            field=step.field,
        )
    if "audience" in text:
        return provider.Denied(
            "AudienceRefused",
            "The IAM OIDC provider of this cluster does not list the audience of the service account's token; add "
            "it there (sts.amazonaws.com, unless annotation eks.amazonaws.com/audience says another).",
            field=step.field,
        )
    return provider.Retryable(
        "IdentityTokenRefused",
        "AWS could not check the service account's token, mostly because it could not fetch the issuer's keys "
        "just now; it is tried again by itself. If it lasts, make the issuer's keys readable from the internet.",
    )


def _throttled(headers: Mapping[str, str], step: Step) -> provider.ProviderError:
    return provider.Throttled(
        "Throttled",
        f"AWS asks for fewer calls of {step.action} in {step.region}; it is tried again later by itself.",
        after=exchange.retry_after(headers) or exchange.PATIENCE,
    )
