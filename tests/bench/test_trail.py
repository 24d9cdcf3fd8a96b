"""The audit log tells who did what and how long it took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.bench import sightings, trail

OPERATOR = "system:serviceaccount:regcred-system:regcred"


def line(**changes: Any) -> bytes:
    """One line of an audit log."""
    document: dict[str, Any] = {
        "stage": "ResponseComplete",
        "verb": "patch",
        "user": {"username": OPERATOR},
        "objectRef": {"resource": "secrets", "namespace": "a", "name": "regcred", "apiVersion": "v1"},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.250000Z",
        "stageTimestamp": "2026-01-01T00:00:00.253125Z",
    }
    return json.dumps({**document, **changes}).encode() + b"\n"


def request(
    verb: str, resource: str, namespace: str, name: str, at: float, *, code: int = 200, user: str = OPERATOR
):
    return trail.Request(user, verb, resource, namespace, name, code, at - 0.001, at)


def test_line() -> None:
    """A line gives the user, the verb, the object and both times to the microsecond."""
    found = trail.parse(line())
    assert found is not None
    assert (found.user, found.verb, found.resource, found.namespace, found.name) == (
        OPERATOR,
        "patch",
        "secrets",
        "a",
        "regcred",
    )
    assert found.answered - found.received == pytest.approx(0.003125, abs=1e-6)
    assert found.done


@pytest.mark.parametrize("changes", [{"stage": "ResponseStarted"}, {"objectRef": None}])
def test_line_of_something_else(changes: dict[str, Any]) -> None:
    """A request that is not answered yet, or is about no object, is left out."""
    assert trail.parse(line(**changes)) is None


def test_busy(tmp_path: Path) -> None:
    """While many requests are answered nothing is read; a few, such as a Lease's, do not count."""
    path = tmp_path / "audit.log"
    path.write_bytes(line() * 500)
    log = trail.Audit(path)
    assert not log.busy()
    with path.open("ab") as file:
        file.write(line() * 200)
        file.flush()
        assert log.busy()
        assert not log.busy()
        file.write(line() * 3)
        file.flush()
        assert not log.busy()
    assert len(log.read()) == 203


def test_subresource() -> None:
    """A subresource is told apart from its object."""
    found = trail.parse(line(objectRef={"resource": "pods", "subresource": "eviction", "name": "p"}))
    assert found is not None
    assert found.resource == "pods/eviction"


def test_log_is_read_as_it_grows(tmp_path: Path) -> None:
    """What stood there before is left out, and a line that is half written is taken once it is whole."""
    log = tmp_path / "audit.log"
    log.write_bytes(line(verb="get"))
    audit = trail.Audit(log)
    whole = line()
    with log.open("ab") as file:
        file.write(whole + whole[:40])
    assert [row.verb for row in audit.read()] == ["patch"]
    with log.open("ab") as file:
        file.write(whole[40:])
    assert len(audit.read()) == 2


def test_counts() -> None:
    """Requests are counted by verb and kind, and refusals apart."""
    rows = [
        request("patch", "secrets", "a", "regcred", 1.0),
        request("patch", "secrets", "b", "regcred", 1.0),
        request("patch", "serviceaccounts", "a", "default", 2.0, code=409),
        request("get", "serviceaccounts", "a", "default", 2.0),
    ]
    assert trail.counted(rows) == {
        "patch secrets": 2,
        "get serviceaccounts": 1,
        "patch serviceaccounts (409)": 1,
    }
    assert len(trail.written(rows, "secrets", "regcred")) == 2
    assert trail.written(rows, "secrets", "other") == []
    assert trail.written(rows, "serviceaccounts") == []


def test_delays() -> None:
    """A delay runs from an account's birth to the first successful change by the operator."""
    rows = [
        request("create", "serviceaccounts", "a", "default", 1.0, code=201, user="controller"),
        request("update", "serviceaccounts", "a", "default", 1.1, user="controller"),
        request("patch", "serviceaccounts", "a", "default", 1.2, code=409),
        request("patch", "serviceaccounts", "a", "default", 1.5),
        request("patch", "serviceaccounts", "a", "default", 1.9),
    ]
    born = trail.births(rows)
    assert trail.delays(born, trail.entries(rows, OPERATOR)) == [pytest.approx(0.5)]


def test_an_account_that_was_not_served_is_an_error() -> None:
    """An account without an entry does not silently leave the percentile."""
    with pytest.raises(LookupError, match="1 of 2"):
        trail.delays({("a", "default"): 1.0, ("b", "default"): 1.0}, {("a", "default"): 2.0})


def test_own_creation_is_no_entry() -> None:
    """Who creates an account has not served it by that."""
    assert trail.entries([request("create", "serviceaccounts", "a", "x", 1.0, code=201)], OPERATOR) == {}


def test_sightings_tell_the_same() -> None:
    """Where the audit log is not ours, events of watches become the same births, entries and writes."""
    seen = sightings.Sightings(OPERATOR, "bench")
    meta = {"namespace": "a", "name": "default"}
    seen.account("ADDED", {"metadata": meta}, 1.0)
    seen.account("MODIFIED", {"metadata": meta, "secrets": [{"name": "token"}]}, 1.1)
    seen.account("MODIFIED", {"metadata": meta, "imagePullSecrets": [{"name": "regcred"}]}, 1.5)
    seen.secret("ADDED", {"metadata": {"namespace": "a", "name": "regcred"}}, 1.4)
    seen.secret("ADDED", {"metadata": {"namespace": "a", "name": "default-token-x"}}, 1.4)
    rows = seen.read()
    assert trail.delays(trail.births(rows), trail.entries(rows, OPERATOR)) == [pytest.approx(0.5)]
    assert len(trail.written(rows, "secrets")) == 1
