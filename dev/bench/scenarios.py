"""The scenarios: each does one thing on a stage and returns what it measured."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from collections.abc import Mapping, Sequence

from dev.bench import bare, trail
from dev.bench.stage import BARE, LABEL, OPERATOR, Accounts, Json, Stage, encoded
from dev.waiting import eventually

#: Seconds after which memory counts as settled.
_SETTLE = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class Wave:
    """How a wave of writes went.

    Attributes:
        seconds: from its cause to the answer of the last write.
        requests: of who wrote.
        cpu: seconds of processor time of who wrote.
        asked: how often the provider was asked.
    """

    seconds: float
    requests: Sequence[trail.Request]
    cpu: float
    asked: int = 0

    def exact(self, secrets: int, accounts: int, asked: int) -> dict[str, tuple[int, int]]:
        """Return what was counted beside what it has to be."""
        return {
            "Secret writes": (len(trail.written(self.requests, "secrets", "regcred")), secrets),
            "account writes": (len(trail.written(self.requests, "serviceaccounts")), accounts),
            "provider calls": (self.asked, asked),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Before:
    """How everything stood before a wave."""

    mark: int
    asked: int
    cpu: float

    @classmethod
    def now(cls, stage: Stage) -> Before:
        """Return how everything stands."""
        return cls(stage.mark(), stage.asked(), stage.operator.cpu())

    def wave(self, stage: Stage, verb: str) -> Wave:
        """Return the wave from the first request for a resource, with this verb, to the operator's last write."""
        found = stage.since(self.mark)
        began = min(
            row.received for row in found if row.resource == "clusterregistrycredentials" and row.verb == verb
        )
        requests = trail.by(found, OPERATOR)
        done = [*trail.written(requests, "secrets", "regcred"), *trail.written(requests, "serviceaccounts")]
        return Wave(
            max(row.answered for row in done) - began,
            requests,
            stage.operator.cpu() - self.cpu,
            stage.asked() - self.asked,
        )


async def bare_waves(
    stage: Stage, writer: bare.Writer, namespaces: Sequence[str], wanted: Sequence[str]
) -> list[Wave]:
    """Let the bare client write Secrets and accounts, and then the Secrets anew."""
    accounts = _wanted(await stage.accounts(namespaces), wanted)
    waves = []
    for new in (True, False):
        mark, cpu = stage.mark(), time.process_time()
        await (writer.distribute(accounts) if new else writer.renew(namespaces))
        cpu = time.process_time() - cpu
        await stage.quiet(mark, BARE)
        requests = trail.by(stage.since(mark), BARE)
        done = [*trail.written(requests, "secrets"), *trail.written(requests, "serviceaccounts")]
        waves.append(Wave(_span(done), requests, cpu))
    return waves


async def first(
    stage: Stage,
    names: Sequence[str],
    group: Json,
    namespaces: Sequence[str],
    wanted: Sequence[str],
    *,
    globs: Sequence[str] = (),
    number: int = 0,
) -> Wave:
    """Create resources, and wait until every namespace and account is served.

    Args:
        stage: where; the operator runs.
        names: of the resources.
        group: what they select.
        namespaces: which these are.
        wanted: names of the accounts to be served there.
        globs: what the resources say of accounts, where that is more than `wanted`.
        number: of the first of their registries.
    """
    accounts = _wanted(await stage.accounts(namespaces), wanted)
    keys = {(each["metadata"]["namespace"], each["metadata"]["name"]) for row in accounts.values() for each in row}
    before = Before.now(stage)
    mark = before.mark
    await stage.declare(names, group, globs or wanted, number)
    await stage.served(mark, set(namespaces), keys)
    return before.wave(stage, "create")


async def renewal(stage: Stage, name: str, namespaces: Sequence[str]) -> Wave:
    """Ask for a renewal of one resource, and wait until every Secret is written."""
    before = Before.now(stage)
    mark = before.mark
    await stage.refresh(name)
    await stage.served(mark, set(namespaces), set())
    return before.wave(stage, "patch")


async def lone_accounts(stage: Stage, namespaces: Sequence[str], names: Sequence[str]) -> dict[trail.Key, float]:
    """Create accounts one after the other, with a pause; return when each was there."""
    mark = stage.mark()
    for number, name in enumerate(names):
        path = f"/api/v1/namespaces/{namespaces[number % len(namespaces)]}/serviceaccounts"
        await stage.client.send("POST", path, encoded({"metadata": {"name": name}}))
        await asyncio.sleep(0.05)
    return await _born(stage, mark, {*names}, by_name=True)


