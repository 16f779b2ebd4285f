"""Texts to model, from a data set of the hub, from files, or generated, split for training, validation and test."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.task import BenchError, first_line
from tasks import hub
from tasks.bert import sentences


def splits(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return ``train``, ``val`` and ``test``: each text once and in one split only, in the order of the source. ``config["val"]``
    and ``config["test"]`` name splits, or are shares of the training texts, drawn from ``split_seed`` alone."""
    named = {part: config[part] for part in ("val", "test") if isinstance(config[part], str)}
    if named and "repository" not in config:
        raise BenchError(f"data {config['name']} has no splits of its own: set data.{min(named)} to a share, such as 0.05")
    texts = {part: _stored(config, split) for part, split in named.items()}
    held_out = set().union(*texts.values())
    whole = [text for text in _training(config) if text not in held_out]
    rng, left = np.random.default_rng(int(config["split_seed"])), np.ones(len(whole), dtype=bool)
    order = rng.permutation(len(whole))
    for part in ("val", "test"):
        if part not in named:
            size = round(float(config[part]) * len(whole))
            index, order = np.sort(order[:size]), order[size:]
            texts[part], left[index] = [whole[i] for i in index], False
    if config["train_limit"] is not None:
        left[order[max(0, int(config["train_limit"])) :]] = False
    texts["train"] = [text for text, kept in zip(whole, left, strict=True) if kept]
    for part, found in texts.items():
        if not found:
            raise BenchError(
                f"split {part} of {config['name']} has no text: data.val={config['val']}, "
                f"data.test={config['test']}, data.train_limit={config['train_limit']} leave none of {len(whole)}"
            )
    return texts


def _training(config: Mapping[str, Any]) -> list[str]:
    if "repository" in config:
        return _stored(config, "train")
    if "path" in config:
        return _lines(Path(config["path"]).expanduser())
    return _texts(sentences.generate(int(config["examples"]), 0)[0])


def _texts(found: list[str]) -> list[str]:
    """Return each text once, without those of white space alone."""
    return list(dict.fromkeys(text for text in found if text.strip()))


def _stored(config: Mapping[str, Any], split: str) -> list[str]:
    """Return a split with all its parts and columns, from the mirror, the hub's cache or the hub."""
    found: list[str] = []
    for part in config["parts"]:
        rows = hub.read(hub.dataset(config["repository"], part, (split,), config["root"]), split, config["columns"])
        for column in config["columns"]:
            found += rows[column].to_pylist()
    return _texts(found)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file, or of all *.txt files of a folder by name."""
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise BenchError(f"no *.txt in {path}: set data.path to a text file, or a folder of them")
    try:
        return _texts([line for file in files for line in file.read_text(encoding="utf-8").splitlines()])
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"data.path={path} cannot be read as UTF-8 text ({first_line(error)})") from None
