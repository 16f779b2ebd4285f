"""ImageNet-sized classification: torchvision's ResNets, VGG and MobileNetV2 on a folder of images or the hub's ImageNet."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.task import BenchError, one_of, seed_for
from bench.task.examples import pick
from tasks.images import ImageTask, Splits

from . import data

MODELS = {**{name: name for name in ("resnet18", "resnet34", "resnet50", "mobilenet_v2")}, "vgg16": "vgg16_bn"}
"""The name of a model here -> its name in torchvision."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EXAMPLE_BATCH = 64


class CnnImagenet(ImageTask):
    """Images decoded as they are needed, by worker processes."""

    shardable = True

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        one_of("model", config["model"]["name"], MODELS)
        self._shape = (3, int(config["data"]["size"]), int(config["data"]["size"]))

    @cached_property
    def _splits(self) -> Splits:
        return data.load(self.config["data"])

    def identity(self) -> dict[str, Any]:
        """Return the identity without the location of images and the number of decoding processes, which change nothing."""
        sections = super().identity()
        for key in ("folder", "workers"):
            sections["data"].pop(key)
        return sections

    @property
    def _classes(self) -> int:
        return self._splits.classes

    @property
    def pixels(self) -> dict[str, list[float]]:
        return {"mean": list(MEAN), "std": list(STD)}

    def _network(self, classes: int, seed: int) -> nn.Module:
        """torchvision's network without pre-trained weights, by its own initialisation."""
        from torchvision import models

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_for(seed, "weights"))
            model = getattr(models, MODELS[self.config["model"]["name"]])(weights=None, num_classes=classes)
        return model.to(self.device, memory_format=torch.channels_last)

    def batches(
        self, split: str, epoch: int, seed: int, start: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterable[tuple[Tensor, Tensor]]:
        one_of("split", split, ("train", "val", "test"))
        part = getattr(self._splits, split)
        if split != "train":
            return self._loaded(self._decoder(split), torch.arange(len(part)).split(self.batch_size)[start:], share)
        if self.batch_size % share[1]:
            raise BenchError(f"train.batch_size is {self.batch_size}, which {share[1]} processes cannot share equally")
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed_for(seed, "data", epoch)))
        batches = order.split(self.batch_size)[start : self.steps_per_epoch]
        return self._loaded(self._decoder(split, (seed, epoch)), batches, share)

    def _decoder(self, split: str, drawn: tuple[int, int] | None = None) -> data.Decoder:
        return data.Decoder(getattr(self._splits, split), self._shape[1], drawn, bool(self.config["data"]["skip_broken"]))

    def _loaded(
        self, decoder: data.Decoder, batches: Iterable[Tensor], share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a shard of the images at the indices of every batch, decoded in the background and normalised here."""
        mine, of = share
        parts = [part.tolist() for batch in batches if len(part := batch.tensor_split(of)[mine])]
        workers, pinned = int(self.config["data"]["workers"]), self.device.type == "cuda"
        loader = DataLoader(decoder, sampler=parts, batch_size=None, num_workers=workers, pin_memory=pinned)
        mean, std = (255 * torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, STD))
        for loaded in loader:
            if isinstance(loaded, BenchError):
                raise loaded
            pixels, labels = (t.to(self.device, non_blocking=True) for t in loaded)
            yield ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last), labels

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[tuple[Tensor, Tensor]]:
        """Return training images without augmentation, in two or more micro-batches."""
        index = pick(self._splits.train.labels, self._splits.classes, per_class, seed, balanced)
        return list(self._loaded(self._decoder("train"), index.tensor_split(max(2, -(-len(index) // EXAMPLE_BATCH)))))
