"""The reference of the commands, from the commands themselves, and that of the causes that `explain` names."""

from __future__ import annotations

import inspect
import re

import click

from regcred import cli
from regcred.commands import lazy
from regcred.diagnosis.causes import Cause, Result

_RESULTS = {Result.WORKS: "works", Result.CAUSE: "fails", Result.BLIND: "unknown"}


def commands() -> str:
    """Return every command for people: its use, what it does, and its options."""
    parent = click.Context(cli.main, info_name="kubectl regcred", **cli.main.context_settings)
    return "\n".join(_command(parent, name) for name in sorted(lazy.COMMANDS))


def _command(parent: click.Context, name: str) -> str:
    command = cli.main.get_command(parent, name)
    assert command is not None  # noqa: S101 - it is listed
    context = click.Context(command, info_name=name, parent=parent)
    usage = command.get_usage(context).removeprefix("Usage: ")
    rows = ["| Option | Default | Meaning |", "| --- | --- | --- |"]
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or "--help" in parameter.opts:
            continue
        record = parameter.get_help_record(context)
        assert record is not None  # noqa: S101 - none of ours is hidden
        flags = f"`{record[0]}`".replace("|", "\\|")
        default = f"`{parameter.default}`" if parameter.show_default else ""
        rows.append(f"| {flags} | {default} | {parameter.help} |")
    return (
        "\n\n".join([f"## {name}", f"```text\n{' '.join(usage.split())}\n```", _prose(command), "\n".join(rows)])
        + "\n"
    )


def _prose(command: click.Command) -> str:
    """Return a help text as Markdown; lines that are to be kept are a block."""
    text = inspect.cleandoc(command.help or "")
    return re.sub(
        "\b\n((?:  .*\n?)+)",
        lambda found: "```sh\n" + re.sub(r"(?m)^  ", "kubectl regcred ", found[1]).rstrip() + "\n```\n",
        text,
    )


def causes() -> str:
    """Return every cause that `explain` can come to."""
    rows = [f"| `{cause.value}` | {_RESULTS[cause.result]} | {cause.doc} |" for cause in Cause]
    return "\n".join(["| Cause | The pull | Meaning |", "| --- | --- | --- |", *rows]) + "\n"
