"""The judges of the soak and of the hand-overs: what they count, and what they do not."""

from __future__ import annotations

from dev.audit import Request
from dev.replicas import double_writes
from dev.soak.samples import Sample, growths
from dev.soak.verdict import wrong_writes


def request(pod: str, second: int, resource: str = "secrets", **more: object) -> Request:
    """A write that takes a tenth of a second."""
    known: dict[str, object] = {
        "user": "operator",
        "verb": "patch",
        "group": "",
        "resource": resource,
        "subresource": "",
        "namespace": "team-a",
        "name": "regcred",
        "code": 200,
    }
    at, began = f"2026-01-01T00:00:{second:02}.100000Z", f"2026-01-01T00:00:{second:02}.000000Z"
    return Request(**{**known, **more}, at=at, began=began, pod=pod)  # type: ignore[arg-type]


def test_a_write_after_another_has_the_lease_is_double() -> None:
    """Only what arrives after the Lease was stored for another counts: not what was under way, not what was refused."""
    lease = {"resource": "leases", "verb": "update", "namespace": "regcred-system"}
    story = [
        request("a", 1, **lease),
        request("a", 2),
        request("b", 3, **lease, code=409),
        request("a", 4),
        request("b", 5, **lease),
        request("a", 5),
        request("b", 6),
        request("a", 7, code=409),
        request("a", 8),
    ]
    assert [(row.leader, row.write.began[17:19]) for row in double_writes(story)] == [("b", "08")]


def test_a_write_to_what_is_none_of_its_business_is_wrong() -> None:
    """Other Secrets, protected namespaces and other kinds are told; what the operator is for is not."""
    fine = [
        request("a", 1),
        request("a", 2, "serviceaccounts", name="default"),
        request("a", 3, name="regcred-cache-1", namespace="regcred-system"),
        request("a", 4, name="other", code=403),
    ]
    wrong = [
        request("a", 5, name="other"),
        request("a", 6, namespace="kube-system"),
        request("a", 7, "configmaps"),
        request("a", 8, name="source", namespace="regcred-system"),
    ]
    assert len(wrong_writes([*fine, *wrong])) == len(wrong)


def test_growth_is_seen_and_a_plateau_is_none() -> None:
    """A leader whose memory rises by more than comes and goes is told; one that stays the same is not."""

    def life(pid: int, rise: float) -> list[Sample]:
        return [
            Sample(float(at), "a", pid, True, 100 + rise * at / 3600, 50, 40, 10, 80, 1.0)
            for at in range(0, 3600, 10)
        ]

    found = {row.pid: row for row in growths([*life(1, 0.0), *life(2, 120.0)]) if row.measure == "memory"}
    assert not found[1].grows
    assert found[2].grows
    assert round(found[2].hourly) == 120
    assert growths(life(3, 120.0)[:20]) == []
