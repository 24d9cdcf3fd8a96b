"""Metrics say what is so, and there are never too many of them."""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.operator_process import OperatorProcess, install
from dev.processes import tail
from dev.waiting import eventually
from regcred import gauges, telemetry
from regcred.api import names, resource
from regcred.credentials import keeper, provider
from regcred.distribution import tally

END = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass
class Facts:
    count: tally.Count


@dataclasses.dataclass
class Queue:
    depth: int = 3
    retrying: int = 2


class Engine:
    """What the gauges ask of the engine."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.resources: dict[str, resource.Resource] = {}
        self._rows: dict[str, list[keeper.Row]] = {}
        self._counts: dict[str, tally.Count] = {}

    def add(
        self, name: str, *rows: keeper.Row, namespace: str = "", count: tally.Count | None = None, **more: Any
    ):
        uid = f"{namespace}/{name}"
        spec = {"registries": [{"server": "r.example.com", "login": {"secretRef": {"name": "x"}}}]}
        cluster = not namespace
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.CLUSTER_KIND if cluster else names.NAMESPACED_KIND,
            "metadata": {"name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
            | ({"namespace": namespace} if namespace else {}),
            "spec": spec | ({"namespaces": {}} if cluster else {}) | more.pop("spec", {}),
            **more,
        }
        self.resources[uid] = resource.parse(body)
        assert self.resources[uid].problems == ()
        self._rows[uid], self._counts[uid] = list(rows), count or tally.Count()

    def rows(self, uid: str) -> list[keeper.Row]:
        return self._rows[uid]

    def facts(self, uid: str) -> Facts:
        return Facts(self._counts[uid])


def collect(engine: Engine) -> dict[str, float]:
    gauges.collect(engine, 7.0)  # type: ignore[arg-type]
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in telemetry.REGISTRY.collect()
        for sample in family.samples
    }


def well(server: str = "r.example.com") -> keeper.Row:
    return keeper.Row(server, expires_at=END, next_at=END, usable=True, settled=True)


@pytest.fixture(autouse=True)
def clean() -> Any:
    """The gauges of other tests are gone, and ours are gone afterwards."""
    yield
    gauges.collect(Engine(), 0.0)  # type: ignore[arg-type]


def test_a_login_is_told_with_its_end_and_its_renewal() -> None:
    """A registry has a series each for its end, its next fetch, whether it is usable, and whether it fails."""
    engine = Engine()
    engine.add("platform", well(), dataclasses.replace(well("s.example.com"), settled=False, expires_at=None))
    found = collect(engine)
    first = ["", "ClusterRegistryCredential", "platform", "r.example.com"]
    assert found[f"regcred_credential_expiration_timestamp_seconds{first}"] == END.timestamp()
    assert found[f"regcred_credential_renewal_timestamp_seconds{first}"] == END.timestamp()
    assert found[f"regcred_credential_usable{first}"] == 1
    assert found[f"regcred_credential_failing{first}"] == 0
    second = ["", "ClusterRegistryCredential", "platform", "s.example.com"]
    assert f"regcred_credential_expiration_timestamp_seconds{second}" not in found
    assert found[f"regcred_credential_failing{second}"] == 1


def test_what_is_awaited_does_not_fail_yet() -> None:
    """A registry whose first fetch is under way is not usable, and not failing."""
    engine = Engine()
    engine.add("platform", keeper.Row("r.example.com", pending=True))
    found = collect(engine)
    where = ["", "ClusterRegistryCredential", "platform", "r.example.com"]
    assert found[f"regcred_credential_usable{where}"] == 0
    assert found[f"regcred_credential_failing{where}"] == 0


def test_a_suspended_resource_alerts_nobody() -> None:
    """A resource that was suspended on purpose has no series of logins."""
    engine = Engine()
    engine.add("platform", keeper.Row("r.example.com"), spec={"suspend": True})
    assert not [name for name in collect(engine) if name.startswith("regcred_credential_")]


def test_a_resource_that_is_gone_leaves_no_series() -> None:
    """Series of a resource go with it."""
    engine = Engine()
    engine.add("platform", well(), count=tally.Count(matched=2, synced=2))
    assert [name for name in collect(engine) if "platform" in name]
    assert not [name for name in collect(Engine()) if "platform" in name]


def test_namespaces_and_accounts_are_counted_by_state() -> None:
    """Of a cluster resource's namespaces and accounts, each is in one state."""
    engine = Engine()
    count = tally.Count(
        matched=10, synced=6, failed=2, conflicted=1, waiting=1, accounts=9, attached=5, contended=1
    )
    engine.add("platform", well(), count=count)
    found = collect(engine)
    for state, number in {"synced": 6, "failed": 2, "conflicted": 1, "waiting": 1}.items():
        assert found[f"regcred_namespaces{sorted(['platform', state])}"] == number
    for state, number in {"attached": 5, "missing": 3, "contended": 1}.items():
        assert found[f"regcred_serviceaccounts{sorted(['platform', state])}"] == number


