"""The lab: the only door between a method and a task, and the only way to spend compute. ``pruning.lab.Lab`` says what its
members do. ``States`` knows which weights a state has, ``Training`` trains, ``Scoring`` scores and allocates, ``Evaluation``
measures."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from bench import registry
from bench.errors import BenchError
from bench.lab.evaluation import Evaluation
from bench.lab.scoring import Scoring
from bench.lab.states import needed
from bench.task.capabilities import HasEdges
from pruning import Densities, Ticket


class Lab(Scoring, Evaluation):
    """One task and one seed. A requested training is read from the store, or run and stored."""

    def sibling(self, task: str | None = None, data: str | None = None, seed: int | None = None) -> "Lab":
        if self._open_sibling is None:
            raise BenchError("this lab was opened without a way to others of its store")
        return self._open_sibling(task, data, self.seed if seed is None else seed)

    def tickets(self, method: str, densities: list[Densities], **options: Any) -> Iterator[Ticket]:
        """Yield the tickets of another method. It is given these densities alone, because ``imp`` would train its last ticket
        otherwise."""
        return islice(registry.method(method)(self, densities, **options), len(densities))

    def graph(self) -> tuple[Tensor, Tensor]:
        return needed(self.task, HasEdges, "this method", "a graph's edges").edges()
