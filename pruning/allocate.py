"""allocate: the only code that decides which entries survive. Exactly k of n, seeded ties, monotone, floors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .errors import PruningError
from .maskable import Maskable
from .masks import Masks

Densities = Mapping[str, float]
"""budget -> density asked, in (0, 1]."""

Score = Tensor | tuple[Tensor, Tensor]
"""One number an entry; two tensors stand for their product, which is then made where entries live and nowhere else."""

SCHEMES = ("global", "uniform", "erk", "smart_ratio", "smart_ratio_chain")


def allocate(scores: Mapping[str, Score], masks: Masks, densities: Densities, maskables: list[Maskable],
             scheme: str = "global", seed: int = 0) -> Masks:
    """Keep, in every budget asked for, the round(density * n) entries of highest score.

    scores     name -> tensor of the maskable's shape; higher means keep; entries masked already are not looked at
    densities  budget -> density of the whole budget, masked entries counted in; a budget left out is untouched
    scheme     global: one ranking over the budget
               uniform: every tensor at the budget's density
               erk: density of a tensor proportional to sum(shape) / prod(shape) (Evci et al. 2020, Erdos-Renyi-Kernel)
               smart_ratio, smart_ratio_chain: density falling with depth (Su et al. 2020), see ``_smart_ratio``
    seed       orders equal scores

    Entries of one group stand or fall together by their summed score; the best groups are kept for as long as they fit
    into k.
    Raises PruningError for a density outside (0, 1], above what is alive, below the floors, or a non-finite score.
    """
    survivors = Survivors(maskables, masks)
    survivors.cut(scores, densities, scheme, seed)
    return masks.replace({m.name: survivors.mask(m) for m in maskables if m.budget in densities})


class Survivors:
    """The entries still kept, as flat positions: of many rounds of cutting each costs what is left, not what there was."""

    def __init__(self, maskables: list[Maskable], masks: Masks, orders: Mapping[str, list[int]] | None = None):
        """``orders``: name -> dimensions from the slowest to the fastest, for tensors whose positions are to count as they lie in
        memory (channels-last weights); otherwise as in ``reshape(-1)``."""
        self._maskables = maskables
        self._orders = {m.name: list(range(len(m.shape))) for m in maskables} | dict(orders or {})
        self._positions: dict[str, np.ndarray | slice] = {}
        for m in maskables:
            alive = masks[m.name].permute(self._orders[m.name]).reshape(-1)
            self._positions[m.name] = slice(None) if alive.all() else np.flatnonzero(alive.numpy())
        self._scratch = np.empty(0, dtype=np.float32)

    def cut(self, scores: Mapping[str, Score], densities: Densities, scheme: str = "global", seed: int = 0,
            floors: bool = True) -> dict[str, np.ndarray]:
        """One decision; see ``allocate``. Returns the flat positions that were cut, by name. Without ``floors`` a tensor may
        lose all it has; there must still be entries enough for every floor."""
        if scheme not in SCHEMES:
            raise PruningError(f"unknown scheme {scheme!r}: one of {', '.join(SCHEMES)}")
        dead = {}
        for budget, density in densities.items():
            k = self.count(budget, density)
            rng = np.random.default_rng([seed, *budget.encode()])
            tensors = [_tensor(m, scores, self._positions[m.name], self._orders[m.name])
                       for m in self._maskables if m.budget == budget]
            if not floors:
                tensors = [replace(t, floor=0) for t in tensors]
            room, dtype = sum(t.score.size for t in tensors), np.result_type(*(t.score for t in tensors))
            if self._scratch.size < room or self._scratch.dtype != dtype:
                self._scratch = np.empty(room, dtype)
            for pool, quota in _pools(tensors, scheme, k):
                best = _best_groups if any(t.maskable.groups is not None for t in pool) else _best
                for tensor, keep in zip(pool, best(pool, quota, rng, self._scratch), strict=True):
                    dead[tensor.maskable.name] = self._keep(tensor.maskable.name, keep)
        return dead

    def count(self, budget: str, density: float) -> int:
        """How many entries of a budget that density keeps, after checking that it can be reached."""
        members = [m for m in self._maskables if m.budget == budget]
        if not members:
            known = ", ".join(dict.fromkeys(m.budget for m in self._maskables))
            raise PruningError(f"no maskable has budget {budget!r}; this task has: {known}")
        if not 0 < density <= 1:
            raise PruningError(f"density of {budget} is {density}; it must lie in (0, 1]")
        living = [m.size if isinstance(at := self._positions[m.name], slice) else at.size for m in members]
        total = sum(m.size for m in members)
        k = math.floor(density * total + 0.5)
        if k > sum(living):
            raise PruningError(f"density {density} of {budget} needs {k} entries but only {sum(living)} of {total} are left: "
                               "masks never regrow, so ask for densities in falling order")
        floor = sum(min(m.floor, n) for m, n in zip(members, living, strict=True))
        if k < floor:
            raise PruningError(f"density {density} of {budget} keeps {k} of {total} entries, but the floors of its "
                               f"{len(members)} tensors need {floor}: ask for at least {floor / total:.6g}")
        return k

    def _keep(self, name: str, keep: np.ndarray) -> np.ndarray:
        living = self._positions[name]
        if isinstance(living, slice):
            self._positions[name] = np.flatnonzero(keep)
            return np.flatnonzero(~keep)
        self._positions[name] = living[keep]
        return living[~keep]

    def mask(self, m: Maskable) -> Tensor:
        """Boolean tensor of the maskable's shape, True where it survives."""
        mask = torch.zeros(m.shape, dtype=torch.bool).permute(self._orders[m.name]).contiguous()
        mask.view(-1).numpy()[self._positions[m.name]] = True
        return mask.permute(np.argsort(self._orders[m.name]).tolist()).contiguous()


