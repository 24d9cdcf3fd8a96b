"""What a refusal by Azure means: which class of ours it becomes, and the sentence for people.

Nothing of a foreign text gets into an error but an AADSTS number: descriptions of Microsoft Entra hold trace ids
(a status would change with every try), and a server between us and Azure may repeat what it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regcred.credentials import exchange, provider
from regcred.credentials.providers.acr import identity as acr_identity

_AADSTS = re.compile(r"AADSTS([0-9]{4,9})")


class _Row(NamedTuple):
    error: type[provider.ProviderError]
    reason: str
    text: str


_FEDERATION = (
    "a federated credential of client '{client}' must name the issuer of this cluster, the subject {subject} "
    "(upper and lower case count) and the audience "
    + acr_identity.FEDERATION_AUDIENCE
    + "; a new one is known after some minutes"
)

#: What the refusals of Microsoft Entra mean, by AADSTS number
#: (learn.microsoft.com/entra/identity-platform/reference-error-codes).  Numbers that do not stand here are
#: retried: Microsoft adds new ones, and the meaning of most is unknown.
REFUSALS: Mapping[int, _Row] = {
    7000215: _Row(
        provider.Denied,
        "SecretWrong",
        "The client secret in {origin} is not one of client '{client}': store the secret's value, not its id",
    ),
    7000222: _Row(
        provider.Denied,
        "SecretExpired",
        "The client secret in {origin} has expired: make a new one for client '{client}' and store it there",
    ),
    700027: _Row(
        provider.Denied,
        "CertificateUnknown",
        "The certificate in {origin} is not registered with client '{client}', or has expired: "
        "upload its public part to the application",
    ),
    700016: _Row(
        provider.Denied,
        "ClientUnknown",
        "Tenant '{tenant}' has no application or managed identity with client id '{client}': "
        "check acr.clientId and acr.tenantId",
    ),
    7000229: _Row(
        provider.Denied,
        "ClientUnknown",
        "Client '{client}' has no service principal in tenant '{tenant}': create it (az ad sp create --id)",
    ),
    7000112: _Row(
        provider.Denied, "ClientDisabled", "Client '{client}' is disabled in tenant '{tenant}': enable its sign-in"
    ),
    53003: _Row(
        provider.Denied,
        "ConditionalAccess",
        "A Conditional Access policy of tenant '{tenant}' refuses client '{client}': exempt it, or this network",
    ),
    90002: _Row(
        provider.Denied,
        "TenantUnknown",
        "This cloud of Azure has no tenant '{tenant}': check acr.tenantId and acr.cloud",
    ),
    500011: _Row(
        provider.Denied,
        "AudienceUnknown",
        "Tenant '{tenant}' has no resource '{audience}': check acr.audience, or leave it out",
    ),
    70021: _Row(provider.Denied, "FederationMismatch", "No federated credential matches: " + _FEDERATION),
    700211: _Row(
        provider.Denied, "FederationMismatch", "The issuer matches no federated credential: " + _FEDERATION
    ),
    700212: _Row(
        provider.Denied, "FederationMismatch", "The audience matches no federated credential: " + _FEDERATION
    ),
    700213: _Row(
        provider.Denied, "FederationMismatch", "The subject matches no federated credential: " + _FEDERATION
    ),
    7002138: _Row(
        provider.Denied,
        "FederationMismatch",
        "The subject differs from the federated credential's in upper and lower case only: " + _FEDERATION,
    ),
    50166: _Row(
        provider.Retryable,
        "IssuerUnreachable",
        "Microsoft Entra cannot fetch the keys of this cluster's issuer: its discovery documents must be public",
    ),
    700024: _Row(
        provider.Retryable,
        "ClockSkew",
        "Microsoft Entra says that the proof of client '{client}' is not valid at this time; a new one is made",
    ),
    90033: _Row(provider.Retryable, "ProviderUnavailable", "Microsoft Entra has a fault that will pass"),
    50196: _Row(
        provider.Throttled, "Throttled", "Microsoft Entra sees too many equal requests of client '{client}'"
    ),
}
#: Seconds of rest after "you loop" (AADSTS50196), which comes without Retry-After.
_LOOP_PATIENCE = 300.0


def judge(
    error: BaseException, answer: exchange.Answer | None, principal: acr_identity.Principal, audience: str
) -> provider.ProviderError:
    """Return our error for what the SDK raised.

    Args:
        error: what it raised; of its text nothing is kept but an AADSTS number.
        answer: status and headers of the last answer, None when none came.
        principal: who asked.
        audience: for what.
    """
    chain = list(_chain(error))
    managed = principal.mode is acr_identity.Mode.MANAGED
    what = "The instance metadata service" if managed else "Microsoft Entra"
    number = next((int(found[1]) for link in chain if (found := _AADSTS.search(str(link)))), 0)
    passing = exchange.passing_failure(answer, what) if answer is not None else None
    row = REFUSALS.get(number)
    if row is not None and (row.error is provider.Denied or not isinstance(passing, provider.Throttled)):
        return _refusal(row, number, principal, audience, answer)
    if passing is not None:
        return passing
    if answer is None:
        return _no_answer(chain, managed=managed, what=what)
    if managed and answer.status == 400 and any("Identity not found" in str(link) for link in chain):
        named = principal.client or principal.resource_id
        return provider.Denied(
            "IdentityMissing",
            f"The operator's node has no managed identity '{named}': assign it to the node pool's scale set."
            if named
            else "The operator's node has no system-assigned managed identity: "
            "assign one, or name another by acr.clientId or acr.resourceId.",
        )
    if number:
        return provider.Retryable(
            "Refused", f"Microsoft Entra refuses with AADSTS{number}; login.microsoftonline.com/error explains it."
        )
    return provider.Retryable("UnexpectedAnswer", f"{what} gives no token and no reason (HTTP {answer.status}).")


def registry_refusal(
    answer: exchange.Answer, host: str, client: str, *, audience: str = "", repositories: Sequence[str] = ()
) -> provider.ProviderError:
    """Return the error for a registry that refuses to trade tokens; passing failures are judged before.

    Args:
        answer: its answer.
        host: the registry.
        client: who asked.
        audience: of the Entra token, where the entry names one.
        repositories: what an access token was asked for; empty when it was the exchange.
    """
    if answer.status in {401, 403} and repositories:
        return scope_denied(host, client, repositories)
    if answer.status == 401:
        also = f"It may refuse the audience {audience}, too: leave acr.audience out. " if audience else ""
        remark = exchange.clock_remark(exchange.clock_offset(answer.headers))
        return provider.Denied(
            "AccessDenied",
            f"The registry {host} does not let client '{client}' in: assign it the role AcrPull on the registry "
            "(Container Registry Repository Reader where the registry uses ABAC), and see that both are of one "
            f"tenant; a new assignment works after some minutes. {also}{remark}".rstrip(),
        )
    if answer.status == 403:
        return provider.Denied(
            "FirewallDenied",
            f"The firewall of the registry {host} does not let this cluster in: allow its outgoing address, or "
            "give the cluster's network a private endpoint.",
        )
    if answer.status == 404:
        return provider.Denied(
            "RegistryMissing",
            f"{host} answers, but not as an Azure container registry: check the name, and where it resolves to.",
            field="server",
        )
    return provider.Retryable(
        "UnexpectedAnswer",
        f"The registry {host} refuses the exchange without a known reason (HTTP {answer.status}).",
    )


def refused_repositories(claims: Mapping[str, Any], repositories: Sequence[str]) -> list[str]:
    """Return which repositories an access token does not pull from, as far as it says.

    A registry answers 200 even where the identity has no right, with a token for less than was asked.
    """
    access = claims.get("access")
    if not isinstance(access, list):
        return []
    pulls = {
        row.get("name")
        for row in access
        if isinstance(row, dict) and isinstance(row.get("actions"), list) and "pull" in row["actions"]
    }
    return [name for name in repositories if name not in pulls]


def scope_denied(host: str, client: str, repositories: Sequence[str]) -> provider.Denied:
    """Return the error for repositories that the identity may not pull from."""
    return provider.Denied(
        "ScopeDenied",
        f"Client '{client}' may not pull {', '.join(repositories)} in the registry {host}: assign it a role that "
        "may, or correct acr.scopes.",
        field="acr.scopes",
    )


def _refusal(
    row: _Row, number: int, principal: acr_identity.Principal, audience: str, answer: exchange.Answer | None
) -> provider.ProviderError:
    text = row.text.format(
        client=principal.client,
        tenant=principal.tenant,
        origin=principal.origin,
        subject=principal.subject or "of the operator's service account",
        audience=audience,
    )
    remark = exchange.clock_remark(exchange.clock_offset(answer.headers)) if answer is not None else ""
    message = f"{text} (AADSTS{number}). {remark}".rstrip()
    if issubclass(row.error, provider.Throttled):
        return row.error(row.reason, message, after=_LOOP_PATIENCE)
    return row.error(row.reason, message)


def _no_answer(chain: list[BaseException], *, managed: bool, what: str) -> provider.Retryable:
    if any(isinstance(link, FileNotFoundError | PermissionError) for link in chain):
        return provider.Retryable(
            "IdentityMissing",
            "The token file of the operator's workload identity (AZURE_FEDERATED_TOKEN_FILE) cannot be read: "
            "see whether the workload identity webhook is installed, and restart the operator's pod.",
        )
    if managed:
        return provider.Retryable(
            "Unreachable",
            "The instance metadata service (169.254.169.254) gives no usable answer: outside Azure, or where a "
            "network policy bars it, use a service account (acr.serviceAccountRef) or a Secret (acr.secretRef).",
        )
    causes = [link for link in chain if not type(link).__module__.startswith("azure.")]
    if causes:
        return exchange.unreachable(causes[0], what)
    return provider.Retryable("Unreachable", f"{what} cannot be reached.")


def _chain(error: BaseException | None) -> Iterator[Any]:
    """Yield an exception and those below it, at most eight."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or getattr(error, "inner_exception", None) or error.__context__
