"""Checks a cluster's service account tokens as a cloud would: by the public key of their issuer."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt


@dataclasses.dataclass(frozen=True)
class Issuer:
    """A cluster whose tokens are trusted.

    Attributes:
        name: its `iss`.
        public_key: PEM.
    """

    name: str
    public_key: str

    @classmethod
    def of(cls, name: str, public_key: Path) -> Issuer:
        """Return the issuer with the key in a file, such as `Cluster.issuer` and `Cluster.public_key`."""
        return cls(name, public_key.read_text())

    def claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token that this issuer signed.

        Its audience is the caller's to check: clouds tell a wrong one from a wrong signature.

        Raises:
            jwt.ExpiredSignatureError: it has ended.
            jwt.ImmatureSignatureError: it does not begin yet.
            jwt.InvalidTokenError: it is not of this issuer.
        """
        claims: Mapping[str, Any] = jwt.decode(
            token,
            self.public_key,
            algorithms=["RS256"],
            issuer=self.name,
            options={"verify_aud": False, "require": ["exp", "iss", "sub", "aud"]},
        )
        return claims


def audiences(claims: Mapping[str, Any]) -> list[str]:
    """Return the audiences of a token as a list."""
    audience = claims.get("aud", [])
    return [audience] if isinstance(audience, str) else list(audience)


def unverified(token: str, part: int) -> Mapping[str, Any]:
    """Return header (0) or claims (1) of a JWT before its signature is checked; {} when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        decoded = json.loads(base64.urlsafe_b64decode(parts[part] + "=" * (-len(parts[part]) % 4)))
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
