"""Looks for secrets in whatever the operator lets be seen: whole, cut, or within base64.

The one check of every test of secrecy, so that what it can find is proven once (`tests/test_planted_faults.py`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

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
            assert _RUN.fullmatch(spelling)
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
