"""Masks that are learned while the weights keep their initial values: edge-popup and Gem-Miner.

Every entry has a score. The network computes with weight * mask(scores), and the scores are trained by gradient descent with the
straight-through estimator: the gradient of the masked weight, times the weight, is taken for that of the score. Afterwards the
subnetwork is trained from the initial weights, like any ticket.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.allocation import allocate
from pruning.callbacks.base import Callback, TrainingContext, below, load_optimizer_state, optimizer_state
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable, ungrouped
from pruning.masks import Masks
from pruning.ticket import Densities, Ticket

OPTIMIZERS: dict[str, Callable[[list[Tensor], float], torch.optim.Optimizer]] = {
    "sgd": lambda scores, decay: torch.optim.SGD(scores, momentum=0.9, weight_decay=decay),
    "adam": lambda scores, decay: torch.optim.Adam(scores, weight_decay=decay),
}


def edge_popup(
    lab: Lab,
    densities: list[Densities],
    lr: float = 0.1,
    optimizer: str = "sgd",
    weight_decay: float = 1e-4,
    scheme: str = "uniform",
    period: int | None = None,
    schedule: str = "replay",
) -> Iterator[Ticket]:
    """Edge-popup (Ramanujan et al. 2020): keep the k entries of highest |score| in every layer, k fixed from the first step on.

    lr            peak learning rate of the scores, which falls to 0 along a cosine
    optimizer     optimizer of the scores: sgd (momentum 0.9) or adam
    weight_decay  weight decay of the scores
    scheme        uniform as published; global ranks all layers together (Global EP of Sreenivasan et al. 2022)
    period        epochs after which k falls, each time by the same factor, down to the final density (gradual, by the same
                  authors); None: k is fixed
    schedule      the schedule of the ticket: replay, whole or constant, as in ``imp``
    """
    start = lab.start("init")
    for density in densities:
        with lab.search() as search:
            end = lab.train(start, lab.ones(), callback=EdgePopup(density, lr, optimizer, weight_decay, scheme, period))
        scores = {name: score.abs() for name, score in lab.learned_scores(end).items()}
        yield Ticket(density, lab.masks(end), start, schedule, scores, lab.ones(), scheme, untrained=end, search=search)


def gem_miner(
    lab: Lab,
    densities: list[Densities],
    lr: float = 0.1,
    optimizer: str = "sgd",
    penalty: float = 1e-4,
    period: int | None = None,
    unflag: bool = True,
    schedule: str = "replay",
) -> Iterator[Ticket]:
    """Gem-Miner (Sreenivasan et al. 2022): scores in [0, 1] are rounded to masks, and at intervals a share of the lowest is
    frozen at 0 for the rest of the search. As everywhere, every tensor keeps its floor. Other options as those of ``edge_popup``.

    penalty  strength of the L2 penalty on the scores
    period   epochs between two freezes; None: a thirtieth of the training
    unflag   true: the ticket keeps every entry that is not frozen; false: entries whose score rounds to 0 are pruned as well, so
             that the density is below the target
    """
    for density in densities:
        with lab.search() as search:
            end = lab.train(lab.start("init"), lab.ones(), callback=GemMiner(density, lr, optimizer, penalty, period))
        masks, scores = lab.masks(end), lab.learned_scores(end)
        ranks = {name: score + masks[name] for name, score in scores.items()}  # frozen entries rank below all others
        if not unflag:
            masks = masks.replace({name: masks[name] & (score > 0.5) for name, score in scores.items()})
        yield Ticket(density, masks, lab.start("init"), schedule, ranks, lab.ones(), untrained=end, search=search)


@dataclass
class Learned(Callback):
    """Trains the scores of the pruned budgets and no parameter. At the end the model holds the masked weights, and the masks of
    the scores are in force. The learning rate falls to 0 along a cosine; gradients of scores are not clipped."""

    densities: Densities
    lr: float
    optimizer: str

    keeps_patterns: ClassVar[bool] = True
    """Whether ``chosen`` goes by the patterns of the maskables."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise PruningError(f"optimizer {self.optimizer!r} of the scores is not one of {', '.join(OPTIMIZERS)}")
        if not self.lr > 0:
            raise PruningError(f"lr of the scores is {self.lr}; it must be above 0")

    def decay(self) -> float:
        """Return the weight decay of the scores."""
        return 0.0

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        """Return the initial scores of a tensor, in its shape."""
        raise NotImplementedError

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        """Return boolean tensors by name: the entries that the network computes with in this step."""
        raise NotImplementedError

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        """Return the gradient of the loss by a tensor's scores (straight-through); ``through`` is dL/d(w * m) * w."""
        raise NotImplementedError

    def ranked_together(self, context: TrainingContext, scheme: str, densities: Densities) -> list[tuple[list[str], int]]:
        """Return the tensors of every ranking and the number of entries that it keeps: one ranking for each budget if the scheme
        is global, else one for each tensor."""
        first = self._allocated(context, {n: s.abs() for n, s in self.scores.items()}, densities, scheme)
        names = [m.name for m in self.maskables]
        if scheme == "global":
            return [([n for n in names if n in first.names(budget)], first.kept(budget)) for budget in densities]
        return [([n], int(first[n].sum())) for n in names]

    def of_pattern(
        self, context: TrainingContext, scores: dict[str, Tensor], densities: Densities, scheme: str
    ) -> dict[str, Tensor]:
        """Return the entries of highest score that the patterns of the maskables allow: slower than a ranking."""
        found = self._allocated(context, scores, densities, scheme)
        return {name: found[name].to(score.device) for name, score in scores.items()}

    def _allocated(self, context: TrainingContext, scores: dict[str, Tensor], densities: Densities, scheme: str) -> Masks:
        """Return the masks of the highest scores; those of other densities than the method's are on the way to it."""
        return allocate(scores, context.masks, densities, self.maskables, scheme, final=densities == self.densities)

    def pace(self, context: TrainingContext) -> float:
        """Return the scores' learning rate in this step as a share of its peak."""
        return (1 + math.cos(math.pi * context.step / context.total)) / 2

    def on_start(self, context: TrainingContext) -> None:
        own = [m for m in context.maskables if m.budget in self.densities]
        self.maskables = ungrouped(own, f"{self.name}, which learns its masks,", self.keeps_patterns)
        self.has_patterns = any(m.pattern is not None for m in own)
        generator = context.generator("learned scores")
        self.weights = {m.name: context.parameters[m.name].detach().clone() for m in self.maskables}
        self.scores = {m.name: torch.empty_like(self.weights[m.name]).copy_(self.draw(m, generator)) for m in self.maskables}
        self.stepper = OPTIMIZERS[self.optimizer](list(self.scores.values()), self.decay())

    @torch.no_grad()
    def before_forward(self, context: TrainingContext) -> None:
        self.kept, parameters = self.chosen(context), context.parameters
        for name, kept in self.kept.items():
            torch.mul(self.weights[name], kept, out=parameters[name].data)

    @torch.no_grad()
    def after_backward(self, context: TrainingContext) -> None:
        self.learn(context)
        for parameter in context.model.parameters():
            parameter.grad = None  # so that the optimizer of the weights does nothing, not even weight decay

    def learn(self, context: TrainingContext) -> None:
        """Take one optimizer step of the scores."""
        for name, parameter in context.parameters.items():
            if name in self.scores:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                self.scores[name].grad = self.gradient(context, name, gradient * self.weights[name])
        self.stepper.param_groups[0]["lr"] = self.lr * self.pace(context)
        self.stepper.step()

    def after_step(self, context: TrainingContext) -> None:
        if context.step == context.total:
            self.before_forward(context)

    def state(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, score in self.scores.items():
            tensors |= {f"scores/{name}": score, f"weights/{name}": self.weights[name]}
        return tensors | {f"stepper/{key}": t for key, t in optimizer_state(self.stepper, self.scores).items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, score in self.scores.items():
            score.copy_(tensors[f"scores/{name}"])
            self.weights[name].copy_(tensors[f"weights/{name}"])
        load_optimizer_state(self.stepper, self.scores, below("stepper", tensors))


@dataclass
class EdgePopup(Learned):
    """Keeps the k entries of largest |score|. Scores start uniform in [-1, 1] / sqrt(fan in) (Ramanujan et al. 2020, their code's
    Kaiming initialisation with a = sqrt(5))."""

    name = "edge_popup"
    weight_decay: float
    scheme: str
    period: int | None = None

    def decay(self) -> float:
        return self.weight_decay

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        return (2 * torch.rand(maskable.shape, generator=generator) - 1) / math.sqrt(maskable.fan_in)

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        epochs = context.total // context.steps_per_epoch
        if self.scheme == "qk_uniform":
            raise PruningError("edge_popup ranks every tensor by itself or all of them together; scheme qk_uniform is neither")
        if self.period is not None and not (isinstance(self.period, int) and 1 <= self.period <= epochs):
            raise PruningError(
                f"edge_popup keeps less every {self.period} epochs, but the search has only {epochs}: period must "
                f"be a whole number in [1, {epochs}]"
            )
        self.target = self.densities
        self.pools = self.ranked_together(context, self.scheme, self.target)  # raises now if out of reach
        self.after_epoch(context)

    def after_epoch(self, context: TrainingContext) -> None:
        if self.period is not None:
            epoch, epochs = context.step // context.steps_per_epoch, context.total // context.steps_per_epoch
            share = min(1, (epoch + 1) // self.period / (epochs // self.period))
            self.target = {budget: density**share for budget, density in self.densities.items()}
            self.pools = self.ranked_together(context, self.scheme, self.target)

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        if self.has_patterns:
            scores = {name: score.abs() for name, score in self.scores.items()}
            return self.of_pattern(context, scores, self.target, self.scheme)
        kept: dict[str, Tensor] = {}
        for names, k in self.pools:  # on the device of the scores, because this happens in every step
            ranked = torch.cat([self.scores[n].abs().reshape(-1) for n in names])
            best = torch.zeros_like(ranked, dtype=torch.bool)
            best[ranked.topk(k, sorted=False).indices] = True
            parts = torch.split(best, [self.scores[n].numel() for n in names])
            kept |= {n: part.reshape(self.scores[n].shape) for n, part in zip(names, parts, strict=True)}
        return kept

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        return through * self.scores[name].sign()

    def after_step(self, context: TrainingContext) -> None:
        super().after_step(context)
        if context.step == context.total:
            context.set_masks(context.masks.replace(self.kept))


@dataclass
class GemMiner(Learned):
    """Keeps entries whose score in [0, 1] is above 0.5; scores start uniform. From the second period on, every ``period`` epochs
    (None: a thirtieth of the training) end with a freeze, and frozen entries are masked."""

    name = "gem_miner"
    penalty: float
    period: int | None

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        return torch.rand(maskable.shape, generator=generator)

    def on_start(self, context: TrainingContext) -> None:
        super().on_start(context)
        epochs = context.total // context.steps_per_epoch
        self.every = max(1, epochs // 30) if self.period is None else self.period
        self.shares = {budget: freeze_share(density, epochs, self.every) for budget, density in self.densities.items()}
        self._moved: tuple[Masks, dict[str, Tensor]] | None = None
        if self.has_patterns:
            self.of_pattern(context, self.scores, self.densities, "global")  # raises now if out of reach
            return
        left = {budget: context.masks.kept(budget) for budget in self.densities}
        for _ in range((epochs - 1) // self.every):
            left = {budget: after_freeze(remaining, self.shares[budget]) for budget, remaining in left.items()}
        densities = {budget: n / context.masks.total(budget) for budget, n in left.items()}
        allocate(self.scores, context.masks, densities, self.maskables)  # raises now, not at the end, if out of reach

    def _unfrozen(self, context: TrainingContext) -> dict[str, Tensor]:
        """Return the masks in force, on the scores' device."""
        if self._moved is None or context.masks is not self._moved[0]:
            self._moved = context.masks, {n: context.masks[n].to(s.device) for n, s in self.scores.items()}
        return self._moved[1]

    def chosen(self, context: TrainingContext) -> dict[str, Tensor]:
        return {name: mask & (self.scores[name] > 0.5) for name, mask in self._unfrozen(context).items()}

    def gradient(self, context: TrainingContext, name: str, through: Tensor) -> Tensor:
        return through * self._unfrozen(context)[name] + 2 * self.penalty * self.scores[name]

    def after_backward(self, context: TrainingContext) -> None:
        super().after_backward(context)
        for score in self.scores.values():
            score.clamp_(0, 1)

    def after_epoch(self, context: TrainingContext) -> None:
        periods, rest = divmod(context.step // context.steps_per_epoch - 1, self.every)
        if periods == 0 or rest:
            return
        if self.has_patterns:  # n:m has one density exactly, of which the numbers below are a bound
            done = periods / ((context.total // context.steps_per_epoch - 1) // self.every)
            left = {budget: density**done for budget, density in self.densities.items()}
        else:
            masks = context.masks
            left = {b: after_freeze(masks.kept(b), share) / masks.total(b) for b, share in self.shares.items()}
        ties = context.generator(f"freeze {context.step}").initial_seed()
        context.set_masks(allocate(self.scores, context.masks, left, self.maskables, seed=ties, final=False))


def freeze_share(density: float, epochs: int, period: int) -> float:
    """Return the share of the remaining entries to freeze at a time, so that a search of ``epochs`` ends at ``density``."""
    if epochs < 2:
        raise PruningError("gem_miner freezes from the second epoch on, but the search has only one: train for more epochs")
    if not (isinstance(period, int) and 1 <= period < epochs):
        raise PruningError(
            f"gem_miner freezes every {period} epochs, the first time one epoch later, but the search has only "
            f"{epochs}: period must be a whole number in [1, {epochs - 1}]"
        )
    return float(1 - density ** (1 / ((epochs - 1) // period)))


def after_freeze(remaining: int, share: float) -> int:
    """Return the entries left of ``remaining``. The number frozen is rounded up, so that the density is an upper bound."""
    return remaining - math.ceil(share * remaining)
