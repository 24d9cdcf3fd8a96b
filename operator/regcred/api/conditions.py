"""Conditions: what is true of a resource now, in the form that kubectl, Flux and Argo CD all understand.

The rules are those of the Kubernetes API conventions and of kstatus.  `Ready` is the summary.  `Reconciling`
(work is under way) and `Stalled` (a human must act) exist only while they are True.  `lastTransitionTime`
changes only when the status does.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from regcred.api import times

Condition = dict[str, Any]
ConditionStatus = Literal["True", "False", "Unknown"]

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
FETCHED = "Fetched"
VERIFIED = "Verified"
DISTRIBUTED = "Distributed"

#: The order in which conditions stand; those of others come last, by name.
ORDER = (READY, RECONCILING, STALLED, FETCHED, VERIFIED, DISTRIBUTED)
#: Conditions that exist only while they are True.
ONLY_TRUE = frozenset({RECONCILING, STALLED})

#: The longest message that is stored; a longer one is cut.
MAX_MESSAGE = 4096
#: The most conditions that are stored.
MAX_CONDITIONS = 16

_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,1022}[A-Za-z0-9_])?")


class Documented(enum.StrEnum):
    """Reasons that carry their meaning, so that the reference is made from them."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Self:
        """Make a member of its word and what it means."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


class Reason(Documented):
    """Reasons of the conditions of a resource."""

    SUCCEEDED = "Succeeded", "Every registry has a login, and it stands in every served namespace."
    PROGRESSING = "Progressing", "Something is being fetched or written for the first time."
    REGISTRIES_FAILED = (
        "RegistriesFailed",
        "At least one registry has no usable login; status.registries says why.",
    )
    NAMESPACES_FAILED = (
        "NamespacesFailed",
        "At least one namespace could not be written; status.failures says why.",
    )
    CONFLICT = "Conflict", "A Secret of this name that is not ours stands in at least one namespace."
    CONTENDED = (
        "Contended",
        "Somebody keeps undoing our work: an entry of a service account, tried again hourly, or the Secret itself.",
    )
    INVALID_SPEC = "InvalidSpec", "The spec cannot work; the message names the field and the remedy."
    SUSPENDED = "Suspended", "spec.suspend is true; nothing is fetched or changed."
    UNVERIFIED = "Unverified", "A login did not pass the proof that spec asks for."
    NO_NAMESPACES = "NoNamespaces", "No namespace is selected, so there is nothing to do."
    TOO_LARGE = "TooLarge", "The logins together exceed what one Secret holds (1 MiB)."


class RegistryReason(Documented):
    """Reasons of one registry's row in the status.  Providers have further ones for what only they can meet."""

    ISSUED = "Issued", "The login is published and unexpired."
    VERIFIED = "Verified", "The login is published, unexpired, and was proven by a pull handshake."
    PROGRESSING = "Progressing", "The first login is being fetched."
    SHADOWED = "Shadowed", "Another resource of higher precedence serves this server; the message names it."
    EXPIRED = "Expired", "The last login has ended and no new one could be had."
    UNVERIFIED = "Unverified", "Nothing is proven yet; the message says why."
    ACCESS_DENIED = "AccessDenied", "The provider or registry knows the identity and refuses it."
    BAD_CREDENTIALS = "BadCredentials", "The provider or registry does not accept the credentials."
    ANONYMOUS_PULL = "AnonymousPull", "The repository to verify with is public, so it proves nothing of the login."
    REPOSITORY_NOT_FOUND = (
        "RepositoryNotFound",
        "The repository to verify with is missing, or hidden from the login.",
    )
    INCONCLUSIVE = "Inconclusive", "The registry's answer to the handshake proves nothing either way."
    REGISTRY_UNREACHABLE = "RegistryUnreachable", "The registry does not answer the handshake."
    SOURCE_MISSING = "SourceMissing", "The referenced Secret or service account does not exist."
    SOURCE_INVALID = "SourceInvalid", "The referenced Secret or service account holds nothing that can be used."
    FORBIDDEN = (
        "Forbidden",
        "The operator may not read the source; the message spells out the Role that allows it.",
    )
    AMBIENT_REFUSED = "AmbientRefused", "The operator's own identity is not for this resource; name another one."
    INVALID_SPEC = "InvalidSpec", "The entry cannot work; the message names the field and the remedy."
    INVALID_CA_BUNDLE = "InvalidCABundle", "tls.caBundle holds no certificate that can be used."
    PROVIDER_UNKNOWN = "ProviderUnknown", "The host does not tell a provider, and the entry names none."
    PROVIDER_MISSING = "ProviderMissing", "No provider of this name is installed."
    PROVIDER_BROKEN = "ProviderBroken", "The provider's own code failed; its author must act."
    PROVIDER_UNAVAILABLE = "ProviderUnavailable", "The provider fails by itself; the last good login stays."
    CLUSTER_UNAVAILABLE = "ClusterUnavailable", "The API server could not be asked; the last good login stays."
    UNREACHABLE = "Unreachable", "The provider does not answer; the last good login stays."
    THROTTLED = "Throttled", "The provider asked for patience; the last good login stays."
    UNEXPECTED_ANSWER = "UnexpectedAnswer", "Something between here and the provider answered in its place."
    CLOCK_SKEW = "ClockSkew", "The clocks of this cluster and of the provider differ too much."


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return `text`, cut with an ellipsis where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def set_condition(
    existing: Iterable[Any] | None,
    type_: str,
    status: ConditionStatus,
    reason: str,
    message: str,
    *,
    generation: int,
    now: dt.datetime,
) -> list[Condition]:
    """Return the conditions with one of them set.

    Args:
        existing: the conditions so far, as decoded JSON; whatever is no condition is dropped.
        type_: which one to set.  `Reconciling` and `Stalled` are removed unless `status` is "True".
        status: "True", "False" or "Unknown".
        reason: one CamelCase word.
        message: for people; cut at `MAX_MESSAGE` characters.
        generation: of the spec that was looked at.
        now: the time, aware; becomes `lastTransitionTime` if the status is another than before.

    Raises:
        ValueError: `reason` is none that the API server stores.
    """
    if not _REASON.fullmatch(reason):
        raise ValueError("a condition's reason must be one CamelCase word")
    by_type = _by_type(existing)
    before = by_type.pop(type_, None)
    if type_ not in ONLY_TRUE or status == "True":
        unchanged = before is not None and before.get("status") == status
        since = before.get("lastTransitionTime") if before and unchanged else None
        by_type[type_] = {
            "type": type_,
            "status": str(status),
            "observedGeneration": generation,
            "lastTransitionTime": since if isinstance(since, str) and since else times.format_time(now),
            "reason": str(reason),
            "message": clip(message),
        }
    return _ordered(by_type)


def remove_condition(existing: Iterable[Any] | None, type_: str) -> list[Condition]:
    """Return the conditions without one of them."""
    by_type = _by_type(existing)
    by_type.pop(type_, None)
    return _ordered(by_type)


def find_condition(existing: Iterable[Any] | None, type_: str) -> Condition | None:
    """Return the condition of a type, or None."""
    return _by_type(existing).get(type_)


def _by_type(existing: Iterable[Any] | None) -> dict[str, Condition]:
    found: dict[str, Condition] = {}
    for item in existing if isinstance(existing, list | tuple) else ():
        if isinstance(item, Mapping) and isinstance(item.get("type"), str):
            found.setdefault(item["type"], dict(item))
    return found


def _ordered(by_type: Mapping[str, Condition]) -> list[Condition]:
    ours = [by_type[type_] for type_ in ORDER if type_ in by_type]
    others = [by_type[type_] for type_ in sorted(set(by_type) - set(ORDER))]
    return (ours + others)[:MAX_CONDITIONS]
