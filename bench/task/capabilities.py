"""Optional abilities of a task, for the methods, scores and controls that need them. A task has an ability if it has its methods.
``Task.lacks`` names those that a class has but one of its configurations lacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
    """The maskables of the task stand for channels that filters produce."""

    def filters(self, model: nn.Module) -> dict[str, str]:
        """Return the name of a maskable that stands for channels -> the name of the weight whose filters produce them."""


@runtime_checkable
class HasEdges(Protocol):
    """The example of the task is a graph."""

    def edges(self) -> tuple[Tensor, Tensor]:
        """Return the undirected edges (2, M) int64 in the order of the budget ``edges``, and the node features (N, F)."""


@runtime_checkable
class CanShrink(Protocol):
    """The task can remove pruned units from its network."""

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Return a network without the units that ``masks`` (name -> boolean tensor) prune; it computes what the masked model
        does, to rounding."""


@dataclass(frozen=True)
class Call:
    """How a network is called with tensors alone, which is all that other runtimes know.

    module   takes the inputs in their order and gives a tensor, or a tuple of tensors
    inputs   name of an input -> an example of it, two rows or more where their number is free
    free     name of an input -> axis -> name of its size, which may change from call to call; every other size is the example's
    outputs  names of the tensors that come out
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    free: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


@runtime_checkable
class CanExport(Protocol):
    """The task's networks can be taken out of it: built again from plain data alone, and called with tensors alone."""

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """Return what a user must know besides the weights, as JSON holds it: every size that comes from data or files and not
        from the configuration; normalisation; labels."""

    def bare(self, facts: Mapping[str, Any]) -> nn.Module:
        """Return the network that ``build`` makes, made from ``facts`` alone: no data and no file is read, and the weights mean
        nothing."""

    def folded(self, model: nn.Module) -> nn.Module:
        """Return the network for inference: what only pruning needs, such as gates, is folded into the weights."""

    def call(self, model: nn.Module, batch: Any) -> Call:
        """Return how ``model`` is called with what ``batch`` holds."""

    def write_files(self, folder: Path, masks: Mapping[str, Tensor]) -> None:
        """Write what else a user needs to ``folder``: a tokenizer, or the edges that ``masks`` keep."""
