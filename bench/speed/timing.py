"""Timing: the same inputs through every form, in turn, so that whatever else the machine does slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

FEWEST, MOST = 15, 200
"""Rounds: as many as fit in the time that was given, within these."""
WARM = 3
"""Rounds before the first that counts: compilers compile, caches fill."""

Key = TypeVar("Key")


def timed(runs: Mapping[Key, Callable[[], object]], seconds: float, device: torch.device) -> dict[Key, list[float]]:
    """Seconds that each run took in every round. Every other round goes through the runs backwards."""
    times: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in range(WARM):
        for run in runs.values():
            run()
    keys, end = list(runs), time.perf_counter() + seconds
    for number in range(MOST):
        for key in keys if number % 2 == 0 else reversed(keys):
            _wait(device)
            began = time.perf_counter()
            runs[key]()
            _wait(device)
            times[key].append(time.perf_counter() - began)
        if number + 1 >= FEWEST and time.perf_counter() > end:
            break
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
