"""Questions and their texts as windows of tokens, and the way back from scores of tokens to a span of the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bench.task import BenchError
from tasks.bert.tokens import BERT_MARKS, Encoded, Marks, kept, number

from .squad import Questions

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Windows(Encoded):
    """Windows laid end to end: [CLS] question [SEP] part of the text [SEP]. labels (n, 2) int64: first and last token of the
    first right answer, both 0 where the window does not hold it whole."""

    of: np.ndarray
    """(n,) int64: the question that each window belongs to; the windows of one question are neighbours."""
    characters: np.ndarray
    """(total, 2) int32: the characters at which a token of the text begins and ends; -1 for any other token."""
    questions: Questions

    def update(self, sha) -> None:
        """Feed everything into a hash."""
        super().update(sha)
        sha.update(json.dumps([self.questions.contexts, self.questions.answers]).encode())

    def span(self, window: int) -> slice:
        """Return the slice of a window's tokens."""
        return slice(int(self.ends[window] - self.lengths[window]), int(self.ends[window]))


def encode(
    questions: Questions, tokenizer: Tokenizer, max_length: int, max_question: int, stride: int, marks: Marks = BERT_MARKS
) -> Windows:
    """Tokenise and cut into windows, or read what an earlier call kept. Windows start every ``stride`` tokens of the text."""
    between = _between(tokenizer)
    if not 1 <= stride <= max_length - max_question - 2 - between:
        raise BenchError(
            f"data.stride={stride} would leave tokens between windows unread: data.max_length={max_length} less "
            f"data.max_question={max_question} and {2 + between} marks leaves {max_length - max_question - 2 - between}"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    key = [tokenizer.to_str(), max_length, max_question, stride, questions.questions, questions.contexts, questions.answers]
    arrays = kept("windows", [json.dumps(key)], lambda: _cut(questions, tokenizer, max_length, max_question, stride, marks))
    return Windows(**arrays, questions=questions)


def _between(tokenizer: Tokenizer) -> int:
    """Return how many marks a tokenizer puts between two texts: BERT's one, RoBERTa's two."""
    return max(1, tokenizer.num_special_tokens_to_add(True) - 2)


def _cut(
    questions: Questions, tokenizer: Tokenizer, max_length: int, max_question: int, stride: int, marks: Marks
) -> dict[str, np.ndarray]:
    cls, sep = (number(tokenizer, mark) for mark in (marks.cls, marks.sep))
    between = _between(tokenizer)

    @lru_cache(maxsize=1)  # questions on one text follow each other
    def encoded(text: str) -> tuple[list[int], np.ndarray]:
        """Return the tokens (n,) of a text and their characters (n, 2)."""
        made = tokenizer.encode(text, add_special_tokens=False)
        return made.ids, np.array(made.offsets, dtype=np.int32).reshape(-1, 2)

    tokens, segments, characters, lengths, labels, of = [], [], [], [], [], []
    for i, (answer, begin) in enumerate(right[0] for right in questions.answers):
        asked = tokenizer.encode(questions.questions[i], add_special_tokens=False).ids[:max_question]
        ids, offsets = encoded(questions.contexts[i])
        first, last = token_span(offsets, begin, begin + len(answer))
        lead, room = len(asked) + 1 + between, max_length - len(asked) - 2 - between
        for start in range(0, max(1, len(ids) - room + stride), stride):
            part = slice(start, start + room)
            tokens.append(np.array([cls, *asked, *[sep] * between, *ids[part], sep], dtype=np.int32))
            length = len(tokens[-1])
            segments.append(np.arange(length) >= lead)
            characters.append(np.full((length, 2), -1, dtype=np.int32))
            characters[-1][lead:-1] = offsets[part]
            holds = start <= first <= last < start + room
            labels.append((lead + first - start, lead + last - start) if holds else (0, 0))
            lengths.append(length)
            of.append(i)
    return {
        "tokens": np.concatenate(tokens),
        "segments": np.concatenate(segments).astype(np.uint8),
        "ends": np.cumsum(lengths, dtype=np.int64),
        "labels": np.array(labels, dtype=np.int64),
        "of": np.array(of, dtype=np.int64),
        "characters": np.concatenate(characters),
    }


def token_span(characters: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """Return the first and the last of the tokens (n, 2) that touch characters ``start`` to ``end``; last < first where none
    does."""
    return int(np.searchsorted(characters[:, 1], start, side="right")), int(np.searchsorted(characters[:, 0], end)) - 1


def best(
    starts: Sequence[np.ndarray], ends: Sequence[np.ndarray], characters: Sequence[np.ndarray], n_best: int, max_answer: int
) -> tuple[int, int]:
    """Return the characters of the best answer over the windows of one question; (0, 0) where there is none.

    The best answer has the highest sum of a start's and an end's score, among the ``n_best`` of each in a window, in order, at
    most ``max_answer`` tokens long, within the text. starts, ends: scores (n,) of a window's tokens; characters: (n, 2) of the
    same, -1 outside the text.
    """
    found, highest = (0, 0), -np.inf
    for start, end, where in zip(starts, ends, characters, strict=True):
        firsts, lasts = (np.argsort(-scores, kind="stable")[:n_best] for scores in (start, end))
        length = lasts[None, :] - firsts[:, None] + 1
        allowed = (length >= 1) & (length <= max_answer) & (where[firsts, 0] >= 0)[:, None] & (where[lasts, 0] >= 0)
        total = np.where(allowed, start[firsts][:, None] + end[lasts], -np.inf)
        row, column = np.unravel_index(total.argmax(), total.shape)
        if total[row, column] > highest:
            highest, found = total[row, column], (int(where[firsts[row], 0]), int(where[lasts[column], 1]))
    return found
