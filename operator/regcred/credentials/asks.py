"""Turns the registry entries of a resource into asks of their providers.

Here it is decided what a resource may reach: a namespaced one its own namespace and never the operator's identity,
a cluster one the operator's namespace.  A fault of one entry is held with that entry and touches no other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Sequence

from regcred import dockerconfig
from regcred.api import names, spec
from regcred.api import resource as api_resource
from regcred.credentials import federation, plugins, provider

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """What the operator's settings allow.

    Attributes:
        namespace: the operator's own.
        cluster_ambient: the operator's identity serves cluster resources.
        tenant_ambient: the operator's identity serves namespaced resources too.
    """

    namespace: str
    cluster_ambient: bool = True
    tenant_ambient: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One registry entry, ready to be fetched.

    Attributes:
        server: as the resource spells it; `*` for an import.
        servers: the server and its aliases, canonical.
        provider_name: its provider, or "".
        key: what makes two entries the same fetch: who may share it, the provider's name, and the provider's key.
        proof: what a handshake has to prove, or "" where none is asked for.
        sources: the Secrets it reads.
        spec: the entry as the resource has it.
        error: why it cannot be fetched at all; then nothing else counts.
    """

    server: str
    servers: tuple[str, ...] = ()
    provider_name: str = ""
    key: str = ""
    proof: str = ""
    sources: tuple[provider.SourceRef, ...] = ()
    spec: spec.Registry | None = None
    error: provider.ProviderError | None = None
    ask: provider.Ask | None = None
    implementation: provider.Provider | None = None

    async def fetch(self, reader: provider.Cluster) -> provider.Grant:
        """Ask the provider, which reads the cluster through `reader`.

        Raises:
            provider.ProviderError: see there.
        """
        assert self.ask is not None  # noqa: S101 - an entry with an error is never fetched
        assert self.implementation is not None  # noqa: S101
        return await self.implementation.fetch(dataclasses.replace(self.ask, cluster=reader))

    def narrow(self, grant: provider.Grant) -> provider.Grant:
        """Return `grant` with the logins of this entry's servers only."""
        shared = grant.logins.get(provider.ANY_SERVER)
        if self.server == provider.ANY_SERVER:
            # An import names every server; a login for whichever servers there are says nothing here.
            wanted = [server for server in grant.logins if server != provider.ANY_SERVER]
            return dataclasses.replace(grant, logins={server: grant.logins[server] for server in wanted})
        logins = {server: login for server in self.servers if (login := grant.logins.get(server, shared))}
        return dataclasses.replace(grant, logins=logins)

    def covered(self, grant: provider.Grant) -> bool:
        """Whether an earlier grant has a login for exactly the servers of this entry."""
        return self.server == provider.ANY_SERVER or set(grant.logins) == set(self.servers)


class Entries:
    """Makes entries.

    Args:
        providers: the providers of this installation.
        policy: what the settings allow.
        reader: makes the reader of one namespace, for a provider block of that path below the registry entry.
    """

    def __init__(
        self,
        providers: plugins.Providers,
        policy: Policy,
        reader: Callable[[str, str], federation.NamespaceReader],
    ) -> None:
        self._providers = providers
        self._policy = policy
        self._reader = reader

    def reader(self, entry: Entry) -> federation.NamespaceReader:
        """Return a new reader of the namespace that the entry's sources are in."""
        namespace = entry.ask.namespace if entry.ask is not None else self._policy.namespace
        return self._reader(namespace, _block(entry.spec, entry.provider_name))

    def of(self, resource: api_resource.Resource) -> Sequence[Entry]:
        """Return the entries of a resource with a valid spec, in its order."""
        assert resource.spec is not None  # noqa: S101 - the caller has looked
        return [self._entry(resource, registry) for registry in resource.spec.registries]

    def _entry(self, resource: api_resource.Resource, registry: spec.Registry) -> Entry:
        tenant = resource.kind == names.NAMESPACED_KIND
        name = ""
        try:
            servers = self._servers(registry)
            name = registry.provider_name or self._providers.infer(servers[0]) or ""
            if not name:
                raise provider.InvalidSpec(
                    "ProviderUnknown",
                    f"the host {registry.server} does not tell its provider; name one: login, ecr, gcr, acr or plugin",
                    field="server",
                )
            namespace = resource.namespace if tenant else self._policy.namespace
            ask = provider.Ask(
                server=servers[0],
                servers=servers,
                config=registry.provider_config,
                tenant=tenant,
                ambient=self._policy.tenant_ambient if tenant else self._policy.cluster_ambient,
                namespace=namespace,
                ca_bundle=registry.tls.ca_bundle if registry.tls else "",
                cluster=self._reader(namespace, _block(registry, name)),
            )
            implementation = self._providers.get(name)
            return Entry(
                server=registry.server,
                servers=servers,
                provider_name=name,
                key=f"{_domain(ask)}{name}|{implementation.key(ask)}",
                proof=_proof(registry),
                sources=tuple(implementation.sources(ask)),
                spec=registry,
                ask=ask,
                implementation=implementation,
            )
        except provider.ProviderError as error:
            return Entry(server=registry.server, provider_name=name, spec=registry, error=error)
        except Exception as error:  # noqa: BLE001 - a broken plugin breaks only the entries that name it
            _log.warning("Provider %s failed on %s: %s", name, registry.server, type(error).__name__)
            return Entry(
                server=registry.server,
                provider_name=name,
                spec=registry,
                error=provider.InvalidSpec(
                    "ProviderBroken", f"the provider {name!r} could not read this entry ({type(error).__name__})"
                ),
            )

    @staticmethod
    def _servers(registry: spec.Registry) -> tuple[str, ...]:
        if registry.server == provider.ANY_SERVER:
            return (provider.ANY_SERVER,)
        try:
            spelled = (registry.server, *registry.aliases)
            return tuple(dict.fromkeys(dockerconfig.canonical_server(server) for server in spelled))
        except dockerconfig.BadServer as error:
            raise provider.InvalidSpec("InvalidSpec", str(error), field="server") from None


def _block(registry: spec.Registry | None, provider_name: str) -> str:
    """Return where, below the registry entry, the fields of its provider stand."""
    return "plugin.config" if registry is not None and registry.plugin is not None else provider_name


def _domain(ask: provider.Ask) -> str:
    """Return who may share a fetch at all, whatever keys a provider makes: no tenant gets what another asked for.

    Only tenants who all may use the operator's own identity share among themselves, and never with the platform.
    """
    if not ask.tenant:
        return ""
    return "tenants|" if ask.ambient else f"{ask.namespace}|"


def _proof(registry: spec.Registry) -> str:
    """Return what identifies the handshake that was asked for, or ""."""
    if registry.verify is None:
        return ""
    authority = registry.tls.ca_bundle if registry.tls else ""
    digest = hashlib.sha256(authority.encode()).hexdigest()[:8] if authority else "system"
    return f"{registry.verify.repository}:{registry.verify.reference}@{digest}"
