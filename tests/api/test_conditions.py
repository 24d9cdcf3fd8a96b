"""Conditions keep the rules that kubectl, Flux and Argo CD rely on."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.api import conditions, times

T0 = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
T1 = T0 + dt.timedelta(minutes=5)
TYPES = [*conditions.ORDER, "Other", "Another"]
STATUSES = ["True", "False", "Unknown"]


def _set(existing, type_=conditions.READY, status="True", *, reason="Succeeded", message="", generation=1, now=T0):
    return conditions.set_condition(existing, type_, status, reason, message, generation=generation, now=now)


def test_first_condition():
    """A condition that was not there begins now, with every field of metav1.Condition."""
    assert _set(None, message="Every registry has a login.") == [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "Succeeded",
            "message": "Every registry has a login.",
        }
    ]


def test_time_changes_only_on_a_flip():
    """Another reason, message or generation leaves lastTransitionTime alone; another status moves it."""
    before = _set(None)
    same = _set(before, reason="Progressing", message="Still good.", generation=2, now=T1)
    assert same[0]["lastTransitionTime"] == times.format_time(T0)
    assert same[0]["observedGeneration"] == 2
    flipped = _set(same, status="False", now=T1)
    assert flipped[0]["lastTransitionTime"] == times.format_time(T1)


@pytest.mark.parametrize("type_", sorted(conditions.ONLY_TRUE))
@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_abnormal_conditions_exist_only_while_true(type_, status):
    """Reconciling and Stalled vanish when they are no longer True, and are never written otherwise."""
    present = _set(None, type_)
    assert conditions.find_condition(present, type_)["status"] == "True"
    assert _set(present, type_, status) == []
    assert _set(None, type_, status) == []


@given(st.permutations(TYPES))
def test_order_is_stable(order):
    """In whatever order conditions are set, they stand in the same one."""
    result = None
    for type_ in order:
        result = _set(result, type_)
    assert [condition["type"] for condition in result] == [*conditions.ORDER, "Another", "Other"]


@given(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(STATUSES), st.integers(0, 3)), max_size=12))
def test_history_of_changes(changes):
    """After any history each type stands at most once, with its last status, since the last flip."""
    result, since = None, {}
    for index, (type_, status, generation) in enumerate(changes):
        now = T0 + dt.timedelta(minutes=index)
        if type_ in conditions.ONLY_TRUE and status != "True":
            since.pop(type_, None)
        elif since.get(type_, ("", None))[0] != status:
            since[type_] = (status, times.format_time(now))
        before = repr(result)
        updated = _set(result, type_, status, generation=generation, now=now)
        assert repr(result) == before
        result = updated
    found = {condition["type"]: condition for condition in result or []}
    assert len(found) == len(result or [])
    assert {type_: (each["status"], each["lastTransitionTime"]) for type_, each in found.items()} == since


@pytest.mark.parametrize("existing", [None, [], "x", {}, 3, [None, 1, "a", {}, {"type": 3}], [{"type": "Ready"}]])
def test_nonsense_in_a_status_is_survived(existing):
    """Whatever stood where conditions belong, the result is conditions."""
    (condition,) = _set(existing)
    assert condition["type"] == "Ready"
    assert condition["lastTransitionTime"] == times.format_time(T0)


def test_removal():
    """A condition that no longer says anything goes, the others stay."""
    both = _set(_set(None), conditions.VERIFIED)
    assert [each["type"] for each in conditions.remove_condition(both, conditions.VERIFIED)] == ["Ready"]
    assert conditions.remove_condition(both, "Missing") == both
    assert conditions.find_condition(both, "Missing") is None


def test_long_messages_are_cut():
    """A message that the schema would refuse is cut, so that the status is written all the same."""
    (condition,) = _set(None, message="x" * 100_000)
    assert len(condition["message"]) == conditions.MAX_MESSAGE
    assert condition["message"].endswith("x...")


def test_number_of_conditions_is_bounded():
    """Conditions of others do not crowd out ours, nor grow a status without end."""
    crowd = [{"type": f"A{index:03}", "status": "True"} for index in range(100)]
    result = _set(crowd)
    assert len(result) == conditions.MAX_CONDITIONS
    assert result[0]["type"] == "Ready"


@pytest.mark.parametrize("reason", ["", "two words", "1st", "Trailing,", "x" * 2000])
def test_reason_must_be_storable(reason):
    """A reason that the API server would refuse is a mistake of ours, found at once."""
    with pytest.raises(ValueError, match="CamelCase"):
        _set(None, reason=reason)


@pytest.mark.parametrize("reasons", [conditions.Reason, conditions.RegistryReason])
def test_reasons_are_documented_words(reasons):
    """Each reason is a word that a condition takes, and carries one sentence for the reference."""
    for reason in reasons:
        (condition,) = _set(None, reason=reason)
        assert condition["reason"] == reason.value == str(reason)
        assert type(condition["reason"]) is str
        assert reason.doc.endswith(".")
    assert len({reason.value for reason in reasons}) == len(reasons)


@given(st.datetimes(timezones=st.timezones()))
def test_times_survive_being_written(moment):
    """A written time, read back, is the same to the second."""
    try:
        written = times.format_time(moment)
    except OverflowError:
        return
    assert times.parse_time(written) == moment.astimezone(dt.UTC).replace(microsecond=0)


def test_times_look_as_kubernetes_writes_them():
    """UTC, to the second, with a Z."""
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert times.format_time(moment) == "2026-01-02T01:04:05Z"
    assert times.parse_time("2026-01-02T03:04:05+02:00") == times.parse_time("2026-01-02T01:04:05Z")


def test_times_without_zone_are_refused():
    """Nobody knows when a time without time zone is."""
    with pytest.raises(ValueError, match="time zone"):
        times.format_time(dt.datetime(2026, 1, 2))  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        times.parse_time("2026-01-02T03:04:05")
    with pytest.raises(ValueError, match="outside the calendar"):
        times.parse_time("0001-01-01T00:00:00+10:00")
