"""Every tool that is known, and the moves away from what it has left."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from regcred.api import resource
from regcred.migration import copiers, fetchers, generators
from regcred.migration.model import Json, Move, Snapshot

#: A word for the command line to what reads the tool.
TOOLS: Mapping[str, Callable[[Snapshot], Iterator[Move]]] = {
    "imagepullsecret-patcher": copiers.imagepullsecret_patcher,
    "registry-creds-alexellis": copiers.registry_creds_alexellis,
    "registry-creds-upmc": fetchers.registry_creds_upmc,
    "clustersecret": copiers.clustersecret,
    "msi-acrpull": fetchers.msi_acrpull,
    "ecr-login-renew": fetchers.ecr_login_renew,
    "external-secrets": generators.external_secrets,
}


def plan(snapshot: Snapshot, tools: Sequence[str] = ()) -> list[Move]:
    """Return the moves away from these tools, or from all that are found.

    No two resources have one name.  What the operator would not accept as it is comes with a remark that says why.
    """
    moves = [move for name, read in TOOLS.items() if not tools or name in tools for move in read(snapshot)]
    taken: collections.Counter[tuple[str, ...]] = collections.Counter()
    return [_finished(move, taken) for move in moves]


def _finished(move: Move, taken: collections.Counter[tuple[str, ...]]) -> Move:
    resources: list[Json] = []
    remarks = list(move.remarks)
    for document in move.resources:
        metadata = dict(document["metadata"])
        key = (str(document["kind"]), str(metadata.get("namespace", "")), str(metadata["name"]))
        taken[key] += 1
        if taken[key] > 1:
            metadata["name"] = f"{metadata['name']}-{taken[key]}"
        made = {**document, "metadata": metadata}
        stamped = {**made, "metadata": {**metadata, "uid": "x", "creationTimestamp": "2000-01-01T00:00:00Z"}}
        remarks += [f"finish by hand: {problem}" for problem in resource.parse(stamped).problems]
        resources.append(made)
    return dataclasses.replace(move, resources=resources, remarks=remarks)
