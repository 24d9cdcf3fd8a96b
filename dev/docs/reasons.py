"""The reference of reasons and messages, from the enumerations and from the errors that the code raises.

Every error of ours is made by a call that holds its reason and its message side by side, so the list can be read off
the syntax trees, and no message can be forgotten.
"""

from __future__ import annotations

import ast
import collections
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from regcred.api import conditions
from regcred.credentials import verification

_CODE = Path(__file__).resolve().parents[2] / "operator" / "regcred" / "credentials"
_REASON = re.compile(r"[A-Z][a-z]+([A-Z][A-Za-z]*)*")
_TITLES = {"ecr": "Amazon ECR", "gcr": "Google", "acr": "Azure", "login": "Secrets with a login"}
#: Around what is filled in: single angle quotation marks, which Markdown leaves alone.
_OPEN, _CLOSE = "\u2039", "\u203a"
_HELD = ast.Constant | ast.JoinedStr | ast.BinOp | ast.IfExp


class Message(NamedTuple):
    """One way in which a login cannot be had."""

    reason: str
    text: str


def of_conditions() -> str:
    """Return the reasons of conditions."""
    return _table(conditions.Reason)


def of_registries() -> str:
    """Return the reasons of registry rows that every provider shares."""
    return _table(conditions.RegistryReason)


def _table(reasons: type[conditions.Documented]) -> str:
    rows = [f"| `{reason.value}` | {reason.doc} |" for reason in reasons]
    return "\n".join(["| Reason | Meaning |", "| --- | --- |", *rows]) + "\n"


def of_providers() -> str:
    """Return every message of a registry row, by who says it."""
    parts: list[str] = []
    for title, paths in _groups():
        found = sorted({message for path in paths for message in messages(ast.parse(path.read_text()))})
        if found:
            rows = [f"| `{message.reason}` | {message.text} |" for message in found]
            parts.append("\n".join([f"### {title}", "", "| Reason | Message |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _groups() -> Iterator[tuple[str, list[Path]]]:
    yield "Any provider", sorted(_CODE.glob("*.py"))
    providers = _CODE / "providers"
    for name, title in _TITLES.items():
        yield title, sorted([*providers.glob(f"{name}.py"), *(providers / name).glob("*.py")])


def messages(tree: ast.AST) -> Iterator[Message]:
    """Yield each reason and message that stand side by side in a call of `tree`."""
    for call, known in _calls(tree, {}):
        for reason, text in _pairs(call):
            said = _text(text, known)
            # What is filled in altogether says nothing here.
            if _REASON.fullmatch(reason) and re.search(r"\w \w", re.sub(f"{_OPEN}.*?{_CLOSE}", "", said)):
                yield Message(reason, _cell(said))


def _calls(scope: ast.AST, outer: dict[str, ast.expr]) -> Iterator[tuple[ast.Call, dict[str, ast.expr]]]:
    """Yield every call below `scope`, with the texts that have a name there."""
    inside = [*ast.iter_child_nodes(scope)]
    own = []
    while inside:
        node = inside.pop()
        own.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside += ast.iter_child_nodes(node)
    given = [
        (target.id, node.value)
        for node in own
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    # A name that is given twice may stand for either.
    counts = collections.Counter(name for name, _ in given)
    single = {name: value for name, value in given if isinstance(value, _HELD) and counts[name] == 1}
    known = {name: value for name, value in outer.items() if name not in counts} | single
    for node in own:
        if isinstance(node, ast.Call):
            yield node, known
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _calls(node, known)


def _pairs(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield what may be a reason and its message among the arguments of a call."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    arguments = [*zip(call.args, call.args[1:], strict=False), (named.get("reason"), named.get("message"))]
    for reason, text in arguments:
        if not isinstance(text, _HELD | ast.Name):
            continue
        if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
            yield reason.value, text
        elif isinstance(reason, ast.Attribute) and reason.attr in verification.Outcome.__members__:
            yield verification.Outcome[reason.attr].reason, text
    # The words in which a Secret is complained about (credentials/providers/login.py).
    if isinstance(call.func, ast.Attribute) and call.func.attr == "invalid" and len(call.args) == 1:
        named_secret = ast.Constant("Secret {name} ")
        yield "SourceInvalid", ast.BinOp(named_secret, ast.Add(), call.args[0])


def _text(node: ast.expr, shared: dict[str, ast.expr]) -> str:
    """Return a text as it reads, with a name in angle quotes for what is filled in."""
    if isinstance(node, ast.Constant):
        return re.sub(r"\{(\w+)\}", rf"{_OPEN}\1{_CLOSE}", str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, shared) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, shared) + _text(node.right, shared)
    if isinstance(node, ast.IfExp):
        return " / ".join(filter(str.strip, (_text(node.body, shared), _text(node.orelse, shared))))
    if isinstance(node, ast.Name) and node.id in shared:
        return _text(shared[node.id], shared)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, shared)
    return f"{_OPEN}{_word(node)}{_CLOSE}"


def _word(node: ast.expr) -> str:
    """Return one word for a value that is filled in."""
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, ast.Name):
        return node.id.strip("_").lower()
    if isinstance(node, ast.Call) and node.args:
        return _word(node.args[0])
    return "…"


def texts(source: str) -> Iterator[str]:
    """Yield every text in the source of a module, with an ellipsis for what is filled in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _HELD):
            text = re.sub(rf"{_OPEN}[^{_CLOSE}]*{_CLOSE}|%[-.\d]*[sdf]", "\u2026", _text(node, {}))
            yield re.sub("\u2026( ?\u2026)+", "\u2026", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
