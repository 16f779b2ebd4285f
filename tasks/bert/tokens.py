"""Token numbers of a split: made once, kept on disk under a name made of their content, cut into batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tasks import cache

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD_MULTIPLE = 8
"""Batches are padded to a multiple of this many tokens: kernels like it, and there are fewer shapes to plan for."""


@dataclass(frozen=True)
class Texts:
    """Examples of one split: one list for each text column, and labels (n,), int64 class numbers or float32 scores."""

    columns: tuple[list[str], ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Texts:
        """The examples at ``index``, in its order."""
        return Texts(tuple([column[i] for i in index] for column in self.columns), self.labels[index])


@dataclass(frozen=True)
class Encoded:
    """Examples laid end to end: tokens (total,) int32, segments (total,) uint8, ends (n,) int64, labels (n,)."""

    tokens: np.ndarray
    segments: np.ndarray
    ends: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, (n,)."""
        return np.diff(self.ends, prepend=0)

    def update(self, sha) -> None:
        """Feed everything into a hash."""
        for array in (self.tokens, self.segments, self.ends, self.labels):
            sha.update(f"{array.dtype}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)

    def batch(self, index: np.ndarray, device: torch.device, pad: int) -> dict[str, Tensor]:
        """The examples at ``index``, padded: input_ids, token_type_ids, attention_mask (b, longest) and labels (b,)."""
        lengths = self.lengths[index]
        width = -(-int(lengths.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
        mask = np.arange(width) < lengths[:, None]
        ids, segments = np.full(mask.shape, pad, dtype=np.int64), np.zeros(mask.shape, dtype=np.int64)
        spans = [slice(end - length, end) for end, length in zip(self.ends[index], lengths, strict=True)]
        ids[mask] = np.concatenate([self.tokens[s] for s in spans])
        segments[mask] = np.concatenate([self.segments[s] for s in spans])
        arrays = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask.astype(np.int64),
                  "labels": self.labels[index]}
        return {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}


def encode(texts: Texts, tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Tokenise, or read what an earlier call kept. Pairs get segment numbers 0 and 1 and are cut longest first."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    sha = hashlib.sha256(tokenizer.to_str().encode())
    for column in texts.columns:
        sha.update("\0".join([str(len(column)), *column]).encode())
    tensors, _ = cache.kept(f"tokens/{sha.hexdigest()}", lambda: (_tokenise(texts, tokenizer), {}))
    return Encoded(**{name: tensor.numpy() for name, tensor in tensors.items()}, labels=texts.labels)


def _tokenise(texts: Texts, tokenizer: Tokenizer) -> dict[str, Tensor]:
    examples = list(texts.columns[0] if len(texts.columns) == 1 else zip(*texts.columns, strict=True))
    tokens, segments, lengths = [], [], []
    for start in range(0, len(examples), 10_000):  # encodings are large Python objects: bound their number
        made = tokenizer.encode_batch(examples[start:start + 10_000])
        lengths += [len(one) for one in made]
        tokens.append(np.concatenate([np.array(one.ids, dtype=np.int32) for one in made]))
        segments.append(np.concatenate([np.array(one.type_ids, dtype=np.uint8) for one in made]))
    arrays = {"tokens": np.concatenate(tokens), "segments": np.concatenate(segments),
              "ends": np.cumsum(lengths, dtype=np.int64)}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def training_order(lengths: np.ndarray, size: int, group: int, seed: int) -> list[np.ndarray]:
    """Indices of every batch of an epoch. Shuffled, then sorted by length inside runs of ``group`` batches, so that
    little is padded, then the batches shuffled. ``group`` 1: a plain shuffle."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    runs = (order[i:i + size * group] for i in range(0, len(order), size * group))
    batches = [part for run in runs for part in chunks(run[np.argsort(lengths[run], kind="stable")], size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def chunks(index: np.ndarray, size: int) -> list[np.ndarray]:
    """``index`` cut into pieces of ``size``; the last may be shorter."""
    return [index[i:i + size] for i in range(0, len(index), size)]
