"""Selection under a pattern of cells: n of every m neighbours, or equally many entries in every row. A distribution says how many
entries a tensor keeps; what is here says which, so that every cell keeps its share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pruning.allocation.selection import Array, Candidates
from pruning.errors import PruningError
from pruning.maskable import Maskable
from pruning.patterns import TOLERANCE, Cells


class Quota(NamedTuple):
    """How many entries every cell of a tensor keeps, (cells,) each."""

    base: Array
    """Entries that a cell keeps in any case."""
    more: Array
    """Whether it may be one of those that keep one more."""


def neighbours(sizes: list[Array], density: float, final: bool) -> list[Quota]:
    """Return the quotas of n:m for tensors whose cells have ``sizes`` entries, kept or pruned: every cell keeps ``density`` of
    them. Where that is no whole number it is rounded down, and such cells compete for what is left; or rounded up if densities
    are to follow, so that every cell has enough for the next round."""
    shares = [density * size for size in sizes]
    if not final:
        return [Quota(np.ceil(share - TOLERANCE).astype(np.int64), np.zeros(len(share), dtype=bool)) for share in shares]
    bases = [np.floor(share + TOLERANCE).astype(np.int64) for share in shares]
    return [Quota(base, share - base > TOLERANCE) for share, base in zip(shares, bases, strict=True)]


def columns(alive: list[Array], wanted: list[int]) -> list[Quota]:
    """Return the quotas of rows for tensors whose rows have ``alive`` entries left: the same number in every row that has any,
    near the ``wanted`` entries of the tensor, and at most as many in all. A whole column, one entry of every row, goes to the
    tensors with the largest remainders for as long as one fits."""
    rows = [int(np.count_nonzero(a)) for a in alive]
    each = [min(count // max(1, r), _fewest(a)) for count, r, a in zip(wanted, rows, alive, strict=True)]
    left = sum(wanted) - sum(e * r for e, r in zip(each, rows, strict=True))
    for i in sorted(range(len(rows)), key=lambda i: each[i] - wanted[i] / max(1, rows[i])):
        if rows[i] and rows[i] <= left and each[i] < _fewest(alive[i]):
            each[i] += 1
            left -= rows[i]
    return [Quota(np.where(a > 0, e, 0), np.zeros(len(a), dtype=bool)) for e, a in zip(each, alive, strict=True)]


def _fewest(alive: Array) -> int:
    return int(alive[alive > 0].min()) if alive.any() else 0


def all_but_best_of_cells(
    tensors: list[Candidates], cells: Sequence[Array], quotas: list[Quota], k: int | None, rng: np.random.Generator
) -> dict[str, Array]:
    """Return the ranked positions of all but the best entries of every cell, by name of the tensor. ``cells``: of every ranked
    position, all of which remain. The best entries of cells that may keep one more make it ``k`` in all; None: no such cells.
    Raises PruningError where a cell has fewer entries left than it must keep."""
    kept, edges, scores = [], [], []
    for tensor, of, quota in zip(tensors, cells, quotas, strict=True):
        score = tensor.scores()
        if (np.bincount(of, minlength=len(quota.base)) < quota.base).any():
            raise _too_few(tensor)
        rank = _ranks(score, of, rng)
        kept.append(rank < quota.base[of])
        edges.append(np.flatnonzero((rank == quota.base[of]) & quota.more[of]))
        scores.append(score[edges[-1]])
    if k is not None:
        competing, extra = np.concatenate(scores), k - sum(map(np.count_nonzero, kept))
        if not 0 <= extra <= competing.size:
            raise _too_few(tensors[0])
        best = np.zeros(competing.size, dtype=bool)
        best[np.lexsort((rng.permutation(competing.size), -competing))[:extra]] = True
        for mask, edge, won in zip(kept, edges, np.split(best, np.cumsum([e.size for e in edges])[:-1]), strict=True):
            mask[edge[won]] = True
    return {tensor.maskable.name: np.flatnonzero(~mask) for tensor, mask in zip(tensors, kept, strict=True)}


def _too_few(tensor: Candidates) -> PruningError:
    return PruningError(
        f"the masks so far leave {tensor.maskable.name} too few entries in some places for pattern "
        f"{tensor.maskable.pattern}: prune by the pattern from the first round on"
    )


def filled(m: Maskable, kept: Tensor, wanted: Array, score: Tensor, seed: int) -> Tensor:
    """Return the mask ``kept`` with entries of highest ``score`` added until every cell of a tensor has as many as ``wanted``
    (cells,) says."""
    assert isinstance(m.pattern, Cells)
    mask, cells = kept.reshape(-1).clone(), m.pattern.of(m).reshape(-1).numpy()
    lacking = wanted - np.bincount(cells[mask.numpy()], minlength=len(wanted))
    free = np.flatnonzero(~mask.numpy())
    rank = _ranks(score.reshape(-1).numpy()[free], cells[free], np.random.default_rng(seed))
    mask[torch.from_numpy(free[rank < lacking[cells[free]]])] = True
    return mask.reshape(kept.shape)


def _ranks(scores: Array, cells: Array, rng: np.random.Generator) -> Array:
    """Return the rank of every entry within its cell, 0 for the highest score; ``rng`` orders equal scores."""
    order, alive = np.lexsort((rng.permutation(scores.size), -scores, cells)), np.bincount(cells)
    rank = np.empty(scores.size, dtype=np.int64)
    rank[order] = np.arange(scores.size) - (np.cumsum(alive) - alive)[cells[order]]
    return rank
