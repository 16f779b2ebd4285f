"""allocate: the only code that decides which entries survive. Exactly k of n, seeded ties, monotone, floors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import PruningError
from .maskable import Maskable
from .masks import Masks

Densities = Mapping[str, float]
"""budget -> density asked, in (0, 1]."""

SCHEMES = ("global", "uniform", "erk")


def allocate(scores: Mapping[str, Tensor], masks: Masks, densities: Densities, maskables: list[Maskable],
             scheme: str = "global", seed: int = 0) -> Masks:
    """Keep, in every budget asked for, the round(density * n) entries of highest score.

    scores     name -> tensor of the maskable's shape; higher means keep; entries masked already are not looked at
    densities  budget -> density of the whole budget, masked entries counted in; a budget left out is untouched
    scheme     global: one ranking over the budget
               uniform: every tensor at the budget's density
               erk: density of a tensor proportional to sum(shape) / prod(shape) (Evci et al. 2020, Erdos-Renyi-Kernel)
    seed       orders equal scores

    Entries of one group stand or fall together by their summed score; the best groups are kept for as long as they fit
    into k.
    Raises PruningError for a density outside (0, 1], above what is alive, below the floors, or a non-finite score.
    """
    if scheme not in SCHEMES:
        raise PruningError(f"unknown scheme {scheme!r}: one of {', '.join(SCHEMES)}")
    kept: dict[str, Tensor] = {}
    for budget, density in densities.items():
        members = [m for m in maskables if m.budget == budget]
        if not members:
            known = ", ".join(dict.fromkeys(m.budget for m in maskables))
            raise PruningError(f"no maskable has budget {budget!r}; this task has: {known}")
        rng = np.random.default_rng([seed, *budget.encode()])
        tensors = [_tensor(m, scores, masks) for m in members]
        k = _count(density, budget, tensors)
        for pool, quota in _pools(tensors, scheme, k):
            best = _best_groups if any(t.maskable.groups is not None for t in pool) else _best
            for tensor, keep in zip(pool, best(pool, quota, rng), strict=True):
                kept[tensor.maskable.name] = torch.from_numpy(keep).reshape(tensor.maskable.shape)
    return masks.replace(kept)


@dataclass(frozen=True)
class _Tensor:
    """A maskable with its scores and its mask, flat. ``floor`` is the fewest entries to keep of the ``living``."""

    maskable: Maskable
    score: np.ndarray
    alive: np.ndarray
    living: int
    floor: int


def _tensor(m: Maskable, scores: Mapping[str, Tensor], masks: Masks) -> _Tensor:
    if m.name not in scores:
        raise PruningError(f"no score for {m.name}")
    score = scores[m.name].detach().cpu()
    if score.shape != torch.Size(m.shape):
        raise PruningError(f"the score of {m.name} has shape {tuple(score.shape)}, its maskable {m.shape}")
    value = score.to(torch.promote_types(score.dtype, torch.float32)).numpy().reshape(-1)
    alive = masks[m.name].numpy().reshape(-1)
    if not (np.isfinite(value) | ~alive).all():
        raise PruningError(f"the score of {m.name} has non-finite entries; use float64, a smaller batch or "
                           "another score")
    living = np.count_nonzero(alive)
    return _Tensor(m, value, alive, living, min(m.floor, living))


def _count(density: float, budget: str, tensors: list[_Tensor]) -> int:
    """k, after checking that it can be reached."""
    if not 0 < density <= 1:
        raise PruningError(f"density of {budget} is {density}; it must lie in (0, 1]")
    total, living = sum(t.maskable.size for t in tensors), sum(t.living for t in tensors)
    k = math.floor(density * total + 0.5)
    if k > living:
        raise PruningError(f"density {density} of {budget} needs {k} entries but only {living} of {total} are left: "
                           "masks never regrow, so ask for densities in falling order")
    floor = sum(t.floor for t in tensors)
    if k < floor:
        raise PruningError(f"density {density} of {budget} keeps {k} of {total} entries, but the floors of its "
                           f"{len(tensors)} tensors need {floor}: ask for at least {floor / total:.6g}")
    return k


def _pools(tensors: list[_Tensor], scheme: str, k: int) -> list[tuple[list[_Tensor], int]]:
    """The rankings to make: tensors ranked together, and how many of their entries to keep."""
    if scheme == "global":
        return [(tensors, k)]
    seen: set[int] = set()
    for t in tensors:
        mine = set() if t.maskable.groups is None else set(t.maskable.groups.unique().tolist())
        if seen & mine:
            raise PruningError(f"scheme {scheme} ranks every tensor alone, but a group of {t.maskable.name} is also in "
                               "another tensor: use scheme global")
        seen |= mine
    # erk: density proportional to sum(shape) / size, so entries proportional to sum(shape)
    shares = [t.maskable.size if scheme == "uniform" else sum(t.maskable.shape) for t in tensors]
    quotas = _quotas(shares, [t.floor for t in tensors], [t.living for t in tensors], k)
    return [([t], quota) for t, quota in zip(tensors, quotas, strict=True)]


def _quotas(shares: list[int], least: list[int], most: list[int], k: int) -> list[int]:
    """Integers near ``shares`` times a common factor, within [least, most], that sum to exactly k."""
    def clipped(factor: float) -> list[float]:
        return [min(max(s * factor, a), b) for s, a, b in zip(shares, least, most, strict=True)]

    low, high = 0.0, 1.0  # the factor is in (low, high]
    while sum(clipped(high)) < k:
        high *= 2
    for _ in range(200):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if sum(clipped(middle)) < k else (low, middle)
    exact = clipped(high)
    quotas = [math.floor(e) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])
    for i in by_remainder[:k - sum(quotas)]:
        quotas[i] += 1
    return quotas


def _best(pool: list[_Tensor], k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The k best entries, every tensor's ``floor`` best set aside first where the ranking starves one."""
    value, alive = np.concatenate([t.score for t in pool]), np.concatenate([t.alive for t in pool])
    keeps = _split(_top(value, alive, k, rng), pool)
    if any(np.count_nonzero(keep) < t.floor for keep, t in zip(keeps, pool, strict=True)):
        reserved = np.concatenate([_top(t.score, t.alive, t.floor, rng) for t in pool])
        rest = _top(value, alive & ~reserved, k - np.count_nonzero(reserved), rng)
        keeps = _split(reserved | rest, pool)
    return keeps