@pytest.mark.parametrize(
    ("conditions", "ready", "stalled"),
    [
        (None, "Unknown", "Unknown"),
        ([{"type": "Ready", "status": "True"}], "True", "False"),
        ([{"type": "Ready", "status": "False"}, {"type": "Stalled", "status": "True"}], "False", "True"),
        ([{"type": "Ready", "status": "odd"}, {"type": "Stalled"}], "Unknown", "Unknown"),
    ],
)
def test_resources_are_counted_by_condition(conditions: Any, ready: str, stalled: str) -> None:
    """A resource counts under the state of each condition; what is not known is Unknown, whatever stands there."""
    engine = Engine()
    engine.add("own", well(), namespace="shop", status={"conditions": conditions} if conditions else {})
    found = collect(engine)
    for condition, status in (("Ready", ready), ("Stalled", stalled)):
        for other in ("True", "False", "Unknown"):
            name = f"regcred_resources{sorted(['RegistryCredential', condition, other])}"
            assert found[name] == (1 if other == status else 0)


def test_tenants_cannot_make_series_without_end() -> None:
    """However many resources tenants create, the series are bounded; the platform's and those in trouble are kept."""
    engine = Engine()
    engine.add("platform", well())
    for number in range(gauges.LISTED + 50):
        engine.add("own", well(), namespace=f"team-{number}", count=tally.Count(matched=1, synced=1))
    engine.add("broken", keeper.Row("r.example.com"), namespace="zoo")
    found = collect(engine)
    listed = [name for name in found if name.startswith("regcred_credential_usable")]
    assert len(listed) == gauges.LISTED
    assert [name for name in listed if "platform" in name]
    assert [name for name in listed if "broken" in name]
    assert found["regcred_credentials_unlisted[]"] == 52
    assert not [
        name for name in found if name.startswith(("regcred_namespaces", "regcred_serv")) and "own" in name
    ]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "success"),
        (provider.Retryable("Unreachable", "x"), "retryable"),
        (provider.Throttled("Throttled", "x", after=1), "throttled"),
        (provider.Denied("AccessDenied", "x"), "denied"),
        (provider.InvalidSpec("SourceMissing", "x"), "invalid"),
    ],
)
def test_fetches_are_counted_by_result(error: provider.ProviderError | None, result: str) -> None:
    """A fetch is counted under what came of it."""
    before = telemetry.FETCHES.labels("ecr", result)._value.get()
    gauges.fetched("ecr", error, 0.5)
    assert telemetry.FETCHES.labels("ecr", result)._value.get() == before + 1


async def test_the_operator_tells_what_it_does(control_plane: Cluster, namespace: str, tmp_path: Any) -> None:
    """An operator at work exports its fetches, requests, namespaces and conditions as they are."""
    await install(control_plane)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "metrics", "namespace": "regcred-system"},
        "stringData": {"username": "u", "password": "c4n4ry-0f-a-secret"},
    }
    spec = {
        "registries": [
            {"server": "metrics.example.com", "login": {"secretRef": {"name": "metrics"}}},
            {"server": "missing.example.com", "login": {"secretRef": {"name": "not-there"}}},
        ],
        "namespaces": {"names": [namespace]},
    }
    made = {
        "apiVersion": names.API_VERSION,
        "kind": names.CLUSTER_KIND,
        "metadata": {"name": "metrics"},
        "spec": spec,
    }
    operator = OperatorProcess(control_plane, tmp_path / "regcred.log", identity="metrics")
    await control_plane.apply(secret, made)
    await operator.start()
    try:

        async def told() -> str:
            shown = await operator.metrics()
            wanted = (
                r'^regcred_fetches_total{provider="login",result="success"} [1-9]',
                r'^regcred_fetches_total{provider="login",result="invalid"} [1-9]',
                r'^regcred_fetch_duration_seconds_count{provider="login"} [2-9]',
                r'^regcred_kubernetes_requests_total{code="20[01]",method="PATCH"} [1-9]',
                r'^regcred_kubernetes_requests_total{code="404",method="GET"} [1-9]',
                r'^regcred_namespaces{name="metrics",state="synced"} 1.0$',
                r'^regcred_serviceaccounts{name="metrics",state="attached"} 1.0$',
                r'^regcred_resources{condition="Stalled",kind="ClusterRegistryCredential",status="True"} [1-9]',
                r'^regcred_credential_usable{.*server="metrics.example.com"} 1.0$',
                r'^regcred_credential_usable{.*server="missing.example.com"} 0.0$',
                r'^regcred_credential_failing{.*server="missing.example.com"} 1.0$',
                r'^regcred_credential_renewal_timestamp_seconds{.*server="missing.example.com"} [1-9]',
                r"^regcred_leader 1.0$",
            )
            if control_plane.controllers:
                return shown if all(re.search(line, shown, re.MULTILINE) for line in wanted) else ""
            fewer = [line for line in wanted if "serviceaccounts" not in line]
            return shown if all(re.search(line, shown, re.MULTILINE) for line in fewer) else ""

        shown = await eventually(told, f"the metrics\n{tail(operator.log)}", seconds=90)
        assert "c4n4ry" not in shown
    finally:
        await control_plane.kubectl("delete", "clusterregistrycredential", "metrics", "--ignore-not-found")
        await operator.stop()
        await control_plane.kubectl("delete", "secret", "metrics", "-n", "regcred-system", "--ignore-not-found")
