"""Penalties on what is ranked, so that training itself makes it small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pruning.allocation.allocate import Densities
from pruning.callbacks.base import Rule, Run
from pruning.errors import NotApplicable, PruningError
from pruning.methods.magnitude import Ticket


class L1(Rule):
    """Adds strength * sum |entries| of some budgets to the loss, by its sub-gradient: network slimming's penalty, where the
    entries are scales of batch norms (Liu et al. 2017). Tensors that follow others have none."""

    def __init__(self, strength: float, budgets: list[str]):
        if not strength > 0:
            raise PruningError(f"l1 is {strength}; a penalty is a positive number")
        self.strength, self.budgets = strength, budgets

    def options(self) -> dict[str, Any]:
        return {"name": "l1", "strength": self.strength, "budgets": self.budgets}

    def begin(self, run: Run) -> None:
        self._entries = [run.parameters[m.name] for m in run.maskables if m.budget in self.budgets and not m.follows]

    def after_backward(self, run: Run) -> None:
        with torch.no_grad():
            signs = torch._foreach_sign(self._entries)
            torch._foreach_add_([p.grad for p in self._entries], signs, alpha=self.strength)


UNITS = ("channels", "heads", "neurons")
"""Budgets whose entries are scales of whole units."""


def on_scales(strength: float, densities: Densities) -> L1:
    """The penalty on the budgets asked, whose entries must be scales: on weights it would be another method's."""
    for budget in densities:
        if budget not in UNITS:
            raise NotApplicable(f"the penalty l1 is on scales of whole units ({', '.join(UNITS)}), but budget {budget} has none: "
                                "networks with batch norm have scales with model.scope=channels, encoders with model.scope=units")
    return L1(strength, list(densities))


def slimming(lab, densities: list[Densities], l1: float = 1e-4, score: str = "magnitude", rewind: str = "end",
             schedule: str = "whole", scheme: str = "global") -> Iterator[Ticket]:
    """Network slimming (Liu et al. 2017): train with a penalty on what is ranked, cut once, and train on. Options as those of
    ``one_shot``; rewind ``end`` is the end of the penalised training."""
    trained = lab.train(lab.start("init"), lab.ones(), rule=on_scales(l1, densities[0]))
    start = trained if rewind == "end" else lab.start(rewind)
    scores = lab.score(score, trained, lab.ones())
    for density in densities:
        yield Ticket(density, lab.allocate(scores, lab.ones(), density, scheme), start, schedule, scores, lab.ones(), scheme)
