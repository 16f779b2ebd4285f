"""States: the weights of a network at the start of a training, at a stored step, or computed from either."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import pruning.lab
from bench.errors import BenchError
from bench.seeds import seed_for
from bench.storage.stage_key import task_ingredients
from bench.storage.stages import Stage, Store
from bench.task import Ability, Task, counted, evaluated
from bench.task.capabilities import CanShrink
from pruning import Masks, NotApplicable, attach, budgets, patterns
from pruning.callbacks.base import below
from pruning.rewinding import SHUFFLES, UNTRAINED
from pruning.ticket import SearchCost, State

if TYPE_CHECKING:
    from bench.lab.lab import Lab

Transform = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""A function from maskable weights by name to weights of the same names and shapes."""


class States(pruning.lab.Lab):
    """The network of one task and one seed, its initial weights, and every state that can be loaded into it."""

    def __init__(
        self,
        task: Task,
        name: str,
        version: int,
        seed: int,
        store: Store,
        checkpoint_seconds: float = 60,
        report: Callable[[str, int, int], None] = lambda what, step, last: None,
        open_sibling: Callable[[str | None, str | None, int], "Lab"] | None = None,
        pattern: str | None = None,
    ):
        """``open_sibling`` opens the lab of another task, data set or seed; see ``sibling``. ``pattern``: that of all masks, see
        ``pruning.patterns``; None: any entry may be kept."""
        self.task, self.seed, self.store, self._open_sibling = task, seed, store, open_sibling
        self._ingredients = task_ingredients(task, name, version, seed)
        self._checkpoint_seconds, self._report = checkpoint_seconds, report
        self.model = task.build(seed_for(seed, "init"))
        self.maskables, self.pattern = task.maskables(self.model), pattern
        if pattern is not None:
            self.maskables = patterns.applied(pattern, self.maskables)
        self.budgets = budgets(self.maskables)
        self.epochs, self.steps = task.epochs, task.epochs * task.steps_per_epoch
        self._ledger = SearchCost()
        self._fresh = {"init": snapshot(self.model)}
        self._derived: dict[State, tuple[State, Transform]] = {}

    def ones(self) -> Masks:
        return Masks.ones(self.maskables)

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(self.seed, "control", purpose))

    def stage(self, state: State) -> Stage:
        """Return the stored step that a state names."""
        stage = self.store.get(state.training, state.step)
        if stage is None:
            raise BenchError(f"stage {state.key} is not in the store {self.store.root}: run the command again")
        return stage

    def load(self, state: State) -> nn.Module:
        """Return the model with a state's parameters and buffers, bit for bit; a smaller model where the state is from a slim
        training."""
        if state.training in UNTRAINED:
            self.model.load_state_dict(self._initial(state.training))
            return self.model
        if state in self._derived:
            of, change = self._derived[state]
            return self._with(self.load(of), state.training, change)
        stage = self.stage(state)
        model = self.model
        if stage.info["ingredients"].get("slim"):
            model = self.slim(State("init", 0), self.masks(state))
        model.load_state_dict(below("model", stage.tensors()))
        return model

    def masks(self, state: State) -> Masks:
        moved = below("masks", self.stage(state).tensors())
        return self.ones().replace({name: mask.bool() for name, mask in moved.items()})

    def signed_metric(self, model: nn.Module, split: str) -> float:
        value = evaluated(self.task, model, split)[self.task.metric.name]
        return value if self.task.metric.higher_is_better else -value

    def network(self, state: State) -> nn.Module:
        return copy.deepcopy(self.load(state))

    def derived_state(self, state: State, how: str, transform: Transform) -> State:
        made = State(f"{state.training} {how}", state.step)
        self._derived[made] = state, transform
        return made

    def slim(self, state: State, masks: Masks) -> nn.Module:
        """Return the network of a state from which the units that ``masks`` prune are physically removed, as a smaller model."""
        shrinking, model = self.shrinking(), self.network(state)
        attach(masks, model)
        return shrinking.slim(model, dict(masks))

    def shrinking(self) -> CanShrink:
        return needed(self.task, CanShrink, "control slim", "a way to cut units out of its network")

    def macs(self, masks: Masks) -> float:
        return counted(self.task, self.model, masks.densities())

    def step_macs(self) -> float:
        return self.macs(self.ones()) * self.task.batch_size

    # the ledger of what was spent

    @contextmanager
    def search(self, start: SearchCost | None = None) -> Iterator[SearchCost]:
        """Open a ledger for one ticket, which starts from ``start``, or from what has been spent in common so far."""
        common, self._ledger = self._ledger, self._ledger.copy() if start is None else start.copy()
        try:
            yield self._ledger
        finally:
            self._ledger = common

    def spent(self) -> SearchCost:
        return self._ledger.copy()

    def charge(self, search: SearchCost, relative_step_cost: float) -> None:
        self._ledger.add(search, relative_step_cost)

    # the rest is private

    def _initial(self, kind: str) -> dict[str, Tensor]:
        if kind not in self._fresh:
            model = self._shuffled(kind) if kind in SHUFFLES else self.task.reinit(seed_for(self.seed, kind))
            self._fresh[kind] = snapshot(model)
        return self._fresh[kind]

    def _shuffled(self, kind: str) -> nn.Module:
        """Return the initial network with its maskable weights shuffled."""
        self.model.load_state_dict(self._fresh["init"])
        return self._with(self.model, kind, lambda weights: SHUFFLES[kind](weights, self.maskables, self.generator(kind)))

    def _with(self, model: nn.Module, what: str, change: Transform) -> nn.Module:
        """Return a model whose maskable weights were transformed. Raise NotApplicable where nothing changed."""
        parameters = dict(model.named_parameters())
        weights = {m.name: parameters[m.name].detach().clone() for m in self.maskables}
        made = change(weights)
        if all(torch.equal(made[name], weights[name]) for name in made):
            raise NotApplicable(f"{what}: this leaves the weights that may be masked as they are, all of a tensor being equal")
        for name, weight in made.items():
            parameters[name].data.copy_(weight)
        return model


def needed(task: Task, kind: type[Ability], who: str, what: str) -> Ability:
    """Return a task with an optional ability that ``who`` needs. NotApplicable where it lacks that, which is ``what``."""
    found = task.capability(kind)
    if found is None:
        raise NotApplicable(f"{who} needs {what}, which this task does not have")
    return found


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's parameters and buffers."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}
