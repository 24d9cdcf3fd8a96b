"""What the replicas take: memory, file descriptors, sockets, threads, tasks and processor time, over their lives."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from dev.soak.world import World

#: Seconds between samples; of a life, those that are warm-up, and those that it must last to be judged.
EVERY = 10.0
WARM_UP = 300.0
LEAST_LIFE = 900.0
#: What may come and go between the first and the last quarter of a life, by measure.
SLACK = {"memory": 24.0, "descriptors": 12.0, "sockets": 12.0, "threads": 6.0, "tasks": 20.0}
_TASKS = re.compile(r"^regcred_asyncio_tasks (\S+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process; memory in MiB, processor time in seconds, `leads` as its metric says."""

    at: float
    replica: str
    pid: int
    leads: bool
    memory: float
    descriptors: float
    sockets: float
    threads: float
    tasks: float
    cpu: float


@dataclasses.dataclass(frozen=True, slots=True)
class Growth:
    """How one measure developed over one long life.

    Attributes:
        first: median of the first quarter after the warm-up.
        last: median of the last quarter.
        hourly: slope of a straight line through all, an hour.
    """

    replica: str
    pid: int
    minutes: float
    measure: str
    first: float
    last: float
    hourly: float

    @property
    def grows(self) -> bool:
        """Whether it is more than what comes and goes."""
        return self.last - self.first > SLACK[self.measure]


class Sampler:
    """Takes samples of both replicas.

    Args:
        world: where they run.
    """

    def __init__(self, world: World) -> None:
        self.samples: list[Sample] = []
        self._world = world

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            for each in self._world.replicas:
                process = each.process
                if not process.running:
                    continue
                # A process that is gone, or stopped, tells nothing.
                with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
                    async with asyncio.timeout(2):
                        told = await process.metrics()
                    if found := _TASKS.search(told):
                        leads = "regcred_leader 1.0" in told
                        self.samples.append(_sample(each.name, process.pid, float(found[1]), leads=leads))
            await asyncio.sleep(EVERY)


def _sample(replica: str, pid: int, tasks: float, *, leads: bool) -> Sample:
    root = Path(f"/proc/{pid}")
    status = (root / "status").read_text(encoding="utf-8")
    fields = (root / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    targets = []
    for name in os.listdir(root / "fd"):  # noqa: PTH208 - names only
        with contextlib.suppress(OSError):
            targets.append(os.readlink(root / "fd" / name))  # noqa: PTH115
    return Sample(
        at=time.time(),
        replica=replica,
        pid=pid,
        leads=leads,
        memory=int(status.split("VmRSS:")[1].split()[0]) / 1024,
        descriptors=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
        threads=int(status.split("Threads:")[1].split()[0]),
        tasks=tasks,
        cpu=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    )


def growths(samples: Sequence[Sample], *, warm_up: float = WARM_UP, least: float = LEAST_LIFE) -> list[Growth]:
    """Return how every measure developed over every time for which one process led, if that was long enough.

    Args:
        samples: in order.
        warm_up: seconds from its first sample as a leader that are left out.
        least: seconds that it must have led.
    """
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.leads:
            lives.setdefault(sample.pid, []).append(sample)
    found = []
    for life in lives.values():
        if life[-1].at - life[0].at < least:
            continue
        kept = [sample for sample in life if sample.at >= life[0].at + warm_up]
        quarter = max(len(kept) // 4, 1)
        for measure in SLACK:
            values = [float(getattr(sample, measure)) for sample in kept]
            slope = (
                statistics.linear_regression([sample.at for sample in kept], values).slope if len(kept) > 1 else 0
            )
            found.append(
                Growth(
                    life[0].replica,
                    life[0].pid,
                    (life[-1].at - life[0].at) / 60,
                    measure,
                    statistics.median(values[:quarter]),
                    statistics.median(values[-quarter:]),
                    slope * 3600,
                )
            )
    return found


def processor_share(samples: Sequence[Sample]) -> float:
    """Return the processor time of both replicas together, as a share of one core."""
    if len(samples) < 2:
        return 0.0
    span = max(samples[-1].at - samples[0].at, 1.0)
    return sum(max(s.cpu for s in samples if s.pid == pid) for pid in {s.pid for s in samples}) / span
