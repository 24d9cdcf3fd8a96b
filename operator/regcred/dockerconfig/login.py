"""A user name and a password, held so that they do not leak by accident."""

from __future__ import annotations

import base64
import hmac
import re
from typing import NoReturn

from regcred.dockerconfig.errors import BadLogin

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Login:
    """A user name and a password, kept out of logs, representations and pickles.

    Args:
        username: not empty, without colon (it ends the user name in `user:password`).
        password: not empty.  A trailing newline is the caller's to strip.

    Raises:
        BadLogin: a part is empty, holds control characters or cannot be written as UTF-8.
    """

    __slots__ = ("password", "username")

    username: str
    password: str

    def __init__(self, username: str, password: str) -> None:
        for what, value in (("user name", username), ("password", password)):
            _check_part(what, value)
        if ":" in username:
            raise BadLogin("The user name holds a colon, which ends the user name in a login; remove it.")
        object.__setattr__(self, "username", username)
        object.__setattr__(self, "password", password)

    @property
    def auth(self) -> str:
        """The two as base64 of `user:password`: the `auth` field and the value of a Basic header."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("A Login does not change.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("A Login does not change.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Login):
            return NotImplemented
        return hmac.compare_digest(self.auth, other.auth)

    def __hash__(self) -> int:
        return hash((self.username, self.password))

    def __repr__(self) -> str:
        return "Login(<redacted>)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Login is neither pickled nor copied.")


def _check_part(what: str, value: str) -> None:
    if not value:
        raise BadLogin(f"The {what} is empty; registries take that for an anonymous pull.")
    if value.startswith("\ufeff"):
        raise BadLogin(f"The {what} begins with a byte order mark; store it as UTF-8 without one.")
    if _SURROGATE.search(value):
        raise BadLogin(f"The {what} is not valid Unicode text; store it as UTF-8.")
    if _CONTROL.search(value):
        raise BadLogin(
            f"The {what} holds a control character such as a line break inside; "
            "store it again without (printf %s, not echo)."
        )
