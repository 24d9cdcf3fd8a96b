"""What every model of the API is made of: strict objects, texts that explain themselves, and cross-field rules.

Each fact about a field is written once, beside the field.  From it come the pydantic check, the schema in
the CRD, the text of `kubectl explain` (the docstring below the field), and the sentence a person reads who
got it wrong.  A `Rule` does the same for what involves several fields: one expression for the API server
(CEL, known from 1.25), one function for us, one message for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import pydantic
import pydantic.alias_generators
import pydantic_core
from pydantic_core import core_schema

#: The error type of a message that is already a sentence for people.
SENTENCE = "sentence"
#: A refused text that is longer than this is not looked into for what is wrong with it.
_EXPLAINED = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """Something that must hold between the fields of one object.

    Attributes:
        message: what is wrong and what to do, shown by the API server and by the operator.
        faults: given the model, the paths below it that are at fault; nothing when the rule holds.  The
            empty path is the object itself.
        cel: the same for the API server, with the object as `self`; None where CEL cannot say it.
        partial: the expression refuses fewer objects than `faults` does.
    """

    message: str
    faults: Callable[[Any], Iterable[str]]
    cel: str | None = None
    partial: bool = False


def when(broken: object, path: str = "") -> tuple[str, ...]:
    """Return `path` as the one fault if `broken` is true, else no fault."""
    return (path,) if broken else ()


class Model(pydantic.BaseModel):
    """An object of the API: immutable, camelCase outside and snake_case inside, no unknown fields.

    A null counts as absent, as it does for the API server.

    Attributes:
        rules: what must hold between its fields.
        hints: what to say to somebody who writes a field that does not exist, by its name.
        atomic: whether server-side apply owns the object as one value.
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=pydantic.alias_generators.to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    hints: ClassVar[Mapping[str, str]] = {}
    atomic: ClassVar[bool] = False

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the rules, in the API server's language, to the schema of the object."""
        result = handler(schema)
        described = handler.resolve_ref_schema(result)
        rules = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules if rule.cel]
        if rules:
            described["x-kubernetes-validations"] = rules
        if cls.atomic:
            described["x-kubernetes-map-type"] = "atomic"
        return result

    @pydantic.model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value


def sentence(text: str) -> pydantic_core.PydanticCustomError:
    """Return an error whose text is a finished sentence part, following the field's path and a colon."""
    return pydantic_core.PydanticCustomError(SENTENCE, "{text}", {"text": text})


@dataclasses.dataclass(frozen=True, slots=True)
class Says:
    """Annotation of a text: what it must be, said when its pattern or length refuses a value.

    Attributes:
        text: "must be ...", with an example; follows the field's path and a colon.
        explain: given a refused or accepted value, something more to the point, or "" when there is
            nothing to object to beyond the pattern.  May refuse what a pattern cannot.
    """

    text: str
    explain: Callable[[str], str] | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Wrap the schema of the text, so that its errors become the sentence."""
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def _check(self, value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, str):
            return handler(value)
        try:
            result = handler(value)
        except pydantic_core.ValidationError:
            objection = self.explain(value) if self.explain and len(value) <= _EXPLAINED else ""
            raise sentence(objection or self.text) from None
        if self.explain and (objection := self.explain(value)):
            raise sentence(objection)
        return result


def listed_as_set() -> dict[str, Any]:
    """Return the schema keys of a list without duplicates, merged item by item by server-side apply."""
    return {"x-kubernetes-list-type": "set"}


def listed_by(key: str) -> dict[str, Any]:
    """Return the schema keys of a list of objects that differ in `key`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def listed_as_one() -> dict[str, Any]:
    """Return the schema keys of a list that server-side apply owns as one value."""
    return {"x-kubernetes-list-type": "atomic"}
