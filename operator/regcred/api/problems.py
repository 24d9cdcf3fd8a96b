"""What is wrong with a spec, said to whoever wrote it.

Pydantic finds what is wrong with single fields, in words for programmers; the rules of the models find what
is wrong between fields.  Both come out of here as `Problem`s: the path of the field as in `kubectl explain`,
and one sentence part that says what is wrong and what to do.  A value is never repeated, since somebody may
have put a password in the wrong place.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pydantic
import pydantic.fields
import pydantic_core

from regcred.api import model

_SHOWN = 64
_TYPES: Mapping[str, str] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "mapping_type": "an object",
    "model_type": "an object",
}
_REMEDIES: Mapping[str, str] = {
    "string_type": "put it in quotes",
    "bool_type": "write it without quotes",
    "int_type": "write digits without quotes",
    "tuple_type": "put a dash before each item",
    "list_type": "put a dash before each item",
    "dict_type": "write its fields below it, indented",
    "mapping_type": "write its fields below it, indented",
    "model_type": "write its fields below it, indented",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something about a resource that cannot work.

    Attributes:
        path: the field, such as `spec.registries[2].server`; an object or list where that is at fault.
        message: what is wrong with it and what to do, to follow the path and a colon.
    """

    path: str
    message: str

    def __str__(self) -> str:
        """Return both as one line."""
        return f"{self.path}: {self.message}"


def summary(problems: Sequence[Problem], shown: int = 3) -> str:
    """Return the first `shown` problems as one text, with the number of those left out."""
    text = ". ".join(str(problem) for problem in problems[:shown])
    left = len(problems) - shown
    return f"{text}. And {left} more" if left > 0 else text


