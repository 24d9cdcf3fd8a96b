"""An API server's checks of a custom resource, as far as our schemas use them: defaults, schema, rules in CEL.

The schema part follows apiextensions' structural schemas; the rules are evaluated by the CEL project's own library.
The same resources also go to a real API server (`test_crds_applied.py`); this part runs without one.
"""

from __future__ import annotations

import functools
import pathlib
import re
from typing import Any

import yaml
from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from regcred.api import crd, structural

ROOT = pathlib.Path(__file__).parents[2]
BAD = sorted((ROOT / "tests" / "bad_resources").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
KINDS = {kind.name: kind for kind in crd.KINDS}

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}


@functools.cache
def schema_of(kind: str) -> dict[str, Any]:
    """Return the whole schema of a kind, rules included."""
    return crd.schema(KINDS[kind])


def documents(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the regcred resources of a file."""
    found = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return [document for document in found if document["apiVersion"] == "regcred.io/v1alpha1"]


def note(path: pathlib.Path, name: str) -> str:
    """Return what a bad resource says of itself in a comment at its top."""
    return re.search(rf"^# {name}: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1]


def stored(schema: dict[str, Any], value: Any) -> Any:
    """Return what the API server keeps of a value: known fields, without nulls, with defaults."""
    if isinstance(value, list):
        return [stored(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if "additionalProperties" in schema:
        return {key: stored(schema["additionalProperties"], item) for key, item in value.items()}
    result = {}
    for name, field in schema.get("properties", {}).items():
        item = value.get(name)
        if item is None:
            item = field.get("default")
        if item is not None:
            result[name] = stored(field, item)
    return result


def violations(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Return the paths at which a value is not what the schema allows."""
    type_ = schema["type"]
    if not isinstance(value, _TYPES[type_]) or (type_ == "integer" and isinstance(value, bool)):
        return [path]
    found = [path] if _out_of_bounds(schema, value) else []
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found += [f"{path}.{name}" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if inner and name != "metadata":
                found += violations(inner, item, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += violations(schema["items"], item, f"{path}[{index}]")
        found += _repeated(schema, value, path)
    return found


def _out_of_bounds(schema: dict[str, Any], value: Any) -> bool:
    size = len(value) if isinstance(value, str | list | dict) else None
    low = schema.get("minLength", schema.get("minItems"))
    high = schema.get("maxLength", schema.get("maxItems", schema.get("maxProperties")))
    return bool(
        (size is not None and ((low is not None and size < low) or (high is not None and size > high)))
        or ("enum" in schema and value not in schema["enum"])
        or ("pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value, re.ASCII))
        or ("minimum" in schema and value < schema["minimum"])
        or ("maximum" in schema and value > schema["maximum"])
    )


def _repeated(schema: dict[str, Any], items: list[Any], path: str) -> list[str]:
    kind = schema.get("x-kubernetes-list-type")
    if kind == "map":
        (key,) = schema["x-kubernetes-list-map-keys"]
        items = [item.get(key) if isinstance(item, dict) else item for item in items]
    if kind not in {"map", "set"}:
        return []
    return [f"{path}[{index}]" for index, item in enumerate(items) if item in items[:index]]


_ENVIRONMENT = cel.NewEnv(variables={"self": cel.Type.DYN}, extensions=[ext_strings.ExtStrings()])


@functools.cache
def compiled(rule: str) -> Any:
    """Return a rule in CEL, ready to be evaluated."""
    return _ENVIRONMENT.compile(rule)


def broken_rules(schema: dict[str, Any], value: Any, path: str = "") -> list[tuple[str, str]]:
    """Return path and message of each rule in CEL that a stored value breaks, top down."""
    found = []
    for rule in schema.get(structural.RULES, []):
        result = compiled(rule["rule"]).eval(data={"self": value}).value()
        assert isinstance(result, bool), (rule, result)
        if not result:
            found.append((path, rule["message"]))
    if isinstance(value, dict):
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if inner:
                found += broken_rules(inner, item, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += broken_rules(schema["items"], item, f"{path}[{index}]")
    return found


def cel_matches(pattern: str, text: str) -> bool:
    """Whether RE2, by way of CEL, finds the pattern in the text; raises where RE2 cannot compile it."""
    expression = compiled("self.text.matches(self.pattern)")
    result = expression.eval(data={"self": {"text": text, "pattern": pattern}}).value()
    assert isinstance(result, bool), f"RE2 refuses {pattern}: {result}"
    return result
