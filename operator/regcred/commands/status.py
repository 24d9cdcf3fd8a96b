"""`status`: every resource, the worst first."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import Any

import click

from regcred.api import conditions, times
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.commands import common, resources

#: The states, the worst first, with their colours.
_STATES = {
    "Stalled": "bold red",
    "Failed": "red",
    "Unseen": "yellow",
    "Reconciling": "yellow",
    "Degraded": "yellow",
    "Suspended": "cyan",
    "Ready": "green",
}


@click.command()
@click.option(
    "-n", "--namespace", default="", help="Only this namespace's resources, and those of the cluster kind."
)
@click.option("-w", "--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds, for --watch."
)
@common.connection
@common.output
@common.asynchronous
async def status(*, namespace: str, watch: bool, interval: float, form: str | None, **where: Any) -> int:
    """Show every resource, the worst first.

    It ends with 0 where all are ready, and with 1 where one is not.
    """
    if watch and form:
        raise click.UsageError("--watch is for people; use kubectl get regcred --watch -o json in its place")
    async with common.connected(where["kubeconfig"], where["context"]) as client:
        if watch:
            await _watch(client, namespace, interval)
        rows = await _rows(client, namespace)
    if form:
        common.emit(rows, form)
    elif rows:
        common.console().print(_table(rows))
    else:
        common.say("There is no resource of regcred.")
    return 0 if all(row["state"] in ("Ready", "Suspended", "Degraded") for row in rows) else common.FOUND


async def _watch(client: api.Client, namespace: str, interval: float) -> None:
    import rich.live  # noqa: PLC0415 - only where a person reads

    with rich.live.Live(console=common.console(), auto_refresh=False) as live:
        while True:
            live.update(_table(await _rows(client, namespace)), refresh=True)
            await asyncio.sleep(interval)


async def _rows(client: api.Client, namespace: str) -> list[dict[str, Any]]:
    now = dt.datetime.now(dt.UTC)
    rows = [_row(resource, now) for resource in await resources.everything(client, namespace)]
    return sorted(rows, key=lambda row: (list(_STATES).index(row["state"]), row["resource"]))


def _row(resource: api_resource.Resource, now: dt.datetime) -> dict[str, Any]:
    told = resource.status
    ready = conditions.find_condition(told.get("conditions"), conditions.READY) or {}
    fetched = conditions.find_condition(told.get("conditions"), conditions.FETCHED) or {}
    given = told.get("summary")
    summary: dict[str, Any] = given if isinstance(given, dict) else {}
    state = _state(resource, ready, fetched)
    message = ready.get("message", "")
    if state == "Unseen":
        message = "no operator has looked at it yet; does one run?"
    elif state == "Degraded":
        message = fetched.get("message", "")
    return {
        "state": state,
        "resource": resource.key,
        "registries": summary.get("registries", ""),
        "namespaces": summary.get("namespaces", ""),
        "expires": summary.get("expiresAt") or "",
        "expiresIn": _until(summary.get("expiresAt"), now),
        "reason": ready.get("reason", ""),
        "message": message,
        "failures": list(told.get("failures") or ()),
    }


def _state(resource: api_resource.Resource, ready: dict[str, Any], fetched: dict[str, Any]) -> str:
    told = resource.status.get("conditions")
    if resource.status.get("observedGeneration") != resource.generation:
        return "Unseen"
    if conditions.find_condition(told, conditions.STALLED):
        return "Stalled"
    if conditions.find_condition(told, conditions.RECONCILING):
        return "Reconciling"
    if ready.get("status") != "True":
        return "Failed"
    if ready.get("reason") == conditions.Reason.SUSPENDED:
        return "Suspended"
    # A renewal fails while the last good login lives.
    return "Degraded" if fetched.get("status") == "False" else "Ready"


def _until(text: Any, now: dt.datetime) -> str:
    """Return how long something lasts, in one unit, or "" where it does not end."""
    try:
        seconds = int((times.parse_time(text) - now).total_seconds())
    except (ValueError, TypeError):
        return ""
    if seconds <= 0:
        return "ended"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _table(rows: Sequence[dict[str, Any]]) -> Any:
    cells = [
        (
            row["state"],
            row["resource"],
            row["registries"],
            row["namespaces"] or "-",
            row["expiresIn"] or ("-" if not row["expires"] else row["expires"]),
            _message(row),
        )
        for row in rows
    ]
    styles = [_STATES[row["state"]] if row["state"] != "Ready" else "" for row in rows]
    return common.table(
        ("STATE", "RESOURCE", "LOGINS", "NAMESPACES", "EXPIRES IN", "MESSAGE"), cells, styles=styles
    )


def _message(row: dict[str, Any]) -> str:
    failures = [f"{each.get('namespace')}: {each.get('reason')}" for each in row["failures"][:3]]
    return "\n".join([row["message"], *failures])
