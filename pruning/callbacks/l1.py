"""The L1 penalty on the entries that are pruned by magnitude, so that training makes them small."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import NotApplicable, PruningError
from pruning.ticket import Densities

UNITS = ("channels", "heads", "neurons")
"""Budgets whose entries are scales of whole units."""


@dataclass
class L1(Callback):
    """Adds the subgradient of strength * sum |entries| over the tensors of some budgets, except those that follow others. On
    scales of batch norms this is the penalty of network slimming (Liu et al. 2017)."""

    name = "l1"
    strength: float
    budgets: list[str]

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise PruningError(f"l1 is {self.strength}; a penalty is a positive number")

    def on_start(self, context: TrainingContext) -> None:
        penalised = [m.name for m in context.maskables if m.budget in self.budgets and not m.follows]
        self._entries: list[Tensor] = [context.parameters[name] for name in penalised]

    def after_backward(self, context: TrainingContext) -> None:
        with torch.no_grad():
            signs = torch._foreach_sign(self._entries)
            torch._foreach_add_([p.grad for p in self._entries if p.grad is not None], signs, alpha=self.strength)


def l1_on_scales(strength: float, densities: Densities) -> L1:
    """Return the penalty on the budgets of ``densities``. NotApplicable unless their entries are scales of whole units."""
    for budget in densities:
        if budget not in UNITS:
            raise NotApplicable(
                f"the penalty l1 is on scales of whole units ({', '.join(UNITS)}), but budget {budget} has none: "
                "choose a scope of the model that prunes whole units"
            )
    return L1(strength, list(densities))
