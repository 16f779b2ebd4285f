"""The contract between the runner and a task folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.errors import BenchError, Diverged, UsageError, unknown
from bench.seeds import seed_for
from bench.training import kernels
from pruning import Maskable
from pruning.identity import without_defaults
from pruning.sealed import Damaged, read_tensors, write_tensors

__all__ = [
    "Batch",
    "BenchError",
    "Damaged",
    "Diverged",
    "Maskable",
    "Metric",
    "Task",
    "UsageError",
    "counted",
    "evaluated",
    "number",
    "read_tensors",
    "seed_for",
    "trainable",
    "unknown",
    "write_tensors",
]

kernels.guard()  # here, since all that builds networks imports the contract

Ability = TypeVar("Ability")
Batch = Any
"""Whatever ``loss`` takes: tensors already on the task's device."""


@dataclass(frozen=True)
class Metric:
    """The number a table shows, in percent where it is a share. ``name`` is a key of what ``evaluate`` returns."""

    name: str
    higher_is_better: bool = True


class Task(ABC):
    """One data set x model x recipe. Built from its config; a seed is always an argument.

    ``config`` holds the sections ``data``, ``model`` and ``train`` of the composed configuration, plain Python values.
    Everything below is a pure function of the config and its arguments; the order of calls never matters.
    """

    metric: Metric
    note: str = ""
    """Said above every table of the task: what a reader must know to read the numbers (downsampled, JPEG copy, ...)."""
    pretrained: bool = False
    """Whether ``build`` starts from pre-trained weights."""
    pretraining_epochs: int = 0
    """Epochs at the beginning of a training that are pre-training: the start state ``pretrained`` is their end."""
    lacks: frozenset[type] = frozenset()
    """Optional abilities (``bench.task.capabilities``) that the class has but this configuration does not."""
    later_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Section -> option -> default of the options that were added after the first stages were stored: ``identity`` leaves them
    out at their defaults, so that older stages and records are found."""
    shardable: ClassVar[bool] = False
    """Whether ``batches(..., share=(i, n))`` gives share i of n of every batch, equally large in training, and ``evaluate`` adds
    the shares of several processes up (``bench.training.distributed``)."""

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self.config, self.device = config, device

    def capability(self, kind: type[Ability]) -> Ability | None:
        """Return this task as ``kind``, one of the protocols in ``bench.task.capabilities``, or None where it lacks that."""
        return self if isinstance(self, kind) and kind not in self.lacks else None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the data as used: content, size, split. Part of every stage key. Cheap after the first call."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""

    @property
    def epochs(self) -> int:
        """Length of one standard training."""
        return int(self.config["train"]["epochs"])

    @property
    def batch_size(self) -> int:
        """Examples in a full training batch; 1 where the whole graph is the one example. For cost accounting."""
        return int(self.config["train"].get("batch_size", 1))

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """The network at its start, on ``self.device``: initial weights drawn from ``seed``, or pre-trained ones with a
        fresh head. Leaves the global random state alone (``torch.random.fork_rng``)."""

    def reinit(self, seed: int) -> nn.Module:
        """The network with every weight newly drawn, none pre-trained: for the control."""
        return self.build(seed)

    @abstractmethod
    def maskables(self, model: nn.Module) -> list[Maskable]:
        """What may be pruned, typed. Names are keys of ``model.named_parameters()``."""

    @abstractmethod
    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[Batch]:
        """Batches ``start``, start+1, ... of one epoch. ``split``: train (shuffled and augmented by (seed, epoch) alone,
        ``steps_per_epoch`` of them), val or test (fixed order, not augmented)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean training loss over the batch, a scalar; opens its own autocast where the recipe has one."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """All metrics of a split, ``self.metric.name`` among them. Every example counts once. Restores train/eval mode."""

    @abstractmethod
    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """A fresh optimizer and a schedule over ``steps`` steps that depends on the step number alone (LambdaLR)."""

    def constant_optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """The same optimizer at the recipe's low rate, ``train.low_lr``, throughout: fine-tuning."""
        optimizer, _ = self.optimizer(model, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = float(self.config["train"]["low_lr"])
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def final(self, model: nn.Module, masks: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Around a training throughout which ``masks`` (by name, the model's) stay in force: a task may leave out of the work
        what they cut, if that changes no number."""
        return nullcontext()

    @property
    def clip_norm(self) -> float | None:
        """Global gradient norm to clip to; None: no clipping."""
        norm: float | None = self.config["train"].get("clip_norm")
        return norm

    @abstractmethod
    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Multiply-adds of one inference example (mean over the evaluation data where lengths differ; the whole graph for
        a graph) if every maskable ran at ``density[name]`` (absent: 1) of its entries. Theoretical."""

    def identity(self) -> dict[str, Any]:
        """The parts of the config that can change numbers, for stage keys and records: no path of this machine in it. Reads
        ``self.config`` alone, so that records are compared with a configuration without building the task."""
        keep = {section: dict(self.config[section]) for section in ("data", "model", "train")}
        for section in keep.values():
            section.pop("root", None)
        keep["train"].pop("validate_every", None)  # only looks
        return {section: without_defaults(values, self.later_defaults.get(section, {})) for section, values in keep.items()}

    @classmethod
    def identity_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``identity`` of the task with this configuration, without building it."""
        task = cls.__new__(cls)
        task.config = config
        return task.identity()


def number(value: Any, whose: str) -> float:
    """A number as records hold it, of whatever library; BenchError for what is none, that names the culprit."""
    try:
        if not isinstance(value, (str, bytes, bool)):
            return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise BenchError(f"{whose} is no number: {value!r:.60}")


def evaluated(task: Task, model: nn.Module, split: str) -> dict[str, float]:
    """What ``task.evaluate`` gives, as records hold it."""
    found = task.evaluate(model, split)
    if not isinstance(found, Mapping) or task.metric.name not in found or not all(isinstance(name, str) for name in found):
        raise BenchError(
            f"evaluate of {type(task).__name__} must give a dict of numbers by name, {task.metric.name} among them, "
            f"and gave {found!r:.60}"
        )
    return {
        name: number(value, f"the metric {name} of {split} from {type(task).__name__}.evaluate") for name, value in found.items()
    }


def counted(task: Task, model: nn.Module, density: Mapping[str, float]) -> float:
    """What ``task.macs`` gives, as records hold it."""
    return number(task.macs(model, density), f"what {type(task).__name__}.macs gives")


def trainable(loss: Any, task: Task) -> Tensor:
    """A loss that can be trained on."""
    if not torch.is_tensor(loss) or loss.ndim or not loss.requires_grad:
        what = f"a tensor of shape {tuple(loss.shape)}" if torch.is_tensor(loss) and loss.ndim else f"{loss!r:.60}"
        raise BenchError(f"{type(task).__name__}.loss must give a scalar tensor with a gradient, and gave {what}")
    return loss
