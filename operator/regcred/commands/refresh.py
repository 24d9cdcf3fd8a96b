"""`refresh`: have the logins of a resource fetched now."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import Any

import click

from regcred.api import conditions, names
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.commands import common, resources

_EVERY = 0.3


@click.command()
@click.argument("name")
@click.option(
    "-n", "--namespace", default="", help="Of a RegistryCredential; left out, the cluster kind is meant."
)
@click.option("--wait", is_flag=True, help="Wait until it is done, and say what came of it.")
@click.option("--timeout", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds, for --wait.")
@common.connection
@common.output
@common.asynchronous
async def refresh(*, name: str, namespace: str, wait: bool, form: str | None, **options: Any) -> int:
    """Have the logins of a resource fetched now.

    With --wait it ends with 0 once the resource is ready with new logins, and with 1 where a login could not be had.
    """
    stamp = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    async with common.connected(options["kubeconfig"], options["context"]) as client:
        try:
            await client.request(
                "PATCH",
                api_resource.path(namespace, name),
                body={"metadata": {"annotations": {names.REFRESH: stamp}}},
                params={"fieldManager": "kubectl-regcred"},
                content_type=api.MERGE,
                accept=api.METADATA,
            )
        except errors.NotFound:
            await resources.get(client, namespace, name)
            raise
        if not wait:
            common.emit({"refreshRequestedAt": stamp}, form) if form else common.say(f"Asked for at {stamp}.")
            return 0
        done = await _handled(client, namespace, name, stamp, options["timeout"])
    rows = done.status.get("registries") or ()
    ready = conditions.find_condition(done.status.get("conditions"), conditions.READY) or {}
    fetched = conditions.find_condition(done.status.get("conditions"), conditions.FETCHED) or {}
    if form:
        common.emit({"refreshRequestedAt": stamp, "ready": ready.get("status"), "registries": list(rows)}, form)
    else:
        cells = [
            (row.get("server", ""), row.get("reason", ""), row.get("expiresAt") or "-", row.get("message") or "")
            for row in rows
        ]
        common.console().print(common.table(("REGISTRY", "REASON", "EXPIRES", "MESSAGE"), cells))
    return 0 if ready.get("status") == "True" and fetched.get("status") == "True" else common.FOUND


async def _handled(
    client: api.Client,
    namespace: str,
    name: str,
    stamp: str,
    timeout: float,  # noqa: ASYNC109 - the user's
) -> api_resource.Resource:
    """Wait until the operator says that it has carried out the request.

    Raises:
        common.Failure: it did not within the time.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        seen = await resources.get(client, namespace, name)
        if seen.status.get("lastHandledRefreshAt") == stamp and not conditions.find_condition(
            seen.status.get("conditions"), conditions.RECONCILING
        ):
            return seen
        await asyncio.sleep(_EVERY)
    raise common.Failure(f"The operator has not carried it out within {timeout:g} s; does it run?")
