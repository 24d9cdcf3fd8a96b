"""A status is always written: complete, bounded, and as its schema has it."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.api import conditions, names, status
from tests.api import api_support

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
TEXT = st.text(max_size=30)
LONG = st.one_of(TEXT, st.integers(0, 3).map(lambda size: "x" * 5000 * size))
TIMES = st.none() | st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
COUNTS = st.integers(0, 10_000)
ROWS = st.lists(
    st.builds(
        status.RegistryStatus,
        server=TEXT,
        provider=st.none() | TEXT,
        identity=st.none() | LONG,
        issued_at=TIMES,
        expires_at=TIMES,
        next_refresh_at=TIMES,
        reason=TEXT,
        message=st.none() | LONG,
    ),
    max_size=64,
    unique_by=lambda row: row.server,
)
CONDITIONS = st.lists(st.sampled_from(conditions.ORDER), unique=True).map(
    lambda types: conditions_of(types),
)


def conditions_of(types):
    found = None
    for type_ in types:
        found = conditions.set_condition(found, type_, "True", "Succeeded", "m", generation=1, now=NOW)
    return tuple(status.Condition.model_validate(each) for each in found or ())


@given(
    rows=ROWS,
    failures=st.lists(st.builds(status.Failure, namespace=TEXT, reason=TEXT, message=LONG), max_size=30),
    conditions_=CONDITIONS,
    counts=st.builds(status.NamespaceCounts, matched=COUNTS, synced=COUNTS, failed=COUNTS, conflicted=COUNTS),
    summary=st.builds(
        status.ClusterSummary,
        registries=st.none() | LONG,
        expires_at=st.none() | LONG,
        namespaces=LONG,
        refreshed_at=TIMES,
    ),
)
def test_every_status_is_what_the_schema_allows(rows, failures, conditions_, counts, summary):
    """Whatever is put into a status, the API server takes it: long texts are cut, long lists bounded."""
    bounded, truncated = status.bounded_failures(failures)
    document = status.ClusterStatus(
        observed_generation=1,
        last_handled_refresh_at="x" * 1000,
        conditions=conditions_,
        registries=tuple(rows),
        namespaces=counts,
        failures=bounded,
        failures_truncated=truncated,
        summary=summary,
    ).to_dict()
    schema = api_support.schema_of(names.CLUSTER_KIND)["properties"]["status"]
    assert api_support.violations(schema, document) == []
    assert api_support.stored(schema, document) == document


def test_dictionary():
    """A status is written in camelCase, with times in RFC 3339, and without what is not known."""
    written = status.Status(
        observed_generation=3,
        registries=(status.RegistryStatus(server="quay.io", reason="Issued", issued_at=NOW),),
        service_accounts=status.ServiceAccountCounts(matched=2, attached=1),
        summary=status.Summary(registries="1/1", expires_at="never", refreshed_at=NOW),
    ).to_dict()
    assert written == {
        "observedGeneration": 3,
        "conditions": [],
        "registries": [{"server": "quay.io", "issuedAt": "2026-01-02T03:04:05Z", "reason": "Issued"}],
        "serviceAccounts": {"matched": 2, "attached": 1},
        "summary": {"registries": "1/1", "expiresAt": "never", "refreshedAt": "2026-01-02T03:04:05Z"},
    }


def test_written_status_is_read_back():
    """What was written gives the same model again, and what another version added is passed over."""
    first = status.Status(conditions=conditions_of(["Ready"]), registries=(), observed_generation=1)
    assert status.Status.model_validate(first.to_dict() | {"addedLater": 1}) == first


@pytest.mark.parametrize("kind", [names.CLUSTER_KIND, names.NAMESPACED_KIND])
def test_status_of_each_kind_has_the_schema_of_its_kind(kind):
    """A status never holds a field that the API server would prune, which would be written for ever."""
    schema = api_support.schema_of(kind)["properties"]["status"]
    model = status.STATUSES[kind]
    assert {field.alias for field in model.model_fields.values()} == set(schema["properties"])


def test_failures_are_bounded():
    """Twenty failures are listed, the first by name, and the status says that there are more."""
    failures = [status.Failure(namespace=f"n-{index:02}", reason="Conflict", message="") for index in range(21)]
    listed, truncated = status.bounded_failures(reversed(failures))
    assert listed == tuple(failures[:20])
    assert truncated
    assert status.bounded_failures(failures[:20]) == (tuple(failures[:20]), False)


def test_first_expiry_is_shown():
    """The column shows when the first login ends, or that none does."""
    later = NOW + dt.timedelta(hours=1)
    assert status.summarise([None, later, NOW]) == "2026-01-02T03:04:05Z"
    assert status.summarise([None]) == "never"
    assert status.summarise([]) == "never"
