"""What a resource's status and events say: made from rows and counts, and from nothing else.  Pure.

Conditions follow kstatus, so that `kubectl wait`, Flux and Argo CD come to one verdict: a human must act (Stalled)
is never Ready, work under way (Reconciling) is not Ready yet, and a renewal that fails while the last good login
lives is told by Fetched and leaves Ready alone, since pods start.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from regcred.api import conditions, problems, status
from regcred.api import resource as api_resource
from regcred.api.conditions import Reason, RegistryReason
from regcred.cluster import events
from regcred.credentials import keeper
from regcred.distribution import tally


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one resource now.

    Attributes:
        resource: as it was last seen, its status included.
        rows: how each registry entry stands.
        count: how the namespaces stand.
        pending: namespaces that have not been looked at since the resource changed.
        refresh_handled: the last refresh request that was carried out.
        blocked: why none of its Secrets can be written at all, or "".
    """

    resource: api_resource.Resource
    rows: Sequence[keeper.Row]
    count: tally.Count
    pending: int = 0
    refresh_handled: str = ""
    blocked: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Verdict:
    status: conditions.ConditionStatus
    reason: str
    message: str
    stalled: bool = False


def build(facts: Facts, now: datetime.datetime) -> dict[str, Any]:
    """Return the whole status of a resource as decoded JSON."""
    resource = facts.resource
    conditions_ = _standing(resource.status)

    def put(type_: str, verdict: _Verdict) -> None:
        nonlocal conditions_
        conditions_ = conditions.set_condition(
            conditions_,
            type_,
            verdict.status,
            _word(verdict.reason),
            _text(verdict.message),
            generation=resource.generation,
            now=now,
        )

    if resource.spec is None:
        told = problems.summary(resource.problems)
        put(conditions.READY, _Verdict("False", Reason.INVALID_SPEC, told))
        put(conditions.STALLED, _Verdict("True", Reason.INVALID_SPEC, told))
        conditions_ = conditions.remove_condition(conditions_, conditions.RECONCILING)
    else:
        fetched, verified, distributed = _fetched(facts), _verified(facts), _distributed(facts)
        put(conditions.FETCHED, fetched)
        put(conditions.DISTRIBUTED, distributed)
        if verified is None:
            conditions_ = conditions.remove_condition(conditions_, conditions.VERIFIED)
        else:
            put(conditions.VERIFIED, verified)
        parts = [part for part in (fetched, verified, distributed) if part is not None]
        stalled = next((part for part in parts if part.stalled), None)
        working = _working(facts) if stalled is None and not resource.spec.suspend else None
        put(conditions.STALLED, _Verdict("True", stalled.reason, stalled.message) if stalled else _OFF)
        put(conditions.RECONCILING, working or _OFF)
        put(conditions.READY, _ready(facts, parts, stalled, working, now))
    return _model(facts, conditions_).to_dict()


_OFF = _Verdict("False", "Off", "")
#: Failures of a namespace that do not go by themselves.
_GRAVE = ("Forbidden", "Invalid", "TooLarge")
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,254}[A-Za-z0-9_])?")


def _ready(
    facts: Facts,
    parts: Sequence[_Verdict],
    stalled: _Verdict | None,
    working: _Verdict | None,
    now: datetime.datetime,
) -> _Verdict:
    spec = facts.resource.spec
    if stalled is not None:
        return dataclasses.replace(stalled, status="False")
    if spec is not None and spec.suspend:
        missing = [row for row in facts.rows if not row.usable or _ended(row, now)]
        if missing:
            return _Verdict("False", Reason.SUSPENDED, f"suspended, and no login of {missing[0].server} lives")
        return _Verdict("True", Reason.SUSPENDED, "suspended: what is there stays, and nothing is renewed")
    if working is not None:
        return _Verdict("False", Reason.PROGRESSING, working.message)
    if all(row.usable for row in facts.rows):
        # A renewal that fails, or cannot be proven, while the last good login lives does not stop any pod.
        parts = parts[-1:]
    wrong = [part for part in parts if part.status != "True"]
    if wrong:
        # What is known to be wrong says more than what is only awaited because of it.
        told = next((part for part in wrong if part.status == "False"), wrong[0])
        return dataclasses.replace(told, status="False")
    count = facts.count
    registries = _plural(len(facts.rows), "registry", "registries")
    if not facts.resource.cluster:
        return _Verdict(
            "True", Reason.SUCCEEDED, f"{registries}; {count.attached} service accounts list the Secret"
        )
    return _Verdict(
        "True",
        Reason.SUCCEEDED,
        f"{registries} in {_plural(count.synced, 'namespace', 'namespaces')}; "
        f"{count.attached} service accounts list the Secret",
    )


