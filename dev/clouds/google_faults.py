"""What Google is known to answer when it refuses, and what stands before it answers in its place.

The texts are Google's own, as people pasted them into public issue threads, with a canary behind each: none of it
may reach a status, a log or an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dev.clouds.local import Fault

OAUTH, STS, IAM, METADATA = "oauth2", "sts", "iamcredentials", "metadata"

#: What a server of somebody else says and must never reach people: it stands in every refusal.
CANARY = "c4n4ry-of-google"


class Refused(Exception):
    """A request that Google refuses, and how."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def oauth_error(code: str, description: str, status: int = 400) -> Refused:
    """Return a refusal in the shape of OAuth 2 (RFC 6749, section 5.2)."""
    return Refused(status, {"error": code, "error_description": f"{description} {CANARY}"})


def api_error(status: int, code: str, message: str, reason: str = "") -> Refused:
    """Return a refusal in the shape of Google's APIs (google.rpc.Status)."""
    error: dict[str, Any] = {"code": status, "status": code, "message": f"{message} {CANARY}"}
    if reason:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    return Refused(status, {"error": error})


def _fault(refused: Refused) -> Fault:
    return Fault(refused.status, refused.body)


#: A right answer, in the shape of each endpoint.
_GOOD = {
    "access_token": CANARY,
    "expires_in": 3600,
    "accessToken": CANARY,
    "expireTime": "2099-01-01T00:00:00Z",
    "email": "other@my-project.iam.gserviceaccount.com",
}
#: What a metadata server says of itself; others may say it, too.
_FLAVOR = {"Metadata-Flavor": "Google"}
_HTML = f"<html><body><h1>Blocked by policy</h1>{CANARY}</body></html>"

#: Answers that Google, or something before it, is known to give: (endpoint, name of the case) to the answer.
FAULTS: Mapping[tuple[str, str], Fault] = {
    (OAUTH, "key deleted"): _fault(oauth_error("invalid_grant", "Invalid JWT Signature.")),
    (OAUTH, "account deleted"): _fault(oauth_error("invalid_grant", "Invalid grant: account not found")),
    (OAUTH, "account disabled"): _fault(oauth_error("invalid_client", "The OAuth client was disabled.", 401)),
    (OAUTH, "unauthorized"): _fault(oauth_error("unauthorized_client", "Unauthorized client or scope.", 401)),
    (OAUTH, "clock"): _fault(
        oauth_error(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check "
            "your iat and exp values in the JWT claim.",
        )
    ),
    (OAUTH, "scope"): _fault(oauth_error("invalid_scope", "Invalid OAuth scope or ID token audience provided.")),
    (STS, "wrong issuer or keys"): _fault(oauth_error("invalid_grant", "Invalid ID Token signature.")),
    (STS, "issuer unreachable"): _fault(
        oauth_error("invalid_grant", "Error connecting to the given credential's issuer.")
    ),
    (STS, "audience not allowed"): _fault(
        oauth_error("invalid_grant", "The audience in ID Token [x] does not match the expected audience y.")
    ),
    (STS, "stale"): _fault(oauth_error("invalid_grant", "ID Token issued at 1700000000 is stale to sign-in.")),
    (STS, "no such pool"): _fault(
        oauth_error(
            "invalid_target",
            'The target service indicated by the "audience" parameters is invalid. This might either be because '
            "the pool or provider is disabled or deleted or because it doesn't exist.",
        )
    ),
    (STS, "condition"): _fault(
        oauth_error("unauthorized_client", "The given credential is rejected by the attribute condition.", 403)
    ),
    (STS, "malformed audience"): _fault(
        oauth_error(
            "invalid_request", 'Invalid value for "audience". This value should be the full resource name.'
        )
    ),
    (STS, "scope"): _fault(oauth_error("invalid_scope", "Some requested scopes cannot be shown.")),
    (STS, "API off"): _fault(api_error(403, "PERMISSION_DENIED", "It is disabled.", "SERVICE_DISABLED")),
    (IAM, "no role"): _fault(
        api_error(
            403,
            "PERMISSION_DENIED",
            "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
            "IAM_PERMISSION_DENIED",
        )
    ),
    (IAM, "no account"): _fault(api_error(404, "NOT_FOUND", "Not found; Gaia id not found for email x")),
    (IAM, "API off"): _fault(api_error(403, "PERMISSION_DENIED", "It is disabled.", "SERVICE_DISABLED")),
    (IAM, "node scope"): _fault(
        api_error(
            403,
            "PERMISSION_DENIED",
            "Request had insufficient authentication scopes.",
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        )
    ),
    (IAM, "scope"): _fault(api_error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")),
    (IAM, "quota"): _fault(api_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.")),
    (METADATA, "no identity"): Fault(404, f"<html>Error 404 (Not Found){CANARY}</html>"),
    (METADATA, "no role"): Fault(
        403,
        "Unable to generate access token; IAM returned 403 Forbidden: Permission "
        f"'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist). {CANARY}",
    ),
    (METADATA, "hidden"): Fault(403, f"Forbidden {CANARY}"),
    (METADATA, "somebody else"): Fault(200, _GOOD),
    **{
        (endpoint, case): fault
        for endpoint in (OAUTH, STS, IAM, METADATA)
        for case, fault in {
            "throttled": Fault(429, CANARY, {"Retry-After": "17"}),
            "busy": Fault(503, "busy " + CANARY, {"Retry-After": "9"}),
            "timeout": Fault(408, "timeout " + CANARY),
            "broken": Fault(500, "internal " + CANARY),
            "unavailable": Fault(503, {"error": {"code": 503, "status": "UNAVAILABLE", "message": CANARY}}),
            "bad gateway": Fault(502, _HTML),
            "redirect": Fault(302, "", {"Location": "http://127.0.0.1:9/elsewhere"}),
            "proxy login": Fault(407, _HTML),
            "portal": Fault(200, _HTML),
            "empty object": Fault(200, {}, _FLAVOR),
            "odd token": Fault(200, {**_GOOD, "access_token": "two\nwords", "accessToken": "two\nwords"}, _FLAVOR),
            "not an object": Fault(200, "[1]", content_type="application/json"),
            "token without end": Fault(
                200, {"access_token": CANARY, "accessToken": CANARY, "email": CANARY}, _FLAVOR
            ),
            "flood": Fault(200, {**_GOOD, "pad": "x" * 1_000_000}),
        }.items()
    },
    **{(endpoint, "blocked"): Fault(403, _HTML) for endpoint in (OAUTH, STS, IAM)},
}
