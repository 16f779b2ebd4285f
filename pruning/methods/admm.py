"""Pruning by the alternating direction method of multipliers (Zhang et al. 2018): training continues with a penalty that pulls
the weights towards a sparse copy of themselves, so that pruning changes little."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.allocation import allocate
from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.scores import group_mean_scores
from pruning.ticket import Densities, Ticket

CONVERGED = 0.05
"""Relative distance of weights and copies below which the search counts as converged."""


def admm(
    lab: Lab,
    densities: list[Densities],
    rho: float = 0.01,
    stages: int = 3,
    growth: float = 3.1622776601683795,  # 10 ** 0.5, as a literal that pages read without importing PyTorch
    interval: int = 1,
    length: float = 1.0,
    rewind: str = "end",
    schedule: str = "whole",
    scheme: str = "global",
) -> Iterator[Ticket]:
    """Train the trained network further at the task's low rate under the penalty of ADMM, and prune it by magnitude (Zhang et al.
    2018). Every density has a search of its own.

    rho       strength of the penalty rho/2 * |W - Z + U|^2 in the first stage
    stages    number of equal parts of the search
    growth    factor of rho from one stage to the next
    interval  epochs between two updates of the copy Z and the dual U
    length    length of the search as a share of one dense training
    rewind    the start state of the ticket: end, init, or a step such as 1ep
    schedule  the schedule of the ticket: replay, whole or constant, as in ``imp``
    scheme    the layerwise distribution of the kept entries

    Between two updates the distance of the weights to their copy shrinks by about rho x steps x learning rate / (1 - momentum).
    Far below 0.3 the duals diverge and the noted residuals grow instead of falling: raise rho or interval.
    """
    if not 0 < length <= 1:
        raise PruningError(f"length is {length}; the search takes a share in (0, 1] of a dense training")
    trained, start, span = lab.start("end"), lab.start(rewind), max(1, round(length * lab.steps))
    for density in densities:
        with lab.search() as search:
            callback = Admm(density, span, rho, stages, growth, interval, scheme)
            end = lab.train(trained, lab.ones(), "constant", until=span, callback=callback)
            scores = lab.score("magnitude", end, lab.ones())
        residuals = lab.logged(end, "residuals")
        notes = {"residuals": residuals, "converged": bool(residuals) and residuals[-1] < CONVERGED}
        masks = lab.allocate(scores, lab.ones(), density, scheme)
        yield Ticket(density, masks, start, schedule, scores, lab.ones(), scheme, notes, search=search)


@dataclass
class Admm(Callback):
    """Adds rho/2 * |W - Z + U|^2 to the loss: W the weights, Z their sparse copy, U the dual variable.

    Every ``interval`` epochs the residual |W - Z| / |W| over all tensors is logged; then Z becomes the projection of W + U onto
    tensors of the target density, and U becomes U + W - Z. rho rises in ``stages`` over ``span`` steps.
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
            raise PruningError(f"rho is {self.rho}; only a positive number pulls the weights towards their copy")
        if self.stages < 1 or self.interval < 1 or not self.growth >= 1:
            raise PruningError(
                f"stages, interval and growth are {self.stages}, {self.interval} and {self.growth}; each is at least 1"
            )

    def on_start(self, context: TrainingContext) -> None:
        self.copies = self._project({name: p.detach() for name, p in self._weights(context).items()}, context)
        self.duals = {name: torch.zeros_like(p) for name, p in self._weights(context).items()}
        self.residuals: list[float] = []

    def after_backward(self, context: TrainingContext) -> None:
        rho = self.rho * self.growth ** min(self.stages - 1, context.step * self.stages // self.span)
        for name, weight in self._weights(context).items():
            if weight.grad is not None:  # else the network does not use it
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
        return {
            "residuals": torch.tensor(self.residuals, dtype=torch.float64),
            **{f"copy/{name}": t.contiguous() for name, t in self.copies.items()},
            **{f"dual/{name}": t.contiguous() for name, t in self.duals.items()},
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.residuals = tensors["residuals"].tolist()
        for name in self.copies:
            self.copies[name].copy_(tensors[f"copy/{name}"])
            self.duals[name].copy_(tensors[f"dual/{name}"])

    def _weights(self, context: TrainingContext) -> dict[str, Tensor]:
        return {m.name: context.parameters[m.name] for m in context.maskables if m.budget in self.density}

    def _project(self, weights: dict[str, Tensor], context: TrainingContext) -> dict[str, Tensor]:
        """Return the nearest tensors of the target density: the largest entries, and 0 elsewhere."""
        projected = [m for m in context.maskables if m.budget in self.density]
        sizes = group_mean_scores({name: w.abs() for name, w in weights.items()}, projected)
        masks = allocate(sizes, context.masks, self.density, projected, self.scheme)
        return {name: w * masks[name].to(w.device) for name, w in weights.items()}


def residual(weights: dict[str, Tensor], copies: dict[str, Tensor]) -> float:
    """Return |W - Z| / |W| over all tensors together."""
    squared = sum(float((w - copies[name]).square().sum()) for name, w in weights.items())
    return float((squared / sum(float(w.square().sum()) for w in weights.values())) ** 0.5)
