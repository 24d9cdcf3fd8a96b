"""What a status and its events say: tables of facts and conditions, and laws that hold for whatever facts there are."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regcred import reporting
from regcred.api import conditions, names, resource, status
from regcred.credentials import keeper
from regcred.distribution import tally
from tests.api import api_support

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

GOOD = keeper.Row(
    "one.example",
    ("one.example",),
    "ecr",
    "arn:me",
    NOW - HOUR,
    NOW + HOUR,
    NOW + HOUR / 2,
    "Issued",
    usable=True,
    settled=True,
)
OTHER = dataclasses.replace(GOOD, server="two.example", servers=("two.example",))
PENDING = keeper.Row("one.example", reason="Progressing", message="the login is being fetched", pending=True)
#: The last good login lives, and its renewal fails: by itself, or until somebody acts.
LATE = dataclasses.replace(GOOD, reason="Unreachable", message="It does not answer.", settled=False)
REFUSED = dataclasses.replace(LATE, reason="AccessDenied", message="Allow it.", stalled=True)
#: There is no login at all.
NONE = keeper.Row("one.example", reason="Unreachable", message="It does not answer.")
MISSING = keeper.Row("one.example", reason="SourceMissing", message="Create it.", stalled=True)
ENDED = dataclasses.replace(
    GOOD, expires_at=NOW - HOUR, usable=False, settled=False, reason="Expired", message="Over."
)
#: With proof asked for.
PROVEN = dataclasses.replace(GOOD, wants_proof=True, verified=True)
UNPROVEN = dataclasses.replace(PROVEN, verified=None, reason="Unverified", message="It is down.")
BAD = dataclasses.replace(
    PROVEN, verified=False, reason="BadCredentials", message="Renew it.", stalled=True, settled=False
)

SERVED = tally.Count(matched=3, synced=3, accounts=5, attached=5)


def failing(*reasons: str, **more: int) -> tally.Count:
    """Three namespaces, some of which failed for these reasons."""
    failures = [tally.Failure(f"ns-{number}", reason, f"Mend {reason}.") for number, reason in enumerate(reasons)]
    return dataclasses.replace(SERVED, synced=3 - len(reasons), failures=failures, **more)


def declared(*, cluster: bool = True, valid: bool = True, status: Any = None, **spec: Any) -> resource.Resource:
    """A resource."""
    what: dict[str, Any] = {
        "registries": [{"server": "one.example", "login": {"secretRef": {"name": "x"}}}],
        **spec,
    }
    if cluster:
        what["namespaces"] = {}
    if not valid:
        what["registries"] = []
    place = {} if cluster else {"namespace": "team-a"}
    return resource.parse(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.CLUSTER_KIND if cluster else names.NAMESPACED_KIND,
            "metadata": {
                "name": "r",
                "uid": "uid-r",
                "generation": 7,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                **place,
            },
            "spec": what,
            "status": status or {},
        }
    )


def facts(*rows: keeper.Row, count: tally.Count = SERVED, spec: Any = None, **more: Any) -> reporting.Facts:
    """Facts of a resource of the cluster kind, all of whose namespaces are served."""
    return reporting.Facts(declared(**spec or {}), rows or (GOOD,), count, **more)


def told(built: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Type to status and reason of every condition."""
    return {row["type"]: (row["status"], row["reason"]) for row in built["conditions"]}


def message(built: dict[str, Any], type_: str) -> str:
    """The message of a condition."""
    (found,) = [row["message"] for row in built["conditions"] if row["type"] == type_]
    return str(found)


