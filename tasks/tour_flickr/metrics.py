"""How well a recommended trip agrees with the one that was made (Chen, Ong & Xie 2016; middle F1: BERT-Trip)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

Trip = Sequence[int]


def f1(real: Trip, recommended: Trip) -> float:
    """Return F1 of the POIs, whatever their order; start and end count. A POI counts as often as both trips have it."""
    common = sum((Counter(real) & Counter(recommended)).values())
    return 2 * common / (len(real) + len(recommended)) if common else 0.0


def pairs_f1(real: Trip, recommended: Trip) -> float:
    """Return F1 of the ordered pairs of different POIs; 1 for the very sequence alone.

    A pair of the recommended trip is right if the real trip, which must not repeat a POI, has both in that order. If the
    recommended one repeats a POI its pairs count several times.
    """
    at = {poi: i for i, poi in enumerate(real)}
    if len(at) < len(real):
        raise ValueError("pairs F1 is not defined for a real trip that repeats a POI")
    n, m = len(real), len(recommended)
    right = sum(
        recommended[i] in at and recommended[j] in at and at[recommended[i]] < at[recommended[j]]
        for i in range(m)
        for j in range(i + 1, m)
    )
    if not right:
        return 0.0
    precision, recall = right / (m * (m - 1) / 2), right / (n * (n - 1) / 2)
    return 2 * precision * recall / (precision + recall)


def middle_f1(real: Trip, recommended: Trip) -> float:
    """Return F1 of the POIs between start and end, which are given and say nothing of a method."""
    return f1(real[1:-1], recommended[1:-1])


METRICS: dict[str, Callable[[Trip, Trip], float]] = {"f1": f1, "pairs_f1": pairs_f1, "middle_f1": middle_f1}
"""By name, in the order in which AR-Trip compares the epochs of its oracle."""
