"""Masks that move during the one training there is: SET, RigL and gradual magnitude pruning. Where it ends is the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.allocation.allocate import allocate
from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable, ungrouped
from pruning.masks import Masks
from pruning.scores import group_mean_scores
from pruning.ticket import Densities, Ticket

GROW = ("random", "gradient")


def set_(lab: Lab, densities: list[Densities], drop: float = 0.3, interval: int | None = None, until: float = 0.75,
         scheme: str = "erk") -> Iterator[Ticket]:
    """Sparse evolutionary training (Mocanu et al. 2018), with RigL's timetable: regrows at random."""
    yield from _regrowing(lab, densities, scheme, Regrow("random", drop, interval, until))


def rigl(lab: Lab, densities: list[Densities], drop: float = 0.3, interval: int | None = None, until: float = 0.75,
         scheme: str = "erk") -> Iterator[Ticket]:
    """Regrows where the gradient of the dense weights is largest (Evci et al. 2020)."""
    yield from _regrowing(lab, densities, scheme, Regrow("gradient", drop, interval, until))


def _regrowing(lab: Lab, densities: list[Densities], scheme: str, callback: Callback) -> Iterator[Ticket]:
    start = lab.start("init")
    ungrouped(lab.maskables, "a method that regrows")
    for density in densities:
        with lab.search() as search:
            masks = lab.allocate(lab.score("random", start, lab.ones()), lab.ones(), density, scheme)
            trained = lab.train(start, masks, callback=callback)
        yield Ticket(density, lab.masks(trained), start, trained=trained, search=search)


def gmp(lab: Lab, densities: list[Densities], begin: float = 0.0, until: float = 0.75, interval: int | None = None,
        scheme: str = "uniform") -> Iterator[Ticket]:
    """Gradual magnitude pruning (Zhu & Gupta 2018): cut along a cubic from dense to the density asked."""
    start = lab.start("init")
    for density in densities:
        with lab.search() as search:
            trained = lab.train(start, lab.ones(), callback=Gradual(density, begin, until, interval, scheme))
        yield Ticket(density, lab.masks(trained), start, trained=trained, search=search)


@dataclass
class Regrow(Callback):
    """Every ``interval`` steps, in every pruned tensor: drop a share of the living entries, the smallest, and put as many
    in other places, which may be those just dropped. The share falls along a cosine from ``drop`` to 0 at the share ``until``
    of the training. Happens after the optimizer's step, on the gradient that step was made of; what grows begins at zero.
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
            self.gradients = {name: torch.zeros(p.shape) if p.grad is None else _magnitude(p.grad)
                              for name, p in context.parameters.items()}

    def after_step(self, context: TrainingContext) -> None:
        if not self._due(context.step):
            return
        share, generator, moved = drop_share(self.drop, context.step, self.end), context.generator(f"regrow {context.step}"), {}
        for m in self.maskables:
            living = context.masks[m.name]
            count = int(share * living.sum())
            if count and not living.all():  # a dense tensor has no other places
                promise = self.gradients[m.name] if self.grow == "gradient" else torch.rand(m.shape, generator=generator)
                size = _magnitude(context.parameters[m.name])
                moved[m.name] = exchange(m, living, count, size, promise, generator.initial_seed())
        self.gradients = {}
        context.set_masks(context.masks.replace(moved))


@dataclass
class Gradual(Callback):
    """Masks cut by magnitude every ``interval`` steps between the shares ``begin`` and ``until`` of the training."""

    name = "gradual"
    densities: Densities
    begin: float
    until: float
    interval: int | None
    scheme: str

    def on_start(self, context: TrainingContext) -> None:
        self.every, _, self.cuts = timetable(context.total, self.begin, self.until, self.interval)
        self.start = math.floor(self.begin * context.total)
        allocate({n: _magnitude(p) for n, p in context.parameters.items()}, Masks.ones(context.maskables), self.densities,
                 context.maskables, self.scheme)  # a density out of reach is named now, not at the end

    def after_step(self, context: TrainingContext) -> None:
        cut, rest = divmod(context.step - self.start, self.every)
        if rest or not 0 < cut <= self.cuts:
            return
        now = {budget: cubic(density, cut / self.cuts) for budget, density in self.densities.items()}
        scores = group_mean_scores({name: _magnitude(p) for name, p in context.parameters.items()}, context.maskables)
        ties = context.generator(f"cut {context.step}").initial_seed()
        context.set_masks(allocate(scores, context.masks, now, context.maskables, self.scheme, ties))


def timetable(total: int, begin: float, until: float, interval: int | None) -> tuple[int, int, int]:
    """Steps between updates (None: 100, or a twentieth of a training under 2,000), the step at the share ``until`` of ``total``,
    and how many intervals lie between the shares. Raises PruningError unless at least one does."""
    if not 0 <= begin < until <= 1:
        raise PruningError(f"masks move from share {begin} to share {until} of the training: these must rise within [0, 1]")
    every = max(1, min(100, total // 20)) if interval is None else interval
    first, end = math.floor(begin * total), math.floor(until * total)
    if not isinstance(every, int) or every < 1 or end - first < every:
        raise PruningError(f"interval is {interval}, but masks move during {end - first} steps of the training only: give a "
                           "whole number of steps from 1 up to that")
    return every, end, (end - first) // every


def drop_share(drop: float, step: int, end: int) -> float:
    """Cosine from ``drop`` at step 0 to 0 at step ``end``."""
    return drop / 2 * (1 + math.cos(math.pi * step / end))


def cubic(density: float, done: float) -> float:
    """Density when the share ``done`` of the cuts is behind: falls fast at first, and is 1 at 0 and ``density`` at 1."""
    return density + (1 - density) * (1 - done) ** 3


def exchange(m: Maskable, living: Tensor, count: int, weight: Tensor, promise: Tensor, seed: int) -> Tensor:
    """The mask ``living`` without its ``count`` smallest of ``weight``, with as many of the greatest ``promise`` among
    what is then free."""
    def best(score: Tensor, among: Tensor, k: int) -> Tensor:
        return allocate({m.name: score}, Masks({m.name: among}, {m.name: m.budget}), {m.budget: k / m.size},
                        [replace(m, floor=0)], seed=seed)[m.name]

    kept = best(weight, living, int(living.sum()) - count)
    return kept | best(promise, ~kept, count)


def _magnitude(tensor: Tensor) -> Tensor:
    """|x| on the CPU. A training that diverged is named at the end of its epoch; until then there must be a ranking."""
    return tensor.detach().abs().cpu().nan_to_num()
