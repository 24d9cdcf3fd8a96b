"""What Google's refusals mean, as one table: try again, or a human must act, and what to do then.

google-auth cannot be asked: its exceptions have lost the HTTP status, its `retryable` is wrong for two of the
four endpoints, and its texts quote what was sent.  So the answers are judged here, by Google's own error codes,
in words of ours.  A refusal without such a code was written by a proxy or portal in between, and is never
taken for Google's last word.
"""

from __future__ import annotations

import dataclasses
import enum

from regcred.credentials import exchange, provider

DEFAULT_UNIVERSE = "googleapis.com"


class Endpoint(enum.Enum):
    """The four services a token can come from; the value is the first label of their host."""

    OAUTH = "oauth2"
    STS = "sts"
    IAM = "iamcredentials"
    METADATA = "metadata"


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """Who asks, for the messages.  All of it was validated before; none of it is secret.

    Attributes:
        who: the identity that is presented: an e-mail address, a `principal://`, the name of an account.
        federated: whether `who` comes from a workload identity pool, which decides the role it needs.
        own: whether `who` is the operator's own identity, which no field of the resource is to blame for.
        universe: the domain of Google's APIs, `googleapis.com` but for sovereign clouds.
    """

    who: str
    federated: bool = False
    own: bool = False
    universe: str = DEFAULT_UNIVERSE

    @property
    def role(self) -> str:
        """The role that lets `who` act as a service account."""
        return "roles/iam.workloadIdentityUser" if self.federated else "roles/iam.serviceAccountTokenCreator"

    def name_of(self, endpoint: Endpoint) -> str:
        """Return what a message calls an endpoint."""
        return "The metadata server" if endpoint is Endpoint.METADATA else f"{endpoint.value}.{self.universe}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """If an endpoint refuses with `code` and its text holds `phrase` (lower case), raise `error`."""

    code: str
    phrase: str
    error: type[provider.ProviderError]
    reason: str
    message: str
    field: str = ""


#: Fields that say who we are; the operator's own identity comes from none of them.
_PROOF_FIELDS = frozenset({"gcr.secretRef.name", "gcr.serviceAccountRef.name", "gcr.audience"})

_SKEWED = _Row(
    "invalid_grant",
    "",
    provider.Retryable,
    "ClockSkew",
    "Google takes the signed request of {who} for one of another time; set the clock of the operator's node, and "
    "of the cluster's control plane.",
)
_KEY_REJECTED = _Row(
    "invalid_grant",
    "",
    provider.Denied,
    "KeyRejected",
    "Google does not accept the key of {who}: it was deleted or disabled, or the account was. Create a new key "
    "and store it in its place.",
    "gcr.secretRef.name",
)
_SCOPE_REFUSED = _Row(
    "invalid_scope",
    "",
    provider.InvalidSpec,
    "ScopeRefused",
    "Google refuses the requested scopes; correct gcr.scopes, or remove it to use the default.",
    "gcr.scopes",
)
_API_DISABLED = _Row(
    "PERMISSION_DENIED",
    "service_disabled",
    provider.Denied,
    "ApiDisabled",
    "An API is switched off in the Google project; run: gcloud services enable {host} --project PROJECT",
)

#: By endpoint, first match wins.  Codes and phrases are those that Google sends (seen in public issue threads).
_ROWS: dict[Endpoint, tuple[_Row, ...]] = {
    Endpoint.OAUTH: (
        dataclasses.replace(_SKEWED, phrase="reasonable timeframe"),
        dataclasses.replace(_SKEWED, phrase="short-lived token"),
        _Row(
            "invalid_grant",
            "account not found",
            provider.Denied,
            "AccountNotFound",
            "Google knows no service account {who}; it was deleted. Use the key of an account that exists.",
            "gcr.secretRef.name",
        ),
        _KEY_REJECTED,
        dataclasses.replace(_KEY_REJECTED, code="invalid_client"),
        dataclasses.replace(_KEY_REJECTED, code="unauthorized_client"),
        _SCOPE_REFUSED,
    ),
    Endpoint.STS: (
        dataclasses.replace(_SKEWED, phrase="stale to sign-in"),
        dataclasses.replace(_SKEWED, phrase="in the future"),
        _Row(
            "invalid_grant",
            "credential's issuer",
            provider.Retryable,
            "IssuerUnreachable",
            "Google cannot read the signing keys of this cluster's token issuer. Make its discovery document "
            "public, or upload the keys: gcloud iam workload-identity-pools providers update-oidc PROVIDER "
            "--jwk-json-path=FILE",
            "gcr.audience",
        ),
        _Row(
            "invalid_grant",
            "audience",
            provider.Denied,
            "AudienceRefused",
            "The workload identity provider does not allow its own name as the audience of a token. Clear its "
            "--allowed-audiences, or add the value of gcr.audience to them.",
            "gcr.audience",
        ),
        _Row(
            "invalid_grant",
            "",
            provider.Denied,
            "FederationDenied",
            "Google does not accept the token of {who}. Check that the provider's issuer URI is this cluster's "
            "issuer, and that the keys uploaded to it, if any, are the current ones.",
            "gcr.audience",
        ),
        _Row(
            "invalid_target",
            "",
            provider.Denied,
            "PoolNotFound",
            "Google knows no such workload identity pool or provider, or it is disabled; check project number, "
            "pool and provider in gcr.audience.",
            "gcr.audience",
        ),
        _Row(
            "unauthorized_client",
            "",
            provider.Denied,
            "ConditionRefused",
            "The attribute condition of the workload identity provider rejects {who}; change the condition, or "
            "name a service account that fulfils it.",
            "gcr.serviceAccountRef.name",
        ),
        _Row(
            "invalid_request",
            "",
            provider.InvalidSpec,
            "AudienceInvalid",
            "Google does not take the audience for the full name of a workload identity provider; check "
            "gcr.audience.",
            "gcr.audience",
        ),
        _SCOPE_REFUSED,
        _API_DISABLED,
    ),
    Endpoint.IAM: (
        _API_DISABLED,
        _Row(
            "PERMISSION_DENIED",
            "scope_insufficient",
            provider.Denied,
            "ScopeInsufficient",
            "The token of {who} has not the scope to impersonate {target}. Give the node pool the scope "
            "cloud-platform, or turn on Workload Identity Federation for GKE.",
        ),
        _Row(
            "PERMISSION_DENIED",
            "",
            provider.Denied,
            "ImpersonationDenied",
            "{who} may not act as {target}, or there is no such account. Grant it {role} on {target}; that takes "
            "a few minutes to work.",
            "gcr.impersonate",
        ),
        _Row(
            "NOT_FOUND",
            "",
            provider.Denied,
            "AccountNotFound",
            "Google knows no service account {target}; correct the name, or create the account.",
            "gcr.impersonate",
        ),
        dataclasses.replace(_SCOPE_REFUSED, code="INVALID_ARGUMENT"),
    ),
    Endpoint.METADATA: (  # it answers in plain text, so that the status is the code
        _Row(
            "404",
            "",
            provider.Denied,
            "NoIdentity",
            "The metadata server has no identity for the operator. Give the node pool a service account, or set "
            "up Workload Identity Federation for GKE.",
        ),
        _Row(
            "403",
            "getaccesstoken",
            provider.Denied,
            "ImpersonationDenied",
            "The operator's service account may not act as the one in its annotation "
            "iam.gke.io/gcp-service-account. Grant it roles/iam.workloadIdentityUser there.",
        ),
    ),
}


def principal(audience: str, subject: str) -> str:
    """Return the name that a federated identity has in IAM policies.

    Args:
        audience: the full name of the workload identity provider.
        subject: the `sub` of the token (the mapping google.subject=assertion.sub is assumed).
    """
    if audience.startswith("identitynamespace:"):
        namespace, _, name = subject.removeprefix("system:serviceaccount:").partition(":")
        return f"{audience.split(':')[1]}[{namespace}/{name}]"
    return f"principal:{audience.partition('/providers/')[0]}/subject/{subject}"


def verdict(endpoint: Endpoint, answer: exchange.Answer, scene: Scene, target: str = "") -> provider.ProviderError:
    """Return the error that an answer with another status than 200 means.

    Of the answer, nothing but the status number enters the text.

    Args:
        endpoint: who answered.
        answer: what it said.
        scene: who asked, for the text.
        target: the service account that was to be impersonated, or "".
    """
    host = scene.name_of(endpoint)
    if passing := exchange.passing_failure(answer, host):
        return passing
    code, says = _refusal_in(answer)
    if endpoint is Endpoint.METADATA:
        code, says = str(answer.status), answer.body[:4096].decode(errors="replace").lower()
    if code == "RESOURCE_EXHAUSTED":
        return provider.Throttled("Throttled", f"{host} asks for patience.", after=exchange.PATIENCE)
    if code == "invalid_grant" and (remark := exchange.clock_remark(exchange.clock_offset(answer.headers))):
        return provider.Retryable("ClockSkew", f"Google refuses requests signed at another time. {remark}")
    for row in _ROWS[endpoint]:
        if row.code == code and row.phrase in says:
            text = row.message.format(who=scene.who, target=target, role=scene.role, host=host)
            blameless = scene.own and row.field in _PROOF_FIELDS
            return row.error(row.reason, text, field="" if blameless else row.field)
    return unexpected(endpoint, scene, f" (HTTP {answer.status})")


def unexpected(endpoint: Endpoint, scene: Scene, detail: str = "") -> provider.Retryable:
    """Return the error for an answer that is not one of Google's."""
    return provider.Retryable(
        "UnexpectedAnswer",
        f"{scene.name_of(endpoint)} did not answer as Google does{detail}; see whether a proxy, firewall or "
        "portal stands before it.",
    )


def _refusal_in(answer: exchange.Answer) -> tuple[str, str]:
    """Return error code and description (lower case), in OAuth's shape or in that of Google's APIs."""
    document = answer.json()
    error = document.get("error")
    if isinstance(error, str):
        return error, str(document.get("error_description", "")).lower()
    if not isinstance(error, dict):
        return "", ""
    details = error.get("details")
    reasons = (
        [item.get("reason") for item in details if isinstance(item, dict)] if isinstance(details, list) else []
    )
    return str(error.get("status", "")), f"{error.get('message')} {reasons}".lower()
