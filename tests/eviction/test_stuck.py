"""Which pods may be evicted: the whole table, and that no pod is evicted twice."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import kubelet
from regcred.api import names, resource
from regcred.cluster import views
from regcred.eviction import evictor, stuck

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
EARLY = NOW - dt.timedelta(hours=1)


def asking(**spec: Any) -> resource.Resource:
    return resource.parse(
        {
            "kind": names.CLUSTER_KIND,
            "metadata": {
                "name": "platform",
                "uid": "asks",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "registries": [{"server": "r.io", "login": {"secretRef": {"name": "x"}}}],
                "namespaces": {},
                "pods": {"restartStuck": True},
                **spec,
            },
        }
    )


APP = kubelet.Container("app", "r.io/app:1", "ImagePullBackOff", "401 Unauthorized")
POD = kubelet.Pod(
    "team-a",
    "web-0",
    "p",
    "1",
    EARLY,
    "Pending",
    "default",
    (),
    ("ReplicaSet", "web"),
    (APP,),
    labels={"app": "web"},
)
ACCOUNT = views.AccountView("team-a", "default", "a", "1", ("regcred",))
SECRET = views.SecretView(
    "team-a", "regcred", "s", "1", ours=True, servers=(views.Standing("r.io", "asks", "2026-06-01T13:00:00Z"),)
)


def judge(
    pod: kubelet.Pod = POD,
    account: views.AccountView | None = ACCOUNT,
    secret: views.SecretView | None = SECRET,
    resource_: resource.Resource | None = None,
) -> bool:
    found = stuck.judge(pod, account, secret, resource_ or asking(), NOW)
    return stuck.waits(pod) and found is not None


def test_the_case_it_is_for() -> None:
    """A Pending pod of a controller that waits for an image of ours, lacking the Secret that its account lists."""
    assert judge()


def with_container(**changes: Any) -> kubelet.Pod:
    return dataclasses.replace(POD, containers=(dataclasses.replace(APP, **changes),))


@pytest.mark.parametrize(
    "pod",
    [
        dataclasses.replace(POD, phase="Running"),
        dataclasses.replace(POD, terminating=True),
        dataclasses.replace(POD, controller=None),
        dataclasses.replace(POD, controller=("Node", "node-1")),
        dataclasses.replace(POD, pull_secrets=("regcred",)),
        dataclasses.replace(POD, pull_secrets=("own",)),
        with_container(reason="CrashLoopBackOff"),
        with_container(reason="ContainerCreating"),
        with_container(reason="InvalidImageName"),
        with_container(message="manifest unknown"),
        with_container(message="x509: certificate signed by unknown authority"),
        with_container(message="no such host"),
        with_container(message="toomanyrequests: Rate exceeded"),
        with_container(image="other.io/app:1"),
        with_container(image="r.io:5000/app:1"),
        with_container(image="r.io/NOT-AN-IMAGE"),
    ],
    ids=str,
)
def test_pods_that_are_left_alone(pod: kubelet.Pod) -> None:
    """Whatever runs, is nobody's, has a list of its own, or fails for another reason is not touched."""
    assert not judge(pod)


@pytest.mark.parametrize(
    ("account", "secret"),
    [
        (None, SECRET),
        (dataclasses.replace(ACCOUNT, pull_secrets=()), SECRET),
        (dataclasses.replace(ACCOUNT, ignored=True), SECRET),
        (dataclasses.replace(ACCOUNT, name="build"), SECRET),
        (ACCOUNT, None),
        (ACCOUNT, dataclasses.replace(SECRET, ours=False)),
        (ACCOUNT, dataclasses.replace(SECRET, terminating=True)),
        (ACCOUNT, dataclasses.replace(SECRET, servers=())),
        (ACCOUNT, dataclasses.replace(SECRET, servers=(views.Standing("r.io", "another"),))),
        (ACCOUNT, dataclasses.replace(SECRET, servers=(views.Standing("r.io", "asks", "2026-06-01T11:59:59Z"),))),
    ],
)
def test_where_a_successor_would_fare_no_better(
    account: views.AccountView | None, secret: views.SecretView | None
) -> None:
    """Without an entry in the account, or a living login of the resource that asks, nothing is evicted."""
    assert not judge(account=account, secret=secret)


