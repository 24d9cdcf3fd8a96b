"""The keeper over days and weeks: wrong clocks, outages, thousands of renewals, and nothing left behind."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import gc
import itertools
import random
import tracemalloc

import pytest

from regcred.credentials import provider, schedule
from tests.credentials.keeper_support import LIFE, World, entry, play, spec
from tests.credentials.test_keeper import grant
from tests.credentials.virtual_time import VirtualLoop

HOST = "one.example"


class TestClocks:
    """Clocks that are wrong."""

    @pytest.mark.parametrize("jump", [-86400, -3600, 3600, 86400])
    def test_a_wall_clock_that_jumps(self, jump: int) -> None:
        """It costs each key a few fetches at most, takes no login away, and the truth coming back neither."""

        async def scene(world: World) -> None:
            await world.start(*(spec(f"r{number}", entry(HOST, f"me{number}")) for number in range(20)))
            await asyncio.sleep(3600)
            world.clock.skew = dt.timedelta(seconds=jump)
            await asyncio.sleep(1800)
            busiest = collections.Counter(call.identity for call in world.provider.asked).most_common(1)[0][1]
            assert busiest <= 1 + 1800 // schedule.RETRY_CEILING + 1
            # By the truth, every login that is handed out lives.
            for number in range(20):
                ((_, _, ends),) = world.keeper.logins(f"uid-r{number}").values()
                assert ends is not None
                assert ends > world.clock.true()
            await asyncio.sleep(LIFE)
            world.clock.skew = dt.timedelta()
            await asyncio.sleep(120)
            for number in range(20):
                assert world.row(f"uid-r{number}").usable

        asked = play(scene).provider.asked
        for identity in {call.identity for call in asked}:
            times = [call.at for call in asked if call.identity == identity]
            gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
            assert min(gaps) >= schedule.FLOOR

    def test_a_clock_that_swings(self) -> None:
        """A wall clock that goes an hour to and fro every minute for a day costs no more than two fetches a minute."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            for minute in range(24 * 60):
                world.clock.skew = dt.timedelta(hours=10 * (minute % 2))
                await asyncio.sleep(60)
            ((_, _, ends),) = world.keeper.logins("uid-r").values()
            assert ends is not None
            assert ends > world.clock.true()

        times = play(scene).provider.times("me")
        gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
        assert min(gaps) >= schedule.FLOOR

    def test_a_machine_that_sleeps(self) -> None:
        """After a suspension that the monotonic clock has missed, what fell due is fetched within a minute."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(60)
            world.clock.suspended = LIFE * 0.7
            await asyncio.sleep(61)
            assert len(world.provider.asked) == 2

        play(scene)

    def test_a_renewal_that_has_ended_on_arrival(self) -> None:
        """It is not taken in place of a living one, is said so, and asked for again every five minutes."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(60)
            world.provider.granted["me"] = lambda _: grant(world, life=3600.0, age=7200.0, any="dead")
            await asyncio.sleep(LIFE * 0.6)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert world.row("uid-r").reason == "Expired"
            assert world.row("uid-r").usable
            assert "clocks" in world.row("uid-r").message
            before = len(world.provider.asked)
            await asyncio.sleep(3000)
            assert len(world.provider.asked) - before <= 11
            world.provider.granted.clear()
            await asyncio.sleep(301)
            assert world.row("uid-r").reason == "Issued"

        play(scene)

    def test_a_first_login_that_has_ended_on_arrival(self) -> None:
        """It counts as expired, and is asked for every five minutes."""

        async def scene(world: World) -> None:
            world.provider.granted["me"] = lambda _: grant(world, life=1.0, age=86400.0 * 4000, any="dead")
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(3600)
            assert not world.row("uid-r").usable
            assert world.row("uid-r").reason == "Expired"
            assert len(world.provider.asked) == 12

        play(scene)

    def test_very_short_lives(self) -> None:
        """Tokens that live for half a minute cost two fetches a minute, and not more."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = 30.0
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(3600)

        assert len(play(scene).provider.asked) <= 121


@pytest.mark.parametrize("taken", [0.1, 7.0, 25.0])
@pytest.mark.parametrize("life", [75.0, 300.0, 900.0])
def test_half_of_the_life_at_the_latest(life: float, taken: float) -> None:
    """However long an exchange takes, the next one is begun when half of the login's life is left at the latest."""

    async def scene(world: World) -> None:
        world.provider.latency["*"] = taken
        who = [f"me-{number}" for number in range(8)]
        for name in who:
            # Real providers take the time of issue before they ask, since an answer rarely tells it.
            world.provider.granted[name] = lambda _: grant(
                world, life=life, age=taken, any=f"token-{len(world.provider.asked)}"
            )
        # Each has a Secret of its own, so that none is renewed early to be published with another.
        await world.start(*(spec(name, entry(f"{name}.example", name), secretName=name) for name in who))
        await asyncio.sleep(20 * life)
        for name in who:
            times = world.provider.times(name)
            assert len(times) >= 40
            for before, after in itertools.pairwise(times):
                assert schedule.FLOOR <= after - before <= life / 2

    play(scene)


