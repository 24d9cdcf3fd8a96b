"""Leader election: one replica works, whatever happens to the others, the network or the clocks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors, lease
from tests.cluster.fake_api import FakeApi, client_of, fake_api, hangs, kubeconfig, refuses, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dev.cluster import Cluster
    from dev.controlplane import ControlPlane

QUICK: dict[str, Any] = {"duration": 4.0, "deadline": 2.5, "retry": 0.2}
#: Of a replica whose deadline is no part of the test.
PATIENT: dict[str, Any] = {"duration": 120.0, "deadline": 100.0}


class Clock:
    """A clock that can jump."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return lease.since_boot() + self.ahead


class Electors:
    """Replicas of one namespace."""

    def __init__(self, client: api.Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    def one(self, identity: str, **more: Any) -> lease.Lease:
        """A replica with quick timings."""
        return lease.Lease(self.client, self.namespace, "regcred", identity, **(QUICK | more))

    async def spec(self) -> dict[str, Any]:
        """What stands in the Lease."""
        found: dict[str, Any] = (await self.client.get(f"{self.path}/regcred"))["spec"]
        return found


@pytest.fixture
async def electors(control_plane: Cluster, namespace: str) -> AsyncIterator[Electors]:
    """Replicas on the real API server."""
    async with client_of(control_plane.admin_kubeconfig) as client:
        yield Electors(client, namespace)


@contextlib.asynccontextmanager
async def keeping(one: lease.Lease) -> AsyncIterator[asyncio.Task[None]]:
    """Let a replica keep its Lease."""
    task = asyncio.create_task(one.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def within(seconds: float, work: Any) -> None:
    """Await something that must happen within a deadline."""
    async with asyncio.timeout(seconds):
        await work


class TestElection:
    """On the real API server."""

    async def test_the_first_one_leads(self, electors: Electors) -> None:
        """A replica that is alone takes the Lease at once, and the Lease says who and since when."""
        one = electors.one("one", **PATIENT)
        with pytest.raises(lease.LeaseLost):
            one.check()
        await within(10, one.acquire())
        one.check()
        spec = await electors.spec()
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("one", 120)
        assert spec["leaseTransitions"] == 1
        assert spec["acquireTime"] == spec["renewTime"]

    async def test_it_is_renewed(self, electors: Electors) -> None:
        """A leader renews its Lease again and again, and stays since when it was."""
        one = electors.one("one", **PATIENT)
        await within(10, one.acquire())
        before = await electors.spec()
        async with keeping(one) as task:

            async def renewed() -> bool:
                return bool((await electors.spec())["renewTime"] > before["renewTime"])

            await eventually(renewed, "a renewal", every=0.05)
            assert not task.done()
            one.check()
        after = await electors.spec()
        assert after["acquireTime"] == before["acquireTime"]
        assert after["leaseTransitions"] == before["leaseTransitions"]

    async def test_the_second_one_waits(self, electors: Electors) -> None:
        """While a leader renews, another replica waits, for longer than a Lease lasts."""
        one, two = electors.one("one", deadline=1e6, duration=2.0), electors.one("two")
        await within(10, one.acquire())
        async with keeping(one):
            waiting = asyncio.create_task(two.acquire())
            done, _ = await asyncio.wait({waiting}, timeout=6)
            assert not done
            assert not two.held
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert (await electors.spec())["holderIdentity"] == "one"

    async def test_handed_over(self, electors: Electors) -> None:
        """A leader that ends in order frees the Lease, and the next one need not wait for its end."""
        one, two = electors.one("one", **PATIENT), electors.one("two", **PATIENT)
        await within(10, one.acquire())
        waiting = asyncio.create_task(two.acquire())
        await asyncio.sleep(0.5)
        await one.release()
        await within(10, waiting)
        with pytest.raises(lease.LeaseLost):
            one.check()
        two.check()
        spec = await electors.spec()
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 2)

    async def test_taken_over(self, electors: Electors) -> None:
        """A leader that died is followed when its Lease has ended, and not before."""
        one, two = electors.one("one"), electors.one("two")
        await within(10, one.acquire())
        began = lease.since_boot()
        await within(20, two.acquire())
        assert lease.since_boot() - began >= QUICK["duration"]
        two.check()

    async def test_a_leader_that_comes_back_too_late(self, electors: Electors) -> None:
        """One that finds another's name in the Lease is no leader any more, and does not take it back."""
        one, two = electors.one("one", deadline=1e6), electors.one("two")
        await within(10, one.acquire())
        await within(20, two.acquire())
        async with keeping(one) as task, keeping(two):
            with pytest.raises(lease.LeaseLost, match="taken by another"):
                await within(10, task)
            with pytest.raises(lease.LeaseLost):
                one.check()
        assert (await electors.spec())["holderIdentity"] == "two"

    async def test_a_long_stop(self, electors: Electors) -> None:
        """After a long stop of the whole process `check` refuses at once, before anything is asked."""
        clock = Clock()
        one = electors.one("one", monotonic=clock)
        await within(10, one.acquire())
        one.check()
        clock.ahead = 60.0
        with pytest.raises(lease.LeaseLost, match="not renewed"):
            one.check()
        clock.ahead = 0.0
        # Once lost it stays lost, whatever the clock says later.
        with pytest.raises(lease.LeaseLost):
            one.check()

    async def test_a_release_that_is_too_late(self, electors: Electors) -> None:
        """A replica frees only what is its own."""
        one, two = electors.one("one"), electors.one("two")
        await within(10, one.acquire())
        await within(20, two.acquire())
        await one.release()
        assert (await electors.spec())["holderIdentity"] == "two"
        await electors.one("three").release()
        assert (await electors.spec())["holderIdentity"] == "two"

    async def test_many_at_once(self, electors: Electors) -> None:
        """Of ten replicas that start together exactly one leads."""
        replicas = [electors.one(f"r{number}", **PATIENT) for number in range(10)]
        tasks = [asyncio.create_task(one.acquire()) for one in replicas]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        await asyncio.sleep(1.0)
        assert sum(one.held for one in replicas) == 1
        leader = next(one for one in replicas if one.held)
        assert (await electors.spec())["holderIdentity"] == leader.identity
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def test_two_of_one_name(self, electors: Electors) -> None:
        """Of two replicas that have one name by mistake the first one notices, and gives up."""
        one, two = electors.one("same", deadline=1e6), electors.one("same")
        await within(10, one.acquire())
        await within(10, two.acquire())
        async with keeping(one) as task:
            with pytest.raises(lease.LeaseLost):
                await within(10, task)

    async def test_a_restart_of_the_same_replica(self, electors: Electors) -> None:
        """A leader that crashed and comes back under its name takes its Lease at once."""
        await within(10, electors.one("pod-1", **PATIENT).acquire())
        again = electors.one("pod-1", **PATIENT)
        await within(10, again.acquire())
        again.check()
        assert (await electors.spec())["leaseTransitions"] == 1

    async def test_somebody_else_touches_it(self, electors: Electors) -> None:
        """A label that somebody puts on the Lease ends no leadership."""
        one = electors.one("one", **PATIENT)
        await within(10, one.acquire())
        async with keeping(one) as task:
            for number in range(20):
                label = {"metadata": {"labels": {"n": str(number)}}}
                await electors.client.request(
                    "PATCH", f"{electors.path}/regcred", body=label, content_type=api.MERGE
                )
            before = (await electors.spec())["renewTime"]

            async def renewed() -> bool:
                return bool((await electors.spec())["renewTime"] > before)

            await eventually(renewed, "a renewal", every=0.05)
            assert not task.done()
        one.check()

    async def test_a_lease_that_is_deleted(self, electors: Electors) -> None:
        """A leader whose Lease is deleted makes it anew."""
        one = electors.one("one", **PATIENT)
        await within(10, one.acquire())
        async with keeping(one) as task:
            await electors.client.request("DELETE", f"{electors.path}/regcred")

            async def back() -> bool:
                try:
                    return bool((await electors.spec())["holderIdentity"] == "one")
                except errors.NotFound:
                    return False

            await eventually(back, "the Lease", every=0.05)
            assert not task.done()

    async def test_an_empty_lease(self, electors: Electors) -> None:
        """A Lease without a spec, made by hand, is free."""
        await electors.client.request("POST", electors.path, body={"metadata": {"name": "regcred"}})
        await within(10, electors.one("one").acquire())
        assert (await electors.spec())["holderIdentity"] == "one"

    async def test_without_the_namespace(self, electors: Electors) -> None:
        """A namespace that is missing is waited for, and the log says so."""
        lost = lease.Lease(electors.client, "missing-namespace", "regcred", "one", **QUICK)
        task = asyncio.create_task(lost.acquire())
        done, _ = await asyncio.wait({task}, timeout=1)
        assert not done
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestPartition:
    """Without the API server."""

    async def test_the_leader_gives_up_in_time(self, owned_control_plane: ControlPlane, namespace: str) -> None:
        """Cut off from the API server, a leader is lost before anybody else may lead; nobody leads meanwhile."""
        async with client_of(owned_control_plane.admin_kubeconfig) as client:
            electors = Electors(client, namespace)
            one = electors.one("one")
            await within(10, one.acquire())
            await owned_control_plane.stop_apiserver()
            try:
                async with keeping(one) as task:
                    began = one.renewed_at
                    with pytest.raises(lease.LeaseLost, match="not renewed"):
                        await within(20, task)
                    # In time: other replicas wait for the whole duration.
                    assert lease.since_boot() - began < QUICK["duration"]
            finally:
                await owned_control_plane.start_apiserver()

    async def test_a_short_cut(self, owned_control_plane: ControlPlane, namespace: str) -> None:
        """An API server that is away for less than the deadline costs nobody the lead."""
        async with client_of(owned_control_plane.admin_kubeconfig) as client:
            electors = Electors(client, namespace)
            one = electors.one("one", **PATIENT)
            await within(10, one.acquire())
            async with keeping(one) as task:
                await owned_control_plane.stop_apiserver()
                await owned_control_plane.start_apiserver()
                before = (await electors.spec())["renewTime"]

                async def renewed() -> bool:
                    return bool((await electors.spec())["renewTime"] > before)

                await eventually(renewed, "a renewal", every=0.05)
                assert not task.done()
                one.check()

    async def test_waiting_through_an_outage(self, owned_control_plane: ControlPlane, namespace: str) -> None:
        """A replica that waits goes on waiting through an outage, and leads afterwards."""
        async with client_of(owned_control_plane.admin_kubeconfig) as client:
            electors = Electors(client, namespace)
            two = electors.one("two", **PATIENT)
            await owned_control_plane.stop_apiserver()
            task = asyncio.create_task(two.acquire())
            try:
                done, _ = await asyncio.wait({task}, timeout=1)
                assert not done
            finally:
                await owned_control_plane.start_apiserver()
            await within(30, task)
            two.check()


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[tuple[FakeApi, lease.Lease]]:
    """A fake API server and a replica."""
    async with fake_api() as running:
        async with client_of(kubeconfig(tmp_path / "kubeconfig", running.url, {"token": "t1"})) as client:
            yield running, lease.Lease(client, "home", "regcred", "one", **QUICK)


def stored(holder: str, **more: Any) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-03-01T00:00:00.000000Z"}
    return {"metadata": {"name": "regcred", "resourceVersion": "5"}, "spec": spec | more}


class TestFaults:
    """Answers that a real API server rarely gives."""

    async def test_a_server_that_hangs(self, fake: tuple[FakeApi, lease.Lease]) -> None:
        """Half-open connections cost the lead at the deadline, and not after a request's own timeout."""
        server, one = fake
        server.then(says(stored("")), says(stored("one")), hangs())
        await within(10, one.acquire())
        async with keeping(one) as task:
            began = one.renewed_at
            with pytest.raises(lease.LeaseLost):
                await within(10, task)
            assert lease.since_boot() - began >= QUICK["deadline"]

    async def test_a_refused_token(self, fake: tuple[FakeApi, lease.Lease]) -> None:
        """A token that is refused for a moment ends nothing."""
        server, one = fake
        unauthorised = refuses(401, "Unauthorized")
        server.then(says(stored("")), unauthorised, unauthorised, says(stored("")), says(stored("one")))
        await within(10, one.acquire())
        one.check()

    async def test_a_release_that_hangs(
        self, fake: tuple[FakeApi, lease.Lease], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An end in order does not wait for a server that says nothing."""
        monkeypatch.setattr(lease, "_RELEASE_TIMEOUT", 0.2)
        server, one = fake
        server.then(says(stored("")), says(stored("one")), hangs())
        await within(10, one.acquire())
        await within(5, one.release())
        assert not one.held

    @pytest.mark.parametrize("duration", [0, None])
    async def test_a_lease_without_duration(self, fake: tuple[FakeApi, lease.Lease], duration: int | None) -> None:
        """Another's Lease that names no duration is given ours."""
        server, one = fake
        server.then(says(stored("other", leaseDurationSeconds=duration)))
        task = asyncio.create_task(one.acquire())
        done, _ = await asyncio.wait({task}, timeout=QUICK["duration"] * 0.75)
        assert not done
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_clock() -> None:
    """The clock goes on, also while the machine is suspended where the system has such a clock."""
    first = lease.since_boot()
    assert lease.since_boot() >= first
