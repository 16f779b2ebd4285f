"""The score of a suite. Every step of it is a function of this file:

1. ``retention`` of a ticket: what it kept of what training gave the dense network of the same seed, above chance.
2. ``area`` under the curve of a seed's retentions against density, on the logarithmic axis.
3. The score of an event is the mean of the areas over the seeds; ``balanced`` averages events within a domain, then domains.
4. ``draws``: the same score of resampled seeds, each event resampled by itself (a stratified bootstrap), for every method with
   the same draws; ``interval`` is the middle 95 % of them.
5. ``separated``: 0 lies outside the interval of the difference of two methods. ``shared_ranks``: who is not separated from the
   best method of a rank, and follows it, shares that rank.
"""

import hashlib
import math
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.leaderboard.statistics import CONFIDENCE

DRAWS = 10_000
"""Resamples of the bootstrap."""
Numbers = NDArray[np.float64]


def retention(ticket: float, dense: float, chance: float, higher_is_better: bool = True) -> float:
    """(ticket - chance) / (dense - chance): 1 is as good as the dense network, 0 as good as the best constant answer. BenchError
    if the dense network is no better than chance."""
    if dense == chance or (dense > chance) != higher_is_better:
        raise BenchError(
            f"the dense network ({dense:g}) is not better than the best constant answer ({chance:g}): nothing to keep"
        )
    return (ticket - chance) / (dense - chance)


def area(densities: Sequence[float], retentions: Sequence[float]) -> float:
    """The mean height of the line through (log density, retention): the area under it by trapezoids, divided by its width. Of a
    single density, the retention itself."""
    logs = [math.log10(density) for density in densities]
    if len(logs) == 1:
        return retentions[0]
    parts = [(logs[i] - logs[i + 1]) * (retentions[i] + retentions[i + 1]) / 2 for i in range(len(logs) - 1)]
    return math.fsum(parts) / (logs[0] - logs[-1])


def balanced(values: Mapping[str, float], domains: Mapping[str, Sequence[str]]) -> float:
    """The mean over the events of every domain, then over the domains (domain -> names of its events)."""
    means = [math.fsum(values[event] for event in events) / len(events) for events in domains.values()]
    return math.fsum(means) / len(means)


def draws(areas: Mapping[str, Sequence[float]], domains: Mapping[str, Sequence[str]]) -> Numbers:
    """The score of ``DRAWS`` resamples of the seeds (event -> area of every seed). Draw i of an event takes the same seeds
    whoever is scored, so that differences of two methods are paired."""
    total = np.zeros(DRAWS)
    for events in domains.values():
        for event in events:
            drawn = np.asarray(areas[event], dtype=np.float64)[resampled(event, len(areas[event]))]
            total += drawn.mean(axis=1) / (len(events) * len(domains))
    return total


def resampled(event: str, seeds: int) -> NDArray[np.int64]:
    """(DRAWS, seeds) positions of seeds, drawn with replacement: the same for every method and on every machine."""
    # The old generator's numbers are the same in every version of NumPy.
    generator = np.random.RandomState(int.from_bytes(hashlib.sha256(event.encode()).digest()[:4], "big"))
    return generator.randint(0, seeds, size=(DRAWS, seeds), dtype=np.int64)


def interval(drawn: Numbers) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return round(float(low), 9), round(float(high), 9)  # the last bits may differ between machines


def separated(one: Numbers, other: Numbers) -> bool:
    """Whether the interval of the paired difference excludes 0."""
    low, high = interval(one - other)
    return low > 0 or high < 0


def shared_ranks(count: int, apart: Callable[[int, int], bool]) -> list[int]:
    """The ranks of ``count`` methods, best score first. A rank is that of its best method, 1 + the number of methods before it,
    and of all that follow up to the first that is ``apart`` from that best one."""
    ranks: list[int] = []
    leader = 0
    for i in range(count):
        if apart(leader, i):
            leader = i
        ranks.append(leader + 1)
    return ranks


def mean_ranks(scores: Sequence[float]) -> list[float]:
    """The ranks of scores, the highest 1; equal scores have the mean of their ranks."""
    return [1 + sum(other > score for other in scores) + (scores.count(score) - 1) / 2 for score in list(scores)]


def profile(retentions: Mapping[str, Sequence[float]], shares: Sequence[float]) -> dict[str, list[float]]:
    """Performance profiles (Dolan & Moré 2002): for every method (its mean retention in each cell, all in the same order) the
    share of cells in which it keeps at least so large a share of the best method's retention."""
    best = [max(cell) for cell in zip(*retentions.values(), strict=True)]
    bars = {share: [share * top if top > 0 else top for top in best] for share in shares}
    return {
        method: [sum(map(operator.ge, values, bars[share])) / len(best) for share in shares]
        for method, values in retentions.items()
    }
