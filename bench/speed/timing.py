"""Timing: the same inputs through every form, in turn, so that other load on the machine slows all alike."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch

from bench.training.speed import now

FEWEST, MOST = 15, 200
"""Rounds: as many as fit in the time that was given, within these."""
WARM = 3
"""Rounds before the first that counts: compilers compile, caches fill."""

Key = TypeVar("Key")


class Taken(NamedTuple):
    """Seconds of one run: on the clock, and of the process on its cores, which waiting for other processes does not lengthen."""

    wall: float
    cpu: float


def timed(runs: Mapping[Key, Callable[[], object]], seconds: float, device: torch.device) -> dict[Key, list[Taken]]:
    """Return the time that each run took in every round. Every other round goes through the runs backwards."""
    times: dict[Key, list[Taken]] = {key: [] for key in runs}
    for _ in range(WARM):
        for run in runs.values():
            run()
    keys, end = list(runs), time.perf_counter() + seconds
    for number in range(MOST):
        for key in keys if number % 2 == 0 else reversed(keys):
            began, used = now(device), time.process_time()
            runs[key]()
            times[key].append(Taken(now(device) - began, time.process_time() - used))
        if number + 1 >= FEWEST and time.perf_counter() > end:
            break
    return times
