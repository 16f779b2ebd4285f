"""Masks that are learned while the weights stay as drawn: edge-popup and Gem-Miner.

Every entry has a score, trained by gradient descent through the mask: the network computes with weight * mask(scores), and
the gradient of the masked weight, times the weight, counts as that of the score (straight-through). Afterwards the subnetwork
is trained from the weights as drawn, like any ticket.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pruning.allocation.allocate import Densities, allocate
from pruning.callbacks.base import Rule, Run
from pruning.errors import PruningError
from pruning.maskable import Maskable, ungrouped
from pruning.masks import Masks
from pruning.methods.magnitude import Ticket

OPTIMIZERS = {
    "sgd": lambda scores, decay: torch.optim.SGD(scores, momentum=0.9, weight_decay=decay),
    "adam": lambda scores, decay: torch.optim.Adam(scores, weight_decay=decay),
}


def edge_popup(lab, densities: list[Densities], lr: float = 0.1, optimizer: str = "sgd", weight_decay: float = 1e-4,
               scheme: str = "uniform", period: int | None = None, schedule: str = "replay") -> Iterator[Ticket]:
    """The k entries of highest |score| in every layer, k fixed from the first step on (Ramanujan et al. 2020).

    scheme  uniform as published; global ranks all layers together (Sreenivasan et al. 2022, Global EP)
    period  epochs after which k falls, by equal factors from one to the next until it is that of the density in the last
            (the same, gradual); None: k is fixed
    """
    for density in densities:
        with lab.apart():
            found = lab.train(lab.start("init"), lab.ones(), rule=EdgePopup(density, scheme, lr, optimizer, weight_decay, period))
            scores = {name: score.abs() for name, score in lab.learned(found).items()}
            yield Ticket(density, lab.masks(found), lab.start("init"), schedule, scores, lab.ones(), scheme, untrained=found)


def gem_miner(lab, densities: list[Densities], lr: float = 0.1, optimizer: str = "sgd", penalty: float = 1e-4,
              period: int | None = None, unflag: bool = True, schedule: str = "replay") -> Iterator[Ticket]:
    """Scores in [0, 1], rounded; the lowest are frozen at 0 for ever, a share of the rest at a time (Sreenivasan et al. 2022).

    As any cut, a freeze leaves every tensor its floor.

    unflag: the ticket is everything not frozen; False: less what the scores round to 0, a density below the one asked.
    """
    for density in densities:
        with lab.apart():
            found = lab.train(lab.start("init"), lab.ones(), rule=GemMiner(density, lr, optimizer, penalty, period))
            masks, scores = lab.masks(found), lab.learned(found)
            ranks = {name: score + masks[name] for name, score in scores.items()}  # the frozen below all others
            if not unflag:
                masks = masks.replace({name: masks[name] & (score > 0.5) for name, score in scores.items()})
            yield Ticket(density, masks, lab.start("init"), schedule, ranks, lab.ones(), untrained=found)


class Learned(Rule):
    """Trains the scores of the asked budgets and no parameter. At the end the model holds the masked weights, and what the
    scores keep is in force. The learning rate falls to 0 along a cosine; gradients of scores are not clipped."""

    def __init__(self, densities: Densities, lr: float, optimizer: str, weight_decay: float):
        if optimizer not in OPTIMIZERS:
            raise PruningError(f"optimizer {optimizer!r} of the scores is not one of {', '.join(OPTIMIZERS)}")
        if not lr > 0:
            raise PruningError(f"lr of the scores is {lr}; it must be above 0")
        self.densities, self.lr, self.optimizer, self.weight_decay = dict(densities), lr, optimizer, weight_decay

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        """Scores to begin with."""
        raise NotImplementedError

    def chosen(self, run: Run) -> dict[str, Tensor]:
        """Which entries the network computes with, by name."""
        raise NotImplementedError

    def gradient(self, run: Run, name: str, through: Tensor) -> Tensor:
        """That of the scores of a tensor. ``through``: gradient of the masked weight, times the weight."""
        raise NotImplementedError

    def ranked_together(self, run: Run, scheme: str, densities: Densities) -> list[tuple[list[str], int]]:
        """Names of the tensors of every ranking, and how many entries the densities keep of it: of a whole budget where the
        scheme is global, else of every tensor."""
        first = allocate({n: s.abs() for n, s in self.scores.items()}, run.masks, densities, self.maskables, scheme)
        names = [m.name for m in self.maskables]
        if scheme == "global":
            return [([n for n in names if n in first.names(budget)], first.kept(budget)) for budget in densities]
        return [([n], int(first[n].sum())) for n in names]

    def pace(self, run: Run) -> float:
        """The scores' rate in this step, as a share of its peak."""
        return (1 + math.cos(math.pi * run.step / run.total)) / 2

    def begin(self, run: Run) -> None:
        self.maskables = ungrouped([m for m in run.maskables if m.budget in self.densities], "a method that learns its masks")
        generator = run.generator("learned scores")
        self.weights = {m.name: run.parameters[m.name].detach().clone() for m in self.maskables}
        self.scores = {m.name: torch.empty_like(self.weights[m.name]).copy_(self.draw(m, generator)) for m in self.maskables}
        self.stepper = OPTIMIZERS[self.optimizer](list(self.scores.values()), self.weight_decay)

    @torch.no_grad()
    def before_forward(self, run: Run) -> None:
        parameters = run.parameters
        for name, kept in self.chosen(run).items():
            torch.mul(self.weights[name], kept, out=parameters[name].data)

    @torch.no_grad()
    def after_backward(self, run: Run) -> None:
        self.learn(run)
        for parameter in run.model.parameters():
            parameter.grad = None  # so that the training's own optimizer finds nothing to do, not even decay

    def learn(self, run: Run) -> None:
        """One step of the scores."""
        for name, parameter in run.parameters.items():
            if name in self.scores:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                self.scores[name].grad = self.gradient(run, name, gradient * self.weights[name])
        self.stepper.param_groups[0]["lr"] = self.lr * self.pace(run)
        self.stepper.step()

    def after_step(self, run: Run) -> None:
        if run.step == run.total:
            self.before_forward(run)

    def state(self) -> dict[str, Tensor]:
        return {f"scores/{name}": score for name, score in self.scores.items()} \
            | {f"weights/{name}": weight for name, weight in self.weights.items()} \
            | {f"stepper/{name}/{key}": torch.as_tensor(value) for name, score in self.scores.items()
               for key, value in self.stepper.state[score].items() if value is not None}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, score in self.scores.items():
            score.copy_(tensors[f"scores/{name}"])
            self.weights[name].copy_(tensors[f"weights/{name}"])
            for path, value in tensors.items():
                if path.startswith(f"stepper/{name}/"):
                    like = torch.empty_like(score if value.shape == score.shape else value)
                    self.stepper.state[score][path.rpartition("/")[2]] = like.copy_(value)


