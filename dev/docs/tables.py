"""The references of settings, metrics and permissions, each from what it describes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from regcred import cli, telemetry

_MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
#: Defaults that depend on where the operator runs.
_DEPENDS = {
    "namespace": "the pod's namespace, else `regcred-system`",
    "identity": "`POD_NAME`, else the host's name",
}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> str:
    """Return the options of `regcred run`."""
    parent = click.Context(cli.main, info_name="regcred", **cli.main.context_settings)
    context = click.Context(cli.run, info_name="run", parent=parent)
    rows = []
    for option in cli.run.get_params(context):
        if not isinstance(option, click.Option) or option.name in (None, "help"):
            continue
        flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
        if isinstance(option.type, click.Choice):
            flags += f" ({', '.join(f'`{choice}`' for choice in option.type.choices)})"
        variable = f"`{context.auto_envvar_prefix}_{str(option.name).upper()}`"
        rows.append((flags, variable, _default(option), str(option.help)))
    return _table(("Flag", "Environment variable", "Default", "Meaning"), rows) + "\n"


def _default(option: click.Option) -> str:
    if option.name in _DEPENDS:
        return _DEPENDS[option.name]
    default = option.default
    if option.is_flag:
        return f"`{(option.opts if default else option.secondary_opts)[0]}`"
    if not isinstance(default, str | int | float):
        return "none"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def metrics() -> str:
    """Return the metrics that the operator exports."""
    rows = []
    for collector in dict.fromkeys(telemetry.REGISTRY._collector_to_names):  # noqa: SLF001 - nothing public tells labels
        family: Any = collector
        if not hasattr(family, "_labelnames"):  # the process's, which are no metric but make some
            made = family.collect()
            rows += [
                (f"`{row.name}{'_total' if row.type == 'counter' else ''}`", row.type, "none", row.documentation)
                for row in made
            ]
            continue
        (described,) = list(family.describe())
        suffix = {"counter": "_total", "info": "_info"}.get(described.type, "")
        labels = ", ".join(f"`{name}`" for name in family._labelnames) or "none"  # noqa: SLF001
        if described.type == "info":
            labels = ", ".join(f"`{name}`" for name in family._value)  # noqa: SLF001
        kind = "gauge" if described.type == "info" else described.type
        rows.append((f"`{described.name}{suffix}`", kind, labels, described.documentation))
    return _table(("Metric", "Type", "Labels", "Meaning"), rows) + "\n"


def alerts() -> str:
    """Return the alerts, each with its runbook."""
    rule = yaml.safe_load((_MANIFESTS / "components" / "prometheus" / "alerts.yaml").read_text())
    rows = [
        (
            f"[`{alert['alert']}`](../{alert['annotations']['runbook_url'].removeprefix('docs/')})",
            alert["labels"]["severity"],
            alert.get("for", "at once"),
            f"`{' '.join(alert['expr'].split())}`",
        )
        for group in rule["spec"]["groups"]
        for alert in group["rules"]
    ]
    return _table(("Alert and runbook", "Severity", "After", "Fires when"), rows) + "\n"


def permissions() -> str:
    """Return every rule of the manifests, with the reason that stands above it there."""
    parts = []
    for title, path in (
        ("The operator", "base/rbac.yaml"),
        ("People", "base/users.yaml"),
        ("With `components/restart-stuck`", "components/restart-stuck/rbac.yaml"),
        ("With `components/tenant-secrets`", "components/tenant-secrets/rbac.yaml"),
        ("With `components/tenant-identities`", "components/tenant-identities/rbac.yaml"),
    ):
        rows = [row for document in (_MANIFESTS / path).read_text().split("\n---\n") for row in _rules(document)]
        parts.append(f"### {title}\n\n" + _table(("Role", "Resources", "Names", "Verbs", "Why"), rows))
    return "\n\n".join(parts) + "\n"


def _rules(text: str) -> Iterator[tuple[str, ...]]:
    document = yaml.safe_load(text)
    if not document or "rules" not in document:
        return
    where = document["metadata"].get("namespace")
    role = f"{document['kind']} `{document['metadata']['name']}`" + (f" in `{where}`" if where else "")
    _, _, body = text.partition("rules:\n")
    reasons = [re.sub(r"\s*# ?", " ", found).strip() for found in re.findall(r"((?:  #.*\n)*)  - apiGroups", body)]
    for rule, reason in zip(document["rules"], reasons, strict=True):
        (group,) = rule["apiGroups"]
        resources = ", ".join(f"`{name}{f'.{group}' if group else ''}`" for name in rule["resources"])
        named = ", ".join(f"`{name}`" for name in rule.get("resourceNames", ())) or "any"
        # A role that nobody is bound to yet says so by its place in the page.
        yield role, resources, named, ", ".join(rule["verbs"]), reason
