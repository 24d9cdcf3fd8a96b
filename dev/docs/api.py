"""The reference of the API, from the same schema as the custom resource definitions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from regcred.api import crd, structural


def cluster_kind() -> str:
    """Return the reference of the cluster kind."""
    return _kind(crd.KINDS[0], {})


def namespaced_kind() -> str:
    """Return the reference of the namespaced kind, without the objects that both kinds share."""
    return _kind(crd.KINDS[1], dict(_walk(crd.schema(crd.KINDS[0]))))


def _kind(kind: crd.Kind, known: Mapping[str, structural.Schema]) -> str:
    whole = crd.schema(kind)
    parts = [whole["description"], f"Short name `{kind.short_name}`; both kinds are of the category `regcred`."]
    shared = []
    for path, schema in _walk(whole):
        if known.get(path) == schema:
            shared.append(f"`{path}`")
        else:
            parts += _object(f"{kind.name}: {path}", schema)
    if shared:
        parts.append(f"As in the other kind: {', '.join(shared)}.")
    return _escaped("\n\n".join(parts)) + "\n"


def _walk(whole: structural.Schema) -> Iterator[tuple[str, structural.Schema]]:
    """Yield the path and schema of every object of the spec and the status, each before those in it."""
    waiting = [(name, whole["properties"][name]) for name in ("spec", "status")]
    while waiting:
        path, schema = waiting.pop(0)
        yield path, schema
        inner = []
        for name, field in schema["properties"].items():
            item = field.get("items", field)
            if "properties" in item:
                described = item if "description" in item else {**item, "description": field["description"]}
                inner.append((f"{path}.{name}{'[]' if item is not field else ''}", described))
        waiting = inner + waiting


def _object(title: str, schema: structural.Schema) -> Iterator[str]:
    """Yield the heading and the fields of one object."""
    yield f"### {title}"
    yield schema["description"]
    required = schema.get("required", ())
    yield "\n".join(_field(name, field, required=name in required) for name, field in schema["properties"].items())
    rules = [f"- {rule['message']}" for rule in schema.get(structural.RULES, ())]
    if rules:
        yield "Refused, with these words after the field's path:"
        yield "\n".join(rules)


def _field(name: str, schema: structural.Schema, *, required: bool) -> str:
    facts = [_type(schema)]
    if required:
        facts.append("**required**")
    if "enum" in schema:
        facts.append("one of " + ", ".join(f"`{value}`" for value in schema["enum"]))
    if "default" in schema:
        facts.append(f"default `{json.dumps(schema['default'])}`")
    return f"- `{name}` ({', '.join(facts)}): {schema.get('description', '')}"


def _type(schema: structural.Schema) -> str:
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}s"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _escaped(text: str) -> str:
    """Return the text with nothing that Markdown takes for markup of its own, code apart."""
    parts = re.split(r"(`[^`\n]*`|\*\*)", text)
    return "".join(
        part if index % 2 else part.replace("<", "&lt;").replace("*", "\\*") for index, part in enumerate(parts)
    )
