"""allocate: the only code that decides which entries survive. Exactly k of n, seeded ties, monotone, floors."""

from __future__ import annotations

import math
from collections.abc import Mapping

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

    Entries of one group stand or fall together by their summed score; then the most groups that fit into k are kept.
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
        alive = [masks[m.name].numpy().reshape(-1) for m in members]
        values = [_checked(m, scores, a) for m, a in zip(members, alive, strict=True)]
        k = _count(density, budget, members, alive)
        if scheme == "global":
            keeps = _global(values, alive, members, k, rng)
        else:
            shares = _shares(members, scheme)
            quotas = _quotas(shares, [min(m.floor, int(a.sum())) for m, a in zip(members, alive, strict=True)],
                             [int(a.sum()) for a in alive], k)
            keeps = [_best(v, a, m, q, rng) for v, a, m, q in zip(values, alive, members, quotas, strict=True)]
        for m, keep in zip(members, keeps, strict=True):
            kept[m.name] = torch.from_numpy(keep).reshape(m.shape)
    return masks.replace(kept)


def _checked(m: Maskable, scores: Mapping[str, Tensor], alive: np.ndarray) -> np.ndarray:
    if m.name not in scores:
        raise PruningError(f"no score for {m.name}")
    score = scores[m.name].detach().cpu()
    if score.shape != torch.Size(m.shape):
        raise PruningError(f"the score of {m.name} has shape {tuple(score.shape)}, its maskable {m.shape}")
    value = score.to(torch.float64 if score.dtype == torch.float64 else torch.float32).numpy().reshape(-1)
    if not np.isfinite(value[alive]).all():
        raise PruningError(f"the score of {m.name} has non-finite entries; use float64, a smaller batch or another score")
    return value


def _count(density: float, budget: str, members: list[Maskable], alive: list[np.ndarray]) -> int:
    """k, after checking that it can be reached."""
    if not 0 < density <= 1:
        raise PruningError(f"density of {budget} is {density}; it must lie in (0, 1]")
    total, living = sum(m.size for m in members), sum(int(a.sum()) for a in alive)
    k = math.floor(density * total + 0.5)
    if k > living:
        raise PruningError(f"density {density} of {budget} needs {k} entries but only {living} of {total} are left: "
                           "masks never regrow, so ask for densities in falling order")
    floor = sum(min(m.floor, int(a.sum())) for m, a in zip(members, alive, strict=True))
    if k < floor:
        raise PruningError(f"density {density} of {budget} keeps {k} of {total} entries, but the floors of its "
                           f"{len(members)} tensors need {floor}: ask for at least {floor / total:.3g}")
    return k


def top(values: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Boolean array with exactly ``k`` True at the largest ``values``; ties at the edge drawn by ``rng``."""
    keep = np.zeros(values.size, dtype=bool)
    if k >= values.size:
        keep[:] = True
    elif k > 0:
        edge = np.partition(values, values.size - k)[values.size - k]
        keep[values > edge] = True
        tied = np.flatnonzero(values == edge)
        missing = k - int(keep.sum())
        keep[tied if missing == tied.size else rng.choice(tied, missing, replace=False)] = True
    return keep


def _global(values: list[np.ndarray], alive: list[np.ndarray], members: list[Maskable], k: int,
            rng: np.random.Generator) -> list[np.ndarray]:
    """One ranking over all members, each member's ``floor`` best entries set aside first where the ranking starves it."""
    owner = np.repeat(np.arange(len(members)), [v.size for v in values])
    value, living = np.concatenate(values), np.concatenate(alive)
    keep = np.zeros(value.size, dtype=bool)
    if any(m.groups is not None for m in members):
        return _split(_best_groups(value, living, _joined_groups(members), k, rng), values)
    index = np.flatnonzero(living)
    keep[index[top(value[index], k, rng)]] = True
    starved = [i for i, m in enumerate(members)
               if np.count_nonzero(keep[owner == i]) < min(m.floor, np.count_nonzero(alive[i]))]
    if starved:
        reserved = np.zeros(value.size, dtype=bool)
        for i, m in enumerate(members):
            mine = np.flatnonzero((owner == i) & living)
            reserved[mine[top(value[mine], min(m.floor, mine.size), rng)]] = True
        rest = np.flatnonzero(living & ~reserved)
        keep = reserved
        keep[rest[top(value[rest], k - int(reserved.sum()), rng)]] = True
    return _split(keep, values)


def _best(value: np.ndarray, alive: np.ndarray, member: Maskable, k: int, rng: np.random.Generator) -> np.ndarray:
    """The k best living entries of one tensor."""
    if member.groups is not None:
        return _best_groups(value, alive, _joined_groups([member]), k, rng)
    keep = np.zeros(value.size, dtype=bool)
    index = np.flatnonzero(alive)
    keep[index[top(value[index], k, rng)]] = True
    return keep


def _joined_groups(members: list[Maskable]) -> np.ndarray:
    """Group number of every entry of all members; ungrouped entries are groups of one. A number names the same
    group in every member (a channel masked in two tensors)."""
    grouped = [m.groups.numpy().reshape(-1) if m.groups is not None else None for m in members]
    free = 1 + max((int(g.max()) for g in grouped if g is not None and g.size), default=-1)
    joined = []
    for m, groups in zip(members, grouped, strict=True):
        if groups is None:
            groups = np.arange(free, free + m.size)
            free += m.size
        joined.append(groups)
    return np.unique(np.concatenate(joined), return_inverse=True)[1]


def _best_groups(value: np.ndarray, alive: np.ndarray, groups: np.ndarray, k: int,
                 rng: np.random.Generator) -> np.ndarray:
    """The best groups, in order of summed score, as long as they fit into k entries."""
    size = np.bincount(groups, weights=alive)
    total = np.bincount(groups, weights=np.where(alive, value, 0.0))
    order = np.lexsort((rng.permutation(total.size), -total))
    order = order[size[order] > 0]
    fits = order[np.cumsum(size[order]) <= k]
    return np.isin(groups, fits) & alive


def _split(flat: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    return [part.copy() for part in np.split(flat, np.cumsum([v.size for v in like])[:-1])]


def _shares(members: list[Maskable], scheme: str) -> list[float]:
    """Relative number of entries every tensor is due."""
    if scheme == "uniform":
        return [float(m.size) for m in members]
    return [float(sum(m.shape)) for m in members]  # erk: size * sum(shape) / prod(shape)


def _quotas(shares: list[float], least: list[int], most: list[int], k: int) -> list[int]:
    """Integers near ``shares`` times a common factor, within [least, most], that sum to exactly k."""
    low, high = 0.0, 1.0
    def clipped(factor: float) -> list[float]:
        return [min(max(s * factor, a), b) for s, a, b in zip(shares, least, most, strict=True)]
    while sum(clipped(high)) < k:
        high *= 2
    for _ in range(200):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if sum(clipped(middle)) < k else (low, middle)
    exact = clipped(high)
    quotas = [min(b, max(a, math.floor(e + 1e-9))) for e, a, b in zip(exact, least, most, strict=True)]
    by_remainder = sorted(range(len(exact)), key=lambda i: (quotas[i] - exact[i], i))
    while (missing := k - sum(quotas)) != 0:
        step = 1 if missing > 0 else -1
        for i in by_remainder if missing > 0 else by_remainder[::-1]:
            if missing and least[i] <= quotas[i] + step <= most[i]:
                quotas[i] += step
                missing -= step
    return quotas
