"""What this machine offers a run: processes, threads, and versions of packages."""

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import psutil

from bench import launcher
from bench.errors import UsageError

MEMORY_OF_A_JOB = 5 * 2**30
"""The bytes that a process may need to train the largest network of a desk protocol."""


def workers(config: Mapping[str, Any], trainings: int) -> int | Literal["auto"]:
    """Return over how many workers to spread a grid of which so many trainings can run at a time; ``auto`` where they are not of
    this machine. Threads of one process wait for each other in every layer, and for long where another program uses their cores.
    Processes of one thread each do not, so ``auto`` takes one process for each core."""
    if config["executor"]["name"] == "serial" and config["jobs"] not in ("auto", 1):
        raise UsageError(f"executor=serial runs one job after the other: leave out jobs={config['jobs']}")
    if config["jobs"] != "auto":
        return int(config["jobs"])
    if "cpus" in config["executor"]:
        return "auto"
    if launcher.launched() > 1 or config["executor"]["name"] == "serial" or (config["device"] != "cpu" and _has_gpu()):
        return 1
    return max(1, min(trainings, _cores(), psutil.virtual_memory().available // MEMORY_OF_A_JOB))


def threads(config: Mapping[str, Any]) -> int:
    """Return the CPU threads of each process of the run, once the number of processes is decided. A lone process takes one thread
    for each core that was idle when it began: a thread on a core that another program uses makes all the others wait, up to a
    hundred times as long."""
    if config["threads"] != "auto":
        return int(config["threads"])
    if "cpus" in config["executor"]:
        return max(1, int(config["executor"]["cpus"]))
    processes = max(1, int(config["jobs"]) * launcher.local())
    return max(1, _idle_cores() if processes == 1 else _cores() // processes)


def installed(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none


@cache
def _idle_cores() -> int:
    """Return how many cores were mostly idle over a fifth of a second, measured once per process before it computes."""
    return min(_cores(), sum(busy < 50 for busy in psutil.cpu_percent(0.2, percpu=True)))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
