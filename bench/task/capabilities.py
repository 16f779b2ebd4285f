"""Optional abilities of a task, for the methods, scores and controls that need them. A task has one by having its methods.

``Task.lacks`` names those that a class has but one of its configurations does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class HasProbe(Protocol):
    """The task can run its network without data."""

    def probe(self, model: nn.Module) -> Tensor:
        """Return the logits of a forward pass on ones, in the model's own precision."""


@runtime_checkable
class HasExamples(Protocol):
    """The task can give a few training examples of each class."""

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[Any]:
        """Return two or more micro-batches that hold ``per_class`` training examples of each class, not augmented; if not
        ``balanced``, as many of any class. BenchError where there are too few."""

    def summed_loss(self, model: nn.Module, batch: Any, temperature: float) -> Tensor:
        """Return their loss outside autocast, with logits divided by ``temperature``, summed."""


@runtime_checkable
class ScoresExamples(Protocol):
    """The task can score every example of a split by itself."""

    def example_metrics(self, model: nn.Module, split: str) -> Mapping[str, Tensor]:
        """Return metric -> its value for each example (n,), float64, higher being better; the main metric among them. Where two
        predictions for an example are compared, the first metric decides and the others break ties in their order."""


@runtime_checkable
class HasBaselines(Protocol):
    """The task knows predictions that need no training."""

    @property
    def baselines(self) -> tuple[str, ...]:
        """Return their names."""

    def baseline_metrics(self, name: str, split: str, seed: int) -> Mapping[str, Tensor]:
        """Return what ``ScoresExamples.example_metrics`` would, of one of them; random ones are drawn from ``seed``."""


@runtime_checkable
class HasFilters(Protocol):
    """The task's maskables stand for channels that filters make."""

    def filters(self, model: nn.Module) -> dict[str, str]:
        """Return the names of maskables that stand for channels -> the names of the weights whose filters make them."""


@runtime_checkable
class HasEdges(Protocol):
    """The task's example is a graph."""

    def edges(self) -> tuple[Tensor, Tensor]:
        """Return the undirected edges (2, M) int64 in the order of the budget ``edges``, and the node features (N, F)."""


@runtime_checkable
class CanShrink(Protocol):
    """The task can remove pruned units from its network."""

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Return a network without the units that ``masks`` (name -> boolean tensor) prune; it computes what the masked model
        does, to rounding."""