async def new_namespaces(stage: Stage, names: Sequence[str], pause: float = 0.0) -> dict[trail.Key, float]:
    """Create namespaces, all at once or with a pause between two; return when the default account of each was there."""
    mark = stage.mark()

    async def one(name: str) -> None:
        body = {"metadata": {"name": name, "labels": {LABEL: "yes"}}}
        await stage.client.send("POST", "/api/v1/namespaces", encoded(body))
        await asyncio.sleep(pause)

    await bare.spread(names, one, 1 if pause else bare.WIDTH)
    return await _born(stage, mark, {*names}, by_name=False)


async def delays(stage: Stage, mark: int, born: Mapping[trail.Key, float], user: str) -> list[float]:
    """Wait until each account has its entry, and return the seconds from its birth."""

    async def all_served() -> bool:
        return set(born) <= set(trail.entries(stage.since(mark), user))

    await eventually(all_served, f"{len(born)} accounts to be served", seconds=120, every=0.2)
    return trail.delays(dict(born), trail.entries(stage.since(mark), user))


async def during_renewal(
    stage: Stage, name: str, namespaces: Sequence[str], count: int
) -> tuple[list[float], int]:
    """Create namespaces while a renewal runs; return the delays of those born in it, and how many were."""
    mark = stage.mark()
    born: dict[trail.Key, float] = {}
    await stage.refresh(name)
    wave = asyncio.create_task(stage.served(mark, set(namespaces), set()))
    number = 0
    while not wave.done() and number < count:
        born |= await new_namespaces(stage, [f"during-{number:04d}"], 0.02)
        number += 1
    await wave
    ends = max(
        row.answered
        for row in trail.written(trail.by(stage.since(mark), OPERATOR), "secrets", "regcred")
        if row.namespace in set(namespaces)
    )
    born = {key: at for key, at in born.items() if at < ends}
    return await delays(stage, mark, born, OPERATOR), len(born)


async def at_rest(stage: Stage, seconds: float) -> tuple[float, Sequence[trail.Request]]:
    """Return the share of a core the operator uses while nothing changes, and what it wrote."""
    mark, cpu, began = stage.mark(), stage.operator.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    share = (stage.operator.cpu() - cpu) / (time.monotonic() - began)
    return share, unasked(stage, mark)


async def restart(stage: Stage) -> tuple[float, Sequence[trail.Request], int]:
    """Stop the operator in good order and start it; return the seconds to Ready, its writes, and provider calls."""
    await stage.stop()
    mark, asked = stage.mark(), stage.asked()
    took = await stage.start()
    await asyncio.sleep(_SETTLE)
    return took, unasked(stage, mark), stage.asked() - asked


async def best_start(stage: Stage) -> float:
    """Start the operator twice and return the shorter time: what else the machine does at the moment is not meant."""
    once = await stage.start()
    await stage.stop()
    return min(once, await stage.start())


async def fill(stage: Stage, count: int) -> None:
    """Create Secrets of 500 KiB that are nobody's business."""
    namespace = "foreign"
    await stage.populate([namespace], "no", more=())
    data = base64.b64encode(b"x" * 500 * 1024).decode()

    async def one(number: int) -> None:
        body = {"metadata": {"name": f"release-{number}"}, "data": {"release": data}}
        path = f"/api/v1/namespaces/{namespace}/secrets"
        await stage.client.send("POST", path, encoded(body), accept=bare.METADATA)

    await bare.spread(range(count), one)


def unasked(stage: Stage, mark: int) -> list[trail.Request]:
    """Return what the operator wrote since a mark, its Lease apart."""
    return [row for row in trail.by(stage.since(mark), OPERATOR) if row.done and row.resource != "leases"]


async def memory(stage: Stage) -> float:
    """Return the resident memory of the operator once it has settled, in MiB."""
    await asyncio.sleep(_SETTLE)
    return stage.operator.memory()


def _span(requests: Sequence[trail.Request]) -> float:
    return max(row.answered for row in requests) - min(row.received for row in requests)


def _wanted(accounts: Accounts, names: Sequence[str]) -> Accounts:
    return {
        namespace: [each for each in found if each["metadata"]["name"] in names]
        for namespace, found in accounts.items()
    }


async def _born(stage: Stage, mark: int, wanted: set[str], *, by_name: bool) -> dict[trail.Key, float]:
    """Wait until the accounts of these names, or the default accounts of these namespaces, are there."""

    def found() -> dict[trail.Key, float]:
        born = trail.births(stage.since(mark))
        return {
            key: at
            for key, at in born.items()
            if (key[1] in wanted if by_name else key[0] in wanted and key[1] == "default")
        }

    async def complete() -> bool:
        return len(found()) == len(wanted)

    await eventually(complete, f"{len(wanted)} accounts to be born", seconds=120, every=0.05)
    return found()
