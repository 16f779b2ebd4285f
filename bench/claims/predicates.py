"""Predicates of claims: what is compared at every density, highest density first, and a margin -> whether it holds there.

The docstrings of the predicates introduce them on the page of claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.leaderboard import statistics
from bench.leaderboard.statistics import Estimate, estimate


@dataclass(frozen=True)
class Pair:
    """The two sides of a comparison at one density: seed -> metric, over the seeds that both have."""

    a: dict[int, float]
    b: dict[int, float]
    higher_is_better: bool = True

    @classmethod
    def of(cls, a: Mapping[int, float], b: Mapping[int, float], higher_is_better: bool = True) -> Pair:
        """Pair two sides, leaving out seeds that only one of them has."""
        common = sorted(a.keys() & b.keys())
        return cls({seed: a[seed] for seed in common}, {seed: b[seed] for seed in common}, higher_is_better)

    @cached_property
    def lead(self) -> Estimate:
        """Estimate of how much a is better than b, paired by seed."""
        return estimate(self.leads.values())

    @property
    def leads(self) -> dict[int, float]:
        """How much a is better than b for every seed."""
        sign = 1 if self.higher_is_better else -1
        return {seed: sign * (self.a[seed] - self.b[seed]) for seed in self.a}


def better(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean is better than b's by more than the margin, and the 95 % interval of the paired difference leaves 0 out."""
    return [pair.lead.mean > margin and pair.lead.mean > (pair.lead.half or 0) for pair in pairs]


def not_worse(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean is worse than b's by at most the margin."""
    return [pair.lead.mean >= -margin for pair in pairs]


def equal_within(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean and b's differ by at most the margin."""
    return [abs(pair.lead.mean) <= margin for pair in pairs]


def matches(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean is worse than b's by at most the larger of their standard deviations over seeds (no margin)."""
    return [statistics.matches(pair.a, pair.b, pair.higher_is_better) for pair in pairs]


def gap_grows(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's lead over b is larger than at the highest density: `better`, of the leads."""
    return better([Pair.of(pair.leads, pairs[0].leads) for pair in pairs[1:]], margin)


PREDICATES = {f.__name__: f for f in (better, not_worse, equal_within, matches, gap_grows)}
