"""Each file of tests/bad_resources makes one mistake, and is refused with a message that names it and the way out."""

from __future__ import annotations

import pytest

from regcred.api import resource
from tests.api import api_support

REFUSERS = {"kubectl", "schema", "cel", "operator"}
FILES = pytest.mark.parametrize("path", api_support.BAD, ids=lambda path: path.stem)


def _of(refuser: str) -> pytest.MarkDecorator:
    paths = [path for path in api_support.BAD if api_support.note(path, "refused by") == refuser]
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_there_are_many():
    """There are at least thirty mistakes, of every kind that is refused somewhere else."""
    assert len(api_support.BAD) >= 30
    assert {api_support.note(path, "refused by") for path in api_support.BAD} == REFUSERS


@FILES
def test_operator_refuses(path):
    """The operator finds exactly the one mistake, whatever the API server let pass, and says field and remedy."""
    (document,) = api_support.documents(path)
    parsed = resource.parse(document)
    assert parsed.spec is None
    (problem,) = parsed.problems
    assert api_support.note(path, "expect") in str(problem)
    assert api_support.note(path, "expect").startswith(f"{problem.path}: ")


@FILES
def test_expectation_stands_first(path):
    """The first line says what to expect, for whoever applies the file by hand."""
    assert path.read_text(encoding="utf-8").startswith("# expect: spec.")


@_of("kubectl")
def test_unknown_fields_are_all_that_kubectl_alone_refuses(path):
    """What an API server would prune in silence is right but for the unknown field."""
    (document,) = api_support.documents(path)
    schema = api_support.schema_of(document["kind"])
    kept = api_support.stored(schema, document)
    assert kept != document
    assert api_support.violations(schema, kept) == []
    assert api_support.broken_rules(schema, kept) == []


@_of("schema")
def test_schema_refuses(path):
    """What needs no rule is refused by the schema, so by every API server."""
    (document,) = api_support.documents(path)
    schema = api_support.schema_of(document["kind"])
    assert api_support.violations(schema, api_support.stored(schema, document)) != []


@_of("cel")
def test_exactly_one_rule_refuses(path):
    """What the schema cannot say is refused by exactly one rule in CEL, in the operator's own words."""
    (document,) = api_support.documents(path)
    schema = api_support.schema_of(document["kind"])
    kept = api_support.stored(schema, document)
    assert api_support.violations(schema, kept) == []
    ((_, message),) = api_support.broken_rules(schema, kept)
    (problem,) = resource.parse(document).problems
    assert problem.message == message


@_of("operator")
def test_only_the_operator_refuses(path):
    """What neither schema nor CEL can say passes both, which is why the operator looks again."""
    (document,) = api_support.documents(path)
    schema = api_support.schema_of(document["kind"])
    kept = api_support.stored(schema, document)
    assert api_support.violations(schema, kept) == []
    assert api_support.broken_rules(schema, kept) == []