def _working(facts: Facts) -> _Verdict | None:
    """Return why work is under way, or None."""
    awaited = [row.server for row in facts.rows if row.pending]
    if awaited:
        return _Verdict("True", Reason.PROGRESSING, f"fetching the login of {', '.join(awaited[:3])}")
    if facts.pending:
        left = _plural(facts.pending, "namespace", "namespaces")
        return _Verdict("True", Reason.PROGRESSING, f"{left} left to look at")
    return None


def _fetched(facts: Facts) -> _Verdict:
    if facts.resource.spec is not None and facts.resource.spec.suspend:
        had = all(row.usable for row in facts.rows)
        return _Verdict("True" if had else "Unknown", Reason.SUSPENDED, "suspended: nothing is fetched")
    bad = [row for row in facts.rows if not row.pending and not (row.settled and row.usable)]
    if bad:
        worst = min(bad, key=lambda row: (not row.stalled, row.usable))
        kept = " (the last good login stays in use)" if worst.usable else ""
        return _Verdict(
            "False",
            worst.reason if worst.stalled else Reason.REGISTRIES_FAILED,
            f"{len(bad)} of {_plural(len(facts.rows), 'registry', 'registries')} failed: "
            f"{worst.server}: {worst.message}{kept}",
            stalled=worst.stalled,
        )
    if any(row.pending for row in facts.rows):
        return _Verdict("Unknown", Reason.PROGRESSING, "the first answer is awaited")
    return _Verdict("True", Reason.SUCCEEDED, f"{_plural(len(facts.rows), 'login', 'logins')} fetched")


def _verified(facts: Facts) -> _Verdict | None:
    asked = [row for row in facts.rows if row.wants_proof]
    if not asked:
        return None
    refused = [row for row in asked if row.verified is False]
    if refused:
        return _Verdict(
            "False", refused[0].reason, f"{refused[0].server}: {refused[0].message}", stalled=refused[0].stalled
        )
    unknown = [row for row in asked if row.verified is None]
    if unknown:
        told = unknown[0].message or "no handshake yet"
        return _Verdict("Unknown", Reason.UNVERIFIED, f"{unknown[0].server}: {told}")
    return _Verdict(
        "True", Reason.SUCCEEDED, f"{_plural(len(asked), 'login', 'logins')} proven by a pull handshake"
    )


def _distributed(facts: Facts) -> _Verdict:
    count = facts.count
    if facts.blocked:
        return _Verdict("False", "Forbidden", facts.blocked, stalled=True)
    if count.conflicted:
        return _trouble(facts, count.conflicted, Reason.CONFLICT, [Reason.CONFLICT])
    grave = next((failure.reason for failure in count.failures if failure.reason in _GRAVE), None)
    if count.failed and grave is not None:
        return _trouble(facts, count.failed, grave, [grave])
    if count.failed:
        others = [
            failure.reason
            for failure in count.failures
            if failure.reason not in (Reason.CONFLICT, Reason.CONTENDED)
        ]
        if not others:
            return _trouble(facts, count.failed, Reason.CONTENDED, [Reason.CONTENDED])
        return _trouble(facts, count.failed, Reason.NAMESPACES_FAILED, others)
    if count.contended:
        return _trouble(facts, 0, Reason.CONTENDED, [Reason.CONTENDED])
    if count.waiting or facts.pending:
        return _Verdict("Unknown", Reason.PROGRESSING, "some namespaces wait for their first login")
    if not count.matched:
        return _Verdict("True", Reason.NO_NAMESPACES, "no namespace is selected")
    return _Verdict("True", Reason.SUCCEEDED, f"{_plural(count.synced, 'namespace', 'namespaces')} served")


def _trouble(facts: Facts, number: int, reason: str, listed: Sequence[str]) -> _Verdict:
    """Return what is wrong in some namespaces, with the first of those that failed for a reason of `listed`."""
    example = next((failure for failure in facts.count.failures if failure.reason in listed), None)
    message = example.message if example is not None else "see status.failures"
    if facts.resource.cluster:
        where = f"{example.namespace}: " if example is not None else ""
        total = f"{number} of {_plural(facts.count.matched, 'namespace', 'namespaces')}: " if number else ""
        message = total + where + message
    return _Verdict("False", reason, message, stalled=reason != Reason.NAMESPACES_FAILED)


