"""Selection kernels: which entries of tensors that are ranked together have the lowest scores. A kernel returns positions to
prune and keeps exactly k entries. It reads scores block by block, so that a round of many costs little more than one pass over
memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.errors import PruningError, not_finite
from pruning.maskable import Maskable

Array = NDArray[Any]
Score = Tensor | tuple[Tensor, Tensor]
"""A score tensor, or a pair (a, b) that means |a * b|, multiplied only at entries that remain. ``a`` must not change between
rounds there."""
SAMPLE_SIZE = 2**12
"""Number of entries from which a threshold is estimated."""
BLOCK_SIZE = 2**17
"""Entries that are scored and compared at a time, so that temporary arrays stay in a core's cache."""
MIN_PARTITION_SHARE = 0.11
"""Least share of the ranked entries to partition: numpy finds true values without branching where more than a tenth are."""


class Positions(NamedTuple):
    """The flat positions of a tensor that are ranked. Some may be pruned already: compacting the arrays at every cut would cost
    more than passing over a few pruned entries."""

    size: int
    at: Array | None
    """The ranked positions. None: all."""
    alive: Array | None
    """Whether the entry at each ranked position remains. None: all do."""
    remaining: int
    """Number of entries that remain."""

    def flat(self, ranked: Array) -> Array:
        """Return flat positions of ranked ones."""
        return ranked if self.at is None else self.at[ranked]

    def of(self, flat: Array, part: slice = slice(None)) -> Array:
        """Return the values of ``flat`` at a part of the ranked positions; by torch, which takes half of numpy's time."""
        if self.at is None:
            return flat[part]
        return torch.from_numpy(flat).index_select(0, torch.from_numpy(self.at[part])).numpy()


@dataclass(frozen=True)
class Candidates:
    """The ranked entries of one tensor with their scores."""

    maskable: Maskable
    constant: Array | None
    """The factor of the score that never changes, at the ranked positions. None: the other factor is the score."""
    varying: Array
    """The other factor, at all positions."""
    groups: Array | None
    """Group numbers at the ranked positions, all of which then remain. None: each entry decides alone."""
    floor: int
    """The fewest of the remaining entries to keep."""
    positions: Positions

    @property
    def remaining(self) -> int:
        """Number of entries that remain."""
        return self.positions.remaining

    def scores(self, part: slice = slice(None)) -> Array:
        """Return the scores of the remaining entries at a part of the ranked positions."""
        scores, alive = self._scores(part), self.positions.alive
        return scores if alive is None else scores[np.flatnonzero(alive[part])]

    def only(self, ranked: Array) -> Self:
        """Return the same tensor with fewer ranked positions, all of which remain."""
        constant = None if self.constant is None else self.constant[ranked]
        return replace(self, constant=constant, positions=Positions(ranked.size, self.positions.flat(ranked), None, ranked.size))

    def up_to(self, value: float) -> tuple[Array, Array]:
        """Return ranked positions and scores of the remaining entries whose score is at most ``value``."""
        ranked: list[Array] = [np.empty(0, dtype=np.int64)]
        scores: list[Array] = [np.empty(0, dtype=np.float32)]
        for start in range(0, self.positions.size, BLOCK_SIZE):
            part = slice(start, start + BLOCK_SIZE)
            score = self._scores(part)
            low = score <= value
            if self.positions.alive is not None:
                low &= self.positions.alive[part]
            inside = np.flatnonzero(low)
            scores.append(score[inside])
            inside += start
            ranked.append(inside)
        return np.concatenate(ranked), np.concatenate(scores)

    def _scores(self, part: slice) -> Array:
        scores = self.positions.of(self.varying, part)
        if self.constant is not None:
            scores = self.constant[part] * scores
            np.abs(scores, out=scores)
        if not math.isfinite(torch.from_numpy(scores).sum()):  # finite only if all are: one pass, and hardly ever a second
            alive = slice(None) if self.positions.alive is None else self.positions.alive[part]
            if not np.isfinite(scores[alive]).all():
                raise not_finite(self.maskable.name)
        return scores


def factors(m: Maskable, scores: Mapping[str, Score], order: Sequence[int]) -> list[Array]:
    """Return the score of a tensor, or its two factors, flat in the given order of dimensions."""
    if m.name not in scores:
        raise PruningError(f"no score for {m.name}")
    score = scores[m.name]
    parts = (score,) if isinstance(score, Tensor) else score
    for part in parts:
        if part.shape != torch.Size(m.shape):
            raise PruningError(f"the score of {m.name} has shape {tuple(part.shape)}, its maskable {m.shape}")
    wide = (part.detach().cpu().to(torch.promote_types(part.dtype, torch.float32)) for part in parts)
    return [part.permute(*order).reshape(-1).numpy() for part in wide]