def check(spec_model: type[model.Model], value: Any, path: str) -> tuple[model.Model | None, tuple[Problem, ...]]:
    """Return the model of `value` and no problems, or None and what is wrong with it.

    Rules between fields are looked at once every single field is right, as the API server does it too.

    Args:
        spec_model: what it should be.
        value: decoded JSON.
        path: where it stands, such as `spec`.
    """
    try:
        parsed = spec_model.model_validate(value, by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        details = [detail for detail in error.errors(include_url=False) if not _follows(detail)]
        return None, _distinct(_translated(spec_model, path, detail) for detail in details)
    problems = _distinct(_broken_rules(parsed, path))
    return (None, problems) if problems else (parsed, ())


def _follows(error: pydantic_core.ErrorDetails) -> bool:
    """Whether a list is called too short only because items of it are wrong, which is told of them."""
    return error["type"] == "too_short" and len(error["input"]) >= error.get("ctx", {})["min_length"]


def _distinct(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Keep the first problem of each field: the next one is about the same mistake."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.path, problem)
    return tuple(first.values())


def _broken_rules(value: model.Model, path: str) -> Iterator[Problem]:
    for name, field in type(value).model_fields.items():
        item, inner = getattr(value, name), f"{path}.{field.alias}"
        if isinstance(item, model.Model):
            yield from _broken_rules(item, inner)
        if not isinstance(item, tuple):
            continue
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra == model.listed_as_set():
            repeated = (index for index, text in enumerate(item) if text in item[:index])
            yield from (Problem(f"{inner}[{index}]", "is listed already; remove it") for index in repeated)
        for index, element in enumerate(item):
            if isinstance(element, model.Model):
                yield from _broken_rules(element, f"{inner}[{index}]")
    for rule in value.rules:
        for below in rule.faults(value):
            yield Problem(f"{path}.{below}" if below else path, rule.message)


def _translated(root: type[model.Model], path: str, error: pydantic_core.ErrorDetails) -> Problem:
    kind, location, given = error["type"], error["loc"], error["input"]
    where = _path(path, location)
    context = error.get("ctx", {})
    if kind == model.SENTENCE:
        return Problem(where, error["msg"])
    if kind == "missing":
        field = _field(_model(_annotation(root, location[:-1])), location[-1])
        return Problem(where, "is required; add it" + _example(field))
    if kind == "extra_forbidden":
        return Problem(where, _unknown(_model(_annotation(root, location[:-1])), str(location[-1])))
    if kind in _TYPES:
        return Problem(where, f"must be {_TYPES[kind]}, not {_type_name(given)}; {_REMEDIES[kind]}")
    if kind == "literal_error":
        return Problem(where, _choice(_annotation(root, location), given))
    if kind in {"too_long", "too_short"}:
        limit = context.get("max_length", context.get("min_length"))
        items = "1 item" if limit == 1 else f"{limit} items"
        if kind == "too_short":
            field = _field(_model(_annotation(root, location[:-1])), location[-1])
            way_out = "" if field is None or field.is_required() else ", or remove the field"
            return Problem(where, f"must have at least {items}; add one{way_out}")
        return Problem(where, f"must have at most {items}, not {len(given)}; remove some")
    if kind in {"greater_than_equal", "less_than_equal"}:
        limit = context.get("ge", context.get("le"))
        bound = "least" if kind == "greater_than_equal" else "most"
        return Problem(where, f"must be at {bound} {limit}; change it")
    return Problem(where, "is not what belongs here; see kubectl explain for this field, and correct it")


def _path(path: str, location: Sequence[int | str]) -> str:
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{_shown(part)}"
    return path


def _shown(text: str) -> str:
    """Return a name that somebody else chose so that it does no harm in a line of text."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN])
    return plain + ("..." if len(text) > _SHOWN else "")


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, collections.abc.Mapping) else "empty"


def _unknown(owner: type[model.Model] | None, name: str) -> str:
    if owner is None:
        return "unknown field; remove it"
    if name in owner.hints:
        return f"unknown field; {owner.hints[name]}"
    known = [str(field.alias) for field in owner.model_fields.values()]
    near = difflib.get_close_matches(name[:_SHOWN], known, n=1) or [
        field for field in known if field.lower() == name.replace("_", "").replace("-", "").lower()
    ]
    if near:
        return f"unknown field; did you mean {near[0]}?"
    return f"unknown field; remove it, or use one of {', '.join(known)}"


def _choice(annotation: Any, given: Any) -> str:
    options = [str(option) for option in typing.get_args(annotation)]
    text = f"must be one of {', '.join(options)}"
    folded = {option.lower(): option for option in options}
    near = difflib.get_close_matches(given[:_SHOWN].lower(), folded, n=1) if isinstance(given, str) else []
    return f"{text}; did you mean {folded[near[0]]}?" if near else f"{text}; choose one"


def _example(field: pydantic.fields.FieldInfo | None) -> str:
    if field is None or not field.examples:
        return ""
    return f", for example {field.alias}: {json.dumps(field.examples[0])}"


def _model(annotation: Any) -> type[model.Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, model.Model):
        return annotation
    return None


def _field(owner: type[model.Model] | None, alias: int | str) -> pydantic.fields.FieldInfo | None:
    fields = owner.model_fields.values() if owner else ()
    return next((field for field in fields if field.alias == alias), None)


def _annotation(root: type[model.Model], location: Sequence[int | str]) -> Any:
    """Return the bare type at a location of pydantic's, or None where the models know nothing."""
    annotation: Any = root
    for part in location:
        owner = _model(annotation)
        if owner is not None:
            field = _field(owner, part)
            annotation = _bare(field.annotation) if field else None
        else:
            arguments = typing.get_args(annotation)
            annotation = _bare(arguments[0 if isinstance(part, int) else -1]) if arguments else None
    return annotation


def _bare(annotation: Any) -> Any:
    """Strip `Annotated` and `| None`."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in {types.UnionType, typing.Union}:
            annotation = next(item for item in typing.get_args(annotation) if item is not types.NoneType)
        else:
            return annotation
