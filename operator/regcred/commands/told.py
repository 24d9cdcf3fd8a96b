"""What the operator was told, as its Deployment has it: what a command had better know, too."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.commands import common

_LABEL = "app.kubernetes.io/name=regcred"
_PROTECTED = "--protected-namespaces"
_PROTECTED_VARIABLE = "REGCRED_RUN_PROTECTED_NAMESPACES"


async def protected_namespaces(client: api.Client, namespace: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the globs that were given and those that the operator's Deployment names, where that may be read."""
    try:
        bodies = await common.listed(
            client, f"/apis/apps/v1/namespaces/{namespace}/deployments", labelSelector=_LABEL
        )
    except errors.ApiError:
        bodies = []
    return tuple(dict.fromkeys([*given, *(glob for body in bodies for glob in _told(body))]))


def _told(deployment: Mapping[str, Any]) -> Iterator[str]:
    """Give the globs in the flags and variables of a Deployment's containers; a flag stands above its variable."""
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in pod.get("containers") or ():
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        flags = [word.partition("=")[2] for word in words if word.startswith(f"{_PROTECTED}=")]
        flags += [after for word, after in itertools.pairwise(words) if word == _PROTECTED]
        variables = [
            row.get("value") or "" for row in container.get("env") or () if row["name"] == _PROTECTED_VARIABLE
        ]
        yield from flags or " ".join(variables).split()
