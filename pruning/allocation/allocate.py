"""allocate: the only code that decides which entries survive. Exactly k of n, seeded ties, monotone, floors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pruning.errors import PruningError, not_finite
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.ticket import Densities, Scheme

Score = Tensor | tuple[Tensor, Tensor]
"""One number an entry; two tensors stand for the magnitude of their product, which is then made where entries live and nowhere
else. Where they live the first is the same in every round."""

LAZY = 0.75
"""Share of the ranked entries that must live, or the dead are no longer ranked."""

SAMPLE = 2**12
"""Entries to guess a threshold by."""

BLOCK = 2**17
"""Entries scored and compared at a time, so that what is made of them stays in a core's cache: memory is read once."""

CLOSE = 0.11
"""Least share of the ranked entries to look at closely: numpy finds true values without branching where more than a tenth are."""

SCHEMES = ("global", "uniform", "erk", "smart_ratio", "smart_ratio_chain", "qk_uniform")
QK = ("query", "key")
"""Kinds whose entries no score can see that sends a constant through an attention: its softmax gives equal weights whatever they
are."""


def allocate(scores: Mapping[str, Score], masks: Masks, densities: Densities, maskables: list[Maskable],
             scheme: Scheme = "global", seed: int = 0, floors: bool = True) -> Masks:
    """Keep, in every budget asked for, the round(density * n) entries of highest score.

    scores     name -> tensor of the maskable's shape; higher means keep; entries masked already are not looked at
    densities  budget -> density of the whole budget, masked entries counted in; a budget left out is untouched
    scheme     global: one ranking over the budget
               uniform: every tensor at the budget's density; tensors that share groups count as one
               erk: density of a tensor proportional to sum(shape) / prod(shape) (Evci et al. 2020, Erdos-Renyi-Kernel)
               smart_ratio, smart_ratio_chain: density falling with depth (Su et al. 2020), see ``_smart_ratio``
               qk_uniform: queries and keys of attentions as uniform, one ranking over all other tensors
    seed       orders equal scores
    floors     False: a tensor may lose all it has, unless entries of its budget stand and fall in groups, units that could be
               taken out; there must still be entries enough for every floor

    Entries of one group stand or fall together by their summed score; the best groups are kept for as long as they fit
    into k.
    Raises PruningError for a density outside (0, 1], above what is alive, below the floors, or a non-finite score.
    """
    survivors = RemainingEntries(maskables, masks)
    survivors.cut(scores, densities, scheme, seed, floors)
    return masks.replace({m.name: survivors.mask(m) for m in maskables if m.budget in densities})