OK = ("True", "Succeeded")
WAIT = ("Unknown", "Progressing")
TABLE: dict[str, tuple[reporting.Facts, dict[str, tuple[str, str]], str]] = {
    "all is well": (
        facts(GOOD, OTHER),
        {"Ready": OK, "Fetched": OK, "Distributed": OK},
        "2 registries in 3 namespaces; 5 service accounts list the Secret",
    ),
    "a tenant": (
        facts(spec={"cluster": False}),
        {"Ready": OK, "Fetched": OK, "Distributed": OK},
        "1 registry; 5 service accounts list the Secret",
    ),
    "the first login is awaited": (
        facts(PENDING, count=tally.Count(matched=3, waiting=3)),
        {
            "Ready": ("False", "Progressing"),
            "Reconciling": ("True", "Progressing"),
            "Fetched": WAIT,
            "Distributed": WAIT,
        },
        "fetching the login of one.example",
    ),
    "namespaces are left": (
        facts(pending=2),
        {
            "Ready": ("False", "Progressing"),
            "Reconciling": ("True", "Progressing"),
            "Fetched": OK,
            "Distributed": WAIT,
        },
        "2 namespaces left to look at",
    ),
    "a renewal fails": (
        facts(LATE),
        {"Ready": OK, "Fetched": ("False", "RegistriesFailed"), "Distributed": OK},
        "1 registry in 3 namespaces",
    ),
    "a renewal is refused": (
        facts(REFUSED),
        {
            "Ready": ("False", "AccessDenied"),
            "Stalled": ("True", "AccessDenied"),
            "Fetched": ("False", "AccessDenied"),
            "Distributed": OK,
        },
        "one.example: Allow it. (the last good login stays in use)",
    ),
    "one of two has no login": (
        facts(NONE, OTHER),
        {"Ready": ("False", "RegistriesFailed"), "Fetched": ("False", "RegistriesFailed"), "Distributed": OK},
        "1 of 2 registries failed: one.example: It does not answer.",
    ),
    "a source is missing": (
        facts(OTHER, MISSING),
        {
            "Ready": ("False", "SourceMissing"),
            "Stalled": ("True", "SourceMissing"),
            "Fetched": ("False", "SourceMissing"),
            "Distributed": OK,
        },
        "1 of 2 registries failed: one.example: Create it.",
    ),
    "a login has ended": (
        facts(ENDED),
        {"Ready": ("False", "RegistriesFailed"), "Fetched": ("False", "RegistriesFailed"), "Distributed": OK},
        "one.example: Over.",
    ),
    "proven": (
        facts(PROVEN),
        {"Ready": OK, "Fetched": OK, "Verified": OK, "Distributed": OK},
        "1 registry in 3 namespaces",
    ),
    "not proven yet": (
        facts(UNPROVEN),
        {"Ready": OK, "Fetched": OK, "Verified": ("Unknown", "Unverified"), "Distributed": OK},
        "1 registry in 3 namespaces",
    ),
    "proven not to work": (
        facts(BAD),
        {
            "Ready": ("False", "BadCredentials"),
            "Stalled": ("True", "BadCredentials"),
            "Fetched": ("False", "BadCredentials"),
            "Verified": ("False", "BadCredentials"),
            "Distributed": OK,
        },
        "Renew it.",
    ),
    "a foreign Secret": (
        facts(count=failing("Conflict", conflicted=1)),
        {
            "Ready": ("False", "Conflict"),
            "Stalled": ("True", "Conflict"),
            "Fetched": OK,
            "Distributed": ("False", "Conflict"),
        },
        "1 of 3 namespaces: ns-0: Mend Conflict.",
    ),
    "too large": (
        facts(count=failing("TooLarge", failed=1)),
        {
            "Ready": ("False", "TooLarge"),
            "Stalled": ("True", "TooLarge"),
            "Fetched": OK,
            "Distributed": ("False", "TooLarge"),
        },
        "1 of 3 namespaces: ns-0: Mend TooLarge.",
    ),
    "an API server that is slow": (
        facts(count=failing("Unavailable", failed=1)),
        {"Ready": ("False", "NamespacesFailed"), "Fetched": OK, "Distributed": ("False", "NamespacesFailed")},
        "1 of 3 namespaces: ns-0: Mend Unavailable.",
    ),
    "a rival": (
        facts(count=dataclasses.replace(failing("Contended", contended=2), synced=3)),
        {
            "Ready": ("False", "Contended"),
            "Stalled": ("True", "Contended"),
            "Fetched": OK,
            "Distributed": ("False", "Contended"),
        },
        "ns-0: Mend Contended.",
    ),
    "may not write at all": (
        facts(blocked="spec.secretName: add it."),
        {
            "Ready": ("False", "Forbidden"),
            "Stalled": ("True", "Forbidden"),
            "Fetched": OK,
            "Distributed": ("False", "Forbidden"),
        },
        "spec.secretName: add it.",
    ),
    "nothing is selected": (
        facts(count=tally.Count()),
        {"Ready": OK, "Fetched": OK, "Distributed": ("True", "NoNamespaces")},
        "1 registry in 0 namespaces",
    ),
    "suspended": (
        facts(spec={"suspend": True}),
        {"Ready": ("True", "Suspended"), "Fetched": ("True", "Suspended"), "Distributed": OK},
        "what is there stays",
    ),
    "suspended without a login": (
        facts(dataclasses.replace(NONE, reason="Suspended"), spec={"suspend": True}),
        {"Ready": ("False", "Suspended"), "Fetched": ("Unknown", "Suspended"), "Distributed": OK},
        "no login of one.example lives",
    ),
    "suspended until its login ends": (
        facts(dataclasses.replace(ENDED, usable=True), spec={"suspend": True}),
        {"Ready": ("False", "Suspended"), "Fetched": ("True", "Suspended"), "Distributed": OK},
        "no login of one.example lives",
    ),
    "an invalid spec": (
        reporting.Facts(declared(valid=False), (), tally.Count()),
        {"Ready": ("False", "InvalidSpec"), "Stalled": ("True", "InvalidSpec")},
        "spec.registries",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_conditions(case: str) -> None:
    """Facts make these conditions and no others, with what to do in the message of Ready."""
    given_, expected, fragment = TABLE[case]
    built = reporting.build(given_, NOW)
    assert told(built) == expected
    assert fragment in message(built, "Ready")
    assert {row["observedGeneration"] for row in built["conditions"]} == {7}
    assert built["observedGeneration"] == 7


def test_a_whole_status() -> None:
    """Rows, counts, failures and summary say what the facts say."""
    count = failing("Conflict", "Unavailable", conflicted=1, failed=1)
    built = reporting.build(facts(OTHER, LATE, count=count, refresh_handled="now"), NOW)
    assert built["registries"][0] == {
        "server": "one.example",
        "provider": "ecr",
        "identity": "arn:me",
        "issuedAt": "2026-03-01T11:00:00Z",
        "expiresAt": "2026-03-01T13:00:00Z",
        "nextRefreshAt": "2026-03-01T12:30:00Z",
        "reason": "Unreachable",
        "message": "It does not answer.",
    }
    assert [row["server"] for row in built["registries"]] == ["one.example", "two.example"]
    assert built["lastHandledRefreshAt"] == "now"
    assert built["namespaces"] == {"matched": 3, "synced": 1, "failed": 1, "conflicted": 1}
    assert built["serviceAccounts"] == {"matched": 5, "attached": 5}
    assert built["failures"][1] == {"namespace": "ns-1", "reason": "Unavailable", "message": "Mend Unavailable."}
    assert built["failuresTruncated"] is False
    assert built["summary"] == {
        "registries": "2/2",
        "namespaces": "1/3",
        "expiresAt": "2026-03-01T13:00:00Z",
        "refreshedAt": "2026-03-01T11:00:00Z",
    }


def test_a_tenants_status_has_no_namespaces() -> None:
    """The namespaced kind tells of its own namespace only: no counts, no list of failures, no namespace in a message."""
    count = dataclasses.replace(failing("Conflict", conflicted=1), matched=1, synced=0)
    built = reporting.build(facts(count=count, spec={"cluster": False}), NOW)
    assert not {"namespaces", "failures", "failuresTruncated"} & set(built)
    assert set(built["summary"]) == {"registries", "expiresAt", "refreshedAt"}
    assert message(built, "Ready") == "Mend Conflict."


@pytest.mark.parametrize(
    ("row", "shadowed", "reason"),
    [
        (GOOD, {}, "Issued"),
        (PROVEN, {}, "Verified"),
        (GOOD, {"one.example": (2, "ns-a", "ClusterRegistryCredential/first")}, "Shadowed"),
        (GOOD, {"else.example": (2, "ns-a", "ClusterRegistryCredential/first")}, "Issued"),
        (LATE, {"one.example": (2, "ns-a", "ClusterRegistryCredential/first")}, "Unreachable"),
        (dataclasses.replace(GOOD, reason="two words"), {}, "ProviderBroken"),
        (dataclasses.replace(GOOD, reason=""), {}, "ProviderBroken"),
        (dataclasses.replace(GOOD, reason="X" * 300), {}, "ProviderBroken"),
    ],
)
def test_reason_of_a_row(row: keeper.Row, shadowed: dict[str, tuple[int, str, str]], reason: str) -> None:
    """A row says how its login stands, who wins over it, and nothing that is not one word."""
    built = reporting.build(facts(row, count=dataclasses.replace(SERVED, shadowed=shadowed)), NOW)
    assert built["registries"][0]["reason"] == reason
    if reason == "Shadowed":
        said = built["registries"][0]["message"]
        assert said == "ClusterRegistryCredential/first serves this server in 2 namespaces, such as ns-a"


def test_conditions_keep_their_time() -> None:
    """A condition changes its time with its status only; one that was put there by others stays."""
    theirs = {
        "type": "Theirs",
        "status": "True",
        "reason": "X",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    first = reporting.build(facts(spec={"status": {"conditions": [theirs]}}), NOW)
    second = reporting.build(facts(LATE, spec={"status": first}), NOW + HOUR / 2)
    times = {row["type"]: row["lastTransitionTime"] for row in second["conditions"]}
    assert times == {
        "Ready": "2026-03-01T12:00:00Z",
        "Fetched": "2026-03-01T12:30:00Z",
        "Distributed": "2026-03-01T12:00:00Z",
        "Theirs": "2026-01-01T00:00:00Z",
    }


# Events.

CONFLICT = facts(count=failing("Conflict", conflicted=1))
EVENTS: dict[str, tuple[list[reporting.Facts], list[tuple[bool, str]]]] = {
    "becomes ready": ([facts(PENDING), facts()], [(False, "Ready")]),
    "is ready at once": ([facts()], [(False, "Ready")]),
    "is in progress": ([facts(PENDING)], []),
    "is looked at again": ([facts(), facts(pending=2)], []),
    "a renewal": ([facts(), facts(dataclasses.replace(GOOD, issued_at=NOW, expires_at=NOW + 2 * HOUR))], []),
    "a renewal fails": ([facts(), facts(LATE)], [(True, "Unreachable")]),
    "a renewal fails differently": (
        [facts(LATE), facts(dataclasses.replace(LATE, reason="Throttled"))],
        [(True, "Throttled")],
    ),
    "a renewal goes on failing": ([facts(LATE), facts(dataclasses.replace(LATE, message="Still."))], []),
    "recovers": ([facts(NONE), facts()], [(False, "Ready")]),
    "recovers while it was ready": ([facts(LATE), facts()], []),
    "is refused": ([facts(), facts(REFUSED)], [(True, "AccessDenied")]),
    "a login ends": ([facts(LATE), facts(ENDED)], [(True, "RegistriesFailed"), (True, "Expired")]),
    "a foreign Secret": ([facts(), CONFLICT], [(True, "Conflict")]),
    "more foreign Secrets": ([CONFLICT, facts(count=failing("Conflict", "Conflict", conflicted=2))], []),
    "is shadowed": (
        [facts(), facts(count=dataclasses.replace(SERVED, shadowed={"one.example": (1, "a", "K/w")}))],
        [(False, "Shadowed")],
    ),
    "two registries for one reason": (
        [facts(GOOD, OTHER), facts(LATE, dataclasses.replace(LATE, server="two.example"))],
        [(True, "Unreachable")],
    ),
    "is suspended": ([facts(), facts(spec={"suspend": True})], []),
    "becomes invalid": (
        [facts(), reporting.Facts(declared(valid=False), (), tally.Count())],
        [(True, "InvalidSpec")],
    ),
    "is proven": ([facts(UNPROVEN), facts(PROVEN)], []),
    "proof is lost": ([facts(PROVEN), facts(UNPROVEN)], [(True, "Unverified")]),
}


@pytest.mark.parametrize("case", EVENTS)
def test_events(case: str) -> None:
    """The last change of these makes these events, and the same facts once more make none."""
    history, expected = EVENTS[case]
    statuses: list[dict[str, Any]] = [{}]
    for each in history:
        again = dataclasses.replace(each.resource, status=statuses[-1])
        statuses.append(reporting.build(dataclasses.replace(each, resource=again), NOW))
    found = reporting.transitions(statuses[-2], statuses[-1])
    assert [(event.warning, event.reason) for event in found] == expected
    assert all(event.message for event in found)
    assert reporting.transitions(statuses[-1], statuses[-1]) == []


# Laws.

TEXT = st.text(max_size=20) | st.sampled_from(["x" * 9000, "two\nlines", "\ud800"])
WORD = st.sampled_from(["Issued", "Unreachable", "AccessDenied", "Progressing", "", "no word", "X" * 300]) | TEXT
MOMENT = st.datetimes(timezones=st.just(dt.UTC))
SERVER = st.sampled_from([f"{name}.example" for name in ("one", "two", "three")])
ROWS = st.lists(
    st.builds(
        keeper.Row,
        server=SERVER,
        servers=st.lists(SERVER, max_size=3).map(tuple),
        provider=TEXT,
        identity=TEXT,
        issued_at=st.none() | MOMENT,
        expires_at=st.none() | MOMENT,
        next_at=st.none() | MOMENT,
        reason=WORD,
        message=TEXT,
        usable=st.booleans(),
        settled=st.booleans(),
        stalled=st.booleans(),
        pending=st.booleans(),
        verified=st.none() | st.booleans(),
        wants_proof=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda row: row.server,
)
NUMBER = st.integers(0, 20_000)
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just("x" * 5000)
FAILURE = st.builds(
    tally.Failure,
    namespace=st.sampled_from([f"ns-{number}" for number in range(40)]),
    reason=st.sampled_from(["Conflict", "Contended", "TooLarge", "Unavailable", "Forbidden"]),
    message=PLAIN,
)
COUNTS = st.builds(
    tally.Count,
    **dict.fromkeys(("matched", "synced", "failed", "conflicted", "waiting", "accounts", "attached"), NUMBER),
    contended=NUMBER,
    left=NUMBER,
    failures=st.lists(FAILURE, max_size=30),
    truncated=st.booleans(),
    shadowed=st.dictionaries(SERVER, st.tuples(NUMBER, PLAIN, PLAIN), max_size=2),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=8,
)
#: What stands in the cluster as the status: anything at all, also where ours would be.
STANDING = st.dictionaries(st.sampled_from(["conditions", "registries", "summary", "x"]), JSON, max_size=3)
FACTS = st.builds(
    reporting.Facts,
    resource=st.builds(
        dataclasses.replace,
        st.sampled_from(
            [
                declared(),
                declared(cluster=False),
                declared(suspend=True),
                declared(cluster=False, suspend=True),
                declared(valid=False),
            ]
        ),
        status=STANDING,
    ),
    rows=ROWS,
    count=COUNTS,
    pending=st.integers(0, 3),
    refresh_handled=PLAIN,
    blocked=st.just("") | PLAIN,
)


@given(FACTS, MOMENT)
def test_whatever_the_facts(facts: reporting.Facts, now: dt.datetime) -> None:
    """A status can always be made, is what the CRD's schema allows, and loses nothing when the API server stores it."""
    built = reporting.build(facts, now)
    schema = api_support.schema_of(facts.resource.kind)["properties"]["status"]
    assert api_support.violations(schema, built) == []
    assert api_support.stored(schema, built) == built
    assert len(built.get("failures", ())) <= status.MAX_FAILURES
    assert all(len(row["message"]) <= conditions.MAX_MESSAGE for row in built["conditions"])
    str(built).encode()


@given(FACTS, MOMENT)
def test_conditions_follow_kstatus(facts: reporting.Facts, now: dt.datetime) -> None:
    """Ready is always told; Stalled and Reconciling stand only while True, not together, and never beside a true Ready."""
    found = told(reporting.build(facts, now))
    assert found["Ready"][0] in ("True", "False")
    assert found.get("Stalled", ("True",))[0] == found.get("Reconciling", ("True",))[0] == "True"
    assert not {"Stalled", "Reconciling"} <= set(found)
    if {"Stalled", "Reconciling"} & set(found):
        assert found["Ready"][0] == "False"
    if "Stalled" in found:
        assert found["Stalled"][1] == found["Ready"][1]


@example(facts(dataclasses.replace(GOOD, usable=False), count=tally.Count()), NOW)
@example(facts(dataclasses.replace(UNPROVEN, usable=False)), NOW)
@given(FACTS, MOMENT)
def test_ready_means_that_pods_start(facts: reporting.Facts, now: dt.datetime) -> None:
    """Ready is true only where every login is there, or what was suspended lives, and no namespace is in trouble."""
    found = told(reporting.build(facts, now))
    if found["Ready"][0] != "True":
        return
    assert facts.resource.spec is not None
    assert all(row.usable for row in facts.rows)
    if found["Ready"][1] != "Suspended":
        count = facts.count
        assert not any((facts.pending, facts.blocked, count.failed, count.conflicted, count.contended))
        assert not any(row.pending or (row.stalled and not row.settled) for row in facts.rows)


@settings(max_examples=50)
@given(FACTS, FACTS, MOMENT)
def test_an_event_for_each_change_and_none_without(
    one: reporting.Facts, other: reporting.Facts, now: dt.datetime
) -> None:
    """Whatever turns into whatever, events can be made of it, one a reason; what stays as it is makes none."""
    before, after = reporting.build(one, now), reporting.build(other, now)
    found = reporting.transitions(before, after)
    assert len({event.reason for event in found}) == len(found)
    assert len(found) <= 1 + len(after["registries"])
    assert reporting.transitions(after, after) == []


@given(STANDING, FACTS)
def test_events_after_a_foreign_status(standing: dict[str, Any], facts: reporting.Facts) -> None:
    """Whatever somebody wrote into the status before, the change from it is told."""
    after = reporting.build(facts, NOW)
    found = reporting.transitions(standing, after)
    ready = told(after)["Ready"]
    assert ready[1] == "Progressing" or any(event.reason in ("Ready", ready[1]) for event in found)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((GOOD, dataclasses.replace(OTHER, expires_at=NOW + 2 * HOUR)), NOW + HOUR),
        ((ENDED,), None),
        ((dataclasses.replace(GOOD, expires_at=None),), None),
    ],
)
def test_when_time_alone_changes_it(rows: tuple[keeper.Row, ...], expected: dt.datetime | None) -> None:
    """The end of the first login that is in use changes the status; one that has ended changes nothing more."""
    assert reporting.until(facts(*rows)) == expected
