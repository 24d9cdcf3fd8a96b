"""Logins for Azure Container Registry in every cloud of Azure.

Three steps, each proving the one before (github.com/Azure/acr, docs/AAD-OAuth.md):

    identity       --Microsoft Entra-->   access token
    access token   --/oauth2/exchange-->  refresh token of the registry
    refresh token  --/oauth2/token-->     access token of the registry, only with `scopes`

The registry's refresh token is the password, beside a user name that says "this is a token".  It lives three hours
and may do in this registry what the identity may do.  With `scopes` it is traded for an access token that pulls
from the named repositories only and lives 75 minutes.  When either ends, the token itself says.

The registry gets a token of Microsoft Entra, so an exchange goes nowhere but to hosts below Azure's own domains.
For clouds that are not public the operator's administrator (nobody else) extends that by environment variables:

    REGCRED_ACR_HOST_SUFFIXES   comma-separated; registries are NAME.SUFFIX
    AZURE_AUTHORITY_HOST        Microsoft Entra of that cloud
    REGCRED_ACR_ENDPOINT        https://HOST[:PORT] that takes the exchanges of all registries, named in `Host`
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from regcred import dockerconfig
from regcred.api import hosts as known_hosts
from regcred.api import providers as blocks
from regcred.credentials import exchange, provider
from regcred.credentials.providers.acr import entra as acr_entra
from regcred.credentials.providers.acr import errors as acr_errors
from regcred.credentials.providers.acr import identity as acr_identity

#: User name that tells a registry that the password is a token.
TOKEN_USER = "00000000-0000-0000-0000-000000000000"  # noqa: S105 - a user name
#: Audience of the Entra token; accepted in all clouds, and the only one where ARM audiences are switched off.
AUDIENCE = "https://containerregistry.azure.net"
#: Microsoft Entra of each cloud.
AUTHORITIES: Mapping[str, str] = {
    "Public": "https://login.microsoftonline.com",
    "China": "https://login.chinacloudapi.cn",
    "USGovernment": "https://login.microsoftonline.us",
}

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
#: NAME.azurecr.io, and NAME.REGION.geo.azurecr.io: one replica of the same registry.
_REGISTRY = re.compile(rf"{_NAME}(?:\.[a-z0-9]{{1,40}}\.geo)?\.azurecr\.(?:io|cn|us)")
_DATA = re.compile(rf"{_NAME}\.[a-z0-9]+\.data\.azurecr\.(?:io|cn|us)")
_SUFFIX = re.compile(rf"{_NAME}(?:\.{_NAME})+(?::[0-9]{{1,5}})?")
_AUDIENCE = re.compile(r"(?:https|api)://[A-Za-z0-9._/-]{1,200}")
_ORIGIN = re.compile(r"https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/?")


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """An entry, checked: whom to ask, as whom, for what."""

    hosts: Mapping[str, str]  # server of the entry to its registry's host
    authority: str
    identity: acr_identity.Identity
    audience: str
    repositories: tuple[str, ...]
    ca_bundle: str

    @property
    def key(self) -> str:
        parts = ["acr", self.authority.removeprefix("https://"), self.identity.key]
        parts += [self.audience] if self.audience != AUDIENCE else []
        parts += sorted(set(self.hosts.values()) if self._one_host else self.hosts)
        parts += [f"scopes {_digest(' '.join(self.repositories))}"] if self.repositories else []
        parts += [f"ca {_digest(self.ca_bundle)}"] if self.ca_bundle else []
        return "|".join(parts)

    @property
    def _one_host(self) -> bool:
        return len(set(self.hosts.values())) == 1

    def logins(self, by_host: Mapping[str, dockerconfig.Login]) -> Mapping[str, dockerconfig.Login]:
        if self._one_host:
            return {provider.ANY_SERVER: next(iter(by_host.values()))}
        return {server: by_host[host] for server, host in self.hosts.items()}


class AcrProvider:
    """The provider `acr`: see the module."""

    name = "acr"

    def __init__(self) -> None:
        self._tokens = acr_entra.Tokens()

    def serves(self, server: str) -> bool:
        """Say whether `server` is a registry of Azure's, or of a cloud that the administrator has named."""
        return _host(server) is not None

    def key(self, ask: provider.Ask) -> str:
        """Return identity, registry hosts and scopes: an exchange is good for one registry."""
        return _plan(ask).key

    def sources(self, ask: provider.Ask) -> Sequence[provider.SourceRef]:
        """Return the Secret that proves a service principal, if the entry names one."""
        identity = _plan(ask).identity
        if identity.mode is not acr_identity.Mode.PRINCIPAL:
            return []
        return [provider.SourceRef(identity.namespace, identity.source)]

    async def fetch(self, ask: provider.Ask) -> provider.Grant:
        """Get a login for each registry of the entry, as the identity that it names.

        Raises:
            ProviderError: see `acr_identity` and `acr_errors`.
        """
        plan = _plan(ask)
        principal = await acr_identity.prove(plan.identity, ask, plan.authority)
        token = await self._tokens.get(principal, plan.audience)
        issued_at = dt.datetime.now(dt.UTC)
        passwords: dict[str, str] = {}
        try:
            for host in sorted(set(plan.hosts.values())):
                passwords[host] = await _login_of(host, token, plan)
        except provider.Denied:
            self._tokens.forget(principal, plan.audience)
            raise
        ends = [exchange.jwt_expiry(password, f"The registry {host}") for host, password in passwords.items()]
        by_host = {host: dockerconfig.Login(TOKEN_USER, password) for host, password in passwords.items()}
        return provider.Grant(
            logins=plan.logins(by_host), identity=token.client, issued_at=issued_at, expires_at=min(ends)
        )


