"""What a resource's status and events say: made from rows and counts, and from nothing else.  Pure.

Conditions follow kstatus, so that `kubectl wait`, Flux and Argo CD come to one verdict: a human must act (Stalled)
is never Ready, work under way (Reconciling) is not Ready yet, and a renewal that fails while the last good login
lives is told by Fetched and leaves Ready alone, since pods start.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from regcred.api import conditions, problems, status
from regcred.api import resource as api_resource
from regcred.api.conditions import Reason
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
    conditions_ = list(resource.status.get("conditions") or ())

    def put(type_: str, verdict: _Verdict) -> None:
        nonlocal conditions_
        conditions_ = conditions.set_condition(
            conditions_,
            type_,
            verdict.status,
            verdict.reason,
            verdict.message,
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
        parts = [part for part in (distributed, verified, fetched) if part is not None]
        stalled = next((part for part in (fetched, verified, distributed) if part and part.stalled), None)
        working = _working(facts) if stalled is None and not resource.spec.suspend else None
        put(conditions.STALLED, _Verdict("True", stalled.reason, stalled.message) if stalled else _OFF)
        put(conditions.RECONCILING, working or _OFF)
        put(conditions.READY, _ready(facts, parts, stalled, working, now))
    return _model(facts, conditions_).to_dict()


_OFF = _Verdict("False", "Off", "")


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
        ended = [row for row in facts.rows if row.expires_at is not None and row.expires_at <= now]
        if ended:
            return _Verdict("False", Reason.SUSPENDED, f"suspended, and the login of {ended[0].server} has ended")
        return _Verdict("True", Reason.SUSPENDED, "suspended: what is there stays, and nothing is renewed")
    if working is not None:
        return _Verdict("False", Reason.PROGRESSING, working.message)
    unusable = [row for row in facts.rows if not row.usable]
    for part in parts:
        # A renewal that fails, or cannot be proven, while the last good login lives does not stop any pod.
        if part.status != "True" and not (part in parts[1:] and not unusable):
            return dataclasses.replace(part, status="False")
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
    bad = [row for row in facts.rows if not row.settled and not row.pending]
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
    first = count.failures[0] if count.failures else None
    if first is not None:
        where = f"{first.namespace}: {first.message}" if facts.resource.cluster else first.message
        total = f" of {count.matched} namespaces: " if facts.resource.cluster else ""
        if count.conflicted:
            numbers = f"{count.conflicted}{total}" if total else ""
            return _Verdict("False", Reason.CONFLICT, numbers + where, stalled=True)
        if count.failed:
            numbers = f"{count.failed}{total}" if total else ""
            return _Verdict("False", Reason.NAMESPACES_FAILED, numbers + where)
        return _Verdict("False", Reason.CONTENDED, where, stalled=True)
    if count.waiting or facts.pending:
        return _Verdict("Unknown", Reason.PROGRESSING, "some namespaces wait for their first login")
    if not count.matched:
        return _Verdict("True", Reason.NO_NAMESPACES, "no namespace is selected")
    return _Verdict("True", Reason.SUCCEEDED, f"{_plural(count.synced, 'namespace', 'namespaces')} served")


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
        provider=row.provider or None,
        identity=row.identity or None,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        next_refresh_at=row.next_at,
        reason=reason,
        message=message or None,
    )


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[events.Event]:
    """Return the events that tell how a status turned from `before` into `after`: one a change of state."""
    found: list[events.Event] = []
    was, now = _ready_of(before), _ready_of(after)
    if now["status"] == "True" and was.get("status") != "True":
        found.append(events.Event(False, "Ready", now["message"]))
    elif now["status"] != "True" and now["reason"] != Reason.PROGRESSING and was.get("reason") != now["reason"]:
        found.append(events.Event(True, now["reason"], now["message"]))
    rows = {row["server"]: row for row in before.get("registries") or ()}
    for row in after.get("registries") or ():
        earlier = rows.get(row["server"], {}).get("reason")
        if row["reason"] == earlier or row["reason"] in ("Issued", "Verified", "Progressing"):
            continue
        told = f"{row['server']}: {row.get('message') or row['reason']}"
        if not any(event.reason == row["reason"] for event in found):
            found.append(events.Event(row["reason"] != "Shadowed", row["reason"], told))
    return found


def _ready_of(document: Mapping[str, Any]) -> Mapping[str, str]:
    return conditions.find_condition(document.get("conditions"), conditions.READY) or {}


def until(facts: Facts) -> datetime.datetime | None:
    """Return when the status changes by the passing of time alone: the end of the first login in use."""
    ends = [row.expires_at for row in facts.rows if row.usable and row.expires_at is not None]
    return min(ends) if ends else None


def _plural(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