class EdgePopup(Learned):
    """Top k of |score|; scores begin uniform within 1 / sqrt(fan in)."""

    def __init__(self, densities: Densities, scheme: str, lr: float, optimizer: str, weight_decay: float,
                 period: int | None = None):
        super().__init__(densities, lr, optimizer, weight_decay)
        self.scheme, self.period = scheme, period

    def options(self) -> dict[str, Any]:
        return {"name": "edge_popup", "densities": self.densities, "scheme": self.scheme, "lr": self.lr,
                "optimizer": self.optimizer, "weight_decay": self.weight_decay, "period": self.period}

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        return (2 * torch.rand(maskable.shape, generator=generator) - 1) / math.sqrt(math.prod(maskable.shape[1:]))

    def begin(self, run: Run) -> None:
        super().begin(run)
        epochs = run.total // run.steps_per_epoch
        if self.scheme == "qk_uniform":
            raise PruningError("edge_popup ranks every tensor by itself or all of them together; scheme qk_uniform is neither")
        if self.period is not None and not (isinstance(self.period, int) and 1 <= self.period <= epochs):
            raise PruningError(f"edge_popup keeps less every {self.period} epochs, but the search has only {epochs}: period must "
                               f"be a whole number in [1, {epochs}]")
        self.pools = self.ranked_together(run, self.scheme, self.densities)  # out of reach? named now, not at the end
        self.after_epoch(run)

    def after_epoch(self, run: Run) -> None:
        if self.period is not None:
            epoch, epochs = run.step // run.steps_per_epoch, run.total // run.steps_per_epoch
            share = min(1, (epoch + 1) // self.period / (epochs // self.period))
            self.pools = self.ranked_together(run, self.scheme, {b: density ** share for b, density in self.densities.items()})

    def chosen(self, run: Run) -> dict[str, Tensor]:
        kept = {}
        for names, k in self.pools:  # on the scores' own device: this is done in every step
            ranked = torch.cat([self.scores[n].abs().reshape(-1) for n in names])
            best = torch.zeros_like(ranked, dtype=torch.bool)
            best[ranked.topk(k, sorted=False).indices] = True
            parts = best.split([self.scores[n].numel() for n in names])
            kept |= {n: part.reshape(self.scores[n].shape) for n, part in zip(names, parts, strict=True)}
        return kept

    def gradient(self, run: Run, name: str, through: Tensor) -> Tensor:
        return through * self.scores[name].sign()

    def after_step(self, run: Run) -> None:
        super().after_step(run)
        if run.step == run.total:
            run.impose(run.masks.replace(self.chosen(run)))


class GemMiner(Learned):
    """Scores in [0, 1] that begin uniform; above 0.5 is kept. From the second period on every ``period`` epochs (None: a
    thirtieth of the training) end with a freeze; what is frozen is masked."""

    def __init__(self, densities: Densities, lr: float, optimizer: str, penalty: float, period: int | None):
        super().__init__(densities, lr, optimizer, weight_decay=0.0)
        self.penalty, self.period = penalty, period

    def options(self) -> dict[str, Any]:
        return {"name": "gem_miner", "densities": self.densities, "lr": self.lr, "optimizer": self.optimizer,
                "penalty": self.penalty, "period": self.period}

    def draw(self, maskable: Maskable, generator: torch.Generator) -> Tensor:
        return torch.rand(maskable.shape, generator=generator)

    def begin(self, run: Run) -> None:
        super().begin(run)
        epochs = run.total // run.steps_per_epoch
        self.every = max(1, epochs // 30) if self.period is None else self.period
        self.shares = {budget: freeze_share(density, epochs, self.every) for budget, density in self.densities.items()}
        self._of: Masks | None = None
        left = {budget: run.masks.kept(budget) for budget in self.densities}
        for _ in range((epochs - 1) // self.every):
            left = {budget: after_freeze(living, self.shares[budget]) for budget, living in left.items()}
        allocate(self.scores, run.masks, {budget: living / run.masks.total(budget) for budget, living in left.items()},
                 self.maskables)  # what is out of reach is named now, not at the end

    def _living(self, run: Run) -> dict[str, Tensor]:
        """The masks in force, on the scores' device."""
        if run.masks is not self._of:
            self._of, self._masks = run.masks, {n: run.masks[n].to(s.device) for n, s in self.scores.items()}
        return self._masks

    def chosen(self, run: Run) -> dict[str, Tensor]:
        return {name: living & (self.scores[name] > 0.5) for name, living in self._living(run).items()}

    def gradient(self, run: Run, name: str, through: Tensor) -> Tensor:
        return through * self._living(run)[name] + 2 * self.penalty * self.scores[name]

    def after_backward(self, run: Run) -> None:
        super().after_backward(run)
        for score in self.scores.values():
            score.clamp_(0, 1)

    def after_epoch(self, run: Run) -> None:
        periods, rest = divmod(run.step // run.steps_per_epoch - 1, self.every)
        if periods == 0 or rest:
            return
        left = {budget: after_freeze(run.masks.kept(budget), share) / run.masks.total(budget)
                for budget, share in self.shares.items()}
        ties = run.generator(f"freeze {run.step}").initial_seed()
        run.impose(allocate(self.scores, run.masks, left, self.maskables, seed=ties))


def freeze_share(density: float, epochs: int, period: int) -> float:
    """Share of the living entries frozen at a time, so that all freezes of a search of ``epochs`` lead to ``density``."""
    if epochs < 2:
        raise PruningError("gem_miner freezes from the second epoch on, but the search has only one: give it more train.epochs")
    if not (isinstance(period, int) and 1 <= period < epochs):
        raise PruningError(f"gem_miner freezes every {period} epochs, the first time one epoch later, but the search has only "
                           f"{epochs}: period must be a whole number in [1, {epochs - 1}]")
    return 1 - density ** (1 / ((epochs - 1) // period))


def after_freeze(living: int, share: float) -> int:
    """Entries left of ``living``; the share frozen is rounded up, so that the density is a bound."""
    return living - math.ceil(share * living)
