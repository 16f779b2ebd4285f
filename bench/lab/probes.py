"""Probes: what is measured on networks without training them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import Diverged
from bench.lab.states import States
from bench.seeds import seed_for
from bench.task import evaluated
from bench.task.capabilities import HasBaselines, HasProbe, ScoresExamples
from bench.training import distributed
from bench.training.loop import reseed
from bench.training.speed import speedups
from pruning import Masks, NotApplicable, attach
from pruning.ticket import State


class Probes(States):
    """Evaluates stored states for the recorder, and networks for analyses."""

    def evaluate(self, state: State, split: str) -> dict[str, float]:
        """Metrics of a stored state; computed once. For the recorder: methods have no test data."""
        stage = self.stage(state)
        metrics: dict[str, float] | None = distributed.from_first(stage.evaluations().get(split))
        if metrics is None:
            metrics = evaluated(self.task, self.load(state), split)
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise Diverged(f"metric {name} of {split} is {value}")
            if distributed.first():
                stage.add_evaluation(split, metrics)
        return metrics

    def loss(self, model: nn.Module, split: str) -> float:
        """Mean training loss over the batches of a split, with nothing dropped out. For analyses."""
        model.eval()
        with torch.no_grad():
            losses = [self.task.loss(model, batch).double() for batch in self.task.batches(split, 0, self.seed)]
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise Diverged(f"the loss of {split} is {loss}")
        return loss

    def example_metrics(self, model: nn.Module, split: str) -> Mapping[str, Tensor]:
        """Return the metrics of every example of a split. For analyses: methods have no test data."""
        task = self.task.capability(ScoresExamples)
        if task is None:
            raise NotApplicable("this task does not score its examples one by one")
        return task.example_metrics(model, split)

    def baselines(self) -> tuple[str, ...]:
        """Return the names of the task's predictions that need no training, if it knows any."""
        task = self.task.capability(HasBaselines)
        return task.baselines if task else ()

    def baseline_metrics(self, name: str, split: str, draw: int = 0) -> Mapping[str, Tensor]:
        """Return the metrics of every example of a split for one of ``baselines``."""
        task = self.task.capability(HasBaselines)
        assert task, "a name of ``baselines`` is needed"
        return task.baseline_metrics(name, split, seed_for(self.seed, "baseline", draw))

    def interpolate(self, one: State, other: State, fraction: float, refresh: bool = False) -> nn.Module:
        """A model of the caller's own on the straight line from one state to the other: all floating-point parameters and buffers
        interpolated, or with ``refresh`` batch-norm statistics taken anew from an epoch of training data."""
        ends = [copy.deepcopy(self.load(state).state_dict()) for state in (one, other)]
        model = self.network(one)
        model.load_state_dict(
            {name: a.lerp(ends[1][name], fraction) if a.is_floating_point() else a for name, a in ends[0].items()}
        )
        if refresh:
            norms = [m for m in model.modules() if hasattr(m, "reset_running_stats")]
            norm: Any
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean of all batches
            model.train()
            with torch.no_grad():
                for batch in self.task.batches("train", 0, self.seed):
                    self.task.loss(model, batch)
        return model

    def is_disconnected(self, state: State, masks: Masks) -> bool:
        """Whether no path leads from input to output, so that training could only learn how frequent the answers are: the masked
        network of absolute weights, in which no unit is dead, answers two training batches alike; or, where all data are one
        batch, that batch and the task's probe. Looks at models whose output is one tensor; False for any other."""
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
        # batch norm magnifies the rounding of a constant
        return bool((outputs[0] - outputs[1]).abs().max() <= 1e-4 * outputs[0].abs().max())

    def speedups(self, state: State, masks: Masks) -> tuple[float, float]:
        """Measured: how many times faster the slim network is at inference and at training than the whole one."""
        slim = self.slim(state, masks)
        return speedups(self.task, self.network(state), slim, self.seed)
