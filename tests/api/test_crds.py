"""The CRDs in crds/ are what the models make, and what every supported API server takes."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Annotated

import pydantic
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from regcred.api import crd, model, names, structural
from tests.api import api_support

CRDS = api_support.ROOT / "crds"
SCHEMAS = pytest.mark.parametrize("schema", [crd.schema(kind) for kind in crd.KINDS], ids=api_support.KINDS)
DEFINITIONS = pytest.mark.parametrize(
    "definition", [crd.definition(kind) for kind in crd.KINDS], ids=api_support.KINDS
)

#: Keys of apiextensions/v1 JSONSchemaProps that API servers from 1.20 know.
KNOWN_KEYS = {
    "type", "format", "enum", "pattern", "description", "default", "properties", "required", "items",
    "additionalProperties", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def walk(schema, path=""):
    """Yield the path and schema of every field."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def test_files_are_what_the_models_make():
    """Each file below crds/ is generated, and none is left over."""
    found = {str(path.relative_to(CRDS)) for path in CRDS.rglob("*") if path.is_file()}
    assert found == set(crd.files())
    for path, text in crd.files().items():
        assert (CRDS / path).read_text(encoding="utf-8") == text, path


def test_command_writes_and_checks(tmp_path):
    """`--write` makes the files, `--check` is content with them, and names those that somebody edited."""

    def run(option):
        command = [sys.executable, "-m", "regcred.api.crd", option, tmp_path]
        return subprocess.run(
            command, cwd=api_support.ROOT / "operator", capture_output=True, text=True, check=False
        )

    assert run("--check").returncode == 1
    assert run("--write").returncode == 0
    assert run("--check").returncode == 0
    (tmp_path / "cel" / "kustomization.yaml").write_text("", encoding="utf-8")
    stale = run("--check")
    assert stale.returncode == 1
    assert f"{tmp_path}/cel/kustomization.yaml is not what the models make; run `make crds`" in stale.stderr
    assert stale.stderr.count("\n") == 1


@pytest.mark.parametrize("path", [path for path in crd.files() if path.endswith("credentials.yaml")])
def test_yaml_says_what_is_meant(path):
    """Folding long lines changes no text: read back, the YAML is what it was made of."""
    (kind,) = [kind for kind in crd.KINDS if path.endswith(kind.file)]
    meant = crd.rule_patch(kind) if path.startswith("cel/") else crd.definition(kind)
    assert yaml.safe_load(crd.files()[path]) == meant


@SCHEMAS
def test_everything_is_described(schema):
    """Each field says what it is for, as whole sentences, so `kubectl explain` reads like documentation."""
    for path, field in walk(schema):
        if path in {"", ".metadata"} or path.endswith("{}"):
            continue
        if path.endswith("[]") and field["type"] != "object":
            continue  # kubectl explain does not show the items of a list of texts
        description = field["description"]
        assert len(description) >= 10, path
        assert description.endswith("."), path
        assert "\n" not in description, path


@SCHEMAS
def test_everything_is_bounded(schema):
    """Each text has a length, a format or a choice, each list and map a size, each number a range."""
    for path, field in walk(schema):
        if field["type"] == "string":
            assert {"maxLength", "enum", "format"} & field.keys(), path
        if field["type"] == "array":
            assert "maxItems" in field, path
        if "additionalProperties" in field or "x-kubernetes-preserve-unknown-fields" in field:
            assert "maxProperties" in field, path
        if field["type"] == "integer":
            assert "minimum" in field, path


@SCHEMAS
def test_lists_say_how_they_merge(schema):
    """Each list tells server-side apply what it is: a set, a map by a required key, or one value."""
    for path, field in walk(schema):
        if field["type"] != "array":
            continue
        kind = field["x-kubernetes-list-type"]
        assert kind in {"set", "map", "atomic"}, path
        if kind == "map":
            assert set(field["x-kubernetes-list-map-keys"]) <= set(field["items"]["required"]), path


@SCHEMAS
def test_patterns_are_for_re2(schema):
    """The API server compiles patterns with RE2: anchored, no look-around, no back reference, no great repeat."""
    for path, field in walk(schema):
        pattern = field.get("pattern")
        if pattern is None:
            continue
        assert pattern.startswith("^"), path
        assert pattern.endswith("$"), path
        assert not re.search(r"\(\?|\\[1-9]|\\[dwsbZA]", pattern), path
        assert all(int(count) <= 1000 for count in re.findall(r"[{,](\d+)\}", pattern)), path
        api_support.cel_matches(pattern, "x")  # the CEL library's matches() is RE2 itself


