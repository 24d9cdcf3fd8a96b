"""Looks for secrets where none may be: whole or in part, plain or within base64.

A canary is a secret value that is known, so that it can be recognised wherever it turns up.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dev.cluster import Cluster
from dev.operator_process import NAMESPACE

_PIECE = 24
_HEAD = 8
#: What secrets, and their spellings, consist of.
_RUN = re.compile(rf"[^\s\"'<>{{}}\[\],;]{{{_HEAD},}}")


def pieces(secret: str) -> set[str]:
    """Return parts of a secret by which it is known even when it is cut: begin, middle and end of each line.

    Of a JSON Web Token that is the signature, since what it says of itself is the same in many; of a private key all
    but its beginning, for the same reason.
    """
    if len(secret) < 2 * _PIECE:
        return {secret}
    if secret.count(".") == 2 and secret.startswith("eyJ"):
        secret = secret.rpartition(".")[2]
    lines = [line for line in secret.splitlines() if not line.startswith("-----")]
    if len(lines) > 3:
        lines = [line for line in lines[1:] if len(line) >= 2 * _PIECE]
    return {
        line[start : start + _PIECE]
        for line in lines
        for start in (0, len(line) // 2 - _PIECE // 2, len(line) - _PIECE)
    }


def spelled(piece: str) -> set[str]:
    """Return a piece as it is, and within base64 of both alphabets whatever stands before it."""
    raw = piece.encode()
    shifted = [base64.b64encode(b"\0" * shift + raw).decode()[4 if shift else 0 : -4] for shift in range(3)]
    safe = [text.translate(str.maketrans("+/", "-_")) for text in shifted]
    return {piece, *(text for text in (*shifted, *safe) if len(text) >= 12)}


class Search:
    """Looks for many secrets in a text at once."""

    def __init__(self, kinds: Mapping[str, Iterable[str]]) -> None:
        self._kind_of = {
            spelling: kind
            for kind, secrets in kinds.items()
            for secret in secrets
            for piece in pieces(secret)
            for spelling in spelled(piece)
        }
        # One expression for thousands of fixed strings would be slow; their beginnings are few and long enough.
        self._heads: dict[str, set[str]] = {}
        for spelling in self._kind_of:
            if not _RUN.fullmatch(spelling):
                raise ValueError("a secret with spaces or quotes cannot be looked for")
            self._heads.setdefault(spelling[:_HEAD], set()).add(spelling)
        self._known: dict[str, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self._kind_of)

    def kinds_in(self, text: str) -> set[str]:
        """Return the kinds of the secrets that stand in a text."""
        return set().union(*map(self._kinds_in_run, set(_RUN.findall(text))))

    def _kinds_in_run(self, run: str) -> frozenset[str]:
        """Return the same of a run of characters that a secret may consist of; many objects hold the same ones."""
        if run not in self._known:
            self._known[run] = frozenset(
                self._kind_of[spelling]
                for place in range(len(run) - _HEAD + 1)
                for spelling in self._heads.get(run[place : place + _HEAD], ())
                if run.startswith(spelling, place)
            )
        return self._known[run]


def texts_of(body: dict[str, Any]) -> str:
    """Return an object as text, its Secret data decoded beside it."""
    data = body.get("data") or {} if body["kind"] == "Secret" else {}
    decoded = [base64.b64decode(value).decode(errors="replace") for value in data.values()]
    return "\n".join([json.dumps(body, ensure_ascii=False), *decoded])


def allowed_in(body: dict[str, Any]) -> set[str]:
    """Return the kinds of secrets that may stand in an object."""
    if body["kind"] != "Secret":
        return set()
    meta = body["metadata"]
    ours = (meta.get("labels") or {}).get("app.kubernetes.io/managed-by") == "regcred"
    if ours and meta["name"] == "regcred" and body["type"] == "kubernetes.io/dockerconfigjson":
        return {"login", "passed on"}
    if ours and meta["namespace"] == NAMESPACE and meta["name"].startswith("regcred-cache-"):
        return {"login", "passed on"}
    return set() if ours or body["type"] == "kubernetes.io/service-account-token" else {"source", "passed on"}


async def all_objects(cluster: Cluster) -> list[dict[str, Any]]:
    """Return every object of the API, managed fields included."""
    kinds = (await cluster.kubectl("api-resources", "--verbs=list", "-o", "name")).split()
    listed = await cluster.kubectl("get", ",".join(kinds), "-A", "-o", "json", "--show-managed-fields")
    items: list[dict[str, Any]] = json.loads(listed)["items"]
    return items
