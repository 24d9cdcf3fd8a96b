"""The keeper and publication: what belongs together is published together, soon, and only after it is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from regcred.cluster import errors
from regcred.credentials import provider
from tests.credentials.keeper_support import LIFE, World, entry, play, spec

if TYPE_CHECKING:
    from tests.credentials.keeper_support import FakeProvider

HOST = "one.example"
TEN = [entry(f"r{number}.example") for number in range(10)]


def handed(world: World, uid: str) -> list[float]:
    return [at for at, _ in world.changes(uid)]


class TestFirstLogins:
    """New entries and resources."""

    def test_within_milliseconds(self) -> None:
        """The first login of a resource is published milliseconds after it arrives."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(30)

        world = play(scene)
        assert handed(world, "uid-r")[0] - world.provider.asked[0].until <= 0.005

    def test_many_are_published_at_once(self) -> None:
        """Ten first logins that arrive within the gathering time are published in one go, with the last of them."""

        async def scene(world: World) -> None:
            for number in range(10):
                world.provider.latency[f"r{number}.example"] = 0.2 * (number + 1)
            await world.start(spec("r", *TEN))
            await asyncio.sleep(30)
            assert len(world.passwords("uid-r")) == 10

        world = play(scene)
        (at,) = handed(world, "uid-r")
        last = max(call.until for call in world.provider.asked)
        assert last <= at <= last + 0.005

    def test_a_slow_one_holds_nobody_for_long(self) -> None:
        """Where one of ten is slow, the nine are published within three seconds of the first, and it when it comes."""

        async def scene(world: World) -> None:
            world.provider.latency["r5.example"] = 40.0
            await world.start(spec("r", *TEN))
            await asyncio.sleep(3.2)
            assert len(world.passwords("uid-r")) == 9
            assert world.row("uid-r", "r5.example").pending
            await asyncio.sleep(38)
            assert len(world.passwords("uid-r")) == 10

        world = play(scene)
        assert len(handed(world, "uid-r")) == 2

    def test_other_resources_are_not_waited_for(self) -> None:
        """A new resource does not wait for the fetches of others, though they write the same Secret."""

        async def scene(world: World) -> None:
            world.provider.latency |= {"slow1": 30.0, "slow2": 30.0}
            await world.start(spec("old", entry(HOST, "slow1"), entry("two.example", "slow2")))
            await asyncio.sleep(1)
            world.update(spec("new", entry("three.example", "quick")))
            await asyncio.sleep(0.11)
            assert world.passwords("uid-new") == {"three.example": "token-3"}
            await asyncio.sleep(60)

        play(scene)

    def test_a_failing_one_is_not_waited_for(self) -> None:
        """The retry of an entry that failed before holds nobody."""

        async def scene(world: World) -> None:
            world.provider.faults["bad"] = provider.Retryable("Unreachable", "it does not answer")
            await world.start(spec("r", entry(HOST, "bad"), entry("two.example", "good", secret="source")))
            await asyncio.sleep(29)
            world.provider.latency["bad"] = 80.0
            await asyncio.sleep(20)
            assert world.provider.busy["bad"] == 1
            world.put_source("source", "1", "p")
            await asyncio.sleep(0.2)
            assert world.passwords("uid-r") == {"two.example": "p"}

        play(scene)

    def test_a_new_entry_beside_old_ones(self) -> None:
        """An entry that is added is published with its arrival, though renewals of its neighbours are long due."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(60)
            world.update(spec("r", entry(HOST, "me"), entry("two.example", "other")))
            await asyncio.sleep(0.11)
            assert set(world.passwords("uid-r")) == {HOST, "two.example"}

        play(scene)


class TestRenewals:
    """Renewals that fall due close together."""

    def test_are_fetched_and_published_together(self) -> None:
        """Ten logins of one Secret, issued together, are renewed together and published in one go, for weeks."""

        async def scene(world: World) -> None:
            await world.start(spec("r", *TEN))
            await asyncio.sleep(14 * 86400)

        world = play(scene)
        times = handed(world, "uid-r")
        renewals = len(world.provider.times("r0.example"))
        assert len(times) == renewals
        assert renewals <= 14 * 5

    def test_across_resources_of_one_secret(self) -> None:
        """Logins of several resources that make up the same Secret are renewed and published together too."""

        async def scene(world: World) -> None:
            for number in range(4):
                world.provider.latency[f"r{number}.example"] = 0.3 * number
            await world.start(*(spec(f"r{number}", TEN[number]) for number in range(4)))
            await asyncio.sleep(86400)

        world = play(scene)
        times = [handed(world, f"uid-r{number}")[1:] for number in range(4)]
        assert len(times[0]) == 4
        for together in zip(*times, strict=True):
            assert max(together) - min(together) <= 0.01

    def test_the_young_do_not_join(self) -> None:
        """A login before 40 % of its life is not renewed only because another one is due."""

        async def scene(world: World) -> None:
            world.provider.life["short"] = 3600.0
            await world.start(spec("r", entry(HOST, "short"), entry("two.example", "long")))
            await asyncio.sleep(LIFE * 0.39)

        asked = play(scene).provider
        assert len(asked.times("short")) >= 8
        assert len(asked.times("long")) == 1

    def test_what_fails_or_is_new_drags_nobody_along(self) -> None:
        """Neither a retry nor a changed source renews the neighbours early."""

        async def scene(world: World) -> None:
            world.put_source("source", "1", "p", tell=False)
            await world.start(
                spec(
                    "r",
                    entry(HOST, "good"),
                    entry("two.example", "bad"),
                    entry("three.example", "me", secret="source"),
                )
            )
            await asyncio.sleep(LIFE * 0.401)
            before = len(world.provider.times("good"))
            world.provider.faults["bad"] = provider.Denied("AccessDenied", "refused; allow it")
            world.put_source("source", "2", "q")
            await asyncio.sleep(1)
            assert world.passwords("uid-r")["three.example"] == "q"
            assert len(world.provider.times("good")) == before

        play(scene)

    def test_tenants_are_renewed_each_by_itself(self) -> None:
        """Secrets of one name in other namespaces are other Secrets: no tenant's renewal drags others along."""

        async def scene(world: World) -> None:
            bodies = [
                spec(f"t{number}", entry(HOST, f"me{number}"), namespace=f"team-{number}") for number in range(40)
            ]
            await world.start(*bodies, spec("platform", entry(HOST, "own")))
            await asyncio.sleep(LIFE * 0.55)

        asked = play(scene).provider
        renewed = [asked.times(f"me{number}")[1] for number in range(40)]
        assert all(len(asked.times(f"me{number}")) == 2 for number in range(40))
        # Spread over the tenth of the life that the jitter has.
        assert max(renewed) - min(renewed) > LIFE * 0.07

    def test_a_slow_renewal_holds_the_others_for_a_moment(self) -> None:
        """The others are published within three seconds, and the slow one by itself."""

        async def scene(world: World) -> None:
            await world.start(spec("r", *TEN))
            await asyncio.sleep(60)
            world.provider.latency["r5.example"] = 40.0
            await asyncio.sleep(LIFE * 0.5)

        world = play(scene)
        first, second = handed(world, "uid-r")[1:3]
        quick = [call.until for call in world.provider.asked if call.identity == "r4.example"]
        assert first - quick[1] <= 3.01
        assert 30 < second - first < 45


