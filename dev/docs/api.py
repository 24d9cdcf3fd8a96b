"""The reference of the API, from the same schema as the custom resource definitions."""

from __future__ import annotations

import json
from collections.abc import Iterator

from regcred.api import crd, structural


def cluster_kind() -> str:
    """Return the reference of the cluster kind."""
    return _kind(crd.KINDS[0])


def namespaced_kind() -> str:
    """Return the reference of the namespaced kind."""
    return _kind(crd.KINDS[1])


def _kind(kind: crd.Kind) -> str:
    whole = crd.schema(kind)
    parts = [whole["description"], f"Short name `{kind.short_name}`; both kinds are of the category `regcred`."]
    for name in ("spec", "status"):
        parts += _objects(f"{kind.name}: ", name, whole["properties"][name])
    return "\n\n".join(parts) + "\n"


def _objects(prefix: str, path: str, schema: structural.Schema) -> Iterator[str]:
    """Yield the heading and the fields of an object, then those of the objects in it."""
    yield f"### {prefix}{path}"
    if path.rpartition(".")[0]:
        yield schema["description"]
    required = schema.get("required", ())
    yield "\n".join(_field(name, field, required=name in required) for name, field in schema["properties"].items())
    rules = [f"- {_sentence(rule['message'])}" for rule in schema.get(structural.RULES, ())]
    if rules:
        yield "Refused, with these words:"
        yield "\n".join(rules)
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if "properties" in inner:
            described = inner if "description" in inner else {**inner, "description": field["description"]}
            yield from _objects(prefix, f"{path}.{name}{'[]' if inner is not field else ''}", described)


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


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
