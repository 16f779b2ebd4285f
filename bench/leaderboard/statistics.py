"""Statistics over seeds: t-intervals, paired differences, and when a ticket matches its dense network."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95
MIN_SEEDS = 3
"""Fewer seeds are provisional: shown, never ranked."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    n     number of seeds
    mean  in the metric's unit, like the next two
    std   sample standard deviation (divisor n - 1); None for one seed
    half  half-width of the 95 % t-interval of the mean; None for one seed
    """

    n: int
    mean: float
    std: float | None
    half: float | None


def estimate(values: Iterable[float]) -> Estimate:
    """Compute mean and t-interval of at least one value."""
    values = list(values)
    n, centre = len(values), mean(values)
    if n == 1:
        return Estimate(1, centre, None, None)
    std = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (n - 1))
    return Estimate(n, centre, std, t_quantile(n - 1) * std / math.sqrt(n))


def mean(values: Iterable[float]) -> float:
    """The mean of at least one value. The sum is exact, so that the order of the values changes nothing; equal values have
    exactly themselves as their mean, and so an interval of exactly 0."""
    values = list(values)
    return values[0] if min(values) == max(values) else math.fsum(values) / len(values)


@cache
def t_quantile(freedom: int) -> float:
    """The end of the two-sided 95 % interval of Student's t distribution with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit  # lazy: `bench list` needs no SciPy

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Estimate of a - b, paired by seed, over the seeds that both have; None if there are none."""
    differences = [a[seed] - b[seed] for seed in a.keys() & b.keys()]
    return estimate(differences) if differences else None


def separable(a: Mapping[int, float], b: Mapping[int, float]) -> bool:
    """Whether the interval of the paired difference excludes 0. False for fewer than three common seeds."""
    difference = paired(a, b)
    return difference is not None and difference.n >= MIN_SEEDS and abs(difference.mean) > (difference.half or 0)


def better(a: Mapping[int, float], b: Mapping[int, float], higher_is_better: bool) -> bool:
    """Whether a is separable from b and on the better side of it."""
    difference = paired(a, b)
    return difference is not None and separable(a, b) and (difference.mean > 0) == higher_is_better


def matches(ticket: Mapping[int, float], dense: Mapping[int, float], higher_is_better: bool) -> bool:
    """Whether a ticket matches its dense network: worse by at most the larger standard deviation of the two
    (Chen et al. 2020, the one-standard-deviation reading of a winning ticket). Needs three seeds."""
    if min(len(ticket), len(dense)) < MIN_SEEDS:
        return False
    ours, theirs = estimate(ticket.values()), estimate(dense.values())
    loss = theirs.mean - ours.mean if higher_is_better else ours.mean - theirs.mean
    return loss <= max(ours.std or 0, theirs.std or 0)
