"""Movement pruning (Sanh et al. 2020): masks are learned while the weights are fine-tuned.

An entry's score falls by the gradient of its masked weight times its weight (straight-through), so it gains where training moves
the weight away from zero and loses where it moves it towards zero. The masked of today keep their weights, which stand still,
and their scores, which go on: they may come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruning.callbacks.base import TrainingContext
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.methods.dynamic import cubic, timetable
from pruning.methods.learned import Learned
from pruning.ticket import Densities, Ticket

LEAST = 0.005
"""Share of every tensor that soft movement keeps, whatever the threshold says."""


def movement(
    lab: Lab,
    densities: list[Densities],
    lr: float = 0.01,
    optimizer: str = "adam",
    begin: float = 0.1,
    until: float = 0.8,
    scheme: str = "uniform",
) -> Iterator[Ticket]:
    """Hard movement pruning: the best scores of every tensor, as many as a cubic from all to the density asked says.

    scheme    uniform as published; global ranks a whole budget together
    lr        peak rate of the scores, whose schedule is that of the weights
    """
    yield from _moving(lab, densities, lambda density: Movement(density, lr, optimizer, begin, until, scheme), scheme)


def soft_movement(lab: Lab, densities: list[Densities], threshold: float = 0.1, penalty: float = 400.0, lr: float = 0.01,
                  optimizer: str = "adam", begin: float = 0.1, until: float = 0.8) -> Iterator[Ticket]:
    """Soft movement pruning: all entries whose score has a sigmoid above a threshold, which rises from 0 along a cubic.

    penalty   times the mean over tensors of their mean sigmoid, added to the loss; grows as the threshold does

    What is kept follows from both. The density asked is a bound: from the share ``until`` on the lowest of a budget that exceeds
    it go as well (the published code has no bound; there one seeks the penalty that gives the density).
    """
    yield from _moving(lab, densities, lambda density: SoftMovement(density, lr, optimizer, begin, until, threshold, penalty),
                       "global")


def _moving(lab: Lab, densities: list[Densities], callback: Callable[[Densities], Moving], scheme: str) -> Iterator[Ticket]:
    for density in densities:
        with lab.search() as search:
            trained = lab.train(lab.start("init"), lab.ones(), callback=callback(density))
        yield Ticket(density, lab.masks(trained), lab.start("init"), "replay", lab.learned_scores(trained), lab.ones(), scheme,
                     trained=trained, search=search)


@dataclass
class Moving(Learned):
    """Trains scores and weights together. The schedule moves between the shares ``begin`` and ``until`` of the training; before
    nothing is cut, after that the weights of an unmoving density are fine-tuned. What looks at the model after an epoch finds
    it masked."""

    begin: float
    until: float

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        return torch.zeros(maskable.shape)

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        return through

    def pace(self, context: TrainingContext) -> float:
        group = context.optimizer.param_groups[0]
        return group["lr"] / group["initial_lr"]

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        _, self.end, self.steps = timetable(context.total, self.begin, self.until, 1)

    def done(self, context: TrainingContext) -> float:
        """The share of the schedule that is behind, in [0, 1]."""
        return min(1.0, max(0.0, 1 - (self.end - context.step) / self.steps))

    @torch.no_grad()
    def before_forward(self, context: TrainingContext) -> None:
        self.kept, parameters = self.chosen(context), context.parameters
        for name, kept in self.kept.items():
            torch.mul(self.weights[name], kept, out=parameters[name].data)

    @torch.no_grad()
    def after_backward(self, context: TrainingContext) -> None:
        self.learn(context)
        parameters = context.parameters
        for name, kept in self.kept.items():  # the optimizer steps from the weights themselves
            parameters[name].data.copy_(self.weights[name])
            if parameters[name].grad is not None:
                parameters[name].grad.mul_(kept)

    @torch.no_grad()
    def after_step(self, context: TrainingContext) -> None:
        parameters = context.parameters
        for name, weight in self.weights.items():
            weight.copy_(parameters[name])
        if context.step % context.steps_per_epoch == 0 or context.step == context.total:
            self.before_forward(context)
        if context.step == context.total:
            context.set_masks(context.masks.replace(self.kept))


@dataclass
class Movement(Moving):
    """As many of the best scores as the cubic says."""

    name = "movement"
    scheme: str

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        self.pools = self.ranked_together(context, self.scheme, self.densities)

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        done, kept = self.done(context), {}
        for names, k in self.pools:
            total = sum(self.scores[name].numel() for name in names)
            kept |= best({name: self.scores[name] for name in names}, round(total * cubic(k / total, done)))
        return kept


@dataclass
class SoftMovement(Moving):
    """Every score whose sigmoid is above the threshold."""

    name = "soft_movement"
    threshold: float
    penalty: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise PruningError(f"threshold is {self.threshold}; it is compared with sigmoids, so it must lie in (0, 1)")

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        self.bounds = self.ranked_together(context, "global", self.densities)

    def risen(self, context: TrainingContext) -> float:
        """Share of the threshold and of the penalty in force."""
        return 1 - cubic(0.0, self.done(context))

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        open_ = self.scores[name].sigmoid()
        strength = self.penalty * self.risen(context) / (len(self.scores) * open_.numel())
        return through + strength * open_ * (1 - open_)

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        threshold, kept = self.threshold * self.risen(context), {}
        for name, score in self.scores.items():
            kept[name] = score.sigmoid() > threshold
            least = max(1, int(LEAST * score.numel()))
            if int(kept[name].sum()) < least:
                kept |= best({name: score}, least)
        if self.done(context) == 1:
            for names, k in self.bounds:
                if sum(int(kept[name].sum()) for name in names) > k:
                    kept |= best({name: self.scores[name].masked_fill(~kept[name], -torch.inf) for name in names}, k)
        return kept


def best(scores: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """Boolean tensors with ``k`` True in all, at the highest scores; of equal ones the first. Made in every step of a training,
    so on the scores' own device."""
    ranked = torch.cat([score.reshape(-1) for score in scores.values()])
    lose = ranked.numel() - k
    if lose <= 0:
        return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    # on the CPU numpy selects several times faster
    edge = ranked.topk(k, sorted=False).values.min() if ranked.is_cuda else float(np.partition(ranked.numpy(), lose)[lose])
    kept = ranked > edge
    kept[(ranked == edge).nonzero().flatten()[:k - int(kept.sum())]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