async def _login_of(host: str, token: acr_entra.Token, plan: _Plan) -> str:
    """Return the password for one registry."""
    tenant = [("tenant", token.tenant)] if token.tenant else []
    refresh_token = await _trade(
        f"https://{host}/oauth2/exchange",
        [("grant_type", "access_token"), ("service", host), *tenant, ("access_token", token.value)],
        wanted="refresh_token",
        plan=plan,
        client=token.client,
    )
    if not plan.repositories:
        return refresh_token
    access_token = await _trade(
        f"https://{host}/oauth2/token",
        [
            ("grant_type", "refresh_token"),
            ("service", host),
            *(("scope", f"repository:{name}:pull") for name in plan.repositories),
            ("refresh_token", refresh_token),
        ],
        wanted="access_token",
        plan=plan,
        client=token.client,
    )
    refused = acr_errors.refused_repositories(exchange.jwt_claims(access_token), plan.repositories)
    if refused:
        raise acr_errors.scope_denied(host, token.client, refused)
    return access_token


async def _trade(url: str, form: Sequence[tuple[str, str]], *, wanted: str, plan: _Plan, client: str) -> str:
    """Post a form to a registry and return the token `wanted` from its answer.

    Raises:
        Denied: it refuses `client`.
        Retryable: it cannot be reached or answers something else.
    """
    host, path = url.removeprefix("https://").split("/", 1)
    what, origin = f"The registry {host}", _origin_override()
    answer = await exchange.send(
        "POST",
        f"{origin}/{path}" if origin else url,
        what=what,
        headers={"Host": host} if origin else None,
        form=form,
        ca_bundle=plan.ca_bundle,
    )
    if answer.status != 200:
        raise exchange.passing_failure(answer, what) or acr_errors.registry_refusal(
            answer,
            host,
            client,
            audience=plan.audience if plan.audience != AUDIENCE else "",
            repositories=plan.repositories if wanted == "access_token" else (),
        )
    token = answer.text(wanted)
    if not re.fullmatch(r"[\x21-\x7e]{1,65536}", token):
        raise provider.Retryable(
            "UnexpectedAnswer",
            f"{what} answers without a token; see whether a proxy or portal stands before it.",
        )
    return token


