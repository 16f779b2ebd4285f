"""Rules: what a method adds to a training itself: a penalty, masks that move, learned scores, an observer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.maskable import Maskable
from pruning.masks import Masks


@dataclass
class Run:
    """A training under way, as its rule sees it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    maskables: list[Maskable]
    step: int
    """Steps taken, on the schedule's own count."""
    total: int
    """Length of the schedule in steps."""
    steps_per_epoch: int
    masks: Masks
    """In force now."""
    impose: Callable[[Masks], None]
    """Put other masks in force: parameters and optimizer state of what they cut become zero at once."""
    generator: Callable[[str], torch.Generator]
    """Random draws for a purpose; those of a step must name it: ``generator(f"regrow {run.step}")``."""
    validate: Callable[[], float]
    """The model as it stands on the validation data; higher is better."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The maskable parameters by name."""
        parameters = dict(self.model.named_parameters())
        return {m.name: parameters[m.name] for m in self.maskables}


class Rule:
    """Takes part in one training. The loop calls, for every step: ``before_forward``, forward and backward,
    ``after_backward`` (gradients are there; masked and clipped only afterwards), the optimizer, ``after_step``; after every
    pass over the data ``after_epoch``; and stops early once ``finished``.

    A rule must be a pure function of its options and the run: its options enter the stage key, its ``state`` is stored with every
    checkpoint and with the stage, where the method finds it (``lab.found(state)``). An observer changes nothing of the run.
    """

    def options(self) -> dict[str, Any]:
        """Name and settings, JSON: all that its effect depends on."""
        raise NotImplementedError

    def begin(self, run: Run) -> None:
        """Before the first step, and again on resuming, just before ``load``."""

    def before_forward(self, run: Run) -> None:
        """Parameters may be set here."""

    def after_backward(self, run: Run) -> None:
        """Gradients may be added to, or taken."""

    def dense_gradients(self, run: Run) -> bool:
        """Whether this step takes gradients of masked entries, too: a third of it is then charged at the dense rate."""
        return False

    def after_step(self, run: Run) -> None:
        """The optimizer has stepped and masks have been enforced; ``run.step`` counts this step."""

    def after_epoch(self, run: Run) -> None:
        """``run.step`` is a multiple of ``run.steps_per_epoch``."""

    def finished(self, run: Run) -> bool:
        """Asked after every step and on resuming: whether to stop before the schedule ends."""
        return False

    def state(self) -> dict[str, Tensor]:
        """Everything resuming needs and everything the method wants to know afterwards."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``state``."""


class Together(Rule):
    """Several rules in one training, called in this order; finished once one of them is. What a rule leaves is found below its
    name."""

    def __init__(self, *rules: Rule):
        self.rules = {rule.options()["name"]: rule for rule in rules}

    def options(self) -> dict[str, Any]:
        return {"name": "together", "rules": [rule.options() for rule in self.rules.values()]}

    def begin(self, run: Run) -> None:
        for rule in self.rules.values():
            rule.begin(run)

    def before_forward(self, run: Run) -> None:
        for rule in self.rules.values():
            rule.before_forward(run)

    def after_backward(self, run: Run) -> None:
        for rule in self.rules.values():
            rule.after_backward(run)

    def dense_gradients(self, run: Run) -> bool:
        return any(rule.dense_gradients(run) for rule in self.rules.values())

    def after_step(self, run: Run) -> None:
        for rule in self.rules.values():
            rule.after_step(run)

    def after_epoch(self, run: Run) -> None:
        for rule in self.rules.values():
            rule.after_epoch(run)

    def finished(self, run: Run) -> bool:
        return any(rule.finished(run) for rule in self.rules.values())

    def state(self) -> dict[str, Tensor]:
        return {f"{name}/{key}": t for name, rule in self.rules.items() for key, t in rule.state().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, rule in self.rules.items():
            rule.load(below(name, tensors))


def below(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``name/``, without it."""
    return {key.removeprefix(f"{name}/"): t for key, t in tensors.items() if key.startswith(f"{name}/")}
