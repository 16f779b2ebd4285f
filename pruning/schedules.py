"""Schedules: densities over the rounds of a search and over the steps of a training."""

import math
from typing import NamedTuple

from pruning.errors import PruningError, one_of
from pruning.ticket import Densities

PATHS = ("exponential", "linear")


def geometric(before: Densities, after: Densities, rate: float | None) -> list[Densities]:
    """Return the densities after each round of iterative pruning from ``before`` to ``after``. Every round prunes the same share
    of the remaining entries, at most ``rate``. None: one round."""
    count = 1
    if rate is not None:
        if not 0 < rate < 1:
            raise PruningError(f"rate is {rate}; the share of the remaining entries pruned in one round must lie in (0, 1)")
        # less a little, or rounding would make a fourth round of 0.8 ** 3
        count = max([1, *(math.ceil(math.log(after[b] / before[b]) / math.log(1 - rate) - 1e-9) for b in after)])
    steps: list[Densities] = [{b: before[b] * (after[b] / before[b]) ** (i / count) for b in after} for i in range(1, count)]
    return [*steps, dict(after)]


def density_schedule(density: Densities, rounds: int, path: str) -> list[Densities]:
    """Return the densities after each of ``rounds`` rounds from 1 to ``density`` d. Round k of n leaves d ** (k / n) on the
    exponential path (Tanaka et al. 2020) and 1 - (1 - d) * k / n on the linear one."""
    one_of("path", path, PATHS)
    if rounds < 1:
        raise PruningError(f"rounds is {rounds}; pruning takes at least one")
    shares = [k / rounds for k in range(1, rounds)]
    if path == "linear":
        steps: list[Densities] = [{b: 1 - (1 - d) * share for b, d in density.items()} for share in shares]
    else:
        steps = [{b: d**share for b, d in density.items()} for share in shares]
    return [*steps, dict(density)]


def cubic(density: float, done: float) -> float:
    """Return the density when the share ``done`` of a gradual pruning is over: 1 at 0 and ``density`` at 1, falling fast at
    first (Zhu & Gupta 2018)."""
    return density + (1 - density) * (1 - done) ** 3


def drop_share(drop: float, step: int, end: int) -> float:
    """Return the share of the remaining entries to replace at ``step``: a cosine from ``drop`` at step 0 to 0 at step ``end``
    (Evci et al. 2020, RigL)."""
    return drop / 2 * (1 + math.cos(math.pi * step / end))


class Timetable(NamedTuple):
    """When masks are updated during a training."""

    every: int
    """Steps between two updates."""
    end: int
    """The step after which no mask changes."""
    updates: int
    """Number of updates."""


def timetable(total: int, begin: float, until: float, interval: int | None) -> Timetable:
    """Return when masks are updated between the shares ``begin`` and ``until`` of a training of ``total`` steps. ``interval`` is
    the number of steps between two updates. None: 100, or a twentieth of a training under 2,000 steps. Raises PruningError unless
    there is at least one update."""
    if not 0 <= begin < until <= 1:
        raise PruningError(f"masks move from share {begin} to share {until} of the training: these must rise within [0, 1]")
    every = max(1, min(100, total // 20)) if interval is None else interval
    first, end = math.floor(begin * total), math.floor(until * total)
    if not isinstance(every, int) or every < 1 or end - first < every:
        raise PruningError(
            f"interval is {interval}, but masks move during {end - first} steps of the training only: give a "
            "whole number of steps from 1 up to that"
        )
    return Timetable(every, end, (end - first) // every)
