"""`test`: can these logins be had, and does the registry accept them?  From here, and without showing them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import click

from regcred.api import resource as api_resource
from regcred.api import times
from regcred.commands import common, documents, sources
from regcred.credentials import asks, provider, verification


@click.command()
@click.option("-f", "--filename", "paths", multiple=True, required=True, metavar="FILE", help="File, folder or -.")
@click.option("-R", "--recursive", is_flag=True, help="Folders below, too.")
@click.option("--no-ambient", is_flag=True, help="Do not use the cloud identity of this machine.")
@common.operator_namespace
@common.connection
@common.output
@common.asynchronous
async def test(paths: Sequence[str], recursive: bool, **options: Any) -> int:  # noqa: FBT001 - click's
    """Fetch the logins of these resources and try them, from here; passwords are not shown, and nothing is stored.

    Secrets and service accounts are read from the cluster with your own rights: those of the cluster kind from the
    operator's namespace. An entry with `verify` is proven by the registry's pull handshake. It ends with 1 where a
    login cannot be had or is refused.
    """
    found: list[documents.Document] = []
    for name, text in documents.read(paths, recursive=recursive):
        loaded, faults = documents.load(name, text)
        for fault in faults:
            click.echo(common.plain(fault), err=True)
        if faults:
            return common.FOUND
        found += loaded
    if not found:
        raise click.UsageError("there is no resource of regcred in the files")
    kubeconfig, context = options["kubeconfig"], options["context"]
    default = common.default_namespace(kubeconfig, context)
    rows: list[dict[str, Any]] = []
    async with common.connected(kubeconfig, context) as client:
        entries = sources.entries(client, options["operator_namespace"], ambient=not options["no_ambient"])
        for document in found:
            resource = document.parsed
            if not resource.cluster and not resource.namespace:
                resource = dataclasses.replace(resource, namespace=default)
            for entry in entries.of(resource):
                rows += await _try(entries, resource, entry)
    if options["form"]:
        common.emit(rows, options["form"])
    else:
        cells = [
            (row["result"], row["resource"], row["server"], row["user"], row["expires"] or "-", row["message"])
            for row in rows
        ]
        styles = ["" if row["good"] else "red" for row in rows]
        common.console().print(
            common.table(("RESULT", "RESOURCE", "SERVER", "USER", "EXPIRES", "MESSAGE"), cells, styles=styles)
        )
    sys.stdout.flush()
    return 0 if all(row["good"] for row in rows) else common.FOUND


async def _try(entries: asks.Entries, resource: api_resource.Resource, entry: asks.Entry) -> list[dict[str, Any]]:
    """Return how one registry entry fares, a row for each login."""
    common_part = {"resource": resource.key, "provider": entry.provider_name, "identity": "", "expires": ""}
    if entry.error is not None:
        return [_failed(common_part, entry.server, entry.error)]
    try:
        grant = entry.narrow(await entry.fetch(entries.reader(entry)))
    except provider.ProviderError as error:
        return [_failed(common_part, entry.server, error)]
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its text is not ours to show
        told = provider.Retryable(
            "ProviderBroken", f"the provider failed in an unexpected way ({type(error).__name__})"
        )
        return [_failed(common_part, entry.server, told)]
    if not grant.logins:
        nothing = provider.InvalidSpec(
            "SourceInvalid", "; ".join(grant.notes) or "the source has no login for this server"
        )
        return [_failed(common_part, entry.server, nothing)]
    common_part["identity"] = grant.identity
    common_part["expires"] = times.format_time(grant.expires_at) if grant.expires_at else ""
    verdict = await _verified(entry, grant)
    rows = []
    for server, login in sorted(grant.logins.items()):
        row = {**common_part, "server": server, "user": login.username, "good": True, "result": "Fetched"}
        row["message"] = "; ".join(grant.notes) or "the login was had; no verify, so it is not proven"
        if verdict is not None:
            row |= {"result": verdict.outcome.reason, "message": verdict.message}
            row["good"] = verdict.outcome.accepts is True
        rows.append(row)
    return rows


async def _verified(entry: asks.Entry, grant: provider.Grant) -> verification.Verdict | None:
    if entry.spec is None or entry.spec.verify is None or not entry.servers:
        return None
    asked, login = entry.spec.verify, grant.logins.get(entry.servers[0])
    if login is None:
        return None
    return await verification.verify(
        None,
        entry.servers[0],
        asked.repository,
        asked.reference,
        login,
        ca_bundle=entry.spec.tls.ca_bundle if entry.spec.tls else "",
        timeout=float(asked.timeout_seconds),
    )


def _failed(common_part: dict[str, str], server: str, error: provider.ProviderError) -> dict[str, Any]:
    return {
        **common_part,
        "server": server,
        "user": "",
        "good": False,
        "result": error.reason,
        "message": f"{error.field}: {error.message}" if error.field else error.message,
    }
