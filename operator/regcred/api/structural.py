"""From the models to a structural schema, the dialect of JSON schema that every API server since 1.20 takes.

It has no references, no `anyOf` with null, no titles, and `x-kubernetes-*` keys beside the fields.  Rules in
CEL are kept apart: servers before 1.25 do not know the key, and `kubectl apply` then refuses the whole CRD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regcred.api import model

#: Where the rules stand in a schema.
RULES = "x-kubernetes-validations"

#: What is taken over as it is, in the order of the result.
_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    RULES,
)

Schema = dict[str, Any]


def schema_of(root: type[model.Model]) -> Schema:
    """Return the structural schema of a model, rules included.

    Raises:
        ValueError: the model holds something that a structural schema cannot say.
    """
    source = root.model_json_schema(by_alias=True)
    return _converted(source, source.get("$defs", {}))


def _converted(source: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    source = _resolved(source, definitions)
    result: Schema = {}
    if "description" in source:
        result["description"] = " ".join(source["description"].split())
    if source.get("default"):  # an empty default says nothing that absence does not say
        result["default"] = source["default"]
    elif source.get("default") is False:
        result["default"] = False
    result.update((key, source[key]) for key in _KEPT if key in source)
    if "properties" in source:
        required = source.get("required", [])
        if required:
            result["required"] = sorted(required)
        result["properties"] = {
            name: _converted(value, definitions) for name, value in source["properties"].items()
        }
    if "items" in source:
        result["items"] = _converted(source["items"], definitions)
    if isinstance(source.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _converted(source["additionalProperties"], definitions)
    if "type" not in result:
        raise ValueError(f"no structural schema says this: {sorted(source)}")
    return result


def _resolved(source: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and drop null; what stands beside a reference precedes what it refers to."""
    while "$ref" in source or "anyOf" in source:
        beside = {key: value for key, value in source.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in source:
            inner = definitions[source["$ref"].rpartition("/")[2]]
        else:
            options = [option for option in source["anyOf"] if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError("no structural schema says that a value is of one type or another")
            inner = options[0]
        source = {**inner, **beside}
    return source


def without_rules(schema: Schema) -> Schema:
    """Return the schema as servers without CEL take it."""
    return {key: _map_children(key, value, without_rules) for key, value in schema.items() if key != RULES}


def _map_children(key: str, value: Any, change: Any) -> Any:
    if key == "properties":
        return {name: change(child) for name, child in value.items()}
    return change(value) if key in {"items", "additionalProperties"} else value


def rules(schema: Schema, pointer: str = "") -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield, top down, the JSON pointer of each object or text that has rules, and the rules."""
    if RULES in schema:
        yield pointer, schema[RULES]
    for name, child in schema.get("properties", {}).items():
        yield from rules(child, f"{pointer}/properties/{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from rules(schema[key], f"{pointer}/{key}")
