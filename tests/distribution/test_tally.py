"""The counts of a status are those of the last outcome of each namespace, however they came about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.distribution import model, tally
from regcred.distribution.model import Outcome, State


def failed(reason="Forbidden", **rest):
    return Outcome(State.FAILED, reason, f"{reason} happened", **rest)


def test_counts():
    """Every state has its count, and accounts are summed up."""
    counted = tally.Tally()
    counted.put("a", Outcome(State.SYNCED, accounts=2, attached=2))
    counted.put("b", Outcome(State.WAITING, accounts=1))
    counted.put("c", Outcome(State.CONFLICT, "Conflict", "taken", accounts=1, left=1))
    counted.put("d", failed(accounts=3, attached=1))
    counted.put("e", Outcome(State.SYNCED, accounts=1, contended=("default",)))
    assert counted.count() == tally.Count(
        matched=5,
        synced=2,
        failed=1,
        conflicted=1,
        waiting=1,
        accounts=8,
        attached=3,
        contended=1,
        left=1,
        failures=[
            tally.Failure("c", "Conflict", "taken"),
            tally.Failure("d", "Forbidden", "Forbidden happened"),
            tally.Failure("e", "Contended", counted.count().failures[2].message),
        ],
    )
    assert "service accounts default;" in counted.count().failures[2].message


def test_news():
    """Only what differs from before is news."""
    counted = tally.Tally()
    assert not counted.put("a", None)
    assert counted.put("a", Outcome(State.SYNCED))
    assert not counted.put("a", Outcome(State.SYNCED))
    assert counted.put("a", Outcome(State.SYNCED, accounts=1))
    assert counted.put("a", None)
    assert not counted.put("a", None)
    assert counted.count() == tally.Count(failures=[])
    assert counted.namespaces == frozenset()


def test_failures_are_bounded():
    """The first twenty by namespace are listed, and that there are more is told."""
    counted = tally.Tally()
    for number in reversed(range(tally.LISTED)):
        counted.put(f"n{number:02}", failed())
    assert not counted.count().truncated
    counted.put("n99", failed())
    assert counted.count().truncated
    assert [failure.namespace for failure in counted.count().failures] == [
        f"n{number:02}" for number in range(tally.LISTED)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], {}),
        ([("b", "winner/b"), ("a", "winner/a")], {"quay.io": (2, "a", "winner/a")}),
        ([("a", "winner/a"), ("a", None)], {}),
        ([("a", "winner/a"), ("b", "winner/b"), ("a", None)], {"quay.io": (1, "b", "winner/b")}),
        ([("a", "winner/a"), ("a", "winner/other")], {"quay.io": (1, "a", "winner/other")}),
    ],
)
def test_shadows(rows, expected):
    """For each server it is told in how many namespaces another resource serves it, and an example."""
    counted = tally.Tally()
    for namespace, winner in rows:
        shadowed = (("quay.io", winner),) if winner else ()
        counted.put(namespace, Outcome(State.SYNCED, shadowed=shadowed))
    assert counted.count().shadowed == expected


OUTCOMES = st.none() | st.builds(
    Outcome,
    state=st.sampled_from(State),
    reason=st.sampled_from(["", "Conflict", "Forbidden"]),
    message=st.just("m"),
    accounts=st.integers(0, 5),
    attached=st.integers(0, 5),
    contended=st.sampled_from([(), ("default",), ("a", "b", "c", "d")]),
    left=st.integers(0, 2),
    shadowed=st.sampled_from([(), (("quay.io", "w"),), (("quay.io", "v"), ("ghcr.io", "w"))]),
)


@given(puts=st.lists(st.tuples(st.sampled_from("abcdef"), OUTCOMES), max_size=30))
def test_history_does_not_matter(puts):
    """The counts after any history are those of its end told in one go."""
    counted, fresh = tally.Tally(), tally.Tally()
    for namespace, outcome in puts:
        counted.put(namespace, outcome)
    end: dict[str, model.Outcome | None] = dict(puts)
    for namespace in sorted(end):
        fresh.put(namespace, end[namespace])
    assert counted.count() == fresh.count()
    assert counted.namespaces == {namespace for namespace, outcome in end.items() if outcome is not None}
