"""The entries that are still kept, over many rounds of pruning, each of which costs what remains and not what there was."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pruning.allocation.cells import all_but_best_of_cells, columns, neighbours
from pruning.allocation.distributions import DISTRIBUTIONS, quotas
from pruning.allocation.selection import Array, Candidates, Positions, Score, all_but_best, factors
from pruning.errors import PruningError, one_of
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.patterns import Cells, NofM, Rows
from pruning.ticket import Densities, Scheme

COMPACT_BELOW = 0.75
"""Share of the ranked entries that must remain; below it the pruned ones are no longer ranked."""


class RemainingEntries:
    """The entries still kept."""

    def __init__(self, maskables: list[Maskable], masks: Masks, orders: Mapping[str, list[int]] | None = None):
        """``orders``: name -> dimensions from the slowest to the fastest, for tensors whose positions are to count as they lie in
        memory (channels-last weights); otherwise as in ``reshape(-1)``."""
        self._maskables = maskables
        self._orders = {m.name: list(range(len(m.shape))) for m in maskables} | dict(orders or {})
        self._grouped = {m.budget for m in maskables if m.groups is not None}
        self._in_units = {m.budget for m in maskables if m.groups is not None or m.pattern is not None}
        self._positions: dict[str, Positions] = {}
        for m in maskables:
            alive = masks[m.name].permute(*self._orders[m.name]).reshape(-1).numpy()
            remaining = int(np.count_nonzero(alive))
            at = None if remaining == alive.size else np.flatnonzero(alive).astype(np.int32)
            self._positions[m.name] = Positions(remaining, at, None, remaining)
        self._constant: dict[str, Array] = {}

    def cut(
        self, scores: Mapping[str, Score], densities: Densities, scheme: Scheme = "global", seed: int = 0, floors: bool = True
    ) -> dict[str, Array]:
        """Prune once, as ``allocate`` does. Return the flat positions that were pruned, by name."""
        schemes = dict.fromkeys(densities, scheme) if isinstance(scheme, str) else scheme
        for name in schemes.values():
            one_of("scheme", name, DISTRIBUTIONS)
        pruned = {}
        for budget, density in densities.items():
            k = self.count(budget, density)
            rng = np.random.default_rng([seed, *budget.encode()])
            candidates = {m.name: self._candidates(m, scores) for m in self._maskables if m.budget == budget}
            if not floors and budget not in self._grouped:
                candidates = {name: replace(c, floor=0) for name, c in candidates.items()}
            nofm = [c for c in candidates.values() if isinstance(c.maskable.pattern, NofM)]
            ranked: dict[str, Array] = {}
            if nofm:
                ranked, k = self._neighbours(nofm, density, k, rng)
            if rest := [c for c in candidates.values() if c.maskable.name not in ranked]:
                ranked |= self._ranked(rest, k, schemes[budget], rng)
            if rows := [c for c in rest if isinstance(c.maskable.pattern, Rows)]:
                ranked |= self._rows(rows, ranked, rng)
            for m in [c.maskable for c in candidates.values()]:
                pruned[m.name] = self._prune(m, ranked[m.name])
        return pruned

    def _neighbours(
        self, tensors: list[Candidates], density: float, k: int, rng: np.random.Generator
    ) -> tuple[dict[str, Array], int]:
        """Return the ranked positions that n:m prunes, by name, and how many of ``k`` entries other tensors of the budget keep:
        every tensor has the density of the budget, whatever the distribution."""
        (pattern,) = {c.maskable.pattern for c in tensors if isinstance(c.maskable.pattern, NofM)}
        size = sum(m.size for m in self._maskables if m.budget == tensors[0].maskable.budget)
        density, own = pattern.reached(density, size), sum(c.maskable.size for c in tensors)
        count = k if own == size else math.floor(density * own + 0.5)
        final = density == pattern.n / pattern.m
        of, at = zip(*(self._cells(c.maskable) for c in tensors), strict=True)
        quota = neighbours([np.bincount(cells) for cells in of], density, final)
        return all_but_best_of_cells(tensors, at, quota, count if final else None, rng), k - count

    def _rows(self, tensors: list[Candidates], ranked: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
        """Return the ranked positions that constant fan-in prunes, by name; ``ranked`` are those that it would be without."""
        of, at = zip(*(self._cells(c.maskable) for c in tensors), strict=True)
        alive = [np.bincount(left, minlength=int(cells.max()) + 1) for cells, left in zip(of, at, strict=True)]
        quota = columns(alive, [c.remaining - ranked[c.maskable.name].size for c in tensors])
        return all_but_best_of_cells(tensors, at, quota, None, rng)

    def _cells(self, m: Maskable) -> tuple[Array, Array]:
        """Return the cell of every entry, flat in the order that positions count in, and of those that are ranked."""
        assert isinstance(m.pattern, Cells)
        of = m.pattern.of(m).permute(*self._orders[m.name]).reshape(-1).numpy()
        return of, self._positions[m.name].of(of)

    def _ranked(self, candidates: list[Candidates], k: int, scheme: str, rng: np.random.Generator) -> dict[str, Array]:
        """Return the ranked positions of all but the ``k`` best entries of a budget, by name."""
        by_name = {c.maskable.name: c for c in candidates}
        rankings = DISTRIBUTIONS[scheme]([c.maskable for c in candidates], k)
        pools = [[by_name[m.name] for m in ranking.tensors] for ranking in rankings]
        least, most = [sum(c.floor for c in pool) for pool in pools], [sum(c.remaining for c in pool) for pool in pools]
        counts = quotas([ranking.share for ranking in rankings], least, most, k)
        found: dict[str, Array] = {}
        for pool, count in zip(pools, counts, strict=True):
            found |= zip([c.maskable.name for c in pool], all_but_best(pool, count, rng), strict=True)
        return found

    def count(self, budget: str, density: float) -> int:
        """Return how many entries of a budget that density keeps, after checking that it can be reached."""
        members = [m for m in self._maskables if m.budget == budget]
        if not members:
            known = ", ".join(dict.fromkeys(m.budget for m in self._maskables))
            raise PruningError(f"no maskable has budget {budget!r}; this task has: {known}")
        if not 0 < density <= 1:
            raise PruningError(f"density of {budget} is {density}; it must lie in (0, 1]")
        remaining = [self._positions[m.name].remaining for m in members]
        total = sum(m.size for m in members)
        k = math.floor(density * total + 0.5)
        if budget in self._in_units:  # earlier groups may have left a little less than was asked for
            k = min(k, sum(remaining))
        if k > sum(remaining):
            raise PruningError(
                f"density {density} of {budget} needs {k} entries but only {sum(remaining)} of {total} are left: "
                "masks never regrow, so ask for densities in falling order"
            )
        floor = sum(min(_floor(m), n) for m, n in zip(members, remaining, strict=True))
        if k < floor:
            raise PruningError(
                f"density {density} of {budget} keeps {k} of {total} entries, but the floors of its "
                f"{len(members)} tensors need {floor}: ask for at least {floor / total:.6g}"
            )
        return k

    def mask(self, m: Maskable) -> Tensor:
        """Return a boolean tensor of the maskable's shape, True where the entry remains."""
        mask = torch.zeros(m.shape, dtype=torch.bool).permute(*self._orders[m.name]).contiguous()
        positions = self._positions[m.name]
        at = slice(None) if positions.at is None else positions.at
        mask.view(-1).numpy()[at] = True if positions.alive is None else positions.alive
        return mask.permute(*np.argsort(self._orders[m.name]).tolist()).contiguous()

    def _candidates(self, m: Maskable, scores: Mapping[str, Score]) -> Candidates:
        positions, order = self._positions[m.name], self._orders[m.name]
        groups = None if m.groups is None else positions.of(m.groups.permute(*order).reshape(-1).numpy())
        *first, varying = factors(m, scores, order)
        if first and m.name not in self._constant:
            self._constant[m.name] = positions.of(first[0])
        constant = self._constant[m.name] if first else None
        return Candidates(m, constant, varying, groups, min(_floor(m), positions.remaining), positions)

    def _prune(self, m: Maskable, ranked: Array) -> Array:
        positions = self._positions[m.name]
        if ranked.size:
            size, at, alive, remaining = positions
            alive, remaining = np.ones(size, dtype=bool) if alive is None else alive, remaining - ranked.size
            alive[ranked] = False
            if m.budget in self._in_units or remaining < COMPACT_BELOW * size:  # units are made of what remains
                at = positions.flat(np.flatnonzero(alive)).astype(np.int32)
                self._positions[m.name] = Positions(remaining, at, None, remaining)
                self._constant.pop(m.name, None)
            else:
                self._positions[m.name] = Positions(size, at, alive, remaining)
        return positions.flat(ranked).astype(np.int64)


def _floor(m: Maskable) -> int:
    """Return the fewest entries to leave in a tensor; of constant fan-in, one for every row."""
    return max(m.floor, m.shape[1 - m.input_axis]) if isinstance(m.pattern, Rows) else m.floor
