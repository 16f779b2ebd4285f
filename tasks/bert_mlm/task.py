"""Masked language modelling with a BERT encoder, as in Chen et al. 2020 (The Lottery Ticket Hypothesis for Pre-trained BERT)."""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.task import BenchError, Metric, evaluating, seed_for
from tasks.bert import encoder, tokens
from tasks.bert.task import BertTask, described, inputs

from . import corpora, masking


class BertMlm(BertTask):
    """Blocks of running text x one BERT encoder, whose embeddings are the head's matrix. labels (b, n): the true token where it
    is to be predicted, else -100."""

    head = "MaskedLM"
    evaluation_batch = 32
    metric = Metric("accuracy")

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        self.rate = float(config["data"]["rate"])
        if not 0 < self.rate <= 1:
            raise BenchError(f"data.rate={self.rate:g} is no share of the tokens: it must lie in (0, 1]")
        note = "Masked language modelling: accuracy on the masked tokens; val and test are masked once and for all."
        self.about = described(config["data"], note, "texts")

    def identity(self) -> dict[str, Any]:
        """Return the identity as for every encoder, without the location of the text, whose content is in the fingerprint."""
        sections = super().identity()
        sections["data"].pop("path", None)
        return sections

    @cached_property
    def splits(self) -> dict[str, tokens.Encoded]:
        """Return every split, tokenised and cut into blocks."""
        length = self.max_length
        if length < 3:
            raise BenchError(f"data.max_length={length} leaves no token between the two marks of a block: set 3 or more")
        splits, how = corpora.splits(self.config["data"]), (self.checkpoint.tokenizer, length, self.marks)
        return {split: tokens.blocks(texts, *how) for split, texts in splits.items()}

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """Yield batches whose mask positions are sampled per example: per (seed, epoch) for training, fixed for val and test."""
        axes = (seed, "mask", epoch) if split == "train" else (0, "mask", split)
        batches = super().batches(split, epoch, seed, start)
        for index, batch in zip(self.indices(split, epoch, seed)[start:], batches, strict=True):
            ids, labels = batch["input_ids"].cpu().numpy(), np.full(batch["input_ids"].shape, masking.IGNORED)
            for row, example in enumerate(index):
                length = self.splits[split].lengths[example]
                ids[row, :length], labels[row, :length] = masking.masked(
                    ids[row, :length], self.rate, self._mask, self.checkpoint.config.vocab_size, seed_for(*axes, example)
                )
            yield batch | {"input_ids": torch.from_numpy(ids).to(self.device), "labels": torch.from_numpy(labels).to(self.device)}

    @cached_property
    def _mask(self) -> int:
        return tokens.number(self.checkpoint.tokenizer, self.marks.mask)

    def _logits(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (m, vocabulary) float32 and the m true tokens of the positions to be predicted alone, because the head is
        most of a small network."""
        wanted = batch["labels"] != masking.IGNORED
        with self.autocast():
            if model.config.model_type == "bert":
                logits = model.cls(model.bert(**inputs(batch)).last_hidden_state[wanted])
            else:  # other heads have other names: they see every position
                logits = model(**inputs(batch)).logits[wanted]
        return logits.float(), batch["labels"][wanted]

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return F.cross_entropy(*self._logits(model, batch))

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return the share of masked tokens that are predicted first, in percent, their mean loss, and its exponential."""
        right, loss, total = 0, 0.0, 0
        with evaluating(model):
            for batch in self.batches(split, epoch=0, seed=0):
                logits, true = self._logits(model, batch)
                right += int((logits.argmax(-1) == true).sum())
                loss += float(F.cross_entropy(logits, true, reduction="sum"))
                total += len(true)
        return {"accuracy": 100 * right / total, "loss": loss / total, "perplexity": math.exp(loss / total)}

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        lengths, head = self.splits["test"].lengths, encoder.head_macs(model)
        return encoder.macs(model, density, lengths, head * float(masking.count(lengths, self.rate).mean()))
