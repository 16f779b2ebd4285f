"""SQuAD v1.1 and one generated data set: questions, texts, answers, splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.task import BenchError, one_of
from tasks import hub

REPOSITORY, PART = "rajpurkar/squad", "plain_text"
DATA = ("squad", "phrases")


@dataclass(frozen=True)
class Questions:
    """Questions of one split, four lists of one length: the article's title, the question, the text it is asked about, and
    the right answers, each with the character it starts at."""

    titles: list[str]
    questions: list[str]
    contexts: list[str]
    answers: list[tuple[tuple[str, int], ...]]

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, index: np.ndarray) -> "Questions":
        """Return the questions at ``index``, in its order."""
        return Questions(*([column[i] for i in index] for column in (self.titles, self.questions, self.contexts, self.answers)))


def splits(config: Mapping[str, Any]) -> dict[str, Questions]:
    """Return ``train``, ``val`` (whole articles of the training set, so that no text is in both) and ``test`` (the dev set). All
    draws are from ``split_seed`` alone, never from a run's seed."""
    name = config["name"]
    one_of("data", name, DATA)
    for key in ("n_best", "max_answer"):
        if int(config[key]) < 1:
            raise BenchError(f"data.{key}={config[key]} leaves no answer to choose: set 1 or more")
    raw = _generated(config) if name == "phrases" else _stored(config["root"])
    for split, questions in raw.items():
        if not len(questions):
            raise BenchError(f"split {split} of {name} has no questions")
    whole, wanted = raw["train"], min(float(config["val"]) * len(raw["train"]), int(config["val_max"]))
    rng = np.random.default_rng(int(config["split_seed"]))
    article = np.unique(whole.titles, return_inverse=True)[1]
    order = rng.permutation(article.max() + 1)
    behind = np.cumsum(np.bincount(article)[order])  # questions in the articles up to each
    held_out = np.isin(article, order[: np.searchsorted(behind, wanted) + 1]) if wanted > 0 else np.zeros(len(whole), bool)
    if held_out.all() or not held_out.any():
        raise BenchError(
            f"{name} has {len(whole)} training questions in {len(order)} articles: data.val={config['val']} leaves "
            f"{held_out.sum()} for val and {(~held_out).sum()} for train; both need an article"
        )
    return {
        "train": _subset(whole.take(np.flatnonzero(~held_out)), config, "train_limit", rng),
        "val": whole.take(np.flatnonzero(held_out)),
        "test": _subset(raw["validation"], config, "test_limit", np.random.default_rng(int(config["split_seed"]))),
    }


def _subset(questions: Questions, config: Mapping[str, Any], key: str, rng: np.random.Generator) -> Questions:
    if config[key] is None:
        return questions
    if int(config[key]) < 1:
        raise BenchError(f"data.{key}={config[key]} leaves no question: set 1 or more, or null for all")
    return questions.take(np.sort(rng.permutation(len(questions))[: int(config[key])]))


def _generated(config: Mapping[str, Any]) -> dict[str, Questions]:
    from . import phrases

    count = int(config["examples"])
    return {"train": phrases.generate(count, 0), "validation": phrases.generate(count // 4, 1)}


def _stored(root: str | None) -> dict[str, Questions]:
    """Return the labelled splits, from the mirror, the hub's cache or the hub."""
    splits = ("train", "validation")
    folder = hub.dataset(REPOSITORY, PART, splits, root)
    return {split: _read(folder, split) for split in splits}


def _read(folder: Path, split: str) -> Questions:
    """Return a split. BenchError where it cannot be read, or where a question has no answer in its text."""
    rows = hub.read(folder, split, ("title", "context", "question", "answers"))
    titles, contexts, questions, answers = (rows[name].to_pylist() for name in ("title", "context", "question", "answers"))
    if any(text is None for column in (contexts, questions, answers) for text in column):
        raise BenchError(f"{split} in {folder} has a row without context, question or answers: get the files again")
    spans = [tuple(zip(a["text"], a["answer_start"], strict=True)) for a in answers]
    for question, context, right in zip(questions, contexts, spans, strict=True):
        if not right or any(start < 0 or context[start : start + len(text)] != text for text, start in right):
            raise BenchError(
                f"{split} in {folder} has a question without an answer in its text ({question[:60]!r}): this task "
                "takes SQuAD v1.1, where each has one"
            )
    return Questions(titles, questions, contexts, spans)
