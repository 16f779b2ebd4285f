"""Tickets, the states that trainings start from, and the ledger of what the search for a ticket cost."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from pruning.masks import Masks

Densities = Mapping[str, float]
"""Budget -> the density asked for, kept / total, in (0, 1]."""

Scheme = str | Mapping[str, str]
"""The name of a layerwise distribution for every budget, or one for each budget; see ``pruning.allocation``."""


@dataclass(frozen=True)
class State:
    """A state that training can start from: initial weights (see ``pruning.rewinding``) or a stored step of a training."""

    training: str
    step: int

    @property
    def key(self) -> str:
        """Name of the state in the keys of other trainings."""
        return f"{self.training}/{self.step}"

    @classmethod
    def of(cls, key: str) -> "State":
        """Return the state that has this ``key``."""
        training, _, step = key.rpartition("/")
        return cls(training, int(step))


@dataclass(frozen=True)
class TrainingCost:
    """What one training cost; its measured seconds are in its stage."""

    last: int
    """The furthest step that was asked for."""
    steps: int
    """The number of optimizer steps taken."""
    sparse_steps: float
    """The same number if masked entries cost nothing: each step counts the share of the dense MACs that its masks leave."""
    relative_step_cost: float = 1.0
    """MACs of one step of that training divided by MACs of one dense step of the lab that pays."""


@dataclass
class SearchCost:
    """A ledger of the trainings and scorings that a search took; one training counts once, however often it was asked for."""

    trainings: dict[str, TrainingCost] = field(default_factory=dict)
    """Key of the training -> its cost."""
    scorings: dict[int, float] = field(default_factory=dict)
    """Number of the scoring -> its measured seconds."""

    _numbers = itertools.count()  # shared by all ledgers, so that a scoring counts once where two of them are added

    def copy(self) -> "SearchCost":
        """Return a ledger with the same entries that can be continued by itself."""
        return SearchCost(dict(self.trainings), dict(self.scorings))

    def enter_training(self, key: str, cost: TrainingCost) -> None:
        """Enter a training, or replace an entry of the same training that took fewer steps."""
        if key not in self.trainings or cost.steps > self.trainings[key].steps:
            self.trainings[key] = cost

    def enter_scoring(self, seconds: float) -> None:
        """Enter the measured seconds of one scoring."""
        self.scorings[next(self._numbers)] = seconds

    def add(self, other: "SearchCost", relative_step_cost: float) -> None:
        """Enter what was spent on another task or data set, whose dense step costs ``relative_step_cost`` of ours in MACs."""

        def converted(cost: TrainingCost) -> TrainingCost:
            return replace(cost, relative_step_cost=cost.relative_step_cost * relative_step_cost)

        self.trainings |= {key: converted(cost) for key, cost in other.trainings.items()}
        self.scorings |= other.scorings

    def without(self, state: State) -> "SearchCost":
        """Return the ledger without the training that ends in ``state``: where search and training are one it is no search."""
        return SearchCost({key: cost for key, cost in self.trainings.items() if key != state.training}, dict(self.scorings))

    def states(self) -> Iterator[State]:
        """Yield the end of every training, in the order in which they were first asked for."""
        for key, cost in self.trainings.items():
            yield State(key, cost.last)

    @property
    def steps(self) -> int:
        """The number of steps taken, on this task and on others."""
        return sum(cost.steps for cost in self.trainings.values())

    @property
    def dense_steps(self) -> float:
        """The steps taken, in dense steps of the lab that pays."""
        return sum(cost.steps * cost.relative_step_cost for cost in self.trainings.values())

    @property
    def sparse_steps(self) -> float:
        """The same if masked entries cost nothing (theoretical)."""
        return sum(cost.sparse_steps * cost.relative_step_cost for cost in self.trainings.values())

    @property
    def scoring_seconds(self) -> float:
        """Measured seconds of all scorings."""
        return sum(self.scorings.values())


@dataclass(frozen=True)
class Ticket:
    """A subnetwork to be trained: masks, and the state and schedule that its training starts from.

    ``scores``, ``before``, ``scheme`` and ``floors`` are the inputs of the last allocation (None where there was none), so that
    controls can repeat it. ``trained`` is the end of the training that moved the masks, where search and training are one: it is
    evaluated, not trained again. ``untrained`` is the subnetwork before its weights were trained, where it was found that way:
    it is evaluated as well. With ``slim`` the pruned units are removed from the network before it is trained. ``search`` is what
    finding this ticket cost; None charges it everything that the method has spent in common so far (see ``Lab.search``).
    """

    densities: Densities
    masks: Masks
    start: State
    schedule: str = "replay"
    scores: dict[str, Tensor] | None = field(default=None, repr=False)
    before: Masks | None = field(default=None, repr=False)
    scheme: Scheme = "global"
    notes: dict[str, Any] = field(default_factory=dict)
    trained: State | None = None
    untrained: State | None = None
    slim: bool = False
    floors: bool = True
    search: SearchCost | None = field(default=None, repr=False)


Method = Callable[..., Iterator[Ticket]]
"""(lab, densities, **options) -> tickets, one for each of the densities and in their order."""
