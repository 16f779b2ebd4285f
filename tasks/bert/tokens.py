"""Token numbers of a split: computed once, cached under a name made of their content, cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.task import BenchError
from tasks import cache

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PAD_MULTIPLE = 8
"""Batches are padded to a multiple of this many tokens, because kernels are faster at such lengths and fewer shapes occur."""
AT_ONCE = 10_000
"""The number of texts tokenised at a time, because encodings are large Python objects."""


@dataclass(frozen=True)
class Texts:
    """Examples of one split: one list for each text column, and labels (n,), int64 class numbers or float32 scores."""

    columns: tuple[list[str], ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Texts:
        """Return the examples at ``index``, in its order."""
        return Texts(tuple([column[i] for i in index] for column in self.columns), self.labels[index])


@dataclass(frozen=True)
class Encoded:
    """Examples laid end to end: tokens (total,) int32, segments (total,) uint8, ends (n,) int64, labels (n, ...); None where
    a task draws its labels from the tokens."""

    tokens: np.ndarray
    segments: np.ndarray
    ends: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of tokens of every example, (n,)."""
        return np.diff(self.ends, prepend=0)

    def update(self, sha) -> None:
        """Feed everything into a hash."""
        for array in (self.tokens, self.segments, self.ends, *([] if self.labels is None else [self.labels])):
            sha.update(f"{array.dtype}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)

    def batch(self, index: np.ndarray, device: torch.device, pad: int) -> dict[str, Tensor]:
        """Return the examples at ``index``, padded: input_ids, token_type_ids, attention_mask (b, longest) and labels (b,
        ...)."""
        lengths = self.lengths[index]
        width = -(-int(lengths.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
        mask = np.arange(width) < lengths[:, None]
        ids, segments = np.full(mask.shape, pad, dtype=np.int64), np.zeros(mask.shape, dtype=np.int64)
        spans = [slice(end - length, end) for end, length in zip(self.ends[index], lengths, strict=True)]
        ids[mask] = np.concatenate([self.tokens[s] for s in spans])
        segments[mask] = np.concatenate([self.segments[s] for s in spans])
        arrays = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask.astype(np.int64)}
        if self.labels is not None:
            arrays["labels"] = self.labels[index]
        return {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}


def encode(texts: Texts, tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Tokenise, or read the result of an earlier call. Pairs get segment numbers 0 and 1 and are cut longest first."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    arrays = kept("tokens", _key(texts.columns, tokenizer), lambda: _tokenise(texts.columns, tokenizer))
    return Encoded(**arrays, labels=texts.labels)


class Marks(NamedTuple):
    """What a tokenizer calls the tokens at the start and the end of an example, and in place of a masked one."""

    cls: str
    sep: str
    mask: str


BERT_MARKS = Marks("[CLS]", "[SEP]", "[MASK]")


def blocks(texts: list[str], tokenizer: Tokenizer, length: int, marks: Marks = BERT_MARKS) -> Encoded:
    """Return running text cut into blocks of ``length`` tokens, [CLS] and [SEP] included, regardless of where a text ends; the
    last block is shorter. It is tokenised, or read from the result of an earlier call."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    arrays = kept(f"blocks-{length}", _key((texts,), tokenizer), lambda: _cut(texts, tokenizer, length, marks))
    return Encoded(**arrays, labels=None)


def number(tokenizer: Tokenizer, mark: str) -> int:
    """Return the token number of ``mark``, such as [MASK]. BenchError where the vocabulary has none."""
    found = tokenizer.token_to_id(mark)
    if found is None:
        raise BenchError(f"the model's tokenizer has no token {mark}: it is not BERT's; fetch the model's folder again")
    return found


def kept(kind: str, key: Iterable[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the result of ``make``, cached under a name made of ``kind`` and of the text in ``key``."""
    sha = hashlib.sha256()
    for text in key:
        sha.update(text.encode())
    made, _ = cache.kept(f"{kind}/{sha.hexdigest()}", lambda: ({n: torch.from_numpy(a) for n, a in make().items()}, {}))
    return {name: tensor.numpy() for name, tensor in made.items()}


def _key(columns: tuple[list[str], ...], tokenizer: Tokenizer) -> list[str]:
    """Return all that the tokens of columns of text depend on."""
    return [tokenizer.to_str(), *("\0".join([str(len(column)), *column]) for column in columns)]


def _encodings(tokenizer: Tokenizer, examples: list[Any], marks: bool) -> Iterator[Encoding]:
    """Tokenise texts or pairs of texts, with or without the marks at their ends."""
    for start in range(0, len(examples), AT_ONCE):
        yield from tokenizer.encode_batch(examples[start : start + AT_ONCE], add_special_tokens=marks)


def _cut(texts: list[str], tokenizer: Tokenizer, length: int, marks: Marks) -> dict[str, np.ndarray]:
    running = np.concatenate([np.array(one.ids, dtype=np.int32) for one in _encodings(tokenizer, texts, False)])
    cls, sep = (np.array([number(tokenizer, mark)], dtype=np.int32) for mark in (marks.cls, marks.sep))
    parts = chunks(running, length - 2)
    tokens = np.concatenate([piece for part in parts for piece in (cls, part, sep)])
    ends = np.cumsum([len(part) + 2 for part in parts], dtype=np.int64)
    return {"tokens": tokens, "segments": np.zeros(len(tokens), dtype=np.uint8), "ends": ends}


def _tokenise(columns: tuple[list[str], ...], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    examples = list(columns[0] if len(columns) == 1 else zip(*columns, strict=True))
    tokens, segments = [], []
    for one in _encodings(tokenizer, examples, True):
        tokens.append(np.array(one.ids, dtype=np.int32))
        segments.append(np.array(one.type_ids, dtype=np.uint8))
    ends = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
    return {"tokens": np.concatenate(tokens), "segments": np.concatenate(segments), "ends": ends}


def training_order(lengths: np.ndarray, size: int, group: int, seed: int) -> list[np.ndarray]:
    """Return the indices of every batch of an epoch. They are shuffled, then sorted by length inside runs of ``group`` batches,
    so that little is padded; then the batches are shuffled. ``group`` 1 is a plain shuffle."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    runs = (order[i : i + size * group] for i in range(0, len(order), size * group))
    batches = [part for run in runs for part in chunks(run[np.argsort(lengths[run], kind="stable")], size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def chunks(index: np.ndarray, size: int) -> list[np.ndarray]:
    """Return ``index`` cut into pieces of ``size``; the last piece may be shorter."""
    return [index[i : i + size] for i in range(0, len(index), size)]
