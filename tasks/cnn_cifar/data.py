"""Images in memory: read once through their loader, kept on disk as one file of bytes, split, augmented by whole batches."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.task import BenchError, seed_for, unknown


@dataclass(frozen=True)
class Source:
    """What is known of a data set before it is read. ``mean`` and ``std`` are of pixels in [0, 1], one a channel."""

    title: str
    classes: int
    pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    repository: str = ""
    label: str = "label"


SOURCES = {
    "cifar10": Source("CIFAR-10", 10, 32, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262), True, "uoft-cs/cifar10"),
    "cifar100": Source("CIFAR-100", 100, 32, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276), True, "uoft-cs/cifar100",
                       "fine_label"),
    "digits": Source("scikit-learn digits", 10, 8, (0.305,), (0.376,), False),  # a mirrored digit is no digit
}


@dataclass(frozen=True)
class Images:
    """One split: ``pixels`` (N, H, W, C) uint8, the memory order of channels-last; ``labels`` (N,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor, device: torch.device) -> Images:
        """The images at ``index``, on ``device``."""
        return Images(self.pixels[index].to(device), self.labels[index].to(device))


@dataclass(frozen=True)
class Splits:
    """The three splits, a line about what they are, and the sha256 of content and split."""

    train: Images
    val: Images
    test: Images
    note: str
    fingerprint: str


def source(name: str) -> Source:
    """The data set called ``name``."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


def load(config: Mapping[str, Any], device: torch.device) -> Splits:
    """The data of the config section ``data``: downsampled to ``size``, ``validation`` images held out of the training
    images by ``split_seed``. Raises BenchError where the data is missing or does not fit the config."""
    known = source(config["name"])
    size = int(config["size"])
    if size not in (known.pixels, known.pixels // 2):
        raise BenchError(f"data.size is {size}; {known.title} can be had at {known.pixels} or {known.pixels // 2} pixels")
    tensors, facts = _digits(config) if config["name"] == "digits" else _cached(known, config, size)
    train, test = (Images(tensors[f"{s}.pixels"], tensors[f"{s}.labels"].long()) for s in ("train", "test"))
    held = int(config["validation"])
    if not 0 < held < len(train):
        raise BenchError(f"data.validation is {held}; it must leave some of the {len(train)} training images")
    generator = torch.Generator().manual_seed(seed_for(config["split_seed"], "split"))
    order = torch.randperm(len(train), generator=generator)
    val_index, train_index = order[:held].sort().values, order[held:].sort().values
    everything = torch.arange(len(test))
    note = known.title + (" (JPEG copy)" if facts["jpeg"] else "")
    note += f", downsampled to {size}x{size}" if size < known.pixels else ""
    identity = json.dumps([facts["sha256"], config["split_seed"], held])
    return Splits(train.take(train_index, device), train.take(val_index, device), test.take(everything, device), note,
                  hashlib.sha256(identity.encode()).hexdigest())


def augment(padded: Tensor, index: Tensor, offsets: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crops of size x size, a whole batch in one gather.

    padded (N, P, P, C), index (B,) of its images, offsets (B, 2) of the crops' top left corners, mirrored (B,) bool:
    reverse the columns -> (B, size, size, C)
    """
    steps = torch.arange(size, device=index.device)
    rows = offsets[:, :1] + steps
    columns = offsets[:, 1:] + torch.where(mirrored[:, None], steps.flip(0), steps)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def pad(pixels: Tensor, by: int) -> Tensor:
    """Black borders of ``by`` pixels: (N, H, W, C) -> (N, H + 2 by, W + 2 by, C)."""
    return F.pad(pixels, (0, 0, by, by, by, by))


