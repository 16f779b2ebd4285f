"""A task made of plain PyTorch objects: what ``bench.Experiment`` runs. Nothing of it lies in a folder."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.errors import BenchError
from bench.seeds import seed_for
from bench.task import Maskable, Metric, Task, evaluating
from bench.task.capabilities import CanShrink, HasExamples, HasProbe
from bench.task.macs import applications, called
from bench.task.prunable import Units
from bench.task.tensor_trees import at, each, joined, length, tensors

Data = tuple[Any, Any] | Iterable[Any]
"""Tensors (inputs, targets), or a data loader or list of batches (inputs, targets), or of dicts with ``labels``. Inputs are what
the network takes: a tensor, a tuple of them, or a dict by the names of its arguments."""
SPLITS = ("train", "val", "test")
LABELS = "labels"
"""Which entry of a batch that is a dict holds the targets."""


class OwnTask(Task):
    """A user's network, data, loss, metric and optimizer as a task. A batch is (inputs, targets)."""

    def __init__(
        self,
        config: Mapping[str, Any],
        device: torch.device,
        build: Callable[[], nn.Module],
        data: Mapping[str, Data],
        loss: Callable[[Any, Any], Tensor],
        metric: Callable[[Any, Any], Any],
        optimizer: Callable[[Any], Optimizer],
        schedule: Callable[[float], float] | None,
        prunable: Callable[[nn.Module], list[Maskable]] | Units,
    ):
        super().__init__(config, device)
        self._build, self._loss, self._metric = build, loss, metric
        self._make_optimizer, self._schedule = optimizer, schedule
        self._prunable, self._units = prunable, prunable if isinstance(prunable, Units) else None
        name = getattr(metric, "__name__", type(metric).__name__)
        self.metric = Metric("metric" if name == "<lambda>" else name, bool(config["train"]["higher_is_better"]))
        self._data = {split: _Split(split, of, self.batch_size, device) for split, of in data.items()}
        inputs, targets = self._first = next(self._data["train"].batches(0, shuffle=False))
        self._check_builds()
        outputs, plain = self._outputs(self.build(0)), torch.is_tensor(inputs) and inputs.is_floating_point()
        labels = torch.is_tensor(outputs) and outputs.ndim == 2 and torch.is_tensor(targets) and targets.dtype == torch.int64
        self.lacks = frozenset(
            {*(() if plain else (HasProbe,)), *(() if labels else (HasExamples,)), *(() if self._units else (CanShrink,))}
        )

    def _check_builds(self) -> None:
        one, other = self._drawn(0), self._drawn(0)
        if one is other:
            raise BenchError("build gives the same network every time: it must make a new one in each call")
        shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (one, other)]
        for name in sorted(shapes[0].keys() | shapes[1].keys()):
            if shapes[0].get(name) != shapes[1].get(name):
                raise BenchError(
                    f"build gives another network each time: {name} is {shapes[0].get(name)}, then {shapes[1].get(name)}"
                )
        for name, value in one.state_dict().items():
            if not torch.equal(value, other.state_dict()[name]):
                raise BenchError(
                    f"build gives other weights in {name} from one seed: draw them from PyTorch's global generator alone"
                )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of every example and of the initial weights of one seed."""
        sha = hashlib.sha256()
        for split in SPLITS:
            sha.update(split.encode())
            for batch in self._data[split].batches(0, shuffle=False):
                _update(sha, batch)
        _update(sha, dict(self.build(0).state_dict()))
        return sha.hexdigest()

    @property
    def steps_per_epoch(self) -> int:
        return len(self._data["train"])

    def build(self, seed: int) -> nn.Module:
        return self._drawn(seed).to(self.device)

    def _drawn(self, seed: int) -> nn.Module:
        with _random(seed_for(seed, "init")):
            return built(self._build)

    def maskables(self, model: nn.Module) -> list[Maskable]:
        prunable = self._prunable
        found = prunable.maskables(model, self._found) if isinstance(prunable, Units) else prunable(model)
        parameters = dict(model.named_parameters())
        if not found:
            raise BenchError("nothing of this network may be pruned: name its weights, prunable=['layer.weight', ...]")
        for m in found:
            if m.name not in parameters or tuple(parameters[m.name].shape) != m.shape:
                raise BenchError(f"prunable names {m.name} of shape {m.shape}, which is no parameter of the network")
        names = [m.name for m in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BenchError(f"prunable names {twice} twice: name every weight once")
        return found

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[tuple[Any, Any]]:
        drawn = seed_for(seed, "data", epoch)
        return self._data[split].batches(drawn, shuffle=split == "train", start=start)

    def loss(self, model: nn.Module, batch: tuple[Any, Any]) -> Tensor:
        return self._loss(called(model, batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """The user's metric over all outputs and targets of a split at once, and the mean loss of its batches."""
        outputs, targets, losses, count = [], [], 0.0, 0
        with evaluating(model):
            for inputs, target in self.batches(split, 0, 0):
                outputs.append(called(model, inputs))
                targets.append(target)
                size = length(target)
                losses, count = losses + size * float(self._loss(outputs[-1], target)), count + size
            return {"loss": losses / count, self.metric.name: self._metric(joined(outputs), joined(targets))}

    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        optimizer, schedule = optimizer_for(model, self._make_optimizer), self._schedule
        return optimizer, LambdaLR(optimizer, lambda step: 1.0 if schedule is None else float(schedule(step / steps)))

    def constant_optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """A tenth of the optimizer's own rates throughout."""
        optimizer, _ = self.optimizer(model, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = group["initial_lr"] / 10
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        units, found, left = self._units, self._found, density
        if units:
            left = {name: units.density(name.removesuffix(".weight"), found, density) for name in self._dense_macs}
        return sum(macs * left.get(name, 1.0) for name, macs in self._dense_macs.items())

    @cached_property
    def _dense_macs(self) -> dict[str, float]:
        counted = applications(self.build(0), self._first[0], length(self._first[1]))
        others = {} if self._units else {m.name: float(m.size) for m in self.maskables(self.build(0))}
        return others | counted  # a weight of an unknown kind of layer is applied once

    @cached_property
    def _found(self) -> Any:
        """The units of the network, as its kind of units describes them."""
        return self._units and self._units.find(self.build(0), self._few)

    @property
    def _few(self) -> Any:
        """The inputs of two examples; of the first batch where the network does not take so few, as of a part of a graph."""
        inputs, targets = self._first
        few = each(inputs, lambda tensor: tensor[:2] if tensor.ndim and len(tensor) == length(targets) else tensor)
        try:
            with torch.no_grad():
                called(self.build(0).eval(), few)
        except Exception:
            return inputs
        return few

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """The network without the units that ``masks`` cut."""
        assert self._units
        return self._units.slim(model, masks, self._found)

    def probe(self, model: nn.Module) -> Tensor:
        """Outputs for one example of ones, in the model's own precision."""
        logits: Tensor = model(torch.ones_like(self._first[0][:1]).to(next(model.parameters()).dtype))
        return logits

    @torch.no_grad()
    def _outputs(self, model: nn.Module) -> Any:
        return called(model.eval(), self._first[0])

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[tuple[Any, Any]]:
        """The first examples of every class, in an order drawn from ``seed``, in two or more micro-batches."""
        classes, chosen = self._outputs(self.build(0)).shape[1], []
        left = torch.full((classes,), per_class)
        for inputs, labels in self.batches("train", 0, seed_for(seed, "examples")):
            for i, label in enumerate(labels.tolist()):
                room = left[label] if balanced else left.sum()
                if room > 0:
                    chosen.append((inputs[i : i + 1], labels[i : i + 1]))
                    left[label if balanced else int(left.argmax())] -= 1
            if not left.sum():
                break
        if per_class < 1 or left.sum():
            raise BenchError(f"per_class is {per_class}, but class {int(left.argmax())} has too few training examples for it")
        parts = torch.arange(len(chosen)).tensor_split(max(2, -(-len(chosen) // self.batch_size)))
        return [joined([chosen[i] for i in part.tolist()]) for part in parts]

    def summed_loss(self, model: nn.Module, batch: tuple[Any, Any], temperature: float) -> Tensor:
        return self._loss(called(model, batch[0]) / temperature, batch[1]) * length(batch[1])


def built(build: Callable[[], Any]) -> nn.Module:
    """Return the network that ``build`` makes; BenchError where it is none."""
    model = build()
    if not isinstance(model, nn.Module):
        raise BenchError(f"build must give a torch.nn.Module, and gave {model!r:.60}")
    return model


def optimizer_for(model: nn.Module, make: Callable[[Any], Any]) -> Optimizer:
    """Return the optimizer that ``make`` gives for a network's parameters; BenchError where it is none."""
    optimizer = make(model.parameters())
    if not isinstance(optimizer, Optimizer):
        raise BenchError(f"optimizer must give a torch.optim.Optimizer for parameters, and gave {optimizer!r:.60}")
    return optimizer


class _Split:
    """The batches of a split, the same ones for the same seed."""

    def __init__(self, name: str, data: Any, size: int, device: torch.device):
        self.name, self.size, self.device = name, size, device
        self.data = data
        self.tensors = type(data) is tuple
        if self.tensors and (len(self.data) != 2 or length(self.data[0]) != length(self.data[1])):
            counts = ", ".join(str(length(part)) for part in self.data)
            raise BenchError(f"the {name} data must be a pair (inputs, targets) with as many examples in both, and has {counts}")
        try:
            self._length = -(-length(self.data[1]) // size) if self.tensors else len(self.data)
        except TypeError:
            raise BenchError(
                f"the {name} data, a {type(data).__name__}, has no length: give tensors, a list of batches or a data loader over "
                "a data set that has one"
            ) from None
        if not self._length:
            raise BenchError(f"the {name} data has no batch: give at least one example")

    def __len__(self) -> int:
        return self._length

    def batches(self, seed: int, shuffle: bool, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Batch ``start`` and those after it. What a loader draws at random for a batch depends on ``seed`` and its number."""
        if self.tensors:
            count = length(self.data[1])
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) if shuffle else torch.arange(count)
            for part in order.split(self.size)[start:]:
                yield self._moved((at(self.data[0], part), at(self.data[1], part)))
            return
        if isinstance(self.data, Sequence):
            drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
            for i in (drawn if shuffle else list(range(len(self))))[start:]:
                yield self._moved(self._pair(self.data[i]))
            return
        with _random(seed):
            if isinstance(own := getattr(self.data, "generator", None), torch.Generator):
                own.manual_seed(seed)
            loader = iter(self.data)
        for i in range(len(self)):
            with _random(seed_for(seed, "batch", i)):
                batch = next(loader, None)
            if batch is None:
                raise BenchError(f"the {self.name} data says that it has {len(self)} batches, and gave {i}")
            if i >= start:
                yield self._moved(self._pair(batch))

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        if isinstance(batch, Mapping) and LABELS in batch:
            return {key: value for key, value in batch.items() if key != LABELS}, batch[LABELS]
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            return batch[0], batch[1]
        raise BenchError(
            f"a batch of the {self.name} data must be (inputs, targets), or a dict with {LABELS!r} among its keys; this one is "
            f"{batch!r:.60}"
        )

    def _moved(self, batch: Any) -> Any:
        return each(batch, lambda tensor: tensor.to(self.device))


def _update(sha: Any, value: Any) -> None:
    for tensor in tensors(value):
        array = tensor.detach().cpu().contiguous()
        sha.update(json.dumps([str(array.dtype), list(array.shape)]).encode())
        sha.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")


@contextmanager
def _random(seed: int) -> Iterator[None]:
    """Global generators of PyTorch, NumPy and Python seeded, and put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
