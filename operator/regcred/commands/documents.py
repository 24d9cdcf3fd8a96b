"""YAML files of resources, with the line of everything in them.  Pure but for reading files."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
import yaml

from regcred.api import names, problems, resource

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a file.

    Attributes:
        file: as it was named.
        line: from 1.
        key: the resource, as people name it, or "".
        path: of the field, or "".
        message: what is wrong with it, and what to do.
    """

    file: str
    line: int
    key: str
    path: str
    message: str

    def __str__(self) -> str:
        """Return it as compilers write it."""
        parts = (f"{self.file}:{self.line}", self.key, self.path, self.message)
        return ": ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A resource of regcred in a file.

    Attributes:
        file: as it was named.
        body: decoded.
        parsed: what the operator would make of it.
    """

    file: str
    body: Mapping[str, Any]
    parsed: resource.Resource
    node: yaml.Node = dataclasses.field(repr=False)

    def line(self, path: str = "") -> int:
        """Return the line of a field, or of the nearest one around it that is there."""
        return _line(self.node, path)


def read(paths: Sequence[str], *, recursive: bool = False) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file; `-` is standard input, a folder all YAML and JSON in it.

    Raises:
        click.UsageError: a file cannot be read.
    """
    for path in paths:
        if path == "-":
            yield "<stdin>", sys.stdin.read()
            continue
        place = pathlib.Path(path)
        below = place.rglob("*") if recursive else place.glob("*")
        found = sorted(file for file in below if file.suffix in _SUFFIXES) if place.is_dir() else [place]
        for file in found:
            try:
                yield str(file), file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise click.UsageError(f"{file} cannot be read ({type(error).__name__})") from None


def load(file: str, text: str) -> tuple[list[Document], list[Fault]]:
    """Return the resources of regcred in a file, and what is wrong with it; other objects are passed over."""
    found: list[Document] = []
    faults: list[Fault] = []
    try:
        loader = yaml.SafeLoader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is None:
                    break
                faults += _repeated(file, node)
                body = loader.construct_document(node)
                found += _documents(file, node, body)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = f"is not YAML: {error.problem or error.context}"
        faults.append(Fault(file, mark.line + 1 if mark else 1, "", "", told))
    except (yaml.YAMLError, RecursionError, ValueError):
        faults.append(Fault(file, 1, "", "", "is not YAML: it holds something that cannot be read"))
    for document in found:
        faults += check(document)
    return found, faults


def _documents(file: str, node: yaml.Node, body: Any) -> Iterator[Document]:
    if not isinstance(body, dict):
        return
    if body.get("kind") == "List" and isinstance(body.get("items"), list):
        items = _child(node, "items")
        for item, inner in zip(body["items"], items.value if items is not None else (), strict=False):
            yield from _documents(file, inner, item)
        return
    if str(body.get("apiVersion")).partition("/")[0] == names.GROUP:
        yield Document(file, body, resource.parse(body), node)


def check(document: Document) -> Iterator[Fault]:
    """Yield what is wrong with one resource, as the API server and the operator would find it."""
    metadata = document.body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name, namespace = metadata.get("name"), metadata.get("namespace")
    found: list[problems.Problem] = []
    if document.body.get("apiVersion") != names.API_VERSION:
        found.append(problems.Problem("apiVersion", f"must be {names.API_VERSION}; correct it"))
    named = isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= 253
    if not named and (name is not None or "generateName" not in metadata):
        said = "must be lower-case letters, digits, '-' and '.', 253 at most, such as platform"
        found.append(problems.Problem("metadata.name", said))
    if namespace is not None:
        if document.parsed.kind == names.CLUSTER_KIND:
            said = "a ClusterRegistryCredential is in no namespace; remove the field"
            found.append(problems.Problem("metadata.namespace", said))
        elif not isinstance(namespace, str) or not _LABEL.fullmatch(namespace):
            said = "must be the name of a namespace: lower-case letters, digits and '-', 63 at most"
            found.append(problems.Problem("metadata.namespace", said))
    found += document.parsed.problems
    for problem in found:
        yield Fault(document.file, document.line(problem.path), document.parsed.key, problem.path, problem.message)


def repeated(documents: Iterable[Document]) -> Iterator[Fault]:
    """Yield resources that are there twice."""
    seen: dict[str, Document] = {}
    for document in documents:
        first = seen.setdefault(document.parsed.key, document)
        if first is not document and document.parsed.name:
            where = f"{first.file}:{first.line()}"
            yield Fault(
                document.file, document.line(), document.parsed.key, "", f"is in {where} already; remove one"
            )


def _repeated(file: str, node: yaml.Node) -> Iterator[Fault]:
    """Yield keys that stand twice in one mapping: YAML readers keep the last one silently."""
    waiting, visited = [node], set()
    while waiting:
        each = waiting.pop()
        if id(each) in visited:
            continue
        visited.add(id(each))
        if isinstance(each, yaml.SequenceNode):
            waiting += each.value
        if not isinstance(each, yaml.MappingNode):
            continue
        keys: set[str] = set()
        for key, value in each.value:
            waiting.append(value)
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    yield Fault(file, key.start_mark.line + 1, "", "", "this key stands here twice; remove one")
                keys.add(key.value)


def _child(node: yaml.Node | None, key: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _line(node: yaml.Node, path: str) -> int:
    line = node.start_mark.line
    rest = path
    while rest:
        step = re.match(r"\[([0-9]+)\]\.?", rest)
        if step and isinstance(node, yaml.SequenceNode) and int(step[1]) < len(node.value):
            node = node.value[int(step[1])]
            line, rest = node.start_mark.line, rest[step.end() :]
            continue
        # A key of a label may hold dots, so the longest one that fits is meant.
        fitting = [
            (key, value)
            for key, value in (node.value if isinstance(node, yaml.MappingNode) else ())
            if rest == key.value or rest.startswith((f"{key.value}.", f"{key.value}["))
        ]
        if not fitting:
            break
        key, node = max(fitting, key=lambda pair: len(pair[0].value))
        line, rest = key.start_mark.line, rest[len(key.value) :].removeprefix(".")
    return line + 1
