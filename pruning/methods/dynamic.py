"""Dynamic sparse training (SET, RigL) and gradual magnitude pruning: search and training are one run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pruning.allocation import allocate
from pruning.allocation.cells import filled
from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import NotApplicable, PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable, ungrouped
from pruning.masks import Masks
from pruning.patterns import Cells, Rows
from pruning.schedules import cubic, drop_share, timetable
from pruning.scores import group_mean_scores
from pruning.ticket import Densities, Ticket


def set_(
    lab: Lab, densities: list[Densities], drop: float = 0.3, interval: int | None = None, until: float = 0.75, scheme: str = "erk"
) -> Iterator[Ticket]:
    """Sparse evolutionary training (Mocanu et al. 2018): drops small weights and regrows others at random, at RigL's times.

    drop      share of the remaining entries replaced in the first update; it falls to 0 along a cosine
    interval  steps between two updates; None: 100, or a twentieth of a short training
    until     share of the training after which masks stay as they are
    scheme    the layerwise distribution of the kept entries
    """
    yield from _regrowing(lab, densities, scheme, Regrow("random", drop, interval, until))


def rigl(
    lab: Lab, densities: list[Densities], drop: float = 0.3, interval: int | None = None, until: float = 0.75, scheme: str = "erk"
) -> Iterator[Ticket]:
    """RigL (Evci et al. 2020): drops small weights and regrows those with the largest gradients. Options as those of ``set_``."""
    yield from _regrowing(lab, densities, scheme, Regrow("gradient", drop, interval, until))


def srigl(
    lab: Lab,
    densities: list[Densities],
    drop: float = 0.3,
    interval: int | None = None,
    until: float = 0.75,
    salient: float = 0.3,
    scheme: str = "erk",
) -> Iterator[Ticket]:
    """SRigL (Lasby et al. 2024): RigL with constant fan-in, for which pattern=rows is needed, and neuron ablation: a unit with
    few salient entries loses all of them, and the others of its tensor share what it had.

    salient  a unit is ablated if fewer than this share of its entries are salient, that is survive the drop or would be grown
             by RigL; 0: no ablation

    The units of the last tensor are never ablated: they are the network's answers. Other options as those of ``set_``.
    """
    if not any(isinstance(m.pattern, Rows) for m in lab.maskables):
        raise NotApplicable("srigl keeps equally many entries in every row: give pattern=rows")
    yield from _regrowing(lab, densities, scheme, StructuredRegrow("gradient", drop, interval, until, salient))


def _regrowing(lab: Lab, densities: list[Densities], scheme: str, callback: Callback) -> Iterator[Ticket]:
    start = lab.start("init")
    ungrouped(lab.maskables, "a method that regrows entries", patterns=True)
    for density in densities:
        with lab.search() as search:
            masks = lab.allocate(lab.score("random", start, lab.ones()), lab.ones(), density, scheme)
            trained = lab.train(start, masks, callback=callback)
        yield Ticket(density, lab.masks(trained), start, trained=trained, search=search)


def gmp(
    lab: Lab,
    densities: list[Densities],
    begin: float = 0.0,
    until: float = 0.75,
    interval: int | None = None,
    scheme: str = "uniform",
) -> Iterator[Ticket]:
    """Gradual magnitude pruning (Zhu & Gupta 2018): the density falls along a cubic during training.

    begin     share of the training at which pruning begins
    until     share of the training at which the final density is reached
    interval  steps between two prunings; None: 100, or a twentieth of a short training
    scheme    the layerwise distribution of the kept entries
    """
    start = lab.start("init")
    for density in densities:
        with lab.search() as search:
            trained = lab.train(start, lab.ones(), callback=Gradual(density, begin, until, interval, scheme))
        yield Ticket(density, lab.masks(trained), start, trained=trained, search=search)


@dataclass
class Regrow(Callback):
    """Replaces entries of every pruned tensor each ``interval`` steps: drops a share of the smallest and regrows as many
    elsewhere.

    Entries that were just dropped may be regrown: at random, or those of the largest gradients. The share falls along a cosine
    from ``drop`` to 0 at the share ``until`` of the training. An update follows the optimizer's step and uses that step's
    gradient; regrown entries start at zero (Evci et al. 2020).
    """

    name = "regrow"
    grow: Literal["random", "gradient"]
    drop: float
    interval: int | None
    until: float

    def __post_init__(self) -> None:
        if not 0 < self.drop < 1:
            raise PruningError(f"drop is {self.drop}; the share of the remaining entries dropped at first must lie in (0, 1)")

    def on_start(self, context: TrainingContext) -> None:
        self.maskables = context.maskables
        self.every, self.end, _ = timetable(context.total, 0.0, self.until, self.interval)
        self.gradients: dict[str, Tensor] = {}

    def _due(self, step: int) -> bool:
        return step % self.every == 0 and 0 < step < self.end

    def uses_dense_gradients(self, context: TrainingContext) -> bool:
        return self.grow == "gradient" and self._due(context.step + 1)

    def after_backward(self, context: TrainingContext) -> None:
        if self.uses_dense_gradients(context):
            self.gradients = {
                name: torch.zeros(p.shape) if p.grad is None else _magnitude(p.grad) for name, p in context.parameters.items()
            }

    def after_step(self, context: TrainingContext) -> None:
        if not self._due(context.step):
            return
        share, generator, moved = drop_share(self.drop, context.step, self.end), context.generator(f"regrow {context.step}"), {}
        for m in self.maskables:
            mask = context.masks[m.name]
            count = int(share * mask.sum())
            if count and not mask.all():  # a dense tensor has no free positions
                regrow_score = self.gradients[m.name] if self.grow == "gradient" else torch.rand(m.shape, generator=generator)
                size = _magnitude(context.parameters[m.name])
                moved[m.name] = self.updated(m, mask, count, size, regrow_score, generator.initial_seed())
        self.gradients = {}
        context.set_masks(context.masks.replace(moved))

    def updated(self, m: Maskable, mask: Tensor, count: int, weight: Tensor, regrow_score: Tensor, seed: int) -> Tensor:
        """Return the next mask of a tensor, ``count`` of its entries replaced."""
        return exchange(m, mask, count, weight, regrow_score, seed)


@dataclass
class StructuredRegrow(Regrow):
    """Replaces entries as ``Regrow`` does, but every row of a tensor has equally many, and rows with few salient entries are
    ablated (Lasby et al. 2024, Section 3.1). A tensor never has more entries than at the start."""

    name = "srigl"
    salient: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.salient <= 1:
            raise PruningError(f"salient is {self.salient}; it is a share of the entries of a unit, in [0, 1]")

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        self.most = {m.name: int(context.masks[m.name].sum()) for m in self.maskables}

    def updated(self, m: Maskable, mask: Tensor, count: int, weight: Tensor, regrow_score: Tensor, seed: int) -> Tensor:
        if not isinstance(m.pattern, Rows):
            return super().updated(m, mask, count, weight, regrow_score, seed)
        salient = 0.0 if m is self.maskables[-1] else self.salient
        return ablated_exchange(m, mask, count, weight, regrow_score, seed, salient, self.most[m.name])


@dataclass
class Gradual(Callback):
    """Prunes by magnitude every ``interval`` steps between the shares ``begin`` and ``until`` of the training."""

    name = "gradual"
    densities: Densities
    begin: float
    until: float
    interval: int | None
    scheme: str

    def on_start(self, context: TrainingContext) -> None:
        self.every, _, self.cuts = timetable(context.total, self.begin, self.until, self.interval)
        self.start = math.floor(self.begin * context.total)
        sizes, whole = {n: _magnitude(p) for n, p in context.parameters.items()}, Masks.ones(context.maskables)
        allocate(sizes, whole, self.densities, context.maskables, self.scheme)  # raises now if the density cannot be reached

    def after_step(self, context: TrainingContext) -> None:
        cut, rest = divmod(context.step - self.start, self.every)
        if rest or not 0 < cut <= self.cuts:
            return
        now = {budget: cubic(density, cut / self.cuts) for budget, density in self.densities.items()}
        scores = group_mean_scores({name: _magnitude(p) for name, p in context.parameters.items()}, context.maskables)
        ties = context.generator(f"cut {context.step}").initial_seed()
        context.set_masks(allocate(scores, context.masks, now, context.maskables, self.scheme, ties, final=False))


def exchange(m: Maskable, mask: Tensor, count: int, weight: Tensor, regrow_score: Tensor, seed: int) -> Tensor:
    """Return ``mask`` without its ``count`` entries of smallest ``weight``, and with as many of the free entries of largest
    ``regrow_score``. Under a pattern of cells every cell regrows what it lost; of groups whole ones are exchanged."""
    kept = best(m, weight, mask, int(mask.sum()) - count, seed)
    if isinstance(m.pattern, Cells):
        had = np.bincount(m.pattern.of(m).reshape(-1).numpy(), weights=mask.reshape(-1).numpy()).astype(np.int64)
        return filled(m, kept, had, regrow_score, seed)
    return kept | best(m, regrow_score, ~kept, int(mask.sum() - kept.sum()), seed)


def ablated_exchange(
    m: Maskable, mask: Tensor, count: int, weight: Tensor, regrow_score: Tensor, seed: int, salient: float, most: int
) -> Tensor:
    """Return the next mask of SRigL for a tensor with constant fan-in: see ``srigl``.

    The ``count`` entries of smallest ``weight`` are dropped. A row is ablated if it has fewer salient entries than the share
    ``salient`` of its fan-in: entries that stay, or that are among the ``count`` of largest ``regrow_score`` of those pruned.
    The fan-in of the other rows rises as far as ``most`` entries allow, and each regrows up to it. So many rows stay, those with
    the most salient entries, that ``most`` entries find room.
    """
    assert isinstance(m.pattern, Rows)
    rows = m.pattern.of(m)
    kept = best(m, weight, mask, int(mask.sum()) - count, seed)
    promising = kept | best(m, regrow_score, ~mask, min(count, int((~mask).sum())), seed)
    fan_in = np.bincount(rows[mask].numpy(), minlength=m.shape[1 - m.input_axis])
    found = np.bincount(rows[promising].numpy(), minlength=len(fan_in))
    active = (fan_in > 0) & (found >= salient * fan_in.max())
    needed = min(math.ceil(most / m.fan_in), int((fan_in > 0).sum()))
    if active.sum() < needed:
        order = np.argsort(-np.where(fan_in > 0, found, -1), kind="stable")
        active[order[:needed]] = True
    wanted = np.where(active, min(m.fan_in, most // int(active.sum())), 0)
    return filled(m, kept & torch.from_numpy(active)[rows], wanted, regrow_score, seed)


def best(m: Maskable, score: Tensor, among: Tensor, k: int, seed: int) -> Tensor:
    """Return the mask of the ``k`` entries of largest ``score`` among others, wherever they are; whole groups where it has
    some, as many as fit."""
    alone, masks = replace(m, floor=0, pattern=None), Masks({m.name: among}, {m.name: m.budget})
    if not k:
        return torch.zeros_like(among)
    return allocate({m.name: score}, masks, {m.budget: k / m.size}, [alone], seed=seed)[m.name]


def _magnitude(tensor: Tensor) -> Tensor:
    """Return |x| on the CPU, 0 for NaN: a diverged training is reported at the end of its epoch and ranked until then."""
    return tensor.detach().abs().cpu().nan_to_num()