class TestKeeping:
    """A login is kept before it is handed out."""

    def test_before_it_is_handed_out(self) -> None:
        """While a record is being written, nothing of it is handed out."""

        async def scene(world: World) -> None:
            world.secrets.delay = 2.0
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(1.5)
            assert world.passwords("uid-r") == {}
            assert world.row("uid-r").pending
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "token-1"}

        play(scene)

    def test_one_write_for_ten_logins(self) -> None:
        """Logins that are published together are kept in one write."""

        async def scene(world: World) -> None:
            await world.start(spec("r", *TEN))
            await asyncio.sleep(60)

        assert play(scene).secrets.written == 1

    @pytest.mark.parametrize(
        "fault",
        [
            errors.Unavailable(503, "ServiceUnavailable"),
            errors.Forbidden(403, "Forbidden"),
            errors.Invalid(422, "Invalid"),
            RuntimeError("c4n4ry"),
        ],
    )
    def test_what_cannot_be_kept_is_published_all_the_same(
        self, fault: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A cache that fails stops no login; it is kept as soon as that works again."""

        async def scene(world: World) -> None:
            world.secrets.fault = fault
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(0.2)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            await asyncio.sleep(3600)
            assert not world.secrets.bodies
            world.secrets.fault = None
            await asyncio.sleep(400)
            assert world.secrets.record("uid-r")["entries"][HOST]["logins"] == {HOST: ["user", "token-1"]}
            assert world.secrets.written == 1
            assert len(world.changes("uid-r")) == 1

        play(scene)
        assert "c4n4ry" not in caplog.text
        assert caplog.text.count("Could not keep") < 20

    def test_a_cache_that_hangs(self) -> None:
        """A record whose writing hangs holds its login for ten seconds."""

        async def scene(world: World) -> None:
            world.secrets.delay = 1e5
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(9)
            assert world.passwords("uid-r") == {}
            await asyncio.sleep(2)
            assert world.passwords("uid-r") == {HOST: "token-1"}

        play(scene)

    def test_a_login_that_arrives_while_another_is_being_kept(self) -> None:
        """It is kept and handed out next; nothing is lost."""

        async def scene(world: World) -> None:
            world.secrets.delay = 5.0
            world.put_source("source", "1", "old", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            await asyncio.sleep(1)
            world.put_source("source", "2", "new")
            await asyncio.sleep(4.5)
            assert world.passwords("uid-r") == {HOST: "old"}
            await asyncio.sleep(5)
            assert world.passwords("uid-r") == {HOST: "new"}
            assert world.secrets.record("uid-r")["entries"][HOST]["sources"] == {"source": "2"}

        play(scene)

    def test_nothing_is_kept_of_nothing(self) -> None:
        """A resource that never had a login has no record."""

        async def scene(world: World) -> None:
            world.provider.faults["me"] = provider.Denied("AccessDenied", "refused; allow it")
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(3600)
            assert not world.secrets.bodies
            assert world.secrets.written == 0

        play(scene)


class TestPlaces:
    """Who waits behind whom."""

    def test_the_platform_does_not_wait_behind_tenants(self) -> None:
        """A hundred tenants whose providers hang cost the platform nothing."""

        async def scene(world: World) -> None:
            for number in range(100):
                world.provider.latency[f"hung{number}"] = 1e6
            await world.start(*(spec(f"t{n}", entry(HOST, f"hung{n}"), namespace=f"team-{n}") for n in range(100)))
            await asyncio.sleep(10)
            world.update(spec("platform", entry(HOST, "quick")))
            await asyncio.sleep(0.2)
            assert set(world.passwords("uid-platform")) == {HOST}

        assert play(scene).provider.most <= 17

    def test_a_tenant_does_not_wait_behind_all_of_another(self) -> None:
        """A tenant with sixty-four entries that hang leaves places for others."""

        async def scene(world: World) -> None:
            hung = [entry(f"r{number}.example", f"hung{number}") for number in range(64)]
            for number in range(64):
                world.provider.latency[f"hung{number}"] = 1e6
            await world.start(spec("greedy", *hung, namespace="team-a"))
            await asyncio.sleep(10)
            world.update(spec("modest", entry(HOST, "quick"), namespace="team-b"))
            await asyncio.sleep(0.2)
            assert set(world.passwords("uid-modest")) == {HOST}

        assert play(scene).provider.most <= 5

    def test_what_works_does_not_wait_behind_what_failed(self) -> None:
        """Entries of the platform that fail again and again by a timeout delay no renewal of a healthy one."""

        async def scene(world: World) -> None:
            for number in range(40):
                world.provider.latency[f"hung{number}"] = 1e6
            world.provider.life["short"] = 900.0
            hung = [entry(f"r{number}.example", f"hung{number}") for number in range(40)]
            await world.start(spec("r", entry(HOST, "short"), *hung))
            await asyncio.sleep(4 * 3600)
            assert world.row("uid-r", HOST).usable

        provider_: FakeProvider = play(scene).provider
        waits = [call.until - call.at for call in provider_.asked if call.identity == "short"]
        assert len(waits) >= 4 * 8
        times = provider_.times("short")
        assert all(after - before <= 451 for before, after in zip(times, times[1:], strict=False))

    def test_all_of_many_are_served(self) -> None:
        """Five hundred tenants are fetched in turns, sixteen at once, and all of them get their login."""

        async def scene(world: World) -> None:
            await world.start(*(spec(f"t{n}", entry(HOST, f"me{n}"), namespace=f"team-{n}") for n in range(500)))
            await asyncio.sleep(0.1 * 500 / 16 + 1)
            assert all(world.passwords(f"uid-t{n}") for n in range(500))

        assert play(scene).provider.most == 16