class RemainingEntries:
    """The entries still kept: of many rounds of cutting each costs what is left, not what there was."""

    def __init__(self, maskables: list[Maskable], masks: Masks, orders: Mapping[str, list[int]] | None = None):
        """``orders``: name -> dimensions from the slowest to the fastest, for tensors whose positions are to count as they lie in
        memory (channels-last weights); otherwise as in ``reshape(-1)``."""
        self._maskables = maskables
        self._orders = {m.name: list(range(len(m.shape))) for m in maskables} | dict(orders or {})
        self._grouped = {m.budget for m in maskables if m.groups is not None}
        self._ranks: dict[str, _Ranks] = {}
        for m in maskables:
            alive = masks[m.name].permute(self._orders[m.name]).reshape(-1).numpy()
            living = np.count_nonzero(alive)
            at = None if living == alive.size else np.flatnonzero(alive).astype(np.int32)
            self._ranks[m.name] = _Ranks(living, at, None, living)
        self._constant: dict[str, np.ndarray] = {}

    def cut(self, scores: Mapping[str, Score], densities: Densities, scheme: Scheme = "global", seed: int = 0,
            floors: bool = True) -> dict[str, np.ndarray]:
        """One decision; see ``allocate``. Returns the flat positions that were cut, by name."""
        schemes = dict.fromkeys(densities, scheme) if isinstance(scheme, str) else scheme
        for chosen in schemes.values():
            if chosen not in SCHEMES:
                raise PruningError(f"unknown scheme {chosen!r}: one of {', '.join(SCHEMES)}")
        dead = {}
        for budget, density in densities.items():
            k = self.count(budget, density)
            rng = np.random.default_rng([seed, *budget.encode()])
            tensors = self._tensors([m for m in self._maskables if m.budget == budget], scores)
            if not floors and budget not in self._grouped:
                tensors = [replace(t, floor=0) for t in tensors]
            for pool, quota in _pools(tensors, schemes[budget], k):
                worst = _worst_groups if any(t.maskable.groups is not None for t in pool) else _worst
                for tensor, lost in zip(pool, worst(pool, quota, rng), strict=True):
                    dead[tensor.maskable.name] = self._lose(tensor.maskable, lost)
        return dead

    def count(self, budget: str, density: float) -> int:
        """How many entries of a budget that density keeps, after checking that it can be reached."""
        members = [m for m in self._maskables if m.budget == budget]
        if not members:
            known = ", ".join(dict.fromkeys(m.budget for m in self._maskables))
            raise PruningError(f"no maskable has budget {budget!r}; this task has: {known}")
        if not 0 < density <= 1:
            raise PruningError(f"density of {budget} is {density}; it must lie in (0, 1]")
        living = [self._ranks[m.name].living for m in members]
        total = sum(m.size for m in members)
        k = math.floor(density * total + 0.5)
        if budget in self._grouped:  # earlier groups may have left a little less than was asked
            k = min(k, sum(living))
        if k > sum(living):
            raise PruningError(f"density {density} of {budget} needs {k} entries but only {sum(living)} of {total} are left: "
                               "masks never regrow, so ask for densities in falling order")
        floor = sum(min(m.floor, n) for m, n in zip(members, living, strict=True))
        if k < floor:
            raise PruningError(f"density {density} of {budget} keeps {k} of {total} entries, but the floors of its "
                               f"{len(members)} tensors need {floor}: ask for at least {floor / total:.6g}")
        return k

    def _tensors(self, maskables: list[Maskable], scores: Mapping[str, Score]) -> list[_Tensor]:
        tensors = []
        for m in maskables:
            ranks, order = self._ranks[m.name], self._orders[m.name]
            groups = None if m.groups is None else ranks.of(m.groups.permute(order).reshape(-1).numpy())
            *first, varying = _factors(m, scores, order)
            if first and m.name not in self._constant:
                self._constant[m.name] = ranks.of(first[0])
            constant = self._constant[m.name] if first else None
            tensors.append(_Tensor(m, constant, varying, groups, min(m.floor, ranks.living), ranks))
        return tensors

    def _lose(self, m: Maskable, lost: np.ndarray) -> np.ndarray:
        ranks = self._ranks[m.name]
        if lost.size:
            size, at, alive, living = ranks
            alive, living = np.ones(size, dtype=bool) if alive is None else alive, living - lost.size
            alive[lost] = False
            if m.budget in self._grouped or living < LAZY * size:  # groups are summed over the living
                self._ranks[m.name] = _Ranks(living, ranks.flat(np.flatnonzero(alive)).astype(np.int32), None, living)
                self._constant.pop(m.name, None)
            else:
                self._ranks[m.name] = _Ranks(size, at, alive, living)
        return ranks.flat(lost).astype(np.int64)

    def mask(self, m: Maskable) -> Tensor:
        """Boolean tensor of the maskable's shape, True where it survives."""
        mask = torch.zeros(m.shape, dtype=torch.bool).permute(self._orders[m.name]).contiguous()
        ranks = self._ranks[m.name]
        at = slice(None) if ranks.at is None else ranks.at
        mask.view(-1).numpy()[at] = True if ranks.alive is None else ranks.alive
        return mask.permute(np.argsort(self._orders[m.name]).tolist()).contiguous()


