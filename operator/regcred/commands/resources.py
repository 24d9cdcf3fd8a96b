"""Reading our own resources, for the commands."""

from __future__ import annotations

from regcred.api import names
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.commands import common


async def get(client: api.Client, namespace: str, name: str) -> api_resource.Resource:
    """Return one resource.

    Raises:
        common.Failure: there is none of that name.
    """
    try:
        body = await client.get(api_resource.path(namespace, name))
    except errors.NotFound:
        kind = names.NAMESPACED_KIND if namespace else names.CLUSTER_KIND
        where = f" in the namespace {namespace}" if namespace else ""
        hint = "" if namespace else "; a RegistryCredential needs -n with its namespace"
        raise common.Failure(f"There is no {kind} {name}{where}{hint}.") from None
    return api_resource.parse({**body, "kind": names.NAMESPACED_KIND if namespace else names.CLUSTER_KIND})


async def everything(client: api.Client, namespace: str = "") -> list[api_resource.Resource]:
    """Return every resource of both kinds, or those of one namespace and of the cluster kind.

    What one may not list is left out, unless it is both.
    """
    found: list[api_resource.Resource] = []
    refused: list[errors.ApiError] = []
    within = f"namespaces/{namespace}/" if namespace else ""
    for plural, kind in names.KINDS.items():
        where = within if kind == names.NAMESPACED_KIND else ""
        try:
            bodies = await common.listed(client, f"/apis/{names.API_VERSION}/{where}{plural}")
        except errors.Forbidden as error:
            refused.append(error)
            continue
        found += [api_resource.parse({**body, "kind": kind}) for body in bodies]
    if len(refused) == 2:
        raise refused[0]
    return found
