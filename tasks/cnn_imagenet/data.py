"""Images on disk, decoded when they are needed: a folder of classes, or the hub's parquet files."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from bench.task import BenchError, first_line, seed_for
from tasks import cache, hub
from tasks.images import Splits, held_out

ENDINGS = {".jpeg", ".jpg", ".png", ".bmp", ".webp"}
PUBLISHED = ("train", "val")
"""The published folders; the second one is reported as test."""
CROP = 0.875
"""The share of the shorter side that is used without augmentation: 224 of 256."""


@dataclass(frozen=True)
class Images:
    """One published split: the classes (N,) int64 of its images, and functions that give the bytes of an image, and its name for
    messages."""

    labels: Tensor
    read: Callable[[int], bytes]
    name: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Split:
    """The images at ``positions`` (M,) of a published split."""

    images: Images
    positions: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labels(self) -> Tensor:
        """The classes (M,) of the images."""
        return self.images.labels[self.positions]


def load(config: Mapping[str, Any]) -> Splits:
    """Return the data set of the config section ``data``. BenchError where it is missing or does not fit the config."""
    if config["name"] == "generated":
        title, (found, classes, files) = "Generated images", _folder(_generated(int(config["size"])))
    elif config["folder"]:
        folder = Path(config["folder"]).expanduser()
        title, (found, classes, files) = f"Images of folder {folder.name}", _folder(folder)
    elif config["name"] == "imagenet":
        title, (found, classes, files) = "ImageNet (ILSVRC 2012)", _hub(config["root"])
    else:
        raise BenchError(f"data {config['name']} has no data.folder: give the folder that holds train/<class>/ and val/<class>/")
    train, test = (found[split] for split in PUBLISHED)
    held = config["validation"]
    count = int(held) if held >= 1 else round(held * len(train))
    if not 0 < count < len(train):
        raise BenchError(f"data.validation is {held} of {len(train)} training images: hold out some and leave some")
    kept, val = held_out(len(train), count, seed_for(config["split_seed"], "validation"))
    parts = (Split(train, kept), Split(train, val), Split(test, torch.arange(len(test))))
    size, choice = int(config["size"]), json.dumps([files, held, config["split_seed"]])
    note = f"{title} at {size}x{size}; the published validation set is reported as test, val is cut from train"
    return Splits(*parts, classes, note, hashlib.sha256(choice.encode()).hexdigest())


def _folder(root: Path) -> tuple[dict[str, Images], int, list[tuple[str, int]]]:
    """Return the published splits, the number of classes, and every file with its size."""
    found, listed, classes = {}, [], None
    for split in PUBLISHED:
        folder = root / split
        if not folder.is_dir():
            raise BenchError(f"no folder {folder}: data.folder must hold train/<class>/ and val/<class>/ with images")
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())
        if classes is not None and names != classes:
            raise BenchError(f"{root} has other classes in val/ than in train/: {', '.join(sorted({*names} ^ {*classes})[:5])}")
        classes = names
        inside = ((path, number) for number, name in enumerate(classes) for path in sorted((folder / name).rglob("*")))
        paths = [(path, number) for path, number in inside if path.suffix.lower() in ENDINGS]
        if not paths:
            raise BenchError(f"no images below {folder}: files that end in {', '.join(sorted(ENDINGS))}")
        listed += [(path.relative_to(root).as_posix(), path.stat().st_size) for path, _ in paths]
        files = [str(path) for path, _ in paths]
        found[split] = Images(torch.tensor([label for _, label in paths]), partial(_file, files), files.__getitem__)
    return found, len(classes), listed


def _file(paths: list[str], position: int) -> bytes:
    return Path(paths[position]).read_bytes()


def _row(table: Any, position: int) -> bytes:
    return table[position]["image"]["bytes"]


def _hub(root: str | None) -> tuple[dict[str, Images], int, list[tuple[str, int]]]:
    """Return the same for ImageNet in the hub's layout."""
    from datasets import Dataset, Image

    folder = hub.dataset("ILSVRC/imagenet-1k", "data", ("train", "validation"), root)
    found, listed = {}, []
    for split, published in zip(PUBLISHED, ("train", "validation"), strict=True):
        files = sorted(folder.glob(f"{published}-*.parquet"))
        if not files:
            raise BenchError(f"no {published}-*.parquet in {folder}: fetch that folder again")
        table = Dataset.from_parquet([str(file) for file in files]).cast_column("image", Image(decode=False))
        labels = np.concatenate([chunk.to_numpy() for chunk in table.data.column("label").chunks])
        listed += [(file.name, file.stat().st_size) for file in files]
        name = partial("image {1} of {0}".format, f"{published} in {folder}")
        found[split] = Images(torch.from_numpy(labels), partial(_row, table), name)
    return found, int(found["train"].labels.max()) + 1, listed