def halve(pixels: Tensor) -> Tensor:
    """Mean of every 2x2 square, rounded: (N, H, W, C) uint8 -> (N, H/2, W/2, C) uint8."""
    n, height, width, channels = pixels.shape
    squares = pixels.reshape(n, height // 2, 2, width // 2, 2, channels)
    return ((squares.sum((2, 4), dtype=torch.int16) + 2) // 4).to(torch.uint8)


def _digits(config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """1,797 digits of 8x8 pixels from scikit-learn, the ``test`` last of a fixed permutation for testing."""
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
    return tensors, {"jpeg": False, "sha256": _digest(tensors)}


def _cached(known: Source, config: Mapping[str, Any], size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The decoded images from the cache file made of these very source files, made now where it is missing or damaged."""
    folder = _folder(known, config["root"])
    home = Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "ticket-bench")
    path = home / f"{config['name']}-{size}-{_content(folder)[:16]}.safetensors"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"cannot keep decoded images in {home} ({error.strerror}): set BENCH_CACHE to a folder that "
                         "can be written") from None
    with FileLock(f"{path}.lock"):
        try:
            return _read(path)
        except (FileNotFoundError, SafetensorError, KeyError, ValueError):
            tensors, jpeg = _decode(known, folder, size)
            partial = path.with_suffix(".partial")
            save_file(tensors, partial, {"jpeg": json.dumps(jpeg), "sha256": json.dumps(_digest(tensors))})
            partial.replace(path)
            return _read(path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a cache file. Raises one of the errors above unless its content is what was written."""
    with safe_open(path, framework="pt") as file:
        facts = {key: json.loads(text) for key, text in file.metadata().items()}
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    if _digest(tensors) != facts["sha256"]:
        raise ValueError(f"{path} is damaged")
    return tensors, facts


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(json.dumps([name, list(tensors[name].shape), str(tensors[name].dtype)]).encode())
        sha.update(tensors[name].contiguous().numpy())
    return sha.hexdigest()


def _folder(known: Source, root: str | None) -> Path:
    """The data set's files: below ``root``, below $BENCH_DATA, or from the hub."""
    root = root or os.environ.get("BENCH_DATA")
    if root:
        folder = Path(root).expanduser() / known.repository
        if not folder.is_dir():
            raise BenchError(f"no {known.title} at {folder}: put the files of https://huggingface.co/datasets/"
                             f"{known.repository} there, or unset data.root and BENCH_DATA to download them")
        return folder
    from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(known.repository, repo_type="dataset", allow_patterns=["*.parquet", "*.md"]))
    except Exception as error:  # whatever the network may say
        raise BenchError(f"no {known.title}: data.root and BENCH_DATA are unset and {known.repository} cannot be had from "
                         f"the Hugging Face hub ({type(error).__name__}); set one of them to a folder with "
                         f"{known.repository} in it") from None


def _content(folder: Path) -> str:
    """sha256 over the names and bytes of the data files below ``folder``."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise BenchError(f"{folder} holds no .parquet files: it must be laid out as on the Hugging Face hub")
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            sha.update(hashlib.file_digest(stream, "sha256").digest())
    return sha.hexdigest()


def _decode(known: Source, folder: Path, size: int) -> tuple[dict[str, Tensor], bool]:
    """Every image of both splits at ``size`` pixels, and whether they came as JPEG."""
    import datasets
    import numpy as np
    from PIL import Image
    try:
        rows = datasets.load_dataset(str(folder))
        rows = rows.cast_column("img", datasets.Image(decode=False)).select_columns(["img", known.label])
        encoded = {split: rows[split]["img"] for split in ("train", "test")}
        labels = {split: torch.tensor(rows[split][known.label]) for split in ("train", "test")}
    except Exception as error:
        raise BenchError(f"{folder} is not {known.title} as the hub has it, splits train and test with columns img and "
                         f"{known.label} ({type(error).__name__}: {str(error).splitlines()[0]})") from None
    tensors = {}
    for split, images in encoded.items():
        pixels = np.empty((len(images), known.pixels, known.pixels, 3), np.uint8)
        for i, image in enumerate(images):
            pixels[i] = Image.open(io.BytesIO(image["bytes"])).convert("RGB")
        whole = torch.from_numpy(pixels)
        tensors[f"{split}.pixels"] = whole if size == known.pixels else halve(whole)
        tensors[f"{split}.labels"] = labels[split].to(torch.uint8)
    return tensors, encoded["train"][0]["bytes"].startswith(b"\xff\xd8")
