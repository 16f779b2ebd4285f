"""Layerwise distributions: how the entries that a budget keeps are shared out among its tensors.

A distribution is a function from the tensors of one budget, in the network's order, and the number of entries to keep, to the
rankings to make. It sees shapes and kinds, never a score. To add one, write the function and enter it in ``DISTRIBUTIONS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pruning.errors import PruningError
from pruning.maskable import Maskable


class Ranking(NamedTuple):
    """Tensors whose entries are ranked together, and the entries they get relative to other rankings (see ``quotas``)."""

    tensors: list[Maskable]
    share: float


Distribution = Callable[[list[Maskable], int], list[Ranking]]
"""(tensors of a budget, number of entries to keep) -> rankings in which every tensor occurs once."""

QK = ("query", "key")


def one_ranking(tensors: list[Maskable], k: int) -> list[Ranking]:
    """``global``: one ranking over the whole budget; where independent networks are trained side by side, one for each, so that
    all get the budget's density."""
    networks: dict[int, list[Maskable]] = {}
    for m in tensors:
        networks.setdefault(m.network, []).append(m)
    return [Ranking(members, sum(m.size for m in members)) for members in networks.values()]


def uniform(tensors: list[Maskable], k: int) -> list[Ranking]:
    """Every tensor gets the budget's density. Tensors that share groups are ranked together."""
    return [Ranking(pool, sum(m.size for m in pool)) for pool in _joined_by_groups(tensors)]


def erk(tensors: list[Maskable], k: int) -> list[Ranking]:
    """Erdos-Renyi-Kernel (Evci et al. 2020, RigL): sparser where a tensor is larger.

    For a convolution (out, in, height, width) the density is proportional to
    (out + in + height + width) / (out * in * height * width), so the entries are proportional to sum(shape).
    """
    return [Ranking([m], sum(m.shape)) for m in _each_alone(tensors, "erk")]


def smart_ratio(tensors: list[Maskable], k: int) -> list[Ranking]:
    """Density that falls with depth (Su et al. 2020, "Sanity-checking pruning methods", for residual networks).

    Layer l of L gets a density proportional to (L - l + 1)^2 + (L - l + 1). Linear layers keep 0.3.
    """
    return _smart_ratio(_each_alone(tensors, "smart_ratio"), k, lambda depth: 1.0)


def smart_ratio_chain(tensors: list[Maskable], k: int) -> list[Ranking]:
    """The ``smart_ratio`` of plain chains of layers, such as VGG: the density is also divided by l^2 (Su et al. 2020)."""
    return _smart_ratio(_each_alone(tensors, "smart_ratio_chain"), k, lambda depth: depth * depth)


def qk_uniform(tensors: list[Maskable], k: int) -> list[Ranking]:
    """Queries and keys of attentions as in ``uniform``, one ranking over all other tensors.

    For data-free scores: with a constant input the softmax of an attention is uniform, so queries and keys have zero gradient.
    """
    alone = [[m] for m in _each_alone(tensors, "qk_uniform") if m.kind in QK]
    rest = [m for m in tensors if m.kind not in QK]
    return [Ranking(pool, sum(m.size for m in pool)) for pool in [*alone, *([rest] if rest else [])]]


DISTRIBUTIONS: dict[str, Distribution] = {
    "global": one_ranking,
    "uniform": uniform,
    "erk": erk,
    "smart_ratio": smart_ratio,
    "smart_ratio_chain": smart_ratio_chain,
    "qk_uniform": qk_uniform,
}


def quotas(shares: Sequence[float], least: Sequence[int], most: Sequence[int], k: int) -> list[int]:
    """Return integers near ``shares`` times a common factor, each within its [least, most], that sum to exactly ``k``.

    The factor is found by bisection; the entries left by rounding down go to the largest remainders.
    """
    if len(shares) == 1:
        return [k]

    def clipped(factor: float) -> list[float]:
        return [min(max(s * factor, a), b) for s, a, b in zip(shares, least, most, strict=True)]

    low, high = 0.0, 1.0  # the factor lies in (low, high]
    while sum(clipped(high)) < k:
        high *= 2
    for _ in range(200):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if sum(clipped(middle)) < k else (low, middle)
    exact = clipped(high)
    rounded = [math.floor(e) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: rounded[i] - exact[i])
    for i in by_remainder[: k - sum(rounded)]:
        rounded[i] += 1
    return rounded


def _smart_ratio(tensors: list[Maskable], k: int, divisor: Callable[[int], float]) -> list[Ranking]:
    linear = [m.kind in ("linear", "head") for m in tensors]
    fixed = sum(0.3 * m.size for m, is_linear in zip(tensors, linear, strict=True) if is_linear)
    weights = []
    for depth, (m, is_linear) in enumerate(zip(tensors, linear, strict=True), 1):
        left = len(tensors) - depth + 1
        weights.append(0.0 if is_linear else (left * left + left) / divisor(depth) * m.size)
    if not any(weights) or k <= fixed:
        raise PruningError(
            f"scheme smart_ratio keeps 0.3 of every linear layer, here {fixed:.0f} entries, and spreads what "
            f"is left of {k} over the {sum(map(bool, weights))} other tensors: use uniform or erk"
        )
    factor, surplus, rankings = (k - fixed) / sum(weights), 0.0, []
    for m, weight in zip(tensors, weights, strict=True):
        share = 0.3 * m.size
        if weight:  # the entries that exceed a tensor go to the next ones
            wanted = factor * weight + surplus
            share = min(wanted, m.size)
            surplus = wanted - share
        rankings.append(Ranking([m], share))
    return rankings


def _each_alone(tensors: list[Maskable], scheme: str) -> list[Maskable]:
    """Return the tensors, after checking that no group of entries spans two of them."""
    for pool in _joined_by_groups(tensors):
        if len(pool) > 1:
            raise PruningError(
                f"scheme {scheme} ranks every tensor alone, but a group of {pool[-1].name} is also in "
                "another tensor: use scheme global or uniform"
            )
    return tensors


def _joined_by_groups(tensors: Iterable[Maskable]) -> list[list[Maskable]]:
    """Return lists of tensors that share groups, each other tensor in a list of its own."""
    pools: list[tuple[set[int], list[Maskable]]] = []
    for m in tensors:
        numbers: set[int] = set() if m.groups is None else set(m.groups.reshape(-1).tolist())
        members, others = [m], []
        for pool in pools:
            if numbers & pool[0]:
                numbers, members = numbers | pool[0], [*pool[1], *members]
            else:
                others.append(pool)
        pools = [*others, (numbers, members)]
    return [members for _, members in pools]
