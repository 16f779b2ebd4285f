"""Pruning by the alternating direction method of multipliers (Zhang et al. 2018): while they go on training, weights are drawn
to a sparse copy of themselves, so that the cut costs little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.allocation.allocate import allocate
from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.scores import group_mean_scores
from pruning.ticket import Densities, Ticket

CONVERGED = 0.05
"""Residual below which weights and copies count as one."""


def admm(lab: Lab, densities: list[Densities], rho: float = 0.01, stages: int = 3, growth: float = 10 ** 0.5, interval: int = 1,
         length: float = 1.0, rewind: str = "end", schedule: str = "whole", scheme: str = "global") -> Iterator[Ticket]:
    """Train the trained network on at the task's low rate, drawn to a sparse copy of itself, and cut it by magnitude: a search of
    its own for every density. The ticket is then trained by ``rewind`` and ``schedule`` as in ``imp``.

    rho       strength of the penalty rho/2 * |W - Z + U|^2 in the first stage; multiplied by ``growth`` at each later one
    stages    equal parts of the search
    interval  epochs between two updates of the copy Z and the dual U
    length    of the search, in dense trainings

    Between two updates the weights come nearer their copy by about rho x steps x learning rate / (1 - momentum) of the distance.
    Far below 0.3 the duals run away and the noted residuals grow instead of falling: raise rho or interval.
    """
    if not 0 < length <= 1:
        raise PruningError(f"length is {length}; the search takes a share in (0, 1] of a dense training")
    trained, start, span = lab.start("end"), lab.start(rewind), max(1, round(length * lab.steps))
    for density in densities:
        with lab.search() as search:
            callback = Admm(density, span, rho, stages, growth, interval, scheme)
            drawn = lab.train(trained, lab.ones(), "constant", until=span, callback=callback)
            scores = lab.score("magnitude", drawn, lab.ones())
        residuals = lab.logged(drawn, "residuals")
        notes = {"residuals": residuals, "converged": bool(residuals) and residuals[-1] < CONVERGED}
        yield Ticket(density, lab.allocate(scores, lab.ones(), density, scheme), start, schedule, scores, lab.ones(), scheme,
                     notes, search=search)


@dataclass
class Admm(Callback):
    """W: the weights; Z: the nearest to W + U that keeps the asked density; U: the sum of what W - Z still was.

    The loss has rho/2 * |W - Z + U|^2 added, rho rising in ``stages`` over ``span`` steps. Every ``interval`` epochs the residual
    |W - Z| / |W| of all tensors is noted, then Z <- projection of W + U and U <- U + W - Z.
    """

    name = "admm"
    density: Densities
    span: int
    rho: float
    stages: int
    growth: float
    interval: int
    scheme: str = "global"

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise PruningError(f"rho is {self.rho}; only a positive number draws the weights to their copy")
        if self.stages < 1 or self.interval < 1 or not self.growth >= 1:
            raise PruningError(f"stages, interval and growth are {self.stages}, {self.interval} and {self.growth}; "
                               "each is at least 1")

    def on_start(self, context: TrainingContext) -> None:
        self.copies = self._project({name: p.detach() for name, p in self._weights(context).items()}, context)
        self.duals = {name: torch.zeros_like(p) for name, p in self._weights(context).items()}
        self.residuals: list[float] = []

    def after_backward(self, context: TrainingContext) -> None:
        rho = self.rho * self.growth ** min(self.stages - 1, context.step * self.stages // self.span)
        for name, weight in self._weights(context).items():
            if weight.grad is None:  # nothing in the network hears of it
                continue
            weight.grad.add_(weight.detach() - self.copies[name] + self.duals[name], alpha=rho)

    def after_epoch(self, context: TrainingContext) -> None:
        if (context.step // context.steps_per_epoch) % self.interval:
            return
        weights = {name: p.detach() for name, p in self._weights(context).items()}
        self.residuals.append(residual(weights, self.copies))
        self.copies = self._project({name: w + self.duals[name] for name, w in weights.items()}, context)
        for name, weight in weights.items():
            self.duals[name] += weight - self.copies[name]

    def state(self) -> dict[str, Tensor]:
        return {"residuals": torch.tensor(self.residuals, dtype=torch.float64),
                **{f"copy/{name}": t.contiguous() for name, t in self.copies.items()},
                **{f"dual/{name}": t.contiguous() for name, t in self.duals.items()}}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.residuals = tensors["residuals"].tolist()
        for name in self.copies:
            self.copies[name].copy_(tensors[f"copy/{name}"])
            self.duals[name].copy_(tensors[f"dual/{name}"])

    def _weights(self, context: TrainingContext) -> dict[str, Tensor]:
        return {m.name: context.parameters[m.name] for m in context.maskables if m.budget in self.density}

    def _project(self, weights: dict[str, Tensor], context: TrainingContext) -> dict[str, Tensor]:
        """The nearest tensors of the asked density: the largest entries, the others 0."""
        asked = [m for m in context.maskables if m.budget in self.density]
        sizes = group_mean_scores({name: w.abs() for name, w in weights.items()}, asked)
        masks = allocate(sizes, context.masks, self.density, asked, self.scheme)
        return {name: w * masks[name].to(w.device) for name, w in weights.items()}


def residual(weights: dict[str, Tensor], copies: dict[str, Tensor]) -> float:
    """|W - Z| / |W|, of all tensors together."""
    apart = sum(float((w - copies[name]).square().sum()) for name, w in weights.items())
    return (apart / sum(float(w.square().sum()) for w in weights.values())) ** 0.5