@dataclass(frozen=True)
class _Tensor:
    """The living entries of a maskable: scores, and groups where it has some. ``floor`` is the fewest to keep of them."""

    maskable: Maskable
    score: np.ndarray
    groups: np.ndarray | None
    floor: int


def _tensor(m: Maskable, scores: Mapping[str, Score], positions: np.ndarray | slice, order: list[int]) -> _Tensor:
    if m.name not in scores:
        raise PruningError(f"no score for {m.name}")
    factors = scores[m.name] if isinstance(scores[m.name], tuple) else (scores[m.name],)
    for factor in factors:
        if factor.shape != torch.Size(m.shape):
            raise PruningError(f"the score of {m.name} has shape {tuple(factor.shape)}, its maskable {m.shape}")
    values = [_flat(factor, order)[positions] for factor in factors]
    value = values[0] if len(values) == 1 else values[0] * values[1]
    if not np.isfinite(value).all():
        raise PruningError(f"the score of {m.name} has non-finite entries; use float64, a smaller batch or "
                           "another score")
    groups = None if m.groups is None else m.groups.permute(order).reshape(-1).numpy()[positions]
    return _Tensor(m, value, groups, min(m.floor, value.size))


def _flat(score: Tensor, order: list[int]) -> np.ndarray:
    score = score.detach().cpu()
    return score.to(torch.promote_types(score.dtype, torch.float32)).permute(order).reshape(-1).numpy()


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
    if scheme.startswith("smart_ratio"):
        shares = _smart_ratio(tensors, k, chain=scheme == "smart_ratio_chain")
    else:  # erk: density proportional to sum(shape) / size, so entries proportional to sum(shape)
        shares = [t.maskable.size if scheme == "uniform" else sum(t.maskable.shape) for t in tensors]
    quotas = _quotas(shares, [t.floor for t in tensors], [t.score.size for t in tensors], k)
    return [([t], quota) for t, quota in zip(tensors, quotas, strict=True)]


def _smart_ratio(tensors: list[_Tensor], k: int, chain: bool) -> list[float]:
    """Entries of every tensor after Su et al. (2020, "Sanity-checking pruning methods"): of L tensors in order number l gets
    a density proportional to (L - l + 1)^2 + (L - l + 1), for a plain chain of layers (VGG) divided by l^2; linear layers
    0.3. What exceeds a tensor goes to the next ones."""
    fixed = sum(0.3 * t.maskable.size for t in tensors if t.maskable.kind == "linear")
    raw = []
    for depth, t in enumerate(tensors, 1):
        left = len(tensors) - depth + 1
        ratio = (left * left + left) / (depth * depth if chain else 1)
        raw.append(0.0 if t.maskable.kind == "linear" else ratio * t.maskable.size)
    if not any(raw) or k <= fixed:
        raise PruningError(f"scheme smart_ratio keeps 0.3 of every linear layer, here {fixed:.0f} entries, and spreads what "
                           f"is left of {k} over the {sum(map(bool, raw))} other tensors: use uniform or erk")
    factor, surplus, shares = (k - fixed) / sum(raw), 0.0, []
    for t, wanted in zip(tensors, raw, strict=True):
        if not wanted:
            shares.append(0.3 * t.maskable.size)
            continue
        wanted = factor * wanted + surplus
        shares.append(min(wanted, t.maskable.size))
        surplus = wanted - shares[-1]
    return shares


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


