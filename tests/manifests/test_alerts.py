"""The alerts and the dashboard: tested by Prometheus' own tool, and made of metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml

from dev import binaries, dashboard
from regcred import telemetry
from tests.docs.docs_support import anchors
from tests.manifests.manifests_support import MANIFESTS, ROOT, one, render

SPEC = one(render("manifests/overlays/prometheus"), "PrometheusRule", "regcred")["spec"]
RULES = [rule for group in SPEC["groups"] for rule in group["rules"]]
TESTS = Path(__file__).parent / "alerts_test.yaml"
#: Labels that Prometheus itself adds.
SCRAPED = {"instance", "job", "le", "alertname"}


@pytest.fixture(scope="module")
async def promtool() -> Path:
    """Prometheus' tool, from Debian's package."""
    try:
        return await binaries.promtool()
    except binaries.UnsupportedSystemError as error:
        pytest.skip(str(error))


def metrics() -> dict[str, set[str]]:
    """Every series' name that the operator exports, to its labels."""
    found: dict[str, set[str]] = {}
    for collector, series in telemetry.REGISTRY._collector_to_names.items():
        made: Any = collector
        # A collector of its own kind, as that of the process is, has series without labels.
        labels = set(getattr(made, "_labelnames", ())) or set(
            getattr(made, "_value", None) or () if "Info" in str(type(made)) else ()
        )
        for name in series:
            found[name] = labels
    return found


def used(expression: str) -> dict[str, set[str]]:
    """The metrics of an expression, to the labels that their selectors and the aggregations around them name."""
    selectors = re.findall(r"(regcred_\w+)(?:\{([^}]*)\})?", expression)
    grouped = {
        label.strip() for part in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in part.split(",")
    }
    return {name: {*re.findall(r"(\w+)\s*[=!]", inside), *grouped} - SCRAPED for name, inside in selectors}


def exist(expression: str) -> None:
    """Fail unless every metric and label of an expression is exported."""
    exported = metrics()
    assert used(expression)
    for name, labels in used(expression).items():
        assert name in exported, f"{name} is no metric of the operator"
        assert labels <= exported[name], f"{name} has no label {labels - exported[name]}"


def run(*command: str | Path, folder: Path, given: str | None = None) -> str:
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rules_pass_their_unit_tests(promtool: Path, tmp_path: Path) -> None:
    """Prometheus' own tool accepts every rule, and each does in the tests what it should."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    assert f"{len(RULES)} rules found" in run(
        promtool, "check", "rules", "--lint-fatal", "rules.yaml", folder=tmp_path
    )
    assert "SUCCESS" in run(promtool, "test", "rules", TESTS.name, folder=tmp_path)


def test_a_rule_that_never_fires_fails_its_test(promtool: Path, tmp_path: Path) -> None:
    """The unit tests notice for each alert when it does not fire any more."""
    groups = json.loads(json.dumps(SPEC))
    for group in groups["groups"]:
        for rule in group["rules"]:
            rule["expr"] = "vector(1) > 2"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    done = subprocess.run(
        [promtool, "test", "rules", TESTS.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    failed = set(re.findall(r"Regcred\w+", done.stdout + done.stderr))
    assert failed == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_alerts_are_made_of_metrics_that_exist(rule: dict[str, Any]) -> None:
    """Every metric and label of an alert is exported, and so is every label that its text names."""
    exist(rule["expr"])
    said = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    by = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    kept = {label.strip() for part in by for label in part.split(",")} if by else None
    for name in used(rule["expr"]):
        assert said <= (kept if kept is not None else metrics()[name])
    assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_its_runbook(rule: dict[str, Any]) -> None:
    """The runbook of an alert is a section that bears its name."""
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(ROOT / page)


def test_every_runbook_has_its_alert() -> None:
    """No runbook is for an alert that is not shipped."""
    text = (ROOT / "docs" / "runbooks.md").read_text()
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_queries_in_pages_are_made_of_metrics_that_exist() -> None:
    """Every PromQL in the documentation is about metrics and labels that are exported."""
    found = re.findall(r"```promql\n(.*?)```", (ROOT / "docs" / "runbooks.md").read_text(), re.DOTALL)
    assert found
    for expression in found:
        exist(expression)


def test_the_dashboard_is_made_of_metrics_that_exist() -> None:
    """Every query of the dashboard is about metrics and labels that are exported, and so is its legend."""
    shown = json.loads(dashboard.TARGET.read_text())
    queries = [target for panel in shown["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 20
    for query in queries:
        exist(query["expr"])
        for label in re.findall(r"\{\{(\w+)\}\}", query["legendFormat"]):
            assert all(label in {*metrics()[name], "instance"} for name in used(query["expr"]))


def test_the_dashboards_queries_are_promql(promtool: Path, tmp_path: Path) -> None:
    """Prometheus' own parser reads every query of the dashboard."""
    shown = json.loads(dashboard.TARGET.read_text())
    queries = [target["expr"] for panel in shown["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"q:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(queries)} rules found" in run(promtool, "check", "rules", "rules.yaml", folder=tmp_path)


def test_every_metric_is_shown_or_alerted_on() -> None:
    """No metric is exported for nothing: the dashboard or an alert uses each."""
    text = dashboard.TARGET.read_text() + json.dumps(RULES)
    # Those of the process are what every program exports, for whoever looks for them.
    families = {found.name for found in telemetry.REGISTRY.collect() if found.name.startswith("regcred_")}
    assert {name for name in families if name not in text} == set()


def test_the_dashboards_panels_do_not_overlap() -> None:
    """Every panel has its own place in the grid."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.TARGET.read_text())["panels"]:
        where = panel["gridPos"]
        cells = {(where["x"] + x, where["y"] + y) for x in range(where["w"]) for y in range(where["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_the_dashboard_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """The file is what the table of panels makes; the component ships it for Grafana's sidecar."""
    assert dashboard.main(["--check"]) == 0
    config = one(render("manifests/overlays/grafana"), "ConfigMap", "regcred-dashboard")
    assert json.loads(config["data"]["regcred.json"])["uid"] == "regcred"
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert (MANIFESTS / "components" / "grafana" / "regcred.json") == dashboard.TARGET


def test_metrics_follow_prometheus_rules(promtool: Path, tmp_path: Path) -> None:
    """Prometheus' linter has nothing to say about any metric: names, units and help texts."""
    shown = prometheus_client.generate_latest(telemetry.REGISTRY).decode()
    assert run(promtool, "check", "metrics", folder=tmp_path, given=shown) == ""
