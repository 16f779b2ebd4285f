"""Movement pruning (Sanh et al. 2020): masks are learned while the weights are fine-tuned.

The gradient of a score is that of the masked weight times the weight (straight-through), so a score rises while training moves
its weight away from zero and falls while it moves towards zero. Weights that are masked at the moment are frozen; their scores
keep updating, so they can be unmasked later.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pruning.callbacks.base import TrainingContext
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.methods.learned import Learned
from pruning.schedules import cubic, timetable
from pruning.ticket import Densities, Ticket

MIN_SHARE = 0.005
"""Share of every tensor that soft movement keeps at any threshold, as the published code does."""


def movement(
    lab: Lab,
    densities: list[Densities],
    lr: float = 0.01,
    optimizer: str = "adam",
    begin: float = 0.1,
    until: float = 0.8,
    scheme: str = "uniform",
) -> Iterator[Ticket]:
    """Hard movement pruning (Sanh et al. 2020): keep the best scores of every tensor, at a density that falls along a cubic.

    lr         peak learning rate of the scores, whose schedule is that of the weights
    optimizer  optimizer of the scores: adam or sgd
    begin      share of the training at which pruning begins
    until      share of the training at which the final density is reached
    scheme     uniform as published; global ranks a whole budget together
    """
    yield from _moving(lab, densities, lambda density: Movement(density, lr, optimizer, begin, until, scheme), scheme)


def soft_movement(
    lab: Lab,
    densities: list[Densities],
    threshold: float = 0.1,
    penalty: float = 400.0,
    lr: float = 0.01,
    optimizer: str = "adam",
    begin: float = 0.1,
    until: float = 0.8,
) -> Iterator[Ticket]:
    """Soft movement pruning (Sanh et al. 2020): keep entries whose score has a sigmoid above a threshold that rises along a
    cubic. Other options as those of ``movement``.

    threshold  final threshold of the sigmoids, in (0, 1)
    penalty    factor of the mean sigmoid over all tensors, which is added to the loss; it rises as the threshold does
    begin      share of the training at which the threshold begins to rise
    until      share of the training at which it has its final value

    Threshold and penalty decide how much is kept. The density is an upper bound: from ``until`` on, the lowest scores of a budget
    that exceeds it are pruned as well (the published code has no bound; there one searches for the penalty).
    """
    how = (lr, optimizer, begin, until, threshold, penalty)
    yield from _moving(lab, densities, lambda density: SoftMovement(density, *how), "global")


def _moving(lab: Lab, densities: list[Densities], callback: Callable[[Densities], "Moving"], scheme: str) -> Iterator[Ticket]:
    start = lab.start("init")
    for density in densities:
        with lab.search() as search:
            end = lab.train(start, lab.ones(), callback=callback(density))
        masks, scores = lab.masks(end), lab.learned_scores(end)
        yield Ticket(density, masks, start, "replay", scores, lab.ones(), scheme, trained=end, search=search)


@dataclass
class Moving(Learned):
    """Trains scores and weights together. The density changes between the shares ``begin`` and ``until`` of the training: nothing
    is pruned before, and the weights are fine-tuned at a fixed density afterwards. The model is masked at the end of every
    epoch, when it may be evaluated."""

    begin: float
    until: float

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        return torch.zeros(maskable.shape)

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        return through

    def pace(self, context: TrainingContext) -> float:
        group = context.optimizer.param_groups[0]
        return float(group["lr"] / group["initial_lr"])

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        _, self.end, self.steps = timetable(context.total, self.begin, self.until, 1)

    def done(self, context: TrainingContext) -> float:
        """Return the share of the schedule that is over, in [0, 1]."""
        return min(1.0, max(0.0, 1 - (self.end - context.step) / self.steps))

    @torch.no_grad()
    def after_backward(self, context: TrainingContext) -> None:
        self.learn(context)
        parameters = context.parameters
        for name, kept in self.kept.items():  # the optimizer steps from the unmasked weights
            parameters[name].data.copy_(self.weights[name])
            if (gradient := parameters[name].grad) is not None:
                gradient.mul_(kept)

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
    """Keeps the best scores, as many as the cubic schedule allows (Sanh et al. 2020, hard movement)."""

    name = "movement"
    scheme: str

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        self.pools = self.ranked_together(context, self.scheme, self.densities)

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        done = self.done(context)
        if self.has_patterns:
            densities = {budget: cubic(density, done) for budget, density in self.densities.items()}
            return self.of_pattern(context, self.scores, densities, self.scheme)
        kept: dict[str, Tensor] = {}
        for names, k in self.pools:
            total = sum(self.scores[name].numel() for name in names)
            kept |= best({name: self.scores[name] for name in names}, round(total * cubic(k / total, done)))
        return kept


@dataclass
class SoftMovement(Moving):
    """Keeps every entry whose score has a sigmoid above the threshold (Sanh et al. 2020, soft movement)."""

    name = "soft_movement"
    threshold: float
    penalty: float

    keeps_patterns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise PruningError(f"threshold is {self.threshold}; it is compared with sigmoids, so it must lie in (0, 1)")

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        self.bounds = self.ranked_together(context, "global", self.densities)

    def risen(self, context: TrainingContext) -> float:
        """Return the share of the final threshold and penalty that is in force."""
        return 1 - cubic(0.0, self.done(context))

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        open_ = self.scores[name].sigmoid()
        strength = self.penalty * self.risen(context) / (len(self.scores) * open_.numel())
        return through + strength * open_ * (1 - open_)

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        threshold = self.threshold * self.risen(context)
        kept: dict[str, Tensor] = {}
        for name, score in self.scores.items():
            kept[name] = score.sigmoid() > threshold
            least = max(1, int(MIN_SHARE * score.numel()))
            if int(kept[name].sum()) < least:
                kept |= best({name: score}, least)
        if self.done(context) == 1:
            for names, k in self.bounds:
                if sum(int(kept[name].sum()) for name in names) > k:
                    kept |= best({name: self.scores[name].masked_fill(~kept[name], -torch.inf) for name in names}, k)
        return kept


def best(scores: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """Return boolean tensors that are True at the ``k`` highest scores of all; the first of equal scores win. Computed on the
    device of the scores, because this happens in every step."""
    ranked = torch.cat([score.reshape(-1) for score in scores.values()])
    excess = ranked.numel() - k
    if excess <= 0:
        return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    # on the CPU numpy selects several times faster
    edge = ranked.topk(k, sorted=False).values.min() if ranked.is_cuda else float(np.partition(ranked.numpy(), excess)[excess])
    kept = ranked > edge
    kept[(ranked == edge).nonzero().flatten()[: k - int(kept.sum())]] = True
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