class _Ranks(NamedTuple):
    """The flat positions of a tensor that are ranked. Some may be dead: singling out the living at every cut costs more than
    passing over a few dead."""

    size: int
    at: np.ndarray | None
    """None: all."""
    alive: np.ndarray | None
    """Whether each lives; None: all do."""
    living: int

    def flat(self, ranked: np.ndarray) -> np.ndarray:
        """Flat positions of ranked ones."""
        return ranked if self.at is None else self.at[ranked]

    def of(self, flat: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Values of a part of the ranked positions; by torch, which takes half of numpy's time."""
        if self.at is None:
            return flat[part]
        return torch.from_numpy(flat).index_select(0, torch.from_numpy(self.at[part])).numpy()


@dataclass(frozen=True)
class _Tensor:
    """The ranked entries of a maskable. ``floor`` is the fewest to keep of those that live."""

    maskable: Maskable
    constant: np.ndarray | None
    """Of the ranked entries: the factor of their scores that does not change. None: the other one is the score."""
    varying: np.ndarray
    """Of all entries, flat."""
    groups: np.ndarray | None
    """Of the ranked entries, which then all live. None: each stands for itself."""
    floor: int
    ranks: _Ranks

    @property
    def living(self) -> int:
        return self.ranks.living

    def scores(self, part: slice = slice(None)) -> np.ndarray:
        """Of some of the ranked entries, those that live."""
        scores, alive = self._scores(part), self.ranks.alive
        return scores if alive is None else scores[np.flatnonzero(alive[part])]

    def only(self, at: np.ndarray) -> _Tensor:
        """The same with some of the ranked positions, all of which live."""
        constant = None if self.constant is None else self.constant[at]
        return replace(self, constant=constant, ranks=_Ranks(at.size, self.ranks.flat(at), None, at.size))

    def up_to(self, value: float) -> tuple[np.ndarray, np.ndarray]:
        """Ranked positions and scores of the living entries up to ``value``."""
        at, scores = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
        for start in range(0, self.ranks.size, BLOCK):
            part = slice(start, start + BLOCK)
            score = self._scores(part)
            low = score <= value
            if self.ranks.alive is not None:
                low &= self.ranks.alive[part]
            found = np.flatnonzero(low)
            scores.append(score[found])
            found += start
            at.append(found)
        return np.concatenate(at), np.concatenate(scores)

    def _scores(self, part: slice) -> np.ndarray:
        scores = self.ranks.of(self.varying, part)
        if self.constant is not None:
            scores = self.constant[part] * scores
            np.abs(scores, out=scores)
        if not math.isfinite(torch.from_numpy(scores).sum()):  # finite only if all are: one pass, and hardly ever a second
            alive = slice(None) if self.ranks.alive is None else self.ranks.alive[part]
            if not np.isfinite(scores[alive]).all():
                raise not_finite(self.maskable.name)
        return scores


def _factors(m: Maskable, scores: Mapping[str, Score], order: list[int]) -> list[np.ndarray]:
    """Flat, of all entries: the score of a tensor, or the two that it is the product of."""
    if m.name not in scores:
        raise PruningError(f"no score for {m.name}")
    factors = scores[m.name] if isinstance(scores[m.name], tuple) else (scores[m.name],)
    for factor in factors:
        if factor.shape != torch.Size(m.shape):
            raise PruningError(f"the score of {m.name} has shape {tuple(factor.shape)}, its maskable {m.shape}")
    return [factor.detach().cpu().to(torch.promote_types(factor.dtype, torch.float32)).permute(order).reshape(-1).numpy()
            for factor in factors]


def _pools(tensors: list[_Tensor], scheme: str, k: int) -> list[tuple[list[_Tensor], int]]:
    """The rankings to make: tensors ranked together, and how many of their entries to keep."""
    if scheme == "global":
        return [(tensors, k)]
    pools = _joined_tensors(tensors)
    for pool in pools:
        if len(pool) > 1 and scheme != "uniform":
            raise PruningError(f"scheme {scheme} ranks every tensor alone, but a group of {pool[-1].maskable.name} is also in "
                               "another tensor: use scheme global or uniform")
    if scheme == "qk_uniform":
        pools = [pool for pool in pools if pool[0].maskable.kind in QK]
        rest = [t for t in tensors if t.maskable.kind not in QK]
        pools += [rest] if rest else []
    if scheme.startswith("smart_ratio"):
        shares = _smart_ratio(tensors, k, chain=scheme == "smart_ratio_chain")
    elif scheme == "erk":  # density proportional to sum(shape) / size, so entries proportional to sum(shape)
        shares = [sum(t.maskable.shape) for t in tensors]
    else:
        shares = [sum(t.maskable.size for t in pool) for pool in pools]
    quotas = _quotas(shares, [sum(t.floor for t in pool) for pool in pools], [sum(t.living for t in pool) for pool in pools], k)
    return list(zip(pools, quotas, strict=True))


def _joined_tensors(tensors: list[_Tensor]) -> list[list[_Tensor]]:
    """Tensors that share groups together, any other by itself."""
    pools: list[tuple[set[int], list[_Tensor]]] = []
    for t in tensors:
        groups, members, others = _numbers(t.maskable), [t], []
        for pool in pools:
            if groups & pool[0]:
                groups, members = groups | pool[0], [*pool[1], *members]
            else:
                others.append(pool)
        pools = [*others, (groups, members)]
    return [members for _, members in pools]


def _numbers(m: Maskable) -> set[int]:
    return set() if m.groups is None else set(m.groups.unique().tolist())


def _smart_ratio(tensors: list[_Tensor], k: int, chain: bool) -> list[float]:
    """Entries of every tensor after Su et al. (2020, "Sanity-checking pruning methods"): of L tensors in order number l gets
    a density proportional to (L - l + 1)^2 + (L - l + 1), for a plain chain of layers (VGG) divided by l^2; linear layers
    0.3. What exceeds a tensor goes to the next ones."""
    linear = [t.maskable.kind in ("linear", "head") for t in tensors]
    fixed = sum(0.3 * t.maskable.size for t, is_linear in zip(tensors, linear, strict=True) if is_linear)
    raw = []
    for depth, (t, is_linear) in enumerate(zip(tensors, linear, strict=True), 1):
        left = len(tensors) - depth + 1
        ratio = (left * left + left) / (depth * depth if chain else 1)
        raw.append(0.0 if is_linear else ratio * t.maskable.size)
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


def _worst(pool: list[_Tensor], k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Positions of all living entries but the k best, every tensor's ``floor`` best set aside first where the ranking starves
    one."""
    lost = _below(pool, k, rng)
    if any(t.living - at.size < t.floor for t, at in zip(pool, lost, strict=True)):
        others = [_below([t], t.floor, rng)[0] for t in pool]
        rest = [t.only(at) for t, at in zip(pool, others, strict=True)]
        lost = _below(rest, k - sum(t.living - at.size for t, at in zip(pool, others, strict=True)), rng)
        lost = [other[at] for other, at in zip(others, lost, strict=True)]
    return lost


def _below(pool: list[_Tensor], k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Positions of all living entries but exactly ``k``, those of the largest values; ties at the edge drawn by ``rng``.

    A sample tells about where the edge lies: only what is not clearly above it is looked at closely, which of many rounds is
    little.
    """
    lose = sum(t.living for t in pool) - k
    if k == 0 or lose <= 0:
        return [t.up_to(np.inf if k == 0 else -np.inf)[0] for t in pool]
    guess = _guess(pool, lose)
    low = [t.up_to(guess) for t in pool]
    if sum(at.size for at, _ in low) <= lose:
        low = [t.up_to(np.inf) for t in pool]
    edge = np.partition(np.concatenate([value for _, value in low]), lose)[lose]
    tied = [value == edge for _, value in low]
    lost = [value < edge for _, value in low]
    drawn = np.zeros(sum(map(np.count_nonzero, tied)), dtype=bool)
    drawn[rng.choice(drawn.size, drawn.size - lose + sum(map(np.count_nonzero, lost)), replace=False)] = True
    for gone, mine, kept in zip(lost, tied, np.split(drawn, np.cumsum([np.count_nonzero(t) for t in tied])[:-1]), strict=True):
        gone[mine] = ~kept
    return [at[np.flatnonzero(gone)] for (at, _), gone in zip(low, lost, strict=True)]


def _guess(pool: list[_Tensor], lose: int) -> float:
    """A value that a little more than ``lose`` living entries are likely not to exceed."""
    ranked, living = sum(t.ranks.size for t in pool), sum(t.living for t in pool)
    sample = np.concatenate([t.scores(slice(None, None, 1 + ranked // SAMPLE)) for t in pool])
    share = lose / living
    at = math.ceil(sample.size * share + 4 * math.sqrt(sample.size * share * (1 - share)))  # four standard deviations more
    at = max(at, math.ceil(sample.size * CLOSE * ranked / living))
    return np.partition(sample, at)[at] if at < sample.size else np.inf


def _worst_groups(pool: list[_Tensor], k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Positions of all but the best groups, taken in order of summed score for as long as they fit into k entries; what floors
    need comes first."""
    groups = _joined_groups(pool)
    size = np.bincount(groups)
    total = np.bincount(groups, weights=np.concatenate([t.scores() for t in pool]))
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
    return [np.flatnonzero(~mine) for mine in _split(fits[groups], pool)]


def _joined_groups(pool: list[_Tensor]) -> np.ndarray:
    """Group number of every living entry of all tensors; ungrouped entries are groups of one. A number names the same
    group in every tensor (a channel masked in two of them)."""
    free = 1 + max((int(t.groups.max()) for t in pool if t.groups is not None and t.groups.size), default=-1)
    joined = []
    for tensor in pool:
        groups = tensor.groups
        if groups is None:
            groups = np.arange(free, free + tensor.living)
            free += tensor.living
        joined.append(groups)
    return np.unique(np.concatenate(joined), return_inverse=True)[1]


def _split(flat: np.ndarray, like: list[_Tensor]) -> list[np.ndarray]:
    return np.split(flat, np.cumsum([t.living for t in like])[:-1])
