"""Measures networks without training them."""

import copy
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import Diverged
from bench.lab.states import States, needed
from bench.seeds import seed_for
from bench.task import evaluated
from bench.task.capabilities import HasBaselines, HasProbe, ScoresExamples
from bench.training import distributed
from bench.training.loop import reseed
from bench.training.speed import speedups
from pruning import Masks, attach
from pruning.ticket import State


class Evaluation(States):
    """Evaluates stored states for the recorder, and networks for analyses."""

    def evaluate(self, state: State, split: str) -> dict[str, float]:
        """Return the metrics of a stored state, computed once, and again where the task has got more of them since. For the
        recorder: methods have no test data."""
        stage = self.stage(state)
        metrics: dict[str, float] | None = distributed.broadcast(stage.evaluations().get(split))
        if metrics is None or not metrics.keys() >= set(self.task.metrics):
            metrics = evaluated(self.task, self.load(state), split)
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise Diverged(f"metric {name} of {split} is {value}")
            if distributed.first():
                stage.add_evaluation(split, metrics)
        return metrics

    def loss(self, model: nn.Module, split: str) -> float:
        model.eval()
        with torch.no_grad():
            losses = [self.task.loss(model, batch).double() for batch in self.task.batches(split, 0, self.seed)]
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise Diverged(f"the loss of {split} is {loss}")
        return loss

    def example_metrics(self, model: nn.Module, split: str) -> Mapping[str, Tensor]:
        return needed(self.task, ScoresExamples, "this analysis", "a score of every example").example_metrics(model, split)

    def baselines(self) -> tuple[str, ...]:
        task = self.task.capability(HasBaselines)
        return task.baselines if task else ()

    def baseline_metrics(self, name: str, split: str, draw: int = 0) -> Mapping[str, Tensor]:
        task = self.task.capability(HasBaselines)
        assert task, "a name of ``baselines`` is needed"
        return task.baseline_metrics(name, split, seed_for(self.seed, "baseline", draw))

    def interpolate(self, one: State, other: State, fraction: float, refresh: bool = False) -> nn.Module:
        begin, end = (copy.deepcopy(self.load(state).state_dict()) for state in (one, other))
        model = self.network(one)
        model.load_state_dict({n: a.lerp(end[n], fraction) if a.is_floating_point() else a for n, a in begin.items()})
        if refresh:
            for norm in model.modules():
                if isinstance(norm, nn.modules.batchnorm._NormBase):
                    norm.reset_running_stats()
                    norm.momentum = None  # the plain mean of all batches
            model.train()
            with torch.no_grad():
                for batch in self.task.batches("train", 0, self.seed):
                    self.task.loss(model, batch)
        return model

    def is_disconnected(self, state: State, masks: Masks) -> bool:
        """Return whether no path leads from input to output, so that training could only learn class frequencies. The test: with
        absolute weights, which leave no unit dead, the masked network gives two training batches the same output; where all data
        are one batch, that batch and the task's probe. False for models whose output is not one tensor."""
        if masks.kept() == masks.total():
            return False
        model, outputs = self.network(state), list[Any]()
        attach(masks, model)
        batches = list(islice(self.task.batches("train", 0, self.seed), 2))
        model.train(len(batches) > 1).register_forward_hook(lambda module, inputs, output: outputs.append(output))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
            for batch in batches:
                reseed(seed_for(self.seed, "collapsed"), self.task.device)  # the same dropout
                self.task.loss(model, batch)
            if len(batches) == 1 and (probing := self.task.capability(HasProbe)):
                probing.probe(model)
        if len(outputs) != 2 or not all(map(torch.is_tensor, outputs)) or outputs[0].shape != outputs[1].shape:
            return False
        # because batch norm magnifies the rounding of a constant
        return bool((outputs[0] - outputs[1]).abs().max() <= 1e-4 * outputs[0].abs().max())

    def speedups(self, state: State, masks: Masks) -> tuple[float, float]:
        """Measure how many times faster the slim network is than the whole one, at inference and at training."""
        slim = self.slim(state, masks)
        return speedups(self.task, self.network(state), slim, self.seed)
