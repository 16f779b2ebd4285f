"""Images in memory: read once by their loader, cached on disk as one file of bytes, split, and augmented by whole batches."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.task import BenchError, first_line, one_of, seed_for
from tasks import cache, hub
from tasks.images import Splits, held_out


@dataclass(frozen=True)
class Source:
    """What is known of a data set before it is read. ``mean`` and ``std`` are of pixels in [0, 1], one a channel; its
    files are in folder ``part`` of the hub's ``repository``, ``test`` what those of its test images begin with."""

    title: str
    classes: int
    pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    repository: str = ""
    part: str = "data"
    image: str = "image"
    label: str = "label"
    test: str = "test"
    jpeg: bool = False
    """Whether the data set was published as JPEG."""
    flip: bool = True
    """Whether a mirrored image is of the same class."""


def noise(of: str, classes: int, pixels: int) -> Source:
    """Return uniform noise with another data set's shapes."""
    title = f"Noise of {of}'s shapes, which measures untrained networks and says nothing about {of}"
    return Source(title, classes, pixels, (0.5,) * 3, (0.29,) * 3)


SOURCES = {
    "cifar10": Source("CIFAR-10", 10, 32, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262), "uoft-cs/cifar10", "plain_text", "img"),
    "cifar100": Source(
        "CIFAR-100", 100, 32, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276), "uoft-cs/cifar100", "cifar100", "img", "fine_label"
    ),
    "mnist": Source("MNIST", 10, 28, (0.131,), (0.308,), "ylecun/mnist", "mnist", flip=False),
    "fashion_mnist": Source("Fashion-MNIST", 10, 28, (0.286,), (0.353,), "zalando-datasets/fashion_mnist", "fashion_mnist"),
    "tiny_imagenet": Source(
        "Tiny-ImageNet", 200, 64, (0.48, 0.448, 0.398), (0.277, 0.269, 0.282), "zh-plus/tiny-imagenet", test="valid", jpeg=True
    ),
    "digits": Source("scikit-learn digits", 10, 8, (0.305,), (0.376,), flip=False),
    "cifar100_shapes": noise("CIFAR-100", 100, 32),
    "tiny_imagenet_shapes": noise("Tiny-ImageNet", 200, 64),
    "imagenet_shapes": noise("ImageNet", 1000, 224),
}

ALSO = {"img": ("image",), "image": ("img",), "fine_label": ("label", "labels"), "label": ("labels",)}
"""Other names of columns."""
SPLITS = ("train", "test")
"""The published splits; ``val`` is cut from train."""


@dataclass(frozen=True)
class Images:
    """One split: ``pixels`` (N, H, W, C) uint8, the memory order of channels-last; ``labels`` (N,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor, device: torch.device) -> Self:
        """Return the images at ``index``, on ``device``."""
        return replace(self, pixels=self.pixels[index].to(device), labels=self.labels[index].to(device))


def source(name: str) -> Source:
    """Return the data set called ``name``."""
    return SOURCES[one_of("data set", name, SOURCES)]


def load(config: Mapping[str, Any], device: torch.device) -> Splits:
    """Return the data of the config section ``data``: downsampled to ``size``, with ``validation`` images held out of the
    training images by ``split_seed``. BenchError where the data is missing or does not fit the config."""
    known = source(config["name"])
    size = int(config["size"])
    if size not in (known.pixels, known.pixels // 2):
        raise BenchError(
            f"data.size is {size}; {known.title} can be had at {known.pixels} or {known.pixels // 2} pixels: set "
            f"data.size={known.pixels // 2}"
        )
    if config["name"] == "digits":
        tensors, facts = _digits(config)
    else:
        tensors, facts = _cached(known, config, size) if known.repository else _noise(known, config)
    train, test = (Images(tensors[f"{s}.pixels"], tensors[f"{s}.labels"].long()) for s in SPLITS)
    held = int(config["validation"])
    if not 0 < held < len(train):
        raise BenchError(f"data.validation is {held}; it must leave some of the {len(train)} training images")
    train_index, val_index = held_out(len(train), held, seed_for(config["split_seed"], "split"))
    note = known.title + (" (JPEG copy)" if facts["jpeg"] and not known.jpeg else "")
    note += f", {known.test} images for testing" if known.test not in SPLITS else ""
    note += f", downsampled to {size}x{size}" if size < known.pixels else ""
    identity = json.dumps([facts["sha256"], config["split_seed"], held])
    parts = (train.take(train_index, device), train.take(val_index, device), test.take(torch.arange(len(test)), device))
    return Splits(*parts, known.classes, note, hashlib.sha256(identity.encode()).hexdigest())


def augment(padded: Tensor, index: Tensor, offsets: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crops of size x size, a whole batch in one gather. padded (N, P, P, C), index (B,) of its images, offsets (B, 2) of the
    crops' top left corners, mirrored (B,) bool: reverse the columns -> (B, size, size, C)"""
    steps = torch.arange(size, device=index.device)
    rows = offsets[:, :1] + steps
    columns = offsets[:, 1:] + torch.where(mirrored[:, None], steps.flip(0), steps)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def pad(pixels: Tensor, by: int) -> Tensor:
    """Return images with black borders of ``by`` pixels: (N, H, W, C) -> (N, H + 2 by, W + 2 by, C)."""
    return F.pad(pixels, (0, 0, by, by, by, by))


