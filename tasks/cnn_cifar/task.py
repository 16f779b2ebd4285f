"""Small-image classification: CIFAR-10, CIFAR-100 and scikit-learn's digits x ResNet, VGG, MobileNetV2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from bench.cost import module_macs
from bench.examples import pick
from bench.task import BenchError, Maskable, Metric, Task, seed_for, unknown
from tasks import channels

from . import data, models

SCOPES = ("all", "conv", "channels")
SCHEDULES = ("step", "one_cycle")
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
EVALUATION_BATCH = 1000
EXAMPLE_BATCH = 250
"""Images of up to 32 pixels a side; of larger ones as many as need the memory of these."""


class CnnCifar(Task):
    """One image data set x one convolutional network. A batch is (images, labels): (B, C, H, W) float32 in channels-last
    memory order, normalised, and (B,) int64."""

    metric = Metric("accuracy")
    offers = frozenset({"probe", "examples"})

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        train = config["train"]
        for key, choices in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if train[key] not in choices:
                raise unknown(f"train.{key}", train[key], choices)
        if config["model"]["scope"] not in SCOPES:
            raise unknown("model.scope", config["model"]["scope"], SCOPES)
        if config["model"]["scope"] == "channels":
            self.offers = self.offers | {"slim", "filters"}
        self._source = data.source(config["data"]["name"])
        size = int(config["data"]["size"])
        self._shape = (len(self._source.mean), size, size)

    @cached_property
    def _splits(self) -> data.Splits:
        return data.load(self.config["data"], self.device)

    @cached_property
    def _padded(self) -> Tensor:
        return data.pad(self._splits.train.pixels, self._border)

    @property
    def _border(self) -> int:
        return self._shape[1] // 8  # the papers' 4 pixels at 32

    @property
    def note(self) -> str:
        """The data set, and what was done to it."""
        return self._splits.note

    @property
    def fingerprint(self) -> str:
        return self._splits.fingerprint

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only: the rest of an epoch's permutation is left out, other images in every epoch."""
        steps = len(self._splits.train) // self.batch_size
        if not steps:
            raise BenchError(f"train.batch_size is {self.batch_size}, more than the {len(self._splits.train)} training images")
        return steps

    def build(self, seed: int) -> nn.Module:
        choice = self.config["model"]
        model = models.build(choice["name"], choice["shortcut"], self._shape, self._source.classes, seed, choice["init"],
                             choice["affine"], choice["hidden"], choice["gain"])
        return model.to(self.device, memory_format=torch.channels_last)

    def identity(self) -> dict[str, Any]:
        """As the contract has it; options that came later are left out at their defaults, so that older stages are found."""
        sections = super().identity()
        for key, default in (("init", "kaiming_normal"), ("affine", True), ("hidden", 0), ("gain", 1.0)):
            if sections["model"][key] == default:
                del sections["model"][key]
        return sections

    def maskables(self, model: nn.Module) -> list[Maskable]:
        """Weights of convolutions and linear layers; ``model.scope: conv`` leaves out the head and 1x1 shortcuts, as
        Frankle & Carbin 2019 do; ``channels`` takes whole channels instead."""
        if self.config["model"]["scope"] == "channels":
            return channels.maskables(model, self._spaces)
        found = []
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                kind = "linear" if isinstance(module, nn.Linear) else "shortcut" if ".shortcut." in name else "conv"
                if self.config["model"]["scope"] == "all" or kind == "conv":
                    found.append(Maskable(f"{name}.weight", tuple(module.weight.shape), kind))
        return found

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        if split == "train":
            return self._training_batches(epoch, seed, start)
        if split in ("val", "test"):
            return self._fixed_batches(getattr(self._splits, split), start)
        raise unknown("split", split, ("train", "val", "test"))

    def _training_batches(self, epoch: int, seed: int, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Shuffled, cropped out of a black border, and mirrored where that keeps the class."""
        images, size = self._splits.train, self._shape[1]
        generator = torch.Generator().manual_seed(seed_for(seed, "data", epoch))
        order = torch.randperm(len(images), generator=generator).to(self.device)
        offsets = torch.randint(2 * self._border + 1, (len(images), 2), generator=generator).to(self.device)
        mirrored = (torch.rand(len(images), generator=generator) < 0.5 * self._source.flip).to(self.device)
        for step in range(start, self.steps_per_epoch):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            index = order[part]
            yield (self._normalised(data.augment(self._padded, index, offsets[part], mirrored[part], size)),
                   images.labels[index])

    def _fixed_batches(self, images: data.Images, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        for first in range(start * EVALUATION_BATCH, len(images), EVALUATION_BATCH):
            part = slice(first, first + EVALUATION_BATCH)
            yield self._normalised(images.pixels[part]), images.labels[part]

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Factor and shift that turn bytes into pixels of mean 0 and deviation 1."""
        mean, std = (torch.tensor(v, device=self.device) for v in (self._source.mean, self._source.std))
        return 1 / (255 * std), -mean / std

    def _normalised(self, pixels: Tensor) -> Tensor:
        """(B, H, W, C) bytes -> (B, C, H, W) floats; the view keeps the memory order, which is channels-last."""
        factor, shift = self._scale
        return torch.addcmul(shift, pixels.float(), factor).permute(0, 3, 1, 2)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self._logits(model, images), labels)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        dtype = PRECISIONS[self.config["train"]["precision"]]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            return model(images).float()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``accuracy`` in percent and mean cross-entropy ``loss``."""
        training = model.training
        model.eval()
        count, right, loss = 0, 0, 0.0
        for images, labels in self.batches(split, 0, 0):
            logits = self._logits(model, images)
            count += len(labels)
            right += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        model.train(training)
        return {"accuracy": 100 * right / count, "loss": loss / count}

    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        train = self.config["train"]
        optimizer = SGD(model.parameters(), float(train["lr"]), float(train["momentum"]),
                        weight_decay=float(train["weight_decay"]), fused=True)  # fused: a tenth of a step on small nets
        return optimizer, LambdaLR(optimizer, lambda step: rate(train, (step + 0.5) / steps))

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Channels count in the layers on either side of them."""
        if self.config["model"]["scope"] == "channels":
            left = {name: channels.density(name.removesuffix(".weight"), self._spaces, density) for name in self._dense_macs}
            return sum(macs * left[name] for name, macs in self._dense_macs.items())
        return sum(macs * density.get(name, 1.0) for name, macs in self._dense_macs.items())

    @cached_property
    def _spaces(self) -> channels.Spaces:
        return channels.spaces(self.build(0))

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """The network without the channels that ``masks`` cut."""
        return channels.slim(model, masks, self._spaces)

    def filters(self, model: nn.Module) -> dict[str, str]:
        return {f"{norm}.weight": f"{conv}.weight" for norm, conv in self._spaces.filters.items()}

    @cached_property
    def _dense_macs(self) -> dict[str, int]:
        """By weight name. Of any network this config builds: values do not matter."""
        return module_macs(self.build(0), torch.ones(1, *self._shape))

    def probe(self, model: nn.Module) -> Tensor:
        """Logits (1, classes) of one all-ones image in the model's own precision: bf16 is too coarse for SynFlow."""
        dtype = next(model.parameters()).dtype
        return model(torch.ones(1, *self._shape, device=self.device, dtype=dtype))

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[tuple[Tensor, Tensor]]:
        """Training images as they are, in two or more micro-batches."""
        images = self._splits.train
        index = pick(images.labels.cpu(), self._source.classes, per_class, seed, balanced).to(self.device)
        most = max(1, EXAMPLE_BATCH * 32**2 // max(32, self._shape[1]) ** 2)
        parts = index.tensor_split(max(2, -(-len(index) // most)))
        return [(self._normalised(images.pixels[part]), images.labels[part]) for part in parts]

    def summed_loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], temperature: float) -> Tensor:
        """Cross-entropy in the model's own precision."""
        images, labels = batch
        return F.cross_entropy(model(images) / temperature, labels, reduction="sum")


def rate(train: Mapping[str, Any], done: float) -> float:
    """The learning rate as a share of its peak when the share ``done`` of a training is behind it.

    Both schedules rise linearly over the first ``warmup`` (a share; 0: start at the peak). Then ``step`` multiplies by
    ``drop`` at each of ``milestones`` (shares) and ``one_cycle`` falls linearly to 0.
    """
    warmup = float(train["warmup"])
    if done < warmup:
        return done / warmup
    if train["schedule"] == "one_cycle":
        return (1 - done) / (1 - warmup)
    return float(train["drop"]) ** sum(done >= milestone for milestone in train["milestones"])
