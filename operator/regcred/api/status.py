"""What users read: the status of a resource.

The models give the schema and the bytes.  A status must never fail to be written because something in it is
long, so texts are cut and lists bounded here.  The namespaced kind has no counts of namespaces.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import pydantic

from regcred.api import conditions, model, names, times
from regcred.api.model import Model
from regcred.api.times import format_time, parse_time

__all__ = [
    "ClusterStatus",
    "ClusterSummary",
    "Condition",
    "Failure",
    "NamespaceCounts",
    "RegistryStatus",
    "ServiceAccountCounts",
    "Status",
    "Summary",
    "bounded_failures",
    "format_time",
    "parse_time",
]

#: The most failures and conditions that a status lists, and the most characters of a short text.
MAX_FAILURES = 20
MAX_LINE = 256
_MOST_CONDITIONS = conditions.MAX_CONDITIONS  # within a model, `conditions` is its field


class Observed(Model):
    """A part of a status.  What another version wrote into it is passed over, not refused."""

    model_config = pydantic.ConfigDict(extra="ignore")


def _short(limit: int) -> Any:
    return pydantic.BeforeValidator(lambda text: conditions.clip(text, limit) if isinstance(text, str) else text)


Line = Annotated[str, _short(MAX_LINE), pydantic.Field(max_length=MAX_LINE)]
Message = Annotated[str, _short(conditions.MAX_MESSAGE), pydantic.Field(max_length=conditions.MAX_MESSAGE)]
Count = Annotated[int, pydantic.Field(ge=0)]
Time = Annotated[
    pydantic.AwareDatetime,
    pydantic.PlainSerializer(times.format_time, return_type=str),
    pydantic.Field(json_schema_extra={"type": "string", "format": "date-time"}),
]


class Condition(Observed):
    """One statement about the resource."""

    type: Annotated[str, pydantic.Field(min_length=1, max_length=316)]
    """What is stated: Ready, Fetched, Verified or Distributed; Reconciling and Stalled exist only while True."""
    status: Annotated[str, pydantic.Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    """Whether it is so: True, False or Unknown."""
    observed_generation: Count = 0
    """Generation of the spec that the statement is about."""
    last_transition_time: Time
    """When status last changed, in UTC."""
    reason: Annotated[
        str,
        pydantic.Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ]
    """Why, in one CamelCase word for programs."""
    message: Message
    """Why, in a sentence for people, and what to do."""


class RegistryStatus(Observed):
    """How one registry stands."""

    server: Line
    """Server, as the spec has it."""
    provider: Line | None = None
    """Provider of the login: ecr, gcr, acr, login, or a plugin's name."""
    identity: Annotated[str, _short(2048), pydantic.Field(max_length=2048)] | None = None
    """Who regcred is for the registry, as the provider tells: an ARN, a principal, a user name."""
    issued_at: Time | None = None
    """When the published login was issued, in UTC."""
    expires_at: Time | None = None
    """When the published login ends, in UTC, as the provider tells; absent where it does not end by itself."""
    next_refresh_at: Time | None = None
    """When it will be fetched again, in UTC."""
    reason: Line
    """How it stands, in one CamelCase word for programs: Issued, or why not."""
    message: Message | None = None
    """What is wrong and what to do, in a sentence for people."""


class NamespaceCounts(Observed):
    """How many namespaces stand how."""

    matched: Count = 0
    """Namespaces that are selected and not protected."""
    synced: Count = 0
    """Namespaces whose Secret holds every login there is."""
    failed: Count = 0
    """Namespaces that could not be written; failures says why."""
    conflicted: Count = 0
    """Namespaces where a Secret of this name stands that is not regcred's; it is not touched."""


class ServiceAccountCounts(Observed):
    """How many service accounts list the Secret."""

    matched: Count = 0
    """Service accounts that are chosen in the served namespaces."""
    attached: Count = 0
    """Those of them that list the Secret."""


class Failure(Observed):
    """Why one namespace is not served."""

    namespace: Line
    """The namespace."""
    reason: Line
    """Why, in one CamelCase word for programs."""
    message: Annotated[str, _short(1024), pydantic.Field(max_length=1024)]
    """Why, in a sentence for people, and what to do."""


class Summary(Observed):
    """What kubectl get shows."""

    registries: Line | None = None
    """Registries with a working login, of all: 5/5."""
    expires_at: Line | None = None
    """When the first of the logins ends, in UTC; "never" where none ends by itself."""
    refreshed_at: Time | None = None
    """When a login was last issued, in UTC."""


class ClusterSummary(Summary):
    """What kubectl get shows of the cluster kind."""

    namespaces: Line | None = None
    """Namespaces that are synced, of all that are selected: 498/500."""


class Status(Observed):
    """What is observed of a resource; rebuilt from the cluster at any time."""

    observed_generation: Annotated[int, pydantic.Field(ge=-1)] | None = None
    """Generation of the spec that this status is about; -1 until the operator has looked at the resource."""
    last_handled_refresh_at: Line | None = None
    """Value of the annotation regcred.io/refresh-requested-at that was last acted on."""
    conditions: Annotated[
        tuple[Condition, ...],
        pydantic.Field(max_length=_MOST_CONDITIONS, json_schema_extra=model.listed_by("type")),
    ] = ()
    """Ready sums up; Fetched, Verified and Distributed tell the parts. Reconciling (work is under way) and Stalled
    (a human must act) exist only while True."""
    registries: Annotated[
        tuple[RegistryStatus, ...],
        pydantic.Field(max_length=64, json_schema_extra=model.listed_by("server")),
    ] = ()
    """How each registry of the spec stands."""
    service_accounts: ServiceAccountCounts | None = None
    """How many service accounts list the Secret."""
    summary: Summary | None = None
    """What kubectl get shows."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as decoded JSON: camelCase, times as RFC 3339, nothing that is None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ClusterStatus(Status):
    """What is observed of a resource of the cluster kind."""

    namespaces: NamespaceCounts | None = None
    """How many namespaces stand how."""
    failures: Annotated[
        tuple[Failure, ...],
        pydantic.Field(max_length=MAX_FAILURES, json_schema_extra=model.listed_by("namespace")),
    ] = ()
    """Why namespaces are not served: the first 20 by name."""
    failures_truncated: Annotated[bool, pydantic.Strict()] = False
    """Whether there are more failures than are listed."""
    summary: ClusterSummary | None = None
    """What kubectl get shows."""


#: The status of each kind.
STATUSES: Mapping[str, type[Status]] = {
    names.CLUSTER_KIND: ClusterStatus,
    names.NAMESPACED_KIND: Status,
}


def bounded_failures(failures: Iterable[Failure]) -> tuple[tuple[Failure, ...], bool]:
    """Return the first `MAX_FAILURES` failures by namespace, one each, and whether there were more."""
    by_namespace = {failure.namespace: failure for failure in failures}
    ordered = tuple(by_namespace[name] for name in sorted(by_namespace))
    return ordered[:MAX_FAILURES], len(ordered) > MAX_FAILURES


def summarise(moments: Iterable[dt.datetime | None]) -> str:
    """Return `summary.expiresAt` of the published logins' ends: the first one, or "never"."""
    ends = [moment for moment in moments if moment is not None]
    return times.format_time(min(ends)) if ends else "never"
