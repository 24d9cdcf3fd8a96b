"""Writes moves as a file that can be read and applied: resources in YAML, and the steps around them as comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import yaml

from regcred.api import names
from regcred.migration.model import Copy, Move

_WIDTH = 115


def render(moves: Sequence[Move]) -> str:
    """Return the file; "" where there is nothing to move."""
    return "---\n".join("\n".join(_lines(move)) + "\n" + _resources(move) for move in moves)


def _resources(move: Move) -> str:
    return "---\n".join(
        yaml.safe_dump(document, sort_keys=False, width=_WIDTH, allow_unicode=True)
        for document in (_plain(document) for document in move.resources)
    )


def _plain(document: object) -> object:
    """Return a document of plain types, without references to one object from two places."""
    if isinstance(document, dict):
        return {str(key): _plain(value) for key, value in document.items()}
    return [_plain(value) for value in document] if isinstance(document, list | tuple) else document


def _lines(move: Move) -> Iterator[str]:
    yield f"# From {move.tool}: {move.subject}"
    step = 0
    for what, commands in (
        ("Put its sources where regcred reads them (bash):", [copied(copy) for copy in move.copies]),
        (_allow(move), []),
        ("Apply this file. The resource says Conflict until step {next}: nothing is touched yet.", None),
        ("Stop the tool, as it would write again:", move.stop),
        (
            "Hand over what it made. regcred writes into it at once, in place:",
            [_handed(*found) for found in move.adopt],
        ),
        ("When `kubectl get regcred -A` says True, remove what is left:", move.remove),
    ):
        if commands is not None and not commands and what != _allow(move):
            continue
        if not what:
            continue
        step += 1
        yield from _comment(f"{step}. {what.format(next=step + (2 if move.stop else 1))}")
        for command in commands or ():
            yield f"#      {command}"
    for remark in move.remarks:
        yield from _comment(f"Mind: {remark}.")


def _comment(text: str) -> list[str]:
    return [
        f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, subsequent_indent="   ", break_on_hyphens=False)
    ]


def _allow(move: Move) -> str:
    if move.secret_name in ("", names.DEFAULT_SECRET_NAME):
        return ""
    return (
        f"Let the operator handle Secrets named {move.secret_name}: the chart's value secretNames, or the component "
        f"secret-name."
    )


def _handed(namespace: str, name: str) -> str:
    return f"kubectl -n {namespace} annotate secret {name} {names.ADOPT}=true"


def copied(copy: Copy) -> str:
    """Return the command that makes a copy, without ever showing what is copied."""
    parts = []
    for key, old in copy.keys.items():
        path = old.replace(".", "\\.")
        parts.append(f"--from-file={key}=<(kubectl get {copy.read} -o jsonpath='{{.data.{path}}}' | base64 -d)")
    kind = f" --type={copy.type}" if copy.type != "Opaque" else ""
    return f"kubectl -n {copy.namespace} create secret generic {copy.name}{kind} {' '.join(parts)}"
