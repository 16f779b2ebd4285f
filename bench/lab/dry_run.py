"""A lab that trains nothing, for ``--dry-run``."""

import copy
import itertools
import math
import time
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bench.lab.lab import Lab
from bench.seeds import seed_for
from bench.storage.stages import Stage
from pruning import Densities, Masks
from pruning.callbacks.base import Callback
from pruning.methods.at_init import cut
from pruning.ticket import Scheme, State


class NotPlanned(Exception):
    """A dry run reached a training whose outcome decides how the method goes on."""


class PlanLab(Lab):
    """A lab that trains nothing, for ``--dry-run``. Where a state is not stored yet, its scores are random, so that the densities
    and the number of trainings are still right."""

    def __init__(
        self,
        *args: Any,
        planned: dict[tuple[str, int], int],
        stored: dict[tuple[str, int], int] | None = None,
        deadline: float = math.inf,
        **options: Any,
    ):
        """``planned``: training and step -> steps to get there, of this and every earlier lab; ``stored``: the same -> its bytes
        on disk; ``deadline``: when to give up, by the monotonic clock."""
        super().__init__(*args, **options)
        self.planned, self.stored, self._deadline = planned, {} if stored is None else stored, deadline
        self.met: set[str] = set()

    def train(self, *what: Any, **how: Any) -> State:
        """Count a training as ``Lab.train`` would run it."""
        state = super().train(*what, **how)
        self.met.add(state.training)
        return state

    def _train(
        self, start: State, masks: Masks, ingredients: dict[str, Any], key: str, last: int, callback: Callback | None
    ) -> Stage:
        if time.monotonic() > self._deadline:
            raise NotPlanned
        if (key, last) not in self.planned:
            self.stored[key, last] = self._state_bytes + (self._optimizer_bytes if last < ingredients["total"] else 0)
            stored = self.store.latest(key, last)
            behind = [step for training, step in self.planned if training == key and step < last]
            behind.append(stored.step if stored else ingredients["first"])
            self.planned[key, last] = last - max(behind)
        return Stage(self.store.root, key, last, {"checkpoint": False, "progress": {"step": last, "sparse_steps": 0.0}})

    def stage(self, state: State) -> Stage:
        """Return a stored step. A step that is only planned has no content, so NotPlanned is raised."""
        if self._is_planned(state):
            raise NotPlanned
        return super().stage(state)

    def score(self, name: str, state: State, masks: Masks, **options: Any) -> dict[str, Tensor]:
        """Return the scores of a stored state, else random ones."""
        return self._drawn(name, state) if self._is_planned(state) else super().score(name, state, masks, **options)

    def logged(self, state: State, name: str) -> list[float]:
        """Return the numbers that a stored training logged, else none."""
        return [] if self._is_planned(state) else super().logged(state, name)

    def learned_scores(self, state: State) -> dict[str, Tensor]:
        """Return the scores that a stored training learned, else random ones."""
        return self._drawn("learned", state) if self._is_planned(state) else super().learned_scores(state)

    def masks(self, state: State) -> Masks:
        """Return the masks of a stored training, else random ones, so that trainings under them are counted."""
        if not self._is_planned(state):
            return super().masks(state)
        return self.ones().replace({name: score > 0.5 for name, score in self._drawn("masks", state).items()})

    def interpolate(self, one: State, other: State, fraction: float, refresh: bool = False) -> nn.Module:
        """Return any model, because a plan does not depend on interpolated weights."""
        return self.model

    def network(self, state: State) -> nn.Module:
        """Return the network of a stored state, else any model, because a plan does not depend on its weights."""
        return self.model if self._is_planned(state) else super().network(state)

    def loss(self, model: nn.Module, split: str) -> float:
        """Return 0: a plan measures nothing."""
        return 0.0

    def signed_metric(self, model: nn.Module, split: str) -> float:
        """Return 0: a plan measures nothing."""
        return 0.0

    @cached_property
    def _state_bytes(self) -> int:
        """Of the parameters and buffers."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.state_dict().values())

    @cached_property
    def _optimizer_bytes(self) -> int:
        """Of what the optimizer remembers of every parameter, where a training goes on from the stage."""
        defaults = self.task.optimizer(self.model, self.steps)[0].defaults
        remembered = 2 if "betas" in defaults else int(bool(defaults.get("momentum")))
        return remembered * sum(p.numel() * p.element_size() for p in self.model.parameters())

    def _is_planned(self, state: State) -> bool:
        return (state.training, state.step) in self.planned

    def _drawn(self, what: str, state: State) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, "plan", what, state.key))
        return {m.name: torch.rand(m.shape, generator=generator) for m in self.maskables}

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
        """Prune once to the last of the densities, by random scores."""
        if score == "random":
            return super().cut(score, state, goals[-1:], scheme, regrow, floors)
        drawn = self._drawn(f"{score} {len(goals)} {regrow} {sorted(options.items())}", state)
        unused: Any = None  # the scores are there: no data is looked at
        model, ties = copy.deepcopy(self.network(state)), seed_for(self.seed, "ties")
        return cut(lambda *_: drawn, model, self.maskables, unused, goals[-1:], scheme, floors=floors, seed=ties)

    def seconds_per_step(self, tries: int = 5, patience: float = 10) -> float:
        """Measure the fastest of a few real training steps after one to warm up, or of fewer once ``patience`` seconds have
        passed."""
        optimizer, _ = self.task.optimizer(self.model, self.steps)
        self.model.train()
        epochs = (self.task.batches("train", epoch, self.seed) for epoch in range(tries + 1))  # some trainings have only one step
        seconds = []
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), tries + 1):
            began = time.perf_counter()
            self.task.loss(self.model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - began)
            if len(seconds) > 1 and sum(seconds) > patience:
                break
        return min(seconds[1:])
