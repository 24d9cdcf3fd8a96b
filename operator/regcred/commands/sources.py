"""Reading the sources of logins as the operator does, with the rights of whoever asks."""

from __future__ import annotations

from collections.abc import Iterable

from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.commands import common
from regcred.credentials import asks, federation, plugins, provider


def entries(client: api.Client, namespace: str, *, ambient: bool) -> asks.Entries:
    """Return what makes the registry entries of resources, read with the rights of whoever asks."""
    return asks.Entries(
        plugins.Providers(),
        asks.Policy(namespace, cluster_ambient=ambient, tenant_ambient=ambient),
        lambda where, block: federation.NamespaceReader(
            client, where, operator_account=f"{namespace}/regcred", block=block
        ),
    )


async def imported(
    client: api.Client, namespace: str, resources: Iterable[api_resource.Resource]
) -> tuple[dict[tuple[str, str], frozenset[str]], list[str]]:
    """Return the servers that the docker configs hold of which resources take every login; no login is kept.

    Args:
        client: logged in as whoever asks.
        namespace: the operator's.
        resources: to look at; those without a valid spec are passed over.

    Returns:
        The servers by namespace and name of the Secret, and what could not be read.
    """
    made = entries(client, namespace, ambient=False)
    found: dict[tuple[str, str], frozenset[str]] = {}
    gaps: dict[str, None] = {}
    for resource in resources:
        for entry in made.of(resource) if resource.spec is not None else ():
            if entry.server != provider.ANY_SERVER:
                continue
            try:
                if entry.error is not None:
                    raise entry.error
                for source in entry.sources:
                    if (source.namespace, source.name) not in found:
                        grant = await entry.fetch(made.reader(entry))
                        found[source.namespace, source.name] = frozenset(entry.narrow(grant).logins)
            except provider.ProviderError as error:
                gaps[common.plain(f"{resource.key}: {error.message}")] = None
    return found, list(gaps)
