"""Scores of states, and the masks that are allocated by them."""

import inspect
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench import registry
from bench.errors import one_of
from bench.lab.states import needed
from bench.lab.training import Training
from bench.seeds import seed_for
from bench.task import Ability, Batch, Task
from bench.task.capabilities import HasEdges, HasExamples, HasFilters, HasProbe
from bench.training.loop import reseed
from pruning import Densities, Masks, allocate, attach
from pruning.metadata import ScoreInfo, info_of
from pruning.methods.at_init import cut
from pruning.scores import ScoreData, evaluate
from pruning.ticket import Scheme, State


class ScoreView(ScoreData):
    """What a score may see of a task."""

    def __init__(self, task: Task, seed: int, purpose: str, weights: Mapping[str, Tensor]):
        self._task, self._seed, self._purpose, self.weights = task, seed, purpose, weights

    def batches(self, split: str = "train", epoch: int = 0) -> Iterable[Batch]:
        one_of("split", split, ("train", "val"))
        return self._task.batches(split, epoch, self._seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._task.loss(model, batch)

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(self._seed, "score", self._purpose))

    def probe(self, model: nn.Module) -> Tensor:
        return self._needed(HasProbe, "a data-free probe").probe(model)

    def examples(self, per_class: int, balanced: bool) -> list[Batch]:
        return self._needed(HasExamples, "a few examples of each class").examples(per_class, self._seed, balanced)

    def summed_loss(self, model: nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
        return self._needed(HasExamples, "a few examples of each class").summed_loss(model, batch, temperature)

    def filters(self, model: nn.Module) -> dict[str, str]:
        return self._needed(HasFilters, "filters behind its channels").filters(model)

    def graph(self) -> tuple[Tensor, Tensor]:
        return self._needed(HasEdges, "a graph's edges").edges()

    def _needed(self, kind: type[Ability], what: str) -> Ability:
        return needed(self._task, kind, f"score {self._purpose}", what)


class Scoring(Training):
    """Scores states and allocates masks."""

    def score(self, name: str, state: State, masks: Masks, **options: Any) -> dict[str, Tensor]:
        """Return the scores of a state under masks, one tensor for each maskable. The score gets a model of its own, so the
        gradients, modes and hooks that it leaves behind reach no training. Its dropout draws the same numbers whether or not
        anything was stored before. ``options`` are the options of the score."""
        model, data = self._bench(name, state, options)
        attach(masks, model)
        with self._scoring():
            return evaluate(registry.score(name), model, self.maskables, data, **options)

    def score_info(self, name: str) -> ScoreInfo:
        return info_of(registry.score(name), ScoreInfo)

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
        model, data = self._bench(score, state, options)
        with self._scoring():
            ties = seed_for(self.seed, "ties")
            return cut(registry.score(score), model, self.maskables, data, goals, scheme, regrow, floors, ties, **options)

    def allocate(
        self, scores: Mapping[str, Tensor], masks: Masks, densities: Densities, scheme: Scheme = "global", floors: bool = True
    ) -> Masks:
        return allocate(scores, masks, densities, self.maskables, scheme, seed_for(self.seed, "ties"), floors, final=False)

    def allocate_each(
        self, scores: Mapping[str, Tensor], masks: Masks, members: Mapping[str, str], densities: Mapping[str, float]
    ) -> Masks:
        pools = [replace(m, budget=members[m.name]) for m in self.maskables if m.name in members]
        return allocate(scores, masks, densities, pools, seed=seed_for(self.seed, "ties"), final=False)

    # the rest is private

    def _bench(self, score: str, state: State, options: Mapping[str, Any]) -> tuple[nn.Module, ScoreView]:
        """Return a model that only the score uses, and the score's view of the task."""
        takes = list(inspect.signature(registry.score(score)).parameters)[3:]
        for option in options:
            one_of(f"option of score {score}", option, takes)
        model = self.network(state)
        weights = dict(self.model.named_parameters())
        reseed(seed_for(self.seed, "score", score), self.task.device)
        return model, ScoreView(self.task, self.seed, score, {m.name: weights[m.name].detach() for m in self.maskables})

    @contextmanager
    def _scoring(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._ledger.enter_scoring(time.perf_counter() - began)