class Decoder:
    """Indices (B,) into a split -> (B, 3, size, size) bytes and their classes (B,), or what is wrong with an image: a loader's
    worker would wrap what is raised in its own traceback.

    drawn  (seed, epoch) of a random crop of 8 to 100 % of the area and a random mirroring, which depend on these and the image
           alone; None: the middle
    skip   the next image of the split stands in for one of ``drawn`` that cannot be read, so that batches stay full; where
           nothing is drawn it is left out
    """

    def __init__(self, split: Split, size: int, drawn: tuple[int, int] | None, skip: bool):
        self.split, self.drawn, self.skip = split, drawn, skip
        self.view = _view(size, augmented=drawn is not None)

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | BenchError:
        read = []
        try:
            for index in indices:
                try:
                    read.append(self.one(index))
                except BenchError:
                    if not self.skip:
                        raise
                    if self.drawn:
                        read.append(self.stand_in(index))
            if not read:
                raise BenchError(
                    f"none of {len(indices)} images can be read, the first of which is "
                    f"{self.split.images.name(int(self.split.positions[indices[0]]))}"
                )
        except BenchError as error:
            return error
        pixels, labels = zip(*read, strict=True)
        return torch.stack(pixels), torch.tensor(labels)

    def one(self, index: int) -> tuple[Tensor, int]:
        """Return an image as (3, size, size) bytes and its class. BenchError that names the image if it cannot be read."""
        from PIL import Image as Pil
        from PIL import UnidentifiedImageError

        images, position = self.split.images, int(self.split.positions[index])
        try:
            image = Pil.open(io.BytesIO(images.read(position))).convert("RGB")
        except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
            why = "its format is unknown" if isinstance(error, UnidentifiedImageError) else first_line(error)
            raise BenchError(
                f"{images.name(position)} is no image that can be read ({why}): mend it, or leave such out with "
                "data.skip_broken=true"
            ) from None
        with torch.random.fork_rng(devices=[]):  # torchvision's draws are from the global state
            if self.drawn:
                seed, epoch = self.drawn
                torch.default_generator.manual_seed(seed_for(seed, "augment", epoch, position))
            return self.view(image), int(images.labels[position])

    def stand_in(self, index: int) -> tuple[Tensor, int]:
        """Return the next image that can be read."""
        for step in range(1, len(self.split)):
            try:
                return self.one((index + step) % len(self.split))
            except BenchError:
                continue
        raise BenchError(f"no image can be read, nor can {self.split.images.name(int(self.split.positions[index]))}")


def _view(size: int, augmented: bool) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    if augmented:
        return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    return v2.Compose([v2.Resize(round(size / CROP)), v2.CenterCrop(size), v2.PILToTensor()])


def _generated(size: int) -> Path:
    """Write a folder of 4 classes x (40 + 10) images: noise around a colour of the class."""
    from PIL import Image as Pil

    folder = cache.home() / f"generated-images-{size}"
    done = folder / "done"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not done.exists():
            draw = np.random.default_rng(0)
            colours = draw.uniform(40, 215, (4, 3))
            for split, count in zip(PUBLISHED, (40, 10), strict=True):
                for number, colour in enumerate(colours):
                    place = folder / split / f"class{number}"
                    place.mkdir(parents=True, exist_ok=True)
                    for i in range(count):
                        pixels = draw.normal(colour, 60, (size + 8, size + 4, 3)).clip(0, 255).astype(np.uint8)
                        Pil.fromarray(pixels).save(place / f"{i}.bmp")  # no compression whose version would change its size
            done.touch()
    return folder
