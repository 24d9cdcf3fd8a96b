"""What `plugin.config` may say, checked field by field.

The API server does not know a plugin's fields, so whoever misspells one hears of it here or never.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from regcred.credentials import provider

_ROBOT = re.compile(r"[a-z0-9][a-z0-9_.-]{1,254}\+[a-z0-9][a-z0-9_-]{0,254}")
_ACCOUNT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_AUDIENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}")


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """The fields of `plugin.config`.

    Attributes:
        robot: the robot's full name, `organization+robot`.
        service_account: whose token stands for the robot; in the namespace that the resource may read from.
        audience: of that token; "" for `https://HOST`.
    """

    robot: str
    service_account: str
    audience: str = ""

    @classmethod
    def of(cls, document: object) -> Config:
        """Return the checked fields.

        Raises:
            InvalidSpec: a field is unknown, missing or malformed; `field` is its path.
        """
        fields = _object(document, "plugin.config", known=("robot", "serviceAccountRef", "audience"))
        account = _object(fields.get("serviceAccountRef"), "plugin.config.serviceAccountRef", known=("name",))
        return cls(
            robot=_text(
                fields, "plugin.config", "robot", _ROBOT, "write the robot's full name, organization+robot"
            ),
            service_account=_text(
                account, "plugin.config.serviceAccountRef", "name", _ACCOUNT, "write the name of a service account"
            ),
            audience=_text(
                fields, "plugin.config", "audience", _AUDIENCE, "write what the robot's federation expects as aud"
            )
            if "audience" in fields
            else "",
        )


def _object(value: object, path: str, *, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _fault(path, f"is not an object; it has the fields {', '.join(known)}")
    for name in value:
        if name not in known:
            raise _fault(f"{path}.{str(name)[:63]}", f"is not known; the fields here are {', '.join(known)}")
    return value


def _text(fields: Mapping[str, Any], path: str, name: str, pattern: re.Pattern[str], advice: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _fault(f"{path}.{name}", f"is missing or not of the right form; {advice}")
    return value


def _fault(path: str, objection: str) -> provider.InvalidSpec:
    return provider.InvalidSpec("InvalidConfig", f"{path} {objection}.", field=path)
