"""What every credential provider follows: how it is asked, what it answers, and how it fails.

A provider turns one registry entry of a resource into a login.  It is a small class behind the `Provider`
protocol; the built-in four (login, ecr, gcr, acr) and those of third parties come through the same door, the
Python entry-point group `regcred.providers`.

    ProviderError
    |-- Retryable          something between us and the provider: try again soon
    |   `-- Throttled      the provider asked us to slow down; `after` seconds
    |-- Denied             the provider knows us and refuses: retried slowly, a human must act
    `-- InvalidSpec        what the resource says cannot work: not retried until something changes

The text of these errors is shown in status, events and logs.  It is ours, fixed and free of secrets: a
provider never puts a foreign exception's text or a response's body into it.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from regcred import dockerconfig

#: The key in `Grant.logins` of a login that serves whichever servers the entry names.
ANY_SERVER = "*"


class ProviderError(Exception):
    """A login could not be had.

    Args:
        reason: CamelCase word for the status row's `reason`, such as `AccessDenied`.
        message: one sentence for people: what was wrong, where, and what to do.  Never a secret.
        field: path below the registry entry when a field is at fault, such as `login.secretRef.name`.
    """

    stalled = False

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


class Retryable(ProviderError):
    """The network, the provider or something between failed; trying again soon may work."""


class Throttled(Retryable):
    """The provider asked for patience: not before `after` seconds from now."""

    def __init__(self, reason: str, message: str, *, after: float, field: str = "") -> None:
        super().__init__(reason, message, field=field)
        self.after = after


class Denied(ProviderError):
    """The provider refused this identity.  Retried slowly, since grants propagate late; a human must act."""

    stalled = True


class InvalidSpec(ProviderError):
    """What the resource or its source says cannot work.  Retried when either changes."""

    stalled = True


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """What a provider hands out for one ask.

    Attributes:
        logins: server to login.  `ANY_SERVER` for a login that is good for every server of the entry.
        identity: who we are for the provider (an ARN, a principal, a user name), for the status row.
        issued_at: when the login was issued, UTC.
        expires_at: when it ends, UTC, as the provider says; None where it does not end by itself.
        notes: remarks about what was left out or mended, for the status row (no secrets).
    """

    logins: Mapping[str, dockerconfig.Login]
    identity: str
    issued_at: datetime.datetime
    expires_at: datetime.datetime | None = None
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRef:
    """A Secret that a provider reads: always in the one namespace that the resource may read from."""

    namespace: str
    name: str


class Cluster(Protocol):
    """What a provider may ask of the cluster.  The namespace is fixed by the keeper, never by the resource."""

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        """Return the decoded data of the Secret `name` plus its type under the key `""`.

        Raises:
            InvalidSpec: it is missing (reason `SourceMissing`) or may not be read (reason `Forbidden`).
        """

    async def read_service_account(self, name: str) -> ServiceAccount:
        """Return the service account `name`; the same errors as `read_secret`."""

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        """Return a bound token of `service_account` for exactly one `audience`, valid `seconds` (600 at least).

        Raises:
            InvalidSpec: empty audience, the API server's own audience, missing account, or no permission.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The parts of a service account that identity federation needs."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One registry entry, as a provider sees it.

    Attributes:
        server: the canonical server of the entry (`dockerconfig.canonical_server`), or `*`.
        servers: the server and its aliases, canonical.
        config: the provider block of the entry (a pydantic model of `regcred.api.spec`; a dict for a plugin).
        tenant: True for a namespaced resource: ambient identity is refused unless `ambient` is True, and so
            are link-local and loopback addresses.
        ambient: whether the operator's own identity may be used.
        namespace: where the sources are (the tenant's namespace, or the operator's own).
        ca_bundle: PEM of the registry's private CA, or "".
        cluster: reads Secrets and accounts and requests tokens in that namespace only.
    """

    server: str
    servers: Sequence[str]
    config: Any
    tenant: bool
    ambient: bool
    namespace: str
    ca_bundle: str
    cluster: Cluster


def ambient_refused(ask: Ask, block: str) -> InvalidSpec:
    """Return the error of an entry that names no identity and may not use the operator's own.

    Args:
        ask: the entry, whose `ambient` is False.
        block: the provider's block, with `serviceAccountRef` and `secretRef` in it.
    """
    who, flag = (
        ("a namespaced RegistryCredential", "--ambient-credentials")
        if ask.tenant
        else ("this ClusterRegistryCredential", "--cluster-ambient-credentials")
    )
    return InvalidSpec(
        "AmbientRefused",
        f"The operator's own ambient credentials are not available to {who}: name {block}.serviceAccountRef or "
        f"{block}.secretRef, or have the operator's administrator allow them with {flag}.",
        field=block,
    )


@runtime_checkable
class Provider(Protocol):
    """Turns asks into grants.  One instance serves all asks of the process.

    Attributes:
        name: the block in a registry entry that selects it: `ecr`, or the plugin's name.
    """

    name: str

    def serves(self, server: str) -> bool:
        """Say whether this provider can be inferred for `server` when the entry names no provider block."""

    def key(self, ask: Ask) -> str:
        """Return what makes two asks the same fetch: identity, region and scope, without the servers.

        Asks of one key share one fetch, whoever asks.  It must hold the namespace where a source of that
        namespace is used.  No secret may stand in it: it appears in logs.

        Raises:
            InvalidSpec: the entry cannot work; found before anything is sent.
        """

    def sources(self, ask: Ask) -> Sequence[SourceRef]:
        """Return the Secrets this ask reads, so that a change of one leads to a fetch at once."""

    async def fetch(self, ask: Ask) -> Grant:
        """Get a login.  A blocking SDK goes to a thread with its own timeouts.

        Raises:
            ProviderError: as the module says.  Any other exception is treated as `Retryable` with fixed text.
        """


#: The shape of an entry point of the group `regcred.providers`: called once without arguments.
ProviderFactory = Callable[[], Provider]