def _top(values: np.ndarray, alive: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Boolean array with exactly ``k`` True, at the largest living ``values``; ties at the edge drawn by ``rng``."""
    ranked = values[alive]
    if k >= ranked.size:
        return alive.copy()
    if k == 0:
        return np.zeros_like(alive)
    ranked.partition(ranked.size - k)
    edge = ranked[ranked.size - k]
    keep = alive & (values > edge)
    tied = np.flatnonzero(alive & (values == edge))
    keep[rng.choice(tied, k - np.count_nonzero(keep), replace=False)] = True
    return keep


def _best_groups(pool: list[_Tensor], k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The best groups, in order of summed score, for as long as they fit into k entries; what floors need first."""
    groups = _joined_groups(pool)
    value, alive = np.concatenate([t.score for t in pool]), np.concatenate([t.alive for t in pool])
    size = np.bincount(groups, weights=alive)
    total = np.bincount(groups, weights=np.where(alive, value, 0.0))
    order = np.lexsort((rng.permutation(total.size), -total))
    order = order[size[order] > 0]
    reserved = np.zeros(total.size, dtype=bool)
    for tensor, mine in zip(pool, _split(groups, pool), strict=True):
        held = np.bincount(mine, weights=tensor.alive, minlength=total.size)[order]
        reserved[order[(held > 0) & (np.cumsum(held) - held < tensor.floor)]] = True
    if size[reserved].sum() > k:
        raise PruningError(f"{k} entries are too few for the groups that hold the floors of {len(pool)} tensors: "
                           f"they have {size[reserved].sum():.0f}, ask for a higher density")
    order = np.concatenate([order[reserved[order]], order[~reserved[order]]])
    fits = np.zeros(total.size, dtype=bool)
    fits[order[np.cumsum(size[order]) <= k]] = True
    return _split(fits[groups] & alive, pool)


def _joined_groups(pool: list[_Tensor]) -> np.ndarray:
    """Group number of every entry of all tensors; ungrouped entries are groups of one. A number names the same
    group in every tensor (a channel masked in two of them)."""
    grouped = [None if t.maskable.groups is None else t.maskable.groups.numpy().reshape(-1) for t in pool]
    free = 1 + max((int(g.max()) for g in grouped if g is not None and g.size), default=-1)
    joined = []
    for tensor, groups in zip(pool, grouped, strict=True):
        if groups is None:
            groups = np.arange(free, free + tensor.score.size)
            free += tensor.score.size
        joined.append(groups)
    return np.unique(np.concatenate(joined), return_inverse=True)[1]


def _split(flat: np.ndarray, like: list[_Tensor]) -> list[np.ndarray]:
    return np.split(flat, np.cumsum([t.score.size for t in like])[:-1])
