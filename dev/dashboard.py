"""Makes the Grafana dashboard from a table of its panels: `python -m dev.dashboard --write` or `--check`.

A dashboard's JSON is a page of positions for every line that says something, so it is made and not written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "manifests" / "components" / "grafana" / "regcred.json"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: legend to PromQL.
        unit: of Grafana's units.
        kind: stat, timeseries or table.
        width: of 24 columns.
        help: one sentence.
        steps: thresholds: colour to the least value; the first has none.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    help: str = ""
    steps: Sequence[tuple[str, float | None]] = (("green", None),)


_BAD = (("green", None), ("red", 1.0))
_GOOD = (("red", None), ("green", 1.0))

ROWS: dict[str, list[Panel]] = {
    "Do pods start?": [
        Panel(
            "Resources ready",
            {"ready": 'sum(regcred_resources{condition="Ready",status="True"}) or vector(0)'},
            kind="stat",
            width=4,
            help="Resources whose Ready is True.",
        ),
        Panel(
            "Resources that wait for somebody",
            {"stalled": 'sum(regcred_resources{condition="Stalled",status="True"}) or vector(0)'},
            kind="stat",
            width=4,
            help="Stalled: what to do stands in their message.",
            steps=_BAD,
        ),
        Panel(
            "Logins missing",
            {"missing": "count(regcred_credential_usable == 0) or vector(0)"},
            kind="stat",
            width=4,
            help="Registries without a login that lives.",
            steps=_BAD,
        ),
        Panel(
            "Renewals failing",
            {"failing": "count(regcred_credential_failing == 1) or vector(0)"},
            kind="stat",
            width=4,
            help="The last good login is in use until it ends.",
            steps=(("green", None), ("orange", 1.0)),
        ),
        Panel(
            "First login to end",
            {"left": "min(regcred_credential_expiration_timestamp_seconds) - time()"},
            unit="s",
            kind="stat",
            width=4,
            help="Time left of the login that ends first.",
            steps=(("red", None), ("orange", 300.0), ("green", 900.0)),
        ),
        Panel(
            "Replicas at work",
            {"leaders": "sum(regcred_leader)"},
            kind="stat",
            width=4,
            help="One works, the others wait.",
            steps=_GOOD,
        ),
        Panel(
            "Namespaces by state",
            {"{{state}}": "sum by (state) (regcred_namespaces)"},
            help="Of all cluster resources.",
            width=12,
        ),
        Panel(
            "Service accounts by state",
            {"{{state}}": "sum by (state) (regcred_serviceaccounts)"},
            help="Of all cluster resources. Contended: somebody keeps taking the entry out.",
            width=12,
        ),
    ],
    "Logins": [
        Panel(
            "Time left of each login",
            {"{{namespace}}/{{name}} {{server}}": "regcred_credential_expiration_timestamp_seconds - time()"},
            unit="s",
            width=12,
            help="Falls, and jumps up with each renewal, before half of it is gone.",
        ),
        Panel(
            "Time to the next fetch",
            {"{{namespace}}/{{name}} {{server}}": "regcred_credential_renewal_timestamp_seconds - time()"},
            unit="s",
            width=12,
            help="Never below zero for long.",
        ),
        Panel(
            "Fetches by result",
            {
                "{{provider}} {{result}}": "sum by (provider, result) (rate(regcred_fetches_total[$__rate_interval]))"
            },
            unit="ops",
        ),
        Panel(
            "Time a provider takes (95 %)",
            {
                "{{provider}}": "histogram_quantile(0.95, sum by (le, provider) "
                "(rate(regcred_fetch_duration_seconds_bucket[$__rate_interval])))"
            },
            unit="s",
        ),
        Panel(
            "Proofs by result",
            {"{{result}}": "sum by (result) (rate(regcred_verifications_total[$__rate_interval]))"},
            unit="ops",
        ),
    ],
    "The operator": [
        Panel(
            "Writes",
            {
                "Secrets written": "sum(rate(regcred_secret_writes_total[$__rate_interval]))",
                "Secrets deleted": "sum(rate(regcred_secret_deletions_total[$__rate_interval]))",
                "accounts {{result}}": "sum by (result) "
                "(rate(regcred_serviceaccount_patches_total[$__rate_interval]))",
            },
            unit="ops",
            help="None, where nothing changes.",
        ),
        Panel(
            "Time to serve a namespace",
            {
                "99 %": "histogram_quantile(0.99, sum by (le) "
                "(rate(regcred_reconcile_duration_seconds_bucket[$__rate_interval])))",
                "50 %": "histogram_quantile(0.5, sum by (le) "
                "(rate(regcred_reconcile_duration_seconds_bucket[$__rate_interval])))",
            },
            unit="s",
        ),
        Panel(
            "Namespaces that wait",
            {"for work": "sum(regcred_queue_depth)", "for another try": "sum(regcred_queue_retrying)"},
        ),
        Panel(
            "Answers of the API server",
            {
                "{{method}} {{code}}": "sum by (method, code) "
                "(rate(regcred_kubernetes_requests_total[$__rate_interval]))"
            },
            unit="reqps",
        ),
        Panel(
            "Silence of the quietest watch",
            {"{{instance}}": "regcred_watch_last_event_age_seconds and on (instance) regcred_leader == 1"},
            unit="s",
        ),
        Panel(
            "Watches begun anew",
            {"{{resource}} {{reason}}": "sum by (resource, reason) (increase(regcred_watch_restarts_total[1h]))"},
            help="Silent, expired or failed; what was missed is made good.",
        ),
        Panel(
            "Pods evicted",
            {"{{result}}": "sum by (result) (increase(regcred_pod_evictions_total[1h]))"},
            help="Pods that were created before their entry, where a resource asks for it.",
        ),
        Panel(
            "Tasks",
            {"{{instance}}": "regcred_asyncio_tasks"},
            help="Of the event loop; steady where nothing leaks.",
        ),
        Panel(
            "Defects", {"defects": "sum(increase(regcred_reconcile_panics_total[1h]))"}, help="Please report each."
        ),
        Panel(
            "Versions",
            {"{{version}}": "count by (version) (regcred_build_info)"},
            kind="stat",
            width=6,
        ),
        Panel("Unlisted registries", {"unlisted": "sum(regcred_credentials_unlisted)"}, kind="stat", width=6),
    ],
}


def build() -> dict[str, Any]:
    """Return the dashboard."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": []})
        panels[-1]["gridPos"] = {"h": 1, "w": 24, "x": 0, "y": top}
        top, left, height = top + 1, 0, 0
        for panel in row:
            if left + panel.width > 24:
                top, left, height = top + height, 0, 0
            tall = 4 if panel.kind == "stat" else 8
            height = max(height, tall)
            where = {"h": tall, "w": panel.width, "x": left, "y": top}
            panels.append({"id": len(panels) + 1, "gridPos": where, **_panel(panel)})
            left += panel.width
        top += height
    return {
        "uid": "regcred",
        "title": "regcred",
        "tags": ["regcred", "kubernetes"],
        "description": "Logins for private registries: what works, until when, and what does not.",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "schemaVersion": 39,
        "version": 1,
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in panel.steps]
    made: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for number, (legend, expr) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
    }
    if panel.kind == "stat":
        del made["fieldConfig"]["defaults"]["min"]
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
    return made


def render() -> str:
    """Return the dashboard as the file has it."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or check it; return 1 if `--check` found it out of date."""
    parser = argparse.ArgumentParser(prog="python -m dev.dashboard", description="Make the Grafana dashboard.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="bring it up to date")
    what.add_argument("--check", action="store_true", help="fail if it is out of date")
    options = parser.parse_args(arguments)
    if options.write:
        TARGET.write_text(render())
        return 0
    if not TARGET.exists() or TARGET.read_text() != render():
        print(f"{TARGET} is out of date; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
