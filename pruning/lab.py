"""The lab as methods, controls and analyses see it: their only door to a task, and their only way to spend compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pruning.callbacks.base import Callback
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import ScoreInfo
from pruning.ticket import Densities, Scheme, SearchCost, State, Ticket


class Lab(Protocol):
    """One task and one seed. Every training it is asked for is looked up in the store, else run and stored.

    The first group of members is what methods call, the second serves controls, the third analyses.
    """

    @property
    def maskables(self) -> list[Maskable]:
        """The tensors that may be pruned."""

    @property
    def budgets(self) -> list[str]:
        """The budgets of the maskables, in order of first appearance."""

    @property
    def seed(self) -> int:
        """The seed of this run."""

    @property
    def steps(self) -> int:
        """Optimizer steps of one dense training."""

    @property
    def epochs(self) -> int:
        """Epochs of one dense training."""

    def ones(self) -> Masks:
        """Return masks that keep every entry."""

    def start(self, rewind: str) -> State:
        """Return the state that ``rewind`` names: init, reinit, pretrained, shuffled pre-trained weights, end, or a step ("2ep",
        "500it", "10%" of the training); see ``pruning.rewinding``. ``end`` is the dense network, trained once for everybody."""

    def train(
        self,
        start: State,
        masks: Masks,
        schedule: str = "replay",
        until: int | None = None,
        callback: Callback | None = None,
        order: int = 0,
        slim: bool = False,
    ) -> State:
        """Return the state at the end of training ``start`` under ``masks``, or at step ``until``.

        The optimizer is fresh. ``schedule``: ``replay`` trains the rest of the schedule from the step of ``start``, ``whole`` the
        whole schedule, ``constant`` its length at the task's low rate, ``stretch:N`` the whole schedule stretched over N steps.
        ``callback`` takes part. Another ``order`` draws the order of the data and dropout from another seed. ``slim`` removes the
        units that ``masks`` prune from the network before it is trained.
        Raises Diverged where the loss does not stay finite, UsageError where the schedule has no steps left.
        """

    def score(self, name: str, state: State, masks: Masks, **options: Any) -> dict[str, Tensor]:
        """Return the scores of a state under masks, one tensor for each maskable; higher means keep."""

    def score_info(self, name: str) -> ScoreInfo:
        """Return what a score declares of itself."""

    def cut(
        self,
        score: str,
        state: State,
        goals: list[Densities],
        scheme: Scheme = "global",
        regrow: bool = False,
        floors: bool = True,
        **options: Any,
    ) -> tuple[Masks, dict[str, Tensor]]:
        """Score a state and prune it to each of ``goals`` in turn, in memory; return the masks, and the scores of the unpruned
        network."""

    def allocate(
        self, scores: Mapping[str, Tensor], masks: Masks, densities: Densities, scheme: Scheme = "global", floors: bool = True
    ) -> Masks:
        """Return masks of exactly the densities asked for; the run's seed breaks ties, alike for every method."""

    def allocate_each(
        self, scores: Mapping[str, Tensor], masks: Masks, members: Mapping[str, str], densities: Mapping[str, float]
    ) -> Masks:
        """Allocate within pools of tensors that have a density each. ``members``: name of a tensor -> name of its pool."""

    def masks(self, state: State) -> Masks:
        """Return the masks in force at the end of a training, which its callback may have moved."""

    def callback_state(self, state: State) -> dict[str, Tensor]:
        """Return what the callback of a training stored: its ``state()``."""

    def logged(self, state: State, name: str) -> list[float]:
        """Return numbers that the callback of a training stored under ``name``, for a ticket's notes."""

    def learned_scores(self, state: State) -> dict[str, Tensor]:
        """Return the scores that the callback of a training learned."""

    def search(self) -> AbstractContextManager[SearchCost]:
        """Open a ledger for one ticket, which starts from what the method has spent in common so far.

        What is trained and scored inside is entered there alone: give the ledger to the ticket (``Ticket.search``) and let the
        block end before the ticket is yielded. Outside any such block costs are common: they are charged to every later ticket.
        """

    def spent(self) -> SearchCost:
        """Return a copy of the current ledger."""

    def charge(self, search: SearchCost, relative_step_cost: float) -> None:
        """Enter what was spent in another lab, whose dense step costs ``relative_step_cost`` of this one's in MACs."""

    def sibling(self, task: str | None = None, data: str | None = None, seed: int | None = None) -> Lab:
        """Return the lab of the same store and protocol on another task, on other data or with another seed. What is spent there
        is entered here only by ``charge``."""

    def tickets(self, method: str, densities: list[Densities], **options: Any) -> Iterator[Ticket]:
        """Yield the tickets of another method, by its name, one for each of ``densities``."""

    def step_macs(self) -> float:
        """Return the theoretical multiply-adds of the forward passes of one dense training step."""

    def graph(self) -> tuple[Tensor, Tensor]:
        """Return the undirected edges (2, M) in the order of the budget ``edges``, and the node features (N, F). NotApplicable
        where the task has no graph."""

    def derived_state(self, state: State, how: str, transform: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> State:
        """Return a start state computed from another by ``transform(weights)``, from name -> maskable weight to the same. It is
        never stored, but recomputed whenever it is loaded; ``how`` names it and must tell everything that the transform does."""

    def generator(self, purpose: str) -> torch.Generator:
        """Return random draws of a control for a purpose."""

    def shrinking(self) -> object:
        """Raise NotApplicable unless pruned units can be removed from the task's network."""

    def span(self, start: State, schedule: str) -> tuple[int, int]:
        """Return the first step and the length of the schedule of a training from ``start``."""

    def training_steps(self, ticket: Ticket) -> int:
        """Return the number of steps that training a ticket still takes."""

    def macs(self, masks: Masks) -> float:
        """Return the theoretical multiply-adds of one inference under ``masks``."""

    def network(self, state: State) -> nn.Module:
        """Return a model with a state's weights that the caller may change."""

    def interpolate(self, one: State, other: State, fraction: float, refresh: bool = False) -> nn.Module:
        """Return a model on the straight line between two states, at ``fraction`` of the way: all floating-point parameters and
        buffers interpolated, or with ``refresh`` batch-norm statistics collected again from an epoch of training data."""

    def loss(self, model: nn.Module, split: str) -> float:
        """Return the mean training loss over the batches of a split, without dropout."""

    def signed_metric(self, model: nn.Module, split: str) -> float:
        """Return the task's metric of a model, with its sign changed where lower is better."""

    def example_metrics(self, model: nn.Module, split: str) -> Mapping[str, Tensor]:
        """Return metric -> its value for each example of a split (n,), higher being better. NotApplicable where the task does not
        score examples one by one. Of two predictions for an example the first metric decides, the others break ties."""

    def baselines(self) -> tuple[str, ...]:
        """Return the names of the task's predictions that need no training, if it knows any."""

    def baseline_metrics(self, name: str, split: str, draw: int = 0) -> Mapping[str, Tensor]:
        """Return the ``example_metrics`` of one of ``baselines``; ``draw`` gives random ones another draw."""
