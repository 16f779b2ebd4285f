"""The contract between the runner and a task folder."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.errors import BenchError, Diverged, UsageError, first_line, one_of, unknown
from bench.seeds import seed_for
from bench.training import kernels
from pruning import Maskable
from pruning.checksummed import Damaged, read_tensors, write_tensors
from pruning.hashed_options import without_defaults

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
    "evaluating",
    "first_line",
    "number",
    "one_of",
    "read_tensors",
    "seed_for",
    "trainable",
    "unknown",
    "write_tensors",
]

kernels.guard()  # here, since all that builds networks imports the contract

Ability = TypeVar("Ability")
Batch = Any
"""The argument of ``loss``: tensors that are already on the task's device, in any structure."""


@dataclass(frozen=True)
class Metric:
    """The number that a table shows, in percent if it is a fraction. ``name`` is a key of the result of ``evaluate``."""

    name: str
    higher_is_better: bool = True


class Task(ABC):
    """One data set x model x recipe, built from its configuration; a seed is always an argument. ``config`` holds the sections
    ``data``, ``model`` and ``train`` of the composed configuration, as plain Python values. Every member below is a pure function
    of the config and its arguments; the order of calls never matters."""

    metric: Metric
    metrics: tuple[str, ...] = ()
    """Names of all metrics, where a task lists them: an evaluation that was stored before one of them existed is repeated."""
    note: str = ""
    """A sentence above every table of the task, which a reader must know to read the numbers (downsampled, JPEG copy, ...)."""
    pretrained: bool = False
    """Whether ``build`` starts from pre-trained weights."""
    pretraining_epochs: int = 0
    """Epochs at the beginning of a training that are pre-training: the start state ``pretrained`` is their end."""
    lacks: frozenset[type] = frozenset()
    """Optional abilities (``bench.task.capabilities``) that the class has but this configuration lacks."""
    later_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Section -> option -> default of the options that were added after the first stages were stored: ``identity`` leaves them
    out at their defaults, so that older stages and records are found."""
    shardable: ClassVar[bool] = False
    """Whether ``batches(..., share=(i, n))`` gives shard i of n of every batch, equally large in training, and ``evaluate`` adds
    up the shards of several processes (``bench.training.distributed``)."""

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self.config, self.device = config, device

    def capability(self, kind: type[Ability]) -> Ability | None:
        """Return this task as ``kind``, one of the protocols in ``bench.task.capabilities``, or None where it lacks that."""
        return self if isinstance(self, kind) and kind not in self.lacks else None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The sha256 of the data as used: content, size, split. It is part of every stage key, and cheap after the first call."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in one pass over the training data."""

    @property
    def epochs(self) -> int:
        """The length of one standard training."""
        return int(self.config["train"]["epochs"])

    @property
    def batch_size(self) -> int:
        """The number of examples in a full training batch, for cost accounting; 1 where the whole graph is the one example."""
        return int(self.config["train"].get("batch_size", 1))

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """Return the network at its start, on ``self.device``: initial weights drawn from ``seed``, or pre-trained ones with a
        new head. Leaves the global random state alone (``torch.random.fork_rng``)."""

    def reinit(self, seed: int) -> nn.Module:
        """Return the network with every weight newly drawn and none pre-trained, for the control ``reinit``."""
        return self.build(seed)

    @abstractmethod
    def maskables(self, model: nn.Module) -> list[Maskable]:
        """Return the tensors that may be pruned. Their names are keys of ``model.named_parameters()``."""

    @abstractmethod
    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[Batch]:
        """Yield the batches ``start``, start + 1, ... of one epoch. ``split``: train (shuffled and augmented by (seed, epoch)
        alone, ``steps_per_epoch`` of them), val or test (fixed order, not augmented)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean training loss over the batch, a scalar. It opens its own autocast where the recipe has one."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return all metrics of a split, ``self.metric.name`` among them. Every example counts once. The model's train or eval
        mode is restored."""

    @abstractmethod
    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """Return a new optimizer and a schedule over ``steps`` steps that depends on the step number alone (LambdaLR)."""

    def constant_optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """Return the same optimizer at the recipe's low rate, ``train.low_lr``, throughout, for fine-tuning."""
        optimizer, _ = self.optimizer(model, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = float(self.config["train"]["low_lr"])
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def with_fixed_masks(self, model: nn.Module, masks: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Return a context for a training whose ``masks`` (by name, those of the model) never change. A task may override it to
        skip pruned work; the results must stay identical to the last bit."""
        return nullcontext()

    @property
    def clip_norm(self) -> float | None:
        """The global gradient norm to clip to. None: no clipping."""
        norm: float | None = self.config["train"].get("clip_norm")
        return norm

    @abstractmethod
    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Return the multiply-adds of one inference example if every maskable ran at ``density[name]`` (absent: 1) of its
        entries. The number is theoretical. Where lengths differ it is the mean over the evaluation data; for a graph it is that
        of the whole graph."""

    def identity(self) -> dict[str, Any]:
        """Return the parts of the config that can change numbers, for stage keys and records, without any path of this machine.
        Reads ``self.config`` alone, so that records are compared with a configuration without building the task."""
        keep = {section: dict(self.config[section]) for section in ("data", "model", "train")}
        for section in keep.values():
            section.pop("root", None)
        keep["train"].pop("validate_every", None)  # it only observes
        return {section: without_defaults(values, self.later_defaults.get(section, {})) for section, values in keep.items()}

    @classmethod
    def identity_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``identity`` of the task with this configuration, without building it."""
        task = cls.__new__(cls)
        task.config = config
        return task.identity()


def number(value: Any, whose: str) -> float:
    """Return a number of any library as a float. BenchError for anything that is no number, naming it by ``whose``."""
    try:
        if not isinstance(value, (str, bytes, bool)):
            return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise BenchError(f"{whose} is no number: {value!r:.60}")


def evaluated(task: Task, model: nn.Module, split: str) -> dict[str, float]:
    """Return the result of ``task.evaluate`` as records hold it."""
    found, kind = task.evaluate(model, split), type(task).__name__
    if not isinstance(found, Mapping) or task.metric.name not in found or not all(isinstance(name, str) for name in found):
        expected = f"a dict of numbers by name, {task.metric.name} among them"
        raise BenchError(f"evaluate of {kind} must give {expected}, and gave {found!r:.60}")
    return {name: number(value, f"the metric {name} of {split} from {kind}.evaluate") for name, value in found.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the context the model is in eval mode and no gradient is tracked; its mode is restored."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def counted(task: Task, model: nn.Module, density: Mapping[str, float]) -> float:
    """Return the result of ``task.macs`` as records hold it."""
    return number(task.macs(model, density), f"what {type(task).__name__}.macs gives")


def trainable(loss: Any, task: Task) -> Tensor:
    """Return a loss after checking that it can be trained on."""
    if not torch.is_tensor(loss) or loss.ndim or not loss.requires_grad:
        what = f"a tensor of shape {tuple(loss.shape)}" if torch.is_tensor(loss) and loss.ndim else f"{loss!r:.60}"
        raise BenchError(f"{type(task).__name__}.loss must give a scalar tensor with a gradient, and gave {what}")
    return loss