@pytest.mark.parametrize("life", [900.0, 3600.0, 3 * 3600.0, LIFE])
@pytest.mark.parametrize("seed", range(2))
def test_weeks_of_trouble(life: float, seed: int) -> None:
    """With outages shorter than a third of a life, a living login is handed out at every moment of some weeks."""
    chance = random.Random(f"{life} {seed}")
    down: list[float] = []

    async def scene(world: World) -> None:
        world.provider.life["*"] = life
        names = [f"me{number}" for number in range(4)]
        await world.start(spec("r", *(entry(f"{name}.example", name) for name in names)))
        await asyncio.sleep(60)
        end = min(3 + 4 * life / 3600, 21) * 86400
        while (at := asyncio.get_running_loop().time()) < end:
            fault = chance.choice(
                [
                    provider.Retryable("Unreachable", "down"),
                    provider.Throttled("Throttled", "slow down", after=chance.choice([1.0, 60.0, 300.0])),
                    ValueError("surprise"),
                    TimeoutError(),
                ]
            )
            victims = chance.sample(names, chance.randint(1, 4))
            world.provider.faults = dict.fromkeys(victims, fault)
            await asyncio.sleep(chance.uniform(1.0, life * 0.35))
            world.provider.faults = {}
            over = asyncio.get_running_loop().time()
            down.append(over - at)
            await asyncio.sleep(1.2 * schedule.RETRY_CEILING + 1)
            for name in names:
                row = world.row("uid-r", f"{name}.example")
                assert row.usable
                assert row.settled
            await asyncio.sleep(chance.uniform(0.0, 2 * life))
            for name in names:
                assert world.row("uid-r", f"{name}.example").usable

    world = play(scene)
    assert len(down) > 10
    for name in ("me0", "me1", "me2", "me3"):
        times = world.provider.times(name)
        gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
        assert min(gaps) >= schedule.FLOOR
        hours = collections.Counter(int(at // 3600) for at in times)
        assert max(hours.values()) <= 60


class TestHousekeeping:
    """Nothing is left behind, and nothing spins."""

    def test_a_thousand_renewals_leave_nothing(self) -> None:
        """Neither tasks nor memory grow with the number of renewals."""
        sizes: list[int] = []
        tasks: list[int] = []

        async def scene(world: World) -> None:
            world.provider.life["*"] = 900.0
            await world.start(spec("r", *(entry(f"r{number}.example") for number in range(10))))
            await asyncio.sleep(3600)
            tracemalloc.start()
            for _ in range(3):
                await asyncio.sleep(100 * 450)
                world.provider.asked.clear()
                world.published.clear()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
                tasks.append(len(asyncio.all_tasks()))
            tracemalloc.stop()

        play(scene)
        assert max(tasks) == 2  # the scene and the keeper
        assert sizes[2] - sizes[1] < 20_000

    def test_the_loop_does_not_spin(self) -> None:
        """A quiet day costs a turn a minute; a fetch, a handful more."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me"), entry("two.example", "other", verify="org/app")))
            await asyncio.sleep(86400)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            assert loop.turns < 24 * 60 + 200

        play(scene)

    def test_without_resources_it_waits(self) -> None:
        """An operator without resources turns once a minute."""

        async def scene(world: World) -> None:
            await world.start()
            await asyncio.sleep(3600)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            assert loop.turns < 70

        play(scene)

    def test_ended_in_the_middle_of_everything(self) -> None:
        """Ended while it fetches, proves and keeps, it leaves no task."""

        async def scene(world: World) -> None:
            world.provider.latency |= {"slow": 50.0}
            world.proof_latency = 50.0
            world.secrets.delay = 50.0
            await world.start(
                spec("a", entry(HOST, "slow")),
                spec("b", entry(HOST, "quick", verify="org/app")),
                spec("c", entry(HOST, "third")),
            )
            await asyncio.sleep(1)
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert any(name.startswith("fetch") for name in names)
            assert any(name.startswith("prove") for name in names)
            assert any(name.startswith("keep ") for name in names)

        play(scene)  # sees to it that none is left

    def test_thousands_of_keys(self) -> None:
        """Two thousand keys are fetched, kept and published in a time that grows with their number only."""

        async def scene(world: World) -> None:
            world.provider.latency["*"] = 0.01
            world.secrets.delay = 0.0
            await world.start(*(spec(f"t{n}", entry(HOST, f"me{n}"), namespace=f"team-{n}") for n in range(2000)))
            await asyncio.sleep(30)
            assert sum(bool(world.passwords(f"uid-t{n}")) for n in range(2000)) == 2000

        play(scene)