def halve(pixels: Tensor) -> Tensor:
    """Return the mean of every 2x2 square, rounded: (N, H, W, C) uint8 -> (N, H/2, W/2, C) uint8."""
    n, height, width, channels = pixels.shape
    squares = pixels.reshape(n, height // 2, 2, width // 2, 2, channels)
    return ((squares.sum((2, 4), dtype=torch.int16) + 2) // 4).to(torch.uint8)


def _digits(config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return 1,797 digits of 8x8 pixels from scikit-learn; the ``test`` last of a fixed permutation are for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)[..., None]
    labels = torch.from_numpy(bunch.target)
    if int(config["size"]) < 8:
        pixels = halve(pixels)
    generator = torch.Generator().manual_seed(seed_for(config["split_seed"], "test"))
    order = torch.randperm(len(labels), generator=generator)
    parts = {"train": order[: -int(config["test"])], "test": order[-int(config["test"]) :]}
    tensors = {f"{s}.{what}": t[i] for s, i in parts.items() for what, t in (("pixels", pixels), ("labels", labels))}
    return tensors, {"jpeg": False, "sha256": cache.digest(tensors)}


def _noise(known: Source, config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return ``train`` and ``test`` images of random bytes, with classes in turn."""
    tensors, size = {}, int(config["size"])
    for split in SPLITS:
        count, generator = int(config[split]), torch.Generator().manual_seed(seed_for(config["split_seed"], split))
        tensors[f"{split}.pixels"] = torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=generator)
        tensors[f"{split}.labels"] = torch.arange(count) % known.classes
    return tensors, {"jpeg": False, "sha256": cache.digest(tensors)}


def _cached(known: Source, config: Mapping[str, Any], size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the decoded images, cached under a name made of their source files."""
    folder = hub.dataset(known.repository, known.part, ("train", known.test), config["root"])
    return cache.kept(f"{config['name']}-{size}-{_content(known, folder)[:16]}", lambda: _decode(known, folder, size))


def _content(known: Source, folder: Path) -> str:
    """Return the sha256 over the names and bytes of the data files in ``folder``."""
    sha = hashlib.sha256()
    for file in sorted(file for split in ("train", known.test) for file in hub.files(folder, split)):
        sha.update(file.name.encode())
        with file.open("rb") as stream:
            sha.update(hashlib.file_digest(stream, "sha256").digest())
    return sha.hexdigest()


def _decode(known: Source, folder: Path, size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return every image of both splits at ``size`` pixels, and whether they were JPEG."""
    import numpy as np
    from PIL import Image

    tensors, jpeg = {}, False
    channels = len(known.mean)
    for split, published in zip(SPLITS, ("train", known.test), strict=True):
        rows = hub.read(folder, published, (known.image, known.label), ALSO)
        try:
            encoded = [image["bytes"] for image in rows[known.image].to_pylist()]
            labels = torch.tensor(rows[known.label].to_pylist())
            pixels = np.empty((len(encoded), known.pixels, known.pixels, channels), np.uint8)
            for i, image in enumerate(encoded):
                picture = Image.open(io.BytesIO(image)).convert("RGB" if channels == 3 else "L")
                pixels[i] = np.asarray(picture).reshape(picture.height, picture.width, channels)
        except (OSError, ValueError, TypeError) as error:
            raise BenchError(
                f"{published} in {folder} is not {known.title} as the hub has it, {known.pixels} pixel images "
                f"and numbers for labels ({first_line(error)})"
            ) from None
        whole = torch.from_numpy(pixels)
        tensors[f"{split}.pixels"] = whole if size == known.pixels else halve(whole)
        tensors[f"{split}.labels"] = labels.to(torch.uint8)
        jpeg = jpeg or any(image.startswith(b"\xff\xd8") for image in encoded)
    return tensors, {"jpeg": jpeg}
