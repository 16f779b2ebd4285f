"""The common part of all tasks on images: prunable tensors of a convolutional network, loss, recipe, costs, and removal of
channels."""

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.task import BenchError, Maskable, Metric, Task, evaluating, one_of
from bench.task.capabilities import Call, CanShrink, HasFilters
from bench.task.macs import module_macs
from bench.training import distributed
from tasks import channels

CHANNELS = ("channels", "inner_channels")
SCOPES = ("all", "conv", *CHANNELS)
SCHEDULES = ("step", "one_cycle")
OPTIMIZERS = ("sgd", "adam")
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHORTCUT = r"\.(shortcut|downsample)\."
"""Names of projections in the shortcuts of residual blocks."""
MANY = 200
"""The number of classes from which accuracy among the five most likely classes is reported too, as for Tiny-ImageNet and
ImageNet."""
OUTPUT = "output"
"""The name of the last layer of networks whose papers give it a rate of its own; that of others is ``linear``."""


@dataclass(frozen=True)
class Splits:
    """The images of a data set by split, in any form, how many classes, a line about what they are, and the sha256 of content and
    split."""

    train: Any
    val: Any
    test: Any
    classes: int
    note: str
    fingerprint: str


def held_out(images: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the images to train on, and of ``count`` others for validation, both sorted."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return order[count:].sort().values, order[:count].sort().values


class ImageTask(Task):
    """Images x a convolutional network. A batch is (images, labels): (B, C, H, W) float32 in channels-last memory order,
    normalised, and (B,) int64. A subclass sets ``_shape`` (C, H, W) and gives images, batches, examples and the network."""

    metric = Metric("accuracy")
    _shape: tuple[int, int, int]
    _classes: int

    @property
    @abstractmethod
    def _splits(self) -> Splits:
        """The images; the same object every time."""

    @property
    def note(self) -> str:
        """The data set, and how it was changed."""
        return self._splits.note

    @property
    def fingerprint(self) -> str:
        return self._splits.fingerprint

    @property
    def steps_per_epoch(self) -> int:
        """The number of full batches: the rest of an epoch's permutation is left out, other images in every epoch."""
        images = len(self._splits.train)
        if images < self.batch_size:
            raise BenchError(f"train.batch_size is {self.batch_size}, more than the {images} training images")
        return images // self.batch_size

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        train = config["train"]
        for key, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            one_of(f"train.{key}", train[key], choices)
        one_of("model.scope", config["model"]["scope"], SCOPES)
        if config["model"]["scope"] not in CHANNELS:
            self.lacks = frozenset({CanShrink, HasFilters})

    def maskables(self, model: nn.Module) -> list[Maskable]:
        """Return the weights of convolutions and linear layers. ``model.scope: conv`` leaves out the head and 1x1 shortcuts, as
        Frankle & Carbin 2019 do; ``channels`` takes whole channels instead, ``inner_channels`` only those that no residual
        addition ties to others, as Li et al. 2017 do."""
        scope = self.config["model"]["scope"]
        if scope in CHANNELS:
            return channels.maskables(model, self._spaces, inner=scope == "inner_channels")
        found = []
        for name, module in model.named_modules():
            if isinstance(module, nn.MultiheadAttention) and scope == "all":  # queries, keys and values in one matrix
                found.append(Maskable(f"{name}.in_proj_weight", tuple(module.in_proj_weight.shape), "attention"))
            if isinstance(module, nn.Conv2d | nn.Linear):
                kind = "linear" if isinstance(module, nn.Linear) else "shortcut" if re.search(SHORTCUT, name) else "conv"
                if name == OUTPUT:
                    kind = "head"
                if scope == "all" or kind == "conv":
                    found.append(Maskable(f"{name}.weight", tuple(module.weight.shape), kind))
        return found

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        smoothing = float(self.config["train"].get("label_smoothing", 0.0))
        return F.cross_entropy(self._logits(model, images), labels, label_smoothing=smoothing)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        dtype = PRECISIONS[self.config["train"]["precision"]]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            return model(images).float()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return ``accuracy`` in percent, with many classes also ``accuracy5`` (the true class is among the five most likely
        ones), and mean cross-entropy ``loss``."""
        count, right, among, loss, many = 0, 0, 0, 0.0, False
        with evaluating(model):
            for images, labels in self.batches(split, 0, 0, **distributed.share()):
                logits = self._logits(model, images)
                count += len(labels)
                right += int((logits.argmax(1) == labels).sum())
                if many := logits.shape[1] >= MANY:
                    among += int((logits.topk(5).indices == labels[:, None]).sum())
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        count, right, among, loss = distributed.all_reduce_sum(count, right, among, loss)
        return {"accuracy": 100 * right / count, **({"accuracy5": 100 * among / count} if many else {}), "loss": loss / count}

    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        train = self.config["train"]
        make = Adam if train["optimizer"] == "adam" else partial(SGD, momentum=float(train["momentum"]))
        decay = float(train["weight_decay"])  # ``fused`` saves a tenth of a step on small networks
        optimizer = make(model.parameters(), float(train["lr"]), weight_decay=decay, fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: rate(train, (step + 0.5) / steps))

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Return the multiply-adds of one image. Channels count in the layers on either side of them."""
        if self.config["model"]["scope"] in CHANNELS:
            left = {name: channels.density(name.removesuffix(".weight"), self._spaces, density) for name in self._dense_macs}
            return sum(macs * left[name] for name, macs in self._dense_macs.items())
        return sum(macs * density.get(name, 1.0) for name, macs in self._dense_macs.items())

    @property
    @abstractmethod
    def pixels(self) -> dict[str, list[float]]:
        """Mean and standard deviation of every channel, of pixels in [0, 1], by which images are normalised."""

    @property
    def labels(self) -> list[str]:
        """The names of the classes: their numbers, in the order of the folders' names or as the published data has them."""
        return [str(label) for label in range(self._classes)]

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """Shape and normalisation of images, labels."""
        return {"image_shape": list(self._shape), "normalisation": self.pixels, "labels": self.labels}

    def bare(self, facts: Mapping[str, Any]) -> nn.Module:
        return self._network(len(facts["labels"]), 0)

    def build(self, seed: int) -> nn.Module:
        return self._network(len(self.labels), seed)

    @abstractmethod
    def _network(self, classes: int, seed: int) -> nn.Module:
        """The network at its start, on the task's device."""

    def folded(self, model: nn.Module) -> nn.Module:
        """There is nothing to fold."""
        return model

    def call(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Call:
        return Call(model, {"images": batch[0]}, {"images": {0: "batch"}}, ("logits",))

    def write_files(self, folder: Path, masks: Mapping[str, Tensor]) -> None:
        """Images need no file."""

    @cached_property
    def _spaces(self) -> channels.Spaces:
        return channels.spaces(self.build(0))

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Return the network without the channels that ``masks`` prune."""
        return channels.slim(model, masks, channels.spaces(model))

    def filters(self, model: nn.Module) -> dict[str, str]:
        return {f"{norm}.weight": f"{conv}.weight" for norm, conv in self._spaces.filters.items()}

    @cached_property
    def _dense_macs(self) -> dict[str, int]:
        """Return the multiply-adds by weight name of any network that this config builds: weights do not matter."""
        return module_macs(self.build(0), torch.ones(1, *self._shape))

    def probe(self, model: nn.Module) -> Tensor:
        """Return logits (1, classes) of one all-ones image in the model's own precision: bf16 is too coarse for SynFlow."""
        dtype = next(model.parameters()).dtype
        return model(torch.ones(1, *self._shape, device=self.device, dtype=dtype))

    def summed_loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], temperature: float) -> Tensor:
        """Return the summed cross-entropy in the model's own precision."""
        images, labels = batch
        return F.cross_entropy(model(images) / temperature, labels, reduction="sum")


def rate(train: Mapping[str, Any], done: float) -> float:
    """Return the learning rate as a share of its peak when the share ``done`` of a training is over. Both schedules rise linearly
    over the first ``warmup`` (a share; 0: start at the peak). Then ``step`` multiplies by ``drop`` at each of ``milestones``
    (shares), and ``one_cycle`` falls linearly to 0."""
    warmup = float(train["warmup"])
    if done < warmup:
        return done / warmup
    if train["schedule"] == "one_cycle":
        return (1 - done) / (1 - warmup)
    return float(train["drop"]) ** sum(done >= milestone for milestone in train["milestones"])
