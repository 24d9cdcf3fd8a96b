"""What a run stood on, told without naming the machine."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from dev.cluster import Cluster


def describe(cluster: Cluster) -> dict[str, str]:
    """Return what a figure depends on: processor, memory, versions, and what else was going on."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.+)", cpu)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": model[1].strip() if model else platform.machine(),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "Kubernetes": cluster.git_version,
        "Python": platform.python_version(),
        "aiohttp": metadata.version("aiohttp"),
        "kopf": metadata.version("kopf"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def peak(pid: int) -> float:
    """Return the most resident memory a process has had so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
