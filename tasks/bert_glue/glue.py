"""The nine GLUE data sets and one generated one: texts, labels, splits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.task import BenchError, one_of
from tasks import hub
from tasks.bert import sentences
from tasks.bert.tokens import Texts

REPOSITORY = "nyu-mll/glue"


@dataclass(frozen=True)
class Source:
    """How a data set is laid out on the hub.

    title    its folder in the classic archive of tab-separated values
    columns  text columns, one or two
    labels   class names in the order of their numbers; none: a regression on the raw score
    metrics  official metrics; the first is the main one
    dev      split names of the labelled development sets; the main one first
    """

    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    dev: tuple[str, ...] = ("validation",)


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")
MATCHED = ("validation_matched", "validation_mismatched")
SOURCES = {
    "cola": Source("CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": Source("SST-2", ("sentence",), ("negative", "positive")),
    "mrpc": Source("MRPC", PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qqp": Source("QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "stsb": Source("STS-B", PAIR, (), ("pearson", "spearman")),
    "mnli": Source("MNLI", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), dev=MATCHED),
    "qnli": Source("QNLI", ("question", "sentence"), ENTAILMENT),
    "rte": Source("RTE", PAIR, ENTAILMENT),
    "wnli": Source("WNLI", PAIR, ENTAILMENT[::-1]),
    "sentences": Source("", ("sentence",), ("bad", "good")),
}

LABEL = ("labels", "gold_label", "score", "is_duplicate", "Quality")
FIRST = ("sentence1", "premise", "question1", "text1", "#1 String")
SECOND = ("sentence2", "hypothesis", "question2", "text2", "#2 String")
"""The names of columns in the classic archive and in other copies."""
COLA = ("source", "label", "star", "sentence")
"""The columns of the one data set of the classic archive that has no header."""


def source(name: str) -> Source:
    """Return the layout of data set ``name``. UsageError for an unknown one."""
    return SOURCES[one_of("data", name, SOURCES)]


def splits(config: Mapping[str, Any]) -> dict[str, Texts]:
    """Return ``train``, ``val`` (cut from the training set), ``test`` (the main dev set), and ``test_mm`` for MNLI. The cut and
    the subset of ``train_limit`` are drawn from ``split_seed`` alone, never from a run's seed."""
    name = config["name"]
    layout = source(name)
    raw = _generated(config) if name == "sentences" else _stored(name, layout, config["root"])
    for split, texts in raw.items():
        if not len(texts):
            raise BenchError(f"split {split} of {name} has no examples")
    whole = raw["train"]
    order = np.random.default_rng(int(config["split_seed"])).permutation(len(whole))
    held_out = min(round(float(config["val"]) * len(whole)), int(config["val_max"]))
    limit = config["train_limit"]
    left = len(whole) - held_out
    if held_out < 1 or left < 1 or (limit is not None and int(limit) < 1):
        raise BenchError(
            f"{name} has {len(whole)} training examples: data.val={config['val']} and "
            f"data.train_limit={limit} leave {held_out} for val and {left} for train; both need one"
        )
    chosen = order[held_out:] if limit is None else order[held_out : held_out + int(limit)]
    dev = layout.dev
    parts = {"train": whole.take(np.sort(chosen)), "val": whole.take(np.sort(order[:held_out])), "test": raw[dev[0]]}
    return parts | ({"test_mm": raw[dev[1]]} if len(dev) > 1 else {})


def _generated(config: Mapping[str, Any]) -> dict[str, Texts]:
    sizes = {"train": int(config["examples"]), "validation": int(config["examples"]) // 4}
    made = {split: sentences.generate(size, seed) for seed, (split, size) in enumerate(sizes.items())}
    return {split: Texts((texts,), np.array(labels, dtype=np.int64)) for split, (texts, labels) in made.items()}


def _stored(name: str, layout: Source, root: str | None) -> dict[str, Texts]:
    """Return the labelled splits, from the mirror, the hub's cache or the hub."""
    splits = ("train", *layout.dev)
    folder = hub.dataset(REPOSITORY, name, splits, root, layout.title)
    return {split: _texts(folder, split, layout) for split in splits}


def _texts(folder: Path, split: str, layout: Source) -> Texts:
    """Return a split as lists. BenchError where it cannot be read, or where labels are not those that this project expects."""
    also = dict(zip(layout.columns, (FIRST, SECOND) if len(layout.columns) == 2 else (("text",),), strict=True))
    header = COLA if layout.title == "CoLA" else ()
    rows = hub.read(folder, split, (*layout.columns, "label"), {**also, "label": LABEL}, header)
    columns = tuple(rows[column].to_pylist() for column in layout.columns)
    if any(text is None for column in columns for text in column):
        raise BenchError(f"{split} in {folder} has a row without text: get the files again")
    try:
        numbers = [_number(label, layout.labels) for label in rows["label"].to_pylist()]
        labels = np.array(numbers, dtype=np.int64 if layout.labels else np.float32)
        if not np.isfinite(labels).all():
            raise ValueError("not finite")
    except (TypeError, ValueError):
        known = f"class number, nor {' or '.join(layout.labels)}" if layout.labels else "number"
        raise BenchError(f"{split} in {folder} has a label that is no {known}: get the files again") from None
    described = json.loads((rows.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {}).values()
    names = next((feature["names"] for feature in features if isinstance(feature, dict) and "names" in feature), None)
    if names and tuple(names) != layout.labels:
        raise BenchError(f"the classes of {split} in {folder} are {names}, not {list(layout.labels)}")
    if layout.labels and len(labels) and not 0 <= labels.min() <= labels.max() < len(layout.labels):
        raise BenchError(f"the labels of {split} in {folder} run from {labels.min()} to {labels.max()}; -1 marks a hidden label")
    return Texts(columns, labels)


def _number(label: Any, classes: tuple[str, ...]) -> float:
    """Return a label as a number; one of ``classes`` may be given by its name. ValueError or TypeError for anything else."""
    if isinstance(label, str) and (name := label.strip().lower().replace("-", "_")) in classes:
        return classes.index(name)
    number = float(label)
    if classes and number != int(number):
        raise ValueError("between two classes")
    return number