def _model(facts: Facts, conditions_: Sequence[Mapping[str, Any]]) -> status.Status:
    resource, count = facts.resource, facts.count
    usable = [row for row in facts.rows if row.usable]
    issued = [row.issued_at for row in usable if row.issued_at is not None]
    common: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "lastHandledRefreshAt": facts.refresh_handled or None,
        "conditions": tuple(status.Condition.model_validate(condition) for condition in conditions_),
        "registries": tuple(_registry(row, count) for row in sorted(facts.rows, key=lambda row: row.server)),
        "serviceAccounts": {"matched": count.accounts, "attached": count.attached},
    }
    summary: dict[str, Any] = {
        "registries": f"{len(usable)}/{len(facts.rows)}",
        "expiresAt": status.summarise(row.expires_at for row in usable) if usable else None,
        "refreshedAt": max(issued) if issued else None,
    }
    if not resource.cluster:
        return status.Status.model_validate(common | {"summary": summary})
    failures, truncated = status.bounded_failures(
        status.Failure(namespace=failure.namespace, reason=failure.reason, message=failure.message)
        for failure in count.failures
    )
    return status.ClusterStatus.model_validate(
        common
        | {
            "summary": summary | {"namespaces": f"{count.synced}/{count.matched}"},
            "namespaces": {
                "matched": count.matched,
                "synced": count.synced,
                "failed": count.failed,
                "conflicted": count.conflicted,
            },
            "failures": failures,
            "failuresTruncated": truncated or count.truncated,
        }
    )


def _registry(row: keeper.Row, count: tally.Count) -> status.RegistryStatus:
    reason, message = row.reason, row.message
    if row.settled and row.verified:
        reason = "Verified"
    shadows = [count.shadowed[server] for server in row.servers if server in count.shadowed]
    if row.settled and shadows:
        where, example, winner = max(shadows)
        reason = "Shadowed"
        message = f"{winner} serves this server in {_plural(where, 'namespace', 'namespaces')}, such as {example}"
    return status.RegistryStatus(
        server=row.server,
        provider=_text(row.provider) or None,
        identity=_text(row.identity) or None,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        next_refresh_at=row.next_at,
        reason=_word(reason),
        message=_text(message) or None,
    )


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[events.Event]:
    """Return the events that tell how a status turned from `before` into `after`: one a change of state."""
    found: list[events.Event] = []
    was, now = _ready_of(before), _ready_of(after)
    if now["status"] == "True" and was.get("status") != "True":
        found.append(events.Event(False, "Ready", now["message"]))
    elif now["status"] != "True" and now["reason"] != Reason.PROGRESSING and was.get("reason") != now["reason"]:
        found.append(events.Event(True, now["reason"], now["message"]))
    listed = before.get("registries")
    rows = {
        row.get("server"): row.get("reason")
        for row in (listed if isinstance(listed, list) else ())
        if isinstance(row, Mapping)
    }
    for row in after.get("registries") or ():
        if row["reason"] == rows.get(row["server"]) or row["reason"] in _QUIET:
            continue
        told = f"{row['server']}: {row.get('message') or row['reason']}"
        if not any(event.reason == row["reason"] for event in found):
            found.append(events.Event(row["reason"] not in _HARMLESS, row["reason"], told))
    return found


#: States of a registry that nobody needs to be told of, and those that are no trouble.
_QUIET = (RegistryReason.ISSUED, RegistryReason.VERIFIED, RegistryReason.PROGRESSING, "Suspended")
_HARMLESS = (RegistryReason.SHADOWED,)


def _standing(document: Mapping[str, Any]) -> list[conditions.Condition]:
    """Return the conditions of a status as it stands, without those that could not be written again."""
    found: list[conditions.Condition] = []
    listed = document.get("conditions")
    for condition in listed if isinstance(listed, list | tuple) else ():
        try:
            found.append(status.Condition.model_validate(condition).model_dump(mode="json", by_alias=True))
        except pydantic.ValidationError:
            continue
    return found


def _word(reason: str) -> str:
    """Return a reason if it is one word as conditions have it; a third party's provider may give any text."""
    return reason if _REASON.fullmatch(reason) else RegistryReason.PROVIDER_BROKEN


def _text(message: str) -> str:
    """Return a text that can be sent: a provider's may hold halves of characters."""
    return message.encode("utf-8", "replace").decode("utf-8")


def _ended(row: keeper.Row, now: datetime.datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= now


def _ready_of(document: Mapping[str, Any]) -> Mapping[str, str]:
    return conditions.find_condition(document.get("conditions"), conditions.READY) or {}


def until(facts: Facts) -> datetime.datetime | None:
    """Return when the status changes by the passing of time alone: the end of the first login in use."""
    ends = [row.expires_at for row in facts.rows if row.usable and row.expires_at is not None]
    return min(ends) if ends else None


def _plural(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