def all_but_best(pool: list[Candidates], k: int, rng: np.random.Generator) -> list[Array]:
    """Return the ranked positions of all remaining entries but the k best of the pool. Where the ranking would leave a tensor
    below its floor, every tensor's best entries up to its floor are set aside first. Entries that belong to groups are kept or
    pruned with their group."""
    if any(t.maskable.groups is not None for t in pool):
        return _all_but_best_groups(pool, k, rng)
    pruned = _lowest(pool, k, rng)
    if any(t.remaining - at.size < t.floor for t, at in zip(pool, pruned, strict=True)):
        above_floor = [_lowest([t], t.floor, rng)[0] for t in pool]
        rest = [t.only(at) for t, at in zip(pool, above_floor, strict=True)]
        pruned = _lowest(rest, k - sum(t.remaining - at.size for t, at in zip(pool, above_floor, strict=True)), rng)
        pruned = [other[at] for other, at in zip(above_floor, pruned, strict=True)]
    return pruned


def _lowest(pool: list[Candidates], k: int, rng: np.random.Generator) -> list[Array]:
    """Return the positions of all remaining entries but exactly ``k`` of the largest values; ``rng`` breaks ties at the edge.
    Estimates the threshold from a sample, then partitions only the entries near or below it."""
    excess = sum(t.remaining for t in pool) - k
    if k == 0 or excess <= 0:
        return [t.up_to(np.inf if k == 0 else -np.inf)[0] for t in pool]
    estimate = _threshold_above(pool, excess)
    low = [t.up_to(estimate) for t in pool]
    if sum(at.size for at, _ in low) <= excess:
        low = [t.up_to(np.inf) for t in pool]
    edge = np.partition(np.concatenate([value for _, value in low]), excess)[excess]
    tied = [value == edge for _, value in low]
    pruned = [value < edge for _, value in low]
    ties = [int(np.count_nonzero(t)) for t in tied]
    kept = np.zeros(sum(ties), dtype=bool)
    kept[rng.choice(kept.size, kept.size - excess + sum(map(np.count_nonzero, pruned)), replace=False)] = True
    for below, at_edge, kept_ties in zip(pruned, tied, np.split(kept, np.cumsum(ties)[:-1]), strict=True):
        below[at_edge] = ~kept_ties
    return [at[np.flatnonzero(below)] for (at, _), below in zip(low, pruned, strict=True)]


def _threshold_above(pool: list[Candidates], count: int) -> float:
    """Return a value that a little more than ``count`` remaining entries are likely not to exceed."""
    ranked, remaining = sum(t.positions.size for t in pool), sum(t.remaining for t in pool)
    sample = np.concatenate([t.scores(slice(None, None, 1 + ranked // SAMPLE_SIZE)) for t in pool])
    share = count / remaining
    at = math.ceil(sample.size * share + 4 * math.sqrt(sample.size * share * (1 - share)))  # four standard deviations more
    at = max(at, math.ceil(sample.size * MIN_PARTITION_SHARE * ranked / remaining))
    return float(np.partition(sample, at)[at]) if at < sample.size else math.inf


def _all_but_best_groups(pool: list[Candidates], k: int, rng: np.random.Generator) -> list[Array]:
    """Take groups in order of summed score for as long as they fit into ``k`` entries, the groups that floors need first."""
    groups = _joined_groups(pool)
    size = np.bincount(groups)
    total = np.bincount(groups, weights=np.concatenate([t.scores() for t in pool]))
    order = np.lexsort((rng.permutation(total.size), -total))
    reserved = np.zeros(total.size, dtype=bool)
    for tensor, own in zip(pool, _split(groups, pool), strict=True):
        held = np.bincount(own, minlength=total.size)[order]
        reserved[order[(held > 0) & (np.cumsum(held) - held < tensor.floor)]] = True
    if size[reserved].sum() > k:
        raise PruningError(
            f"{k} entries are too few for the groups that hold the floors of {len(pool)} tensors: "
            f"they have {size[reserved].sum():.0f}, ask for a higher density"
        )
    order = np.concatenate([order[reserved[order]], order[~reserved[order]]])
    fits = np.zeros(total.size, dtype=bool)
    fits[order[np.cumsum(size[order]) <= k]] = True
    return [np.flatnonzero(~kept) for kept in _split(fits[groups], pool)]


def _joined_groups(pool: list[Candidates]) -> Array:
    """Return the group number of every remaining entry of all tensors; ungrouped entries are groups of one. A number names the
    same group in every tensor (a channel masked in two of them)."""
    free = 1 + max((int(t.groups.max()) for t in pool if t.groups is not None and t.groups.size), default=-1)
    joined = []
    for tensor in pool:
        groups = tensor.groups
        if groups is None:
            groups = np.arange(free, free + tensor.remaining)
            free += tensor.remaining
        joined.append(groups)
    return np.unique(np.concatenate(joined), return_inverse=True)[1]


def _split(flat: Array, like: list[Candidates]) -> list[Array]:
    return np.split(flat, np.cumsum([t.remaining for t in like])[:-1])
