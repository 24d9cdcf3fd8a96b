"""Reads what a service account token says of itself, without checking it: it is ours, or fresh from the API server."""

from __future__ import annotations

import base64
import json


def audiences(token: str) -> frozenset[str]:
    """Return the audiences of a JSON Web Token; empty where it is none, or does not name any.

    Args:
        token: the token, or an Authorization header with it.  Source: RFC 7519.
    """
    parts = token.rpartition(" ")[2].split(".")
    if len(parts) != 3:
        return frozenset()
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        listed = claims.get("aud")
    except (ValueError, AttributeError):
        return frozenset()
    if isinstance(listed, str):
        return frozenset((listed,))
    return frozenset(str(item) for item in listed) if isinstance(listed, list) else frozenset()