def _best(pool: list[_Tensor], k: int, rng: np.random.Generator, scratch: np.ndarray) -> list[np.ndarray]:
    """The k best entries, every tensor's ``floor`` best set aside first where the ranking starves one."""
    keeps = _top([t.score for t in pool], k, rng, scratch)
    if any(np.count_nonzero(keep) < t.floor for keep, t in zip(keeps, pool, strict=True)):
        keeps = [_top([t.score], t.floor, rng, scratch)[0] for t in pool]
        others = [np.flatnonzero(~keep) for keep in keeps]
        rest = _top([t.score[other] for t, other in zip(pool, others, strict=True)], k - sum(map(np.count_nonzero, keeps)),
                    rng, scratch)
        for keep, other, more in zip(keeps, others, rest, strict=True):
            keep[other[more]] = True
    return keeps


def _top(parts: list[np.ndarray], k: int, rng: np.random.Generator, scratch: np.ndarray) -> list[np.ndarray]:
    """Boolean arrays with exactly ``k`` True in all, at the largest values; ties at the edge drawn by ``rng``.

    ``scratch`` is room for all values: fresh memory of that size costs more than the selection.
    """
    total = sum(part.size for part in parts)
    if k >= total or k == 0:
        return [np.full(part.size, k > 0) for part in parts]
    values = np.concatenate(parts, out=scratch[:total])
    values.partition(total - k)
    edge = values[total - k]
    keeps = [part > edge for part in parts]
    tied = [np.flatnonzero(part == edge) for part in parts]
    drawn = np.zeros(sum(t.size for t in tied), dtype=bool)
    drawn[rng.choice(drawn.size, k - sum(map(np.count_nonzero, keeps)), replace=False)] = True
    for keep, at, mine in zip(keeps, tied, np.split(drawn, np.cumsum([t.size for t in tied])[:-1]), strict=True):
        keep[at[mine]] = True
    return keeps


def _best_groups(pool: list[_Tensor], k: int, rng: np.random.Generator, scratch: np.ndarray) -> list[np.ndarray]:
    """The best groups, in order of summed score, for as long as they fit into k entries; what floors need first."""
    groups = _joined_groups(pool)
    size = np.bincount(groups)
    total = np.bincount(groups, weights=np.concatenate([t.score for t in pool]))
    order = np.lexsort((rng.permutation(total.size), -total))
    reserved = np.zeros(total.size, dtype=bool)
    for tensor, mine in zip(pool, _split(groups, pool), strict=True):
        held = np.bincount(mine, minlength=total.size)[order]
        reserved[order[(held > 0) & (np.cumsum(held) - held < tensor.floor)]] = True
    if size[reserved].sum() > k:
        raise PruningError(f"{k} entries are too few for the groups that hold the floors of {len(pool)} tensors: "
                           f"they have {size[reserved].sum():.0f}, ask for a higher density")
    order = np.concatenate([order[reserved[order]], order[~reserved[order]]])
    fits = np.zeros(total.size, dtype=bool)
    fits[order[np.cumsum(size[order]) <= k]] = True
    return _split(fits[groups], pool)


def _joined_groups(pool: list[_Tensor]) -> np.ndarray:
    """Group number of every living entry of all tensors; ungrouped entries are groups of one. A number names the same
    group in every tensor (a channel masked in two of them)."""
    free = 1 + max((int(t.groups.max()) for t in pool if t.groups is not None and t.groups.size), default=-1)
    joined = []
    for tensor in pool:
        groups = tensor.groups
        if groups is None:
            groups = np.arange(free, free + tensor.score.size)
            free += tensor.score.size
        joined.append(groups)
    return np.unique(np.concatenate(joined), return_inverse=True)[1]


def _split(flat: np.ndarray, like: list[_Tensor]) -> list[np.ndarray]:
    return np.split(flat, np.cumsum([t.score.size for t in like])[:-1])