@pytest.mark.parametrize(
    ("spec", "asked"),
    [({}, True), ({"pods": {"restartStuck": False}}, False), ({"pods": {}}, False), ({"suspend": True}, False)],
)
def test_who_asks(spec: dict[str, Any], asked: bool) -> None:
    """Only a resource that says so, and is not suspended."""
    assert evictor.asks(asking(**spec)) is asked


@pytest.mark.parametrize(
    "message", ["", "Back-off pulling image", "pull access denied", "unauthorized", "no basic auth credentials"]
)
def test_messages_that_a_login_may_mend(message: str) -> None:
    """A refusal, and a back-off of which nothing more is said."""
    assert judge(with_container(message=message))


def test_any_sort_of_container_counts() -> None:
    """One container that waits for us is enough, whatever the others do."""
    fine = kubelet.Container("init", "public.io/x", "", "", started=True)
    assert judge(dataclasses.replace(POD, containers=(fine, APP)))


@given(st.integers(-5, 5), st.booleans())
def test_no_pod_after_the_entry_is_ever_old(seconds: int, empty: bool) -> None:
    """What was created later than the list was written is left alone, so a successor never meets the same fate."""
    pod = dataclasses.replace(
        POD, created=NOW + dt.timedelta(seconds=seconds), pull_secrets=() if empty else ("old",)
    )
    assert stuck.older(pod, NOW) is (seconds <= 0)


def test_where_nobody_knows_when() -> None:
    """Without a time only an empty list tells: a new pod would have copied it."""
    assert stuck.older(POD, None)
    assert not stuck.older(dataclasses.replace(POD, pull_secrets=("old",)), None)


def budget(**changes: Any) -> dict[str, Any]:
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 2,
        "expectedPods": 3,
    }
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}
    spec |= changes.pop("spec", {})
    return {"metadata": {"name": "b", "generation": 1}, "spec": spec, "status": status | changes}


@pytest.mark.parametrize(
    ("one", "holds"),
    [
        # All three are stuck: the budget would let one go once they run, and what never ran makes nothing worse.
        (budget(), False),
        (budget(disruptionsAllowed=1), False),
        (budget(desiredHealthy=3), True),
        (budget(desiredHealthy=3, disruptionsAllowed=1), False),
        (budget(desiredHealthy=3, spec={"unhealthyPodEvictionPolicy": "AlwaysAllow"}), False),
        (budget(desiredHealthy=3, spec={"unhealthyPodEvictionPolicy": "IfHealthyBudget"}), True),
        (budget(observedGeneration=0), True),
        (budget(desiredHealthy=3, spec={"selector": {"matchLabels": {"app": "api"}}}), False),
        (budget(desiredHealthy=3, spec={"selector": {}}), True),
        (budget(desiredHealthy=3, spec={"selector": None}), False),
        (
            budget(
                desiredHealthy=3,
                spec={"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}},
            ),
            True,
        ),
        (
            {"metadata": {"name": "b", "generation": 1}, "spec": {"selector": {"matchLabels": {"app": "web"}}}},
            True,
        ),
    ],
)
def test_budgets(one: dict[str, Any], holds: bool) -> None:
    """A budget that lets no pod go ever, or was not computed yet, holds a pod; no other does."""
    assert stuck.holding_budget([budget(disruptionsAllowed=2), one], {"app": "web"}) == ("b" if holds else "")


def test_the_store_forgets_what_does_not_wait() -> None:
    """Of all pods only those that could be evicted are kept, and none longer than it is Pending."""
    woken: list[int] = []
    store = evictor.Waiting(lambda: woken.append(1))

    def body(name: str, reason: str) -> dict[str, Any]:
        return {
            "metadata": {
                "namespace": "a",
                "name": name,
                "uid": name,
                "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "controller": True}],
            },
            "spec": {"containers": [{"name": "c", "image": "r.io/a"}]},
            "status": {
                "phase": "Pending",
                "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": reason}}}],
            },
        }

    store.upsert(body("fine", "ContainerCreating"))
    assert (store.pods, woken) == ({}, [])
    for name in ("one", "two", "three"):
        store.upsert(body(name, "ErrImagePull"))
    assert len(woken) == 3
    store.upsert(body("one", "ContainerCreating"))
    store.remove(body("two", "ErrImagePull"))
    assert list(store.pods) == [("a", "three")]
    store.replace([("a", "one")], "9")
    assert store.pods == {}