PATTERNS = sorted(
    {field["pattern"] for kind in crd.KINDS for _, field in walk(crd.schema(kind)) if "pattern" in field}
)


@settings(max_examples=30)
@pytest.mark.parametrize("pattern", PATTERNS)
@given(st.data())
def test_patterns_mean_the_same_to_all_who_compile_them(pattern, data):
    """Pydantic's engine and RE2 agree on what a pattern takes, line breaks at the end included."""
    text = data.draw(st.one_of(st.from_regex(pattern), st.from_regex(pattern.strip("^$")), st.text(max_size=20)))
    field = pydantic.TypeAdapter(Annotated[str, pydantic.Field(pattern=pattern)])
    try:
        field.validate_python(text)
        taken = True
    except pydantic.ValidationError:
        taken = False
    assert api_support.cel_matches(pattern, text) == taken


def test_look_around_would_be_noticed():
    """RE2 refuses what the API server would refuse."""
    with pytest.raises((AssertionError, RuntimeError)):
        api_support.cel_matches("^(?!a)b$", "b")


@SCHEMAS
def test_defaults_are_static_and_valid(schema):
    """A default is a value that the field's own schema allows."""
    for path, field in walk(schema):
        if "default" in field:
            assert api_support.violations(field, field["default"]) == [], path


@DEFINITIONS
def test_base_is_for_all_servers(definition):
    """The plain files use only what API servers know since 1.20; rules in CEL are none of that."""
    (version,) = definition["spec"]["versions"]
    for path, field in walk(version["schema"]["openAPIV3Schema"]):
        assert field.keys() <= KNOWN_KEYS, path


@SCHEMAS
def test_rules_are_fit_for_the_first_servers_with_cel(schema):
    """Rules use functions of 1.25 only, say what to do, and have one line each."""
    for path, field in walk(schema):
        for rule in field.get(structural.RULES, []):
            assert rule.keys() == {"rule", "message"}, path
            functions = set(re.findall(r"\.?(\w+)\(", re.sub(r"'[^']*'", "''", rule["rule"])))
            assert functions <= {
                "has", "all", "exists", "filter", "size", "matches", "contains", "startsWith", "split", "lowerAscii",
            }, path  # fmt: skip
            assert "\n" not in rule["rule"] + rule["message"], path
            api_support.compiled(rule["rule"])


def test_patch_adds_every_rule():
    """The component adds each rule at the place of its object, and nothing else."""
    for kind in crd.KINDS:
        definition = crd.definition(kind)
        for operation in crd.rule_patch(kind):
            *parents, last = operation["path"].removeprefix("/").split("/")
            at = definition
            for key in parents:
                at = at[int(key)] if isinstance(at, list) else at[key]
            at[last] = operation["value"]
        (version,) = definition["spec"]["versions"]
        assert version["schema"]["openAPIV3Schema"] == crd.schema(kind)


def test_namespaced_kind_cannot_name_a_namespace():
    """A tenant's schema has no field, at any depth, that could name a namespace."""
    fields = [path for path, _ in walk(api_support.schema_of(names.NAMESPACED_KIND))]
    assert fields
    assert [path for path in fields if "namespace" in path.lower()] == []


@DEFINITIONS
def test_names_and_columns(definition):
    """The definition has the names, the status subresource and the columns that users rely on."""
    spec = definition["spec"]
    cluster = spec["scope"] == "Cluster"
    assert definition["metadata"]["name"] == f"{spec['names']['plural']}.regcred.io"
    assert spec["names"]["shortNames"] == ["crcred" if cluster else "rcred"]
    assert spec["names"]["categories"] == ["regcred"]
    (version,) = spec["versions"]
    assert version["subresources"] == {"status": {}}
    columns = version["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    expected = ["Ready", "Registries", "Namespaces", "Expires", "Refreshed", "Age"]
    assert shown == [name for name in expected if cluster or name != "Namespaces"]
    assert [column["name"] for column in columns if column.get("priority")] == ["Message"]
    types = {column["name"]: column["type"] for column in columns}
    assert types["Expires"] == "string"
    assert types["Age"] == types["Refreshed"] == "date"
    schema = version["schema"]["openAPIV3Schema"]
    for column in columns:
        at = schema
        for part in column["jsonPath"].split("[")[0].strip(".").split("."):
            if part == "metadata":
                break
            at = at["properties"][part]


def test_what_no_schema_can_say_is_refused():
    """A model that a structural schema cannot express fails when the CRD is made, not in a cluster."""

    class Either(model.Model):
        """Text or number."""

        value: str | int

    with pytest.raises(ValueError, match="structural schema"):
        structural.schema_of(Either)