def _plan(ask: provider.Ask) -> _Plan:
    """Check an entry; nothing is read or sent before this has passed.

    Raises:
        InvalidSpec: with the field.
    """
    block = ask.config if isinstance(ask.config, blocks.AcrBlock) else blocks.AcrBlock()
    hosts: dict[str, str] = {}
    for server in ask.servers or (ask.server,):
        host = _host(server)
        if host is None:
            raise _no_registry(server, "server" if server == ask.server else "aliases")
        hosts[server] = host
    audience = block.audience or AUDIENCE
    if not _AUDIENCE.fullmatch(audience):
        raise provider.InvalidSpec(
            "InvalidAudience",
            f"The audience is not an address; leave it out, or write {AUDIENCE}.",
            field="acr.audience",
        )
    return _Plan(
        hosts=hosts,
        authority=_authority(hosts.values(), block.cloud),
        identity=acr_identity.identity_of(ask),
        audience=audience.rstrip("/"),
        repositories=tuple(sorted(set(block.scopes))),
        ca_bundle=ask.ca_bundle,
    )


def _host(server: str) -> str | None:
    """Return the host of the registry that a server names, or None when it is none that may get a token."""
    host = server.partition("/")[0]
    suffixes = _setting("REGCRED_ACR_HOST_SUFFIXES")
    for suffix in (part.strip().lower() for part in suffixes.split(",")):
        if _SUFFIX.fullmatch(suffix) and re.fullmatch(rf"{_NAME}\.{re.escape(suffix)}", host):
            return host
    host = host.removesuffix(":443")
    return host if _REGISTRY.fullmatch(host) else None


def _no_registry(server: str, field: str) -> provider.InvalidSpec:
    kind = "server" if field == "server" else "alias"
    if _DATA.fullmatch(server.partition("/")[0]):
        return provider.InvalidSpec(
            "NotAnAcrHost",
            f"The {kind} is a data endpoint, which needs no login; write the registry itself, NAME.azurecr.io.",
            field=field,
        )
    return provider.InvalidSpec(
        "NotAnAcrHost",
        f"The {kind} is no registry host of Azure's, so it gets no token; write NAME.azurecr.io (.cn, .us), "
        "without wildcard. Other clouds are allowed by REGCRED_ACR_HOST_SUFFIXES in the operator's environment.",
        field=field,
    )


def _authority(hosts: Iterable[str], cloud: str | None) -> str:
    """Return where Microsoft Entra is: as the administrator says, else in the cloud of the registries."""
    own = _setting("AZURE_AUTHORITY_HOST").rstrip("/")
    if own and "://" not in own:
        own = f"https://{own}"
    if own and not _ORIGIN.fullmatch(own):
        raise _misconfigured("AZURE_AUTHORITY_HOST")
    told = {found for host in hosts if (found := known_hosts.azure_cloud_of(host))}
    if len(told) > 1 or (cloud and told - {cloud}):
        raise provider.InvalidSpec(
            "CloudMismatch",
            "The hosts are of another cloud of Azure than the entry says, or of several; remove acr.cloud, and "
            "write one entry for each cloud.",
            field="acr.cloud" if cloud else "aliases",
        )
    # Workload identity's webhook sets the variable to its cloud's public address; another one is a decision.
    if own and own not in AUTHORITIES.values():
        return own
    return AUTHORITIES.get(cloud or next(iter(told), ""), own or AUTHORITIES["Public"])


def _origin_override() -> str:
    origin = _setting("REGCRED_ACR_ENDPOINT").rstrip("/")
    if origin and not _ORIGIN.fullmatch(origin):
        raise _misconfigured("REGCRED_ACR_ENDPOINT")
    return origin


def _misconfigured(variable: str) -> provider.Retryable:
    return provider.Retryable(
        "OperatorMisconfigured",
        f"{variable} in the operator's environment is not an origin; write https://HOST or https://HOST:PORT.",
    )


def _setting(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
