"""What befalls replicas, providers and the API server: one trouble at a time, by seeded chance.

In the middle of the soak replicas are left alone, but for the one that waits, so that a leader grows old enough to
show whether it grows.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable

from dev.processes import CommandError
from dev.replicas import Supervised
from dev.soak.world import World

#: Seconds between two troubles, about.
PAUSE = 45.0
#: Share of the time at which the calm begins and ends.
CALM = (0.2, 0.8)


class Trouble:
    """Makes it.

    Args:
        world: where.
        seconds: that the soak lasts.
        chance: decides.
    """

    def __init__(self, world: World, seconds: float, chance: random.Random) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._world = world
        self._seconds = seconds
        self._chance = chance
        self._began = time.monotonic()

    @property
    def calm(self) -> bool:
        """Whether the leader is left alone now."""
        share = (time.monotonic() - self._began) / self._seconds
        return CALM[0] <= share < CALM[1]

    async def run(self) -> None:
        """Go on until cancelled; a cancelled one leaves nothing stopped."""
        while True:
            await asyncio.sleep(self._chance.uniform(0.6, 1.4) * PAUSE)
            leader, other = await self._roles()
            # Without a leader the last trouble is not over: they do not add up.
            if leader is not None:
                await self._befall(leader, other)

    async def _befall(self, leader: Supervised, other: Supervised) -> None:
        waiting = (1, lambda: self._signal(other, signal.SIGKILL, "SIGKILL of the one that waits"))
        choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (3, self._outage),
            (1, self._registry_down),
            waiting,
        ]
        if not self.calm:
            choices += [
                # On a busy machine it takes longer than a Lease lasts without renewal.
                (1, self._api_restart),
                (4, lambda: self._signal(leader, signal.SIGKILL, "SIGKILL of the leader")),
                (3, lambda: self._signal(leader, signal.SIGTERM, "SIGTERM of the leader")),
                (3, lambda: self._freeze(leader)),
                (1, lambda: self._both(leader, other)),
            ]
        await self._chance.choices([act for _, act in choices], [weight for weight, _ in choices])[0]()

    async def _roles(self) -> tuple[Supervised | None, Supervised]:
        first, second = self._world.replicas
        if await first.leads():
            return first, second
        return (second if await second.leads() else None), first

    async def _signal(self, replica: Supervised, number: signal.Signals, name: str) -> None:
        if not replica.process.running:
            return
        self._tell(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(replica.process.pid, number)

    async def _both(self, leader: Supervised, other: Supervised) -> None:
        await self._signal(leader, signal.SIGKILL, "SIGKILL of both")
        with contextlib.suppress(ProcessLookupError):
            if other.process.running:
                os.kill(other.process.pid, signal.SIGKILL)

    async def _freeze(self, leader: Supervised) -> None:
        """Stop the leader for less or more than its Lease lasts, and let it wake."""
        seconds = self._chance.choice([3.0, 8.0, 20.0, 30.0])
        self._tell(f"SIGSTOP of the leader for {'less' if seconds < 10 else 'more'} than its Lease")
        pid = leader.process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _outage(self) -> None:
        self._tell("outage of all clouds")
        self._world.clouds_go_down()
        try:
            await asyncio.sleep(self._chance.uniform(5, 25))
        finally:
            self._world.clouds_come_back()

    async def _registry_down(self) -> None:
        self._tell("outage of the private registry")
        await self._world.registry.stop()
        try:
            await asyncio.sleep(self._chance.uniform(3, 15))
        finally:
            await self._registry_back()

    async def _registry_back(self) -> None:
        for _ in range(10):
            try:
                await self._world.registry.start()
            except (TimeoutError, CommandError):
                await self._world.registry.stop()
            else:
                return
        raise RuntimeError("the private registry does not start")

    async def _api_restart(self) -> None:
        self._tell("restart of the API server")
        kill = self._chance.random() < 0.5
        began = time.time()
        self._world.api_away.append((began, float("inf")))
        await self._world.cluster.stop_apiserver(kill=kill)
        try:
            await asyncio.sleep(self._chance.uniform(0, 4))
        finally:
            await self._api_back()
            self._world.api_away[-1] = (began, time.time())

    async def _api_back(self) -> None:
        """Start the API server; on a busy machine that takes minutes."""
        for _ in range(10):
            try:
                await self._world.cluster.start_apiserver()
            except (TimeoutError, CommandError):
                # It is still starting: another one would want its port.
                await self._world.cluster.stop_apiserver(kill=True)
            else:
                return
        raise RuntimeError("the API server does not start")

    def _tell(self, name: str) -> None:
        self.counts[name] += 1
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
