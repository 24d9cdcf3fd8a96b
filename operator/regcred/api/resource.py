"""One custom resource as the operator sees it: parsed once, never raising, immutable.

Whatever stands in the cluster becomes a `Resource`.  One that makes no sense has no `spec` but `problems`,
which its status shows; nothing else notices.  Every rule is checked here again, whatever the API server
checked before, since old servers ignore some of them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from regcred.api import conditions, names, problems, spec, status, times

#: Where there is no creation time: nothing is younger, so it precedes nobody.
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)
_KINDS = " or ".join(spec.SPECS)


@dataclasses.dataclass(frozen=True, slots=True)
class Resource:
    """The parsed view of one object.

    Attributes:
        kind: `ClusterRegistryCredential` or `RegistryCredential`.
        name: of the object.
        namespace: of the object; "" for the cluster kind.
        uid: of the object.
        version: resource version of this state.
        generation: of the spec; 0 where it is unknown.
        creation_timestamp: aware, UTC.
        deleting: whether the object is being deleted.
        refresh_requested_at: value of the annotation `regcred.io/refresh-requested-at`, or "".
        spec: what is declared; None when something is wrong with it.
        problems: what is wrong with it.
        status: what its status says at present, as decoded JSON.
    """

    kind: str
    name: str
    namespace: str
    uid: str
    generation: int
    creation_timestamp: dt.datetime
    deleting: bool
    refresh_requested_at: str
    spec: spec.Core | None
    problems: tuple[problems.Problem, ...]
    status: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    version: str = ""

    @property
    def cluster(self) -> bool:
        """Whether it is of the cluster kind."""
        return self.kind == names.CLUSTER_KIND

    @property
    def key(self) -> str:
        """Return how people name it: `ClusterRegistryCredential/platform`, `RegistryCredential/team-a/quay`."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    def __hash__(self) -> int:
        """Hash what identifies one state of the object; a plugin's config cannot be hashed."""
        return hash((self.kind, self.namespace, self.name, self.uid, self.generation))


def parse(body: Any) -> Resource:
    """Return the view of an object of one of our kinds.

    Never raises, whatever JSON it gets: what cannot be used becomes a problem.

    Args:
        body: the object as decoded JSON.
    """
    document = _mapping(body)
    metadata = _mapping(document.get("metadata"))
    annotations = _mapping(metadata.get("annotations"))
    kind = _text(document.get("kind"))
    model = spec.SPECS.get(kind)
    parsed: Any = None
    if model is None:
        wrong: tuple[problems.Problem, ...] = (problems.Problem("kind", f"must be {_KINDS}; correct it"),)
    elif document.get("spec") is None:
        wrong = (problems.Problem("spec", "is required; add it, with registries below it"),)
    else:
        parsed, wrong = problems.check(model, document["spec"], "spec")
    generation = metadata.get("generation")
    return Resource(
        kind=kind,
        name=_text(metadata.get("name")),
        namespace="" if kind == names.CLUSTER_KIND else _text(metadata.get("namespace")),
        uid=_text(metadata.get("uid")),
        generation=generation if isinstance(generation, int) else 0,
        creation_timestamp=_time(metadata.get("creationTimestamp")),
        deleting=metadata.get("deletionTimestamp") is not None,
        # Cut as the status will cut its echo, so that both can be equal.
        refresh_requested_at=conditions.clip(_text(annotations.get(names.REFRESH)), status.MAX_LINE),
        spec=parsed,
        problems=wrong,
        status=_mapping(document.get("status")),
        version=_text(metadata.get("resourceVersion")),
    )


def path(namespace: str, name: str) -> str:
    """Return where the API server has a resource: one of the cluster kind where `namespace` is ""."""
    if not namespace:
        return f"/apis/{names.API_VERSION}/{names.CLUSTER_PLURAL}/{name}"
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.NAMESPACED_PLURAL}/{name}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _time(value: Any) -> dt.datetime:
    try:
        return times.parse_time(_text(value))
    except ValueError:
        return _NEVER
