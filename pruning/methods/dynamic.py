"""Dynamic sparse training (SET, RigL) and gradual magnitude pruning: search and training are one run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.allocation import allocate
from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable, ungrouped
from pruning.masks import Masks
from pruning.schedules import cubic, drop_share, timetable
from pruning.scores import group_mean_scores
from pruning.ticket import Densities, Ticket

GROW = ("random", "gradient")


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


def _regrowing(lab: Lab, densities: list[Densities], scheme: str, callback: Callback) -> Iterator[Ticket]:
    start = lab.start("init")
    ungrouped(lab.maskables, "a method that regrows entries")
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

    Entries that were just dropped may be regrown. The share falls along a cosine from ``drop`` to 0 at the share ``until`` of
    the training. An update follows the optimizer's step and uses that step's gradient; regrown entries start at zero
    (Evci et al. 2020, Algorithm 1).
    """

    name = "regrow"
    grow: str
    drop: float
    interval: int | None
    until: float

    def __post_init__(self) -> None:
        if self.grow not in GROW:
            raise PruningError(f"grow is {self.grow!r}; it must be one of {', '.join(GROW)}")
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
                moved[m.name] = exchange(m, mask, count, size, regrow_score, generator.initial_seed())
        self.gradients = {}
        context.set_masks(context.masks.replace(moved))


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
        allocate(
            {n: _magnitude(p) for n, p in context.parameters.items()},
            Masks.ones(context.maskables),
            self.densities,
            context.maskables,
            self.scheme,
        )  # raises now, not at the end, if the density cannot be reached

    def after_step(self, context: TrainingContext) -> None:
        cut, rest = divmod(context.step - self.start, self.every)
        if rest or not 0 < cut <= self.cuts:
            return
        now = {budget: cubic(density, cut / self.cuts) for budget, density in self.densities.items()}
        scores = group_mean_scores({name: _magnitude(p) for name, p in context.parameters.items()}, context.maskables)
        ties = context.generator(f"cut {context.step}").initial_seed()
        context.set_masks(allocate(scores, context.masks, now, context.maskables, self.scheme, ties))


def exchange(m: Maskable, mask: Tensor, count: int, weight: Tensor, regrow_score: Tensor, seed: int) -> Tensor:
    """Return ``mask`` without its ``count`` entries of smallest ``weight``, and with as many of the free entries of largest
    ``regrow_score``."""

    def best(score: Tensor, among: Tensor, k: int) -> Tensor:
        return allocate(
            {m.name: score}, Masks({m.name: among}, {m.name: m.budget}), {m.budget: k / m.size}, [replace(m, floor=0)], seed=seed
        )[m.name]

    kept = best(weight, mask, int(mask.sum()) - count)
    return kept | best(regrow_score, ~kept, count)


def _magnitude(tensor: Tensor) -> Tensor:
    """Return |x| on the CPU, 0 for NaN: a diverged training is reported at the end of its epoch and ranked until then."""
    return tensor.detach().abs().cpu().nan_to_num()
