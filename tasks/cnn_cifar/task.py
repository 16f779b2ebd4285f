"""Small-image classification: CIFAR-10, CIFAR-100 and scikit-learn's digits x ResNet, VGG, MobileNetV2."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.task import seed_for, unknown
from bench.task.examples import pick
from tasks.images import ImageTask, Splits

from . import data, models

EVALUATION_BATCH = 1000
EXAMPLE_BATCH = 250
"""The number of images of up to 32 pixels a side in a micro-batch; for larger images as many as need the same memory."""


class CnnCifar(ImageTask):
    """One image data set x one convolutional network. A batch is (images, labels): (B, C, H, W) float32 in channels-last
    memory order, normalised, and (B,) int64."""

    later_defaults: ClassVar = {
        "model": {"init": "kaiming_normal", "affine": True, "hidden": 0, "gain": 1.0},
        "train": {"optimizer": "sgd", "augment": True},
    }

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        self._source = data.source(config["data"]["name"])
        size = int(config["data"]["size"])
        self._shape, self._classes = (len(self._source.mean), size, size), self._source.classes

    @cached_property
    def _splits(self) -> Splits:
        return data.load(self.config["data"], self.device)

    @cached_property
    def _padded(self) -> Tensor:
        return data.pad(self._splits.train.pixels, self._border)

    @property
    def _border(self) -> int:
        return self._shape[1] // 8  # the papers' 4 pixels at 32

    @property
    def pixels(self) -> dict[str, list[float]]:
        return {"mean": list(self._source.mean), "std": list(self._source.std)}

    def _network(self, classes: int, seed: int) -> nn.Module:
        options = {key: self.config["model"][key] for key in ("name", "shortcut", "init", "affine", "hidden", "gain")}
        model = models.build(shape=self._shape, classes=classes, seed=seed, **options)
        return model.to(self.device, memory_format=torch.channels_last)

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        if split == "train":
            return self._training_batches(epoch, seed, start)
        if split in ("val", "test"):
            return self._fixed_batches(getattr(self._splits, split), start)
        raise unknown("split", split, ("train", "val", "test"))

    def _training_batches(self, epoch: int, seed: int, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield batches that are shuffled and, with ``train.augment``, cropped out of a black border and mirrored where that
        keeps the class."""
        images, size = self._splits.train, self._shape[1]
        generator = torch.Generator().manual_seed(seed_for(seed, "data", epoch))
        order = torch.randperm(len(images), generator=generator).to(self.device)
        offsets = torch.randint(2 * self._border + 1, (len(images), 2), generator=generator).to(self.device)
        mirrored = (torch.rand(len(images), generator=generator) < 0.5 * self._source.flip).to(self.device)
        for step in range(start, self.steps_per_epoch):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            index = order[part]
            pixels = (
                data.augment(self._padded, index, offsets[part], mirrored[part], size)
                if self.config["train"]["augment"]
                else images.pixels[index]
            )
            yield self._normalised(pixels), images.labels[index]

    def _fixed_batches(self, images: data.Images, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        for first in range(start * EVALUATION_BATCH, len(images), EVALUATION_BATCH):
            part = slice(first, first + EVALUATION_BATCH)
            yield self._normalised(images.pixels[part]), images.labels[part]

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Return the factor and the shift that turn bytes into pixels of mean 0 and deviation 1."""
        mean, std = (torch.tensor(v, device=self.device) for v in (self._source.mean, self._source.std))
        return 1 / (255 * std), -mean / std

    def _normalised(self, pixels: Tensor) -> Tensor:
        """Return (B, H, W, C) bytes as (B, C, H, W) floats; the view keeps the memory order, which is channels-last."""
        factor, shift = self._scale
        return torch.addcmul(shift, pixels.float(), factor).permute(0, 3, 1, 2)

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[tuple[Tensor, Tensor]]:
        """Return training images without augmentation, in two or more micro-batches."""
        images = self._splits.train
        index = pick(images.labels.cpu(), self._source.classes, per_class, seed, balanced).to(self.device)
        most = max(1, EXAMPLE_BATCH * 32**2 // max(32, self._shape[1]) ** 2)
        parts = index.tensor_split(max(2, -(-len(index) // most)))
        return [(self._normalised(images.pixels[part]), images.labels[part]) for part in parts]
