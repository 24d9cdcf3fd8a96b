"""`check`: every mistake is found without a cluster, in the line where it stands."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from regcred import cli
from regcred.commands import documents

ROOT = Path(__file__).resolve().parents[2]
BAD = sorted((ROOT / "tests" / "bad_resources").glob("*.yaml"))
GOOD = """\
# a comment
apiVersion: v1
kind: ConfigMap
metadata: {name: not-ours}
---
apiVersion: regcred.io/v1alpha1
kind: ClusterRegistryCredential
metadata:
  name: platform
spec:
  registries:
    - server: quay.io
      login:
        secretRef:
          name: quay
  namespaces:
    selector:
      matchLabels:
        example.com/team.name: a
"""


def run(*words: str, stdin: str = "") -> tuple[int, str]:
    done = click.testing.CliRunner().invoke(cli.main, ["check", *words], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def faults(text: str) -> list[tuple[int, str, str]]:
    _, found = documents.load("f", text)
    return [(fault.line, fault.path, fault.message) for fault in found]


def test_a_good_file() -> None:
    """A file without a mistake ends with 0, and objects of others are passed over."""
    assert run("-f", "-", stdin=GOOD) == (0, "1 resource of regcred, no problem\n")


def test_examples_and_documentation_are_good() -> None:
    """Every example is good, as a folder."""
    assert run("-f", str(ROOT / "examples"))[0] == 0


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_known_mistake_is_found_in_its_line(path: Path) -> None:
    """Each mistake of the collection is told, with the line of the field that it is about."""
    text = path.read_text()
    expected = text.splitlines()[0].removeprefix("# expect:").strip()
    code, told = run("-f", str(path), "-o", "json")
    document = json.loads(told)
    assert (code, document["valid"]) == (1, False)
    fields = {problem["field"]: problem for problem in document["problems"]}
    field = expected.split(": ")[0]
    if field in fields:
        line = text.splitlines()[fields[field]["line"] - 1]
        # What is missing is told in the line of what should hold it.
        names = [part.partition("[")[0] for part in field.split(".")[-2:]]
        assert "- " in line or any(f"{name}:" in line for name in names), (field, line)
    assert all(0 < problem["line"] <= len(text.splitlines()) for problem in document["problems"])


@pytest.mark.parametrize(
    ("old", "new", "line", "path"),
    [
        ("quay.io", "Quay.io", 12, "spec.registries[0].server"),
        ("          name: quay", "          nam: quay", 15, "spec.registries[0].login.secretRef.nam"),
        ("  name: platform", "  name: Platform", 9, "metadata.name"),
        ("  name: platform", "  name: platform\n  namespace: a", 10, "metadata.namespace"),
        ("v1alpha1", "v1", 6, "apiVersion"),
        ("kind: ClusterRegistryCredential", "kind: ClusterRegistryCredentials", 7, "kind"),
        ("team.name: a", "team.name: 'a b'", 19, "spec.namespaces.selector.matchLabels.example.com/team.name"),
        ("    - server: quay.io\n", "    - server: quay.io\n      server: r.io\n", 13, ""),
    ],
)
def test_lines(old: str, new: str, line: int, path: str) -> None:
    """A mistake is told where it stands, in the second document of a file, below keys with dots in them."""
    assert old in GOOD
    found = faults(GOOD.replace(old, new))
    assert (line, path) in [(at, where) for at, where, _ in found]


def test_what_is_missing_is_told_where_it_belongs() -> None:
    """A required field that is not there is told in the line of what should hold it."""
    found = faults(GOOD.replace("    - server: quay.io\n      login", "    - login"))
    assert [(line, path) for line, path, _ in found] == [(12, "spec.registries[0].server")]


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\tx: 1", "a: &x [*x]\nb: !!python/none x", "- }", "%YAML 9"])
def test_what_is_no_yaml(text: str) -> None:
    """Broken YAML is a fault with a line, and no exception."""
    assert faults(text)
    assert run("-f", "-", stdin=text)[0] == 1


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    """Any text leads to resources and faults, never to an exception."""
    documents.load("f", f"apiVersion: regcred.io/v1alpha1\nkind: RegistryCredential\nspec: {text}")
    documents.load("f", text)


def test_lists_and_json_are_read(tmp_path: Path) -> None:
    """`kind: List`, and JSON, are files of resources as well."""
    bodies = [document for document in yaml.safe_load_all(GOOD) if document["kind"] != "ConfigMap"]
    bodies[0]["spec"]["registries"][0]["server"] = "Quay.io"
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}, indent=1))
    (found, wrong) = documents.load(str(file), file.read_text())
    assert len(found) == 1
    assert [fault.path for fault in wrong] == ["spec.registries[0].server"]
    assert "Quay.io" in file.read_text().splitlines()[wrong[0].line - 1]


def test_the_same_resource_twice(tmp_path: Path) -> None:
    """One name in two files is told with both places."""
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(GOOD)
    code, told = run("-f", str(tmp_path))
    assert code == 1
    assert (
        f"{tmp_path / 'two.yaml'}:6: ClusterRegistryCredential/platform: is in {tmp_path / 'one.yaml'}:6" in told
    )


def test_folders_below_only_if_asked(tmp_path: Path) -> None:
    """A folder is read without those below it, unless -R is given."""
    below = tmp_path / "a"
    below.mkdir()
    (below / "bad.yml").write_text(GOOD.replace("quay.io", "Quay.io"))
    assert run("-f", str(tmp_path)) == (0, "0 resources of regcred, no problem\n")
    assert run("-f", str(tmp_path), "-R")[0] == 1


def test_no_value_and_no_control_character_is_repeated() -> None:
    """A password in the wrong place is not printed, and a name cannot steer a terminal."""
    wrong = GOOD.replace("          name: quay", "          name: quay\n          password: hunter2")
    wrong = wrong.replace("name: platform", 'name: "plat\\e[31mform"')
    code, told = run("-f", "-", stdin=wrong)
    assert code == 1
    assert "hunter2" not in told
    assert "\x1b" not in told


def test_a_file_that_is_not_there() -> None:
    """It is a matter of usage."""
    code, told = run("-f", "/nonexistent.yaml")
    assert code == 2
    assert "cannot be read" in told
