"""Which requests a fault is for, and what was seen: what the API server's own authoriser would call them."""

from __future__ import annotations

import dataclasses
import fnmatch
import random
import re
import time
from collections.abc import Mapping

from dev.faults.actions import Action

_PATH = re.compile(
    r"^/(?:api/(?P<core>[^/]+)|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/.))?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "HEAD": "get"}


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One request, in the words of Kubernetes where it is one to an API server.

    Attributes:
        method: HTTP method.
        path: without the query.
        verb: get, list, watch, create, update, patch or delete; the method in lower case for other servers.
        resource: plural; "" where the path is none of the Kubernetes API.
        subresource: such as `status` or `token`.
        namespace: "" where there is none.
        name: "" where there is none.
    """

    method: str
    path: str
    verb: str
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


def read_ask(method: str, path: str, query: Mapping[str, str]) -> Ask:
    """Return what a request asks for."""
    found = _PATH.match(path)
    if found is None:
        return Ask(method, path, _VERBS.get(method, method.lower()))
    parts = {key: value or "" for key, value in found.groupdict().items()}
    verb = _VERBS.get(method, "get")
    if method == "GET" and query.get("watch") in ("1", "true"):
        verb = "watch"
    elif method == "GET" and not parts["name"]:
        verb = "list"
    return Ask(method, path, verb, parts["resource"], parts["subresource"], parts["namespace"], parts["name"])


@dataclasses.dataclass(slots=True, eq=False)
class Rule:
    """A fault and the requests it is for.  Patterns are shell globs, and "*" is every request.

    Attributes:
        action: what happens to them.
        verb: such as `watch`, or `{get,list}`-like choices as `get|list`.
        resource: such as `secrets`, or `namespaces|serviceaccounts`.
        namespace: where.
        name: which.
        path: of the whole path, for servers that are no API server.
        subresource: such as `status`.
        times: so many requests at the most; None for as long as the rule stands.
        seconds: for so long at the most.
        chance: the share of the requests that are hit.
        hits: how many were.
    """

    action: Action
    verb: str = "*"
    resource: str = "*"
    namespace: str = "*"
    name: str = "*"
    path: str = "*"
    subresource: str = "*"
    times: int | None = None
    seconds: float | None = None
    chance: float = 1.0
    hits: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)

    def takes(self, ask: Ask) -> bool:
        """Whether the rule is for a request, now."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.seconds is not None and time.monotonic() - self.since > self.seconds:
            return False
        matched = all(
            any(fnmatch.fnmatchcase(value, choice) for choice in pattern.split("|"))
            for value, pattern in (
                (ask.verb, self.verb),
                (ask.resource, self.resource),
                (ask.subresource, self.subresource),
                (ask.namespace, self.namespace),
                (ask.name, self.name),
                (ask.path, self.path),
            )
        )
        return matched and (self.chance >= 1.0 or random.random() < self.chance)


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """One request that came by.

    Attributes:
        at: monotonic time of its arrival.
        ask: what it asked for.
        status: of the answer that was sent; 0 where none was.
        fault: name of the action that hit it, or "".
    """

    at: float
    ask: Ask
    status: int
    fault: str = ""
