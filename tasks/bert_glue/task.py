"""GLUE with a BERT encoder, fine-tuned as in Chen et al. 2020 (The Lottery Ticket Hypothesis for Pre-trained BERT)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.task import Ability, BenchError, Metric, evaluating
from bench.task.capabilities import HasProbe
from bench.task.examples import pick
from tasks.bert import encoder, tokens
from tasks.bert.task import BertTask, described, inputs

from . import glue
from .metrics import METRICS

SHORTEST = 8
"""The number of tokens that an example must have room for: two texts and the marks at their ends."""
EXAMPLE_BATCH = 16


class BertGlue(BertTask):
    """One GLUE data set x one BERT encoder. A batch is a dict of tensors: input_ids, token_type_ids, attention_mask
    (b, n) and labels (b,), class numbers or raw scores."""

    head = "SequenceClassification"

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        data = config["data"]
        self.source = glue.source(data["name"])
        self.metric, self.metrics = Metric(self.source.metrics[0]), self.source.metrics
        self.regression = not self.source.labels
        self.outputs = len(self.source.labels) or 1
        share = f"{100 * float(data['val']):g} % of its training set, {data['val_max']} examples at most"
        note = f"GLUE {data['name']}: the official dev set is reported as test (its test labels are hidden); val is {share}."
        self.about = described(data, note, "examples")

    @property
    def architecture(self):
        """With the names of the classes."""
        config = super().architecture
        if not self.regression:
            config.id2label = dict(enumerate(self.source.labels))
            config.label2id = {label: i for i, label in enumerate(self.source.labels)}
        return config

    @cached_property
    def splits(self) -> dict[str, tokens.Encoded]:
        """Return every split, tokenised."""
        length = self.max_length
        if length < SHORTEST:
            raise BenchError(f"data.max_length={length} leaves no room for a pair of texts: give {SHORTEST} or more")
        splits, tokenizer = glue.splits(self.config["data"]), self.checkpoint.tokenizer
        return {split: tokens.encode(texts, tokenizer, length) for split, texts in splits.items()}

    def _logits(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits (b, classes) in float32, or (b,) for a regression."""
        with self.autocast():
            logits = model(**inputs(batch)).logits.float()
        return logits.squeeze(-1) if self.regression else logits

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        measure = F.mse_loss if self.regression else F.cross_entropy
        return measure(self._logits(model, batch), batch["labels"])

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[dict[str, Tensor]]:
        """Return training sentences in two or more micro-batches; for a regression ``per_class`` sentences of any score."""
        data = self.splits["train"]
        labels = torch.zeros(len(data), dtype=torch.int64) if self.regression else torch.from_numpy(data.labels)
        index = pick(labels, self.outputs, per_class, seed, balanced)
        parts = index.tensor_split(max(2, -(-len(index) // EXAMPLE_BATCH)))
        return [self.batch(data, part.numpy()) for part in parts if len(part)]

    def summed_loss(self, model: nn.Module, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the summed cross-entropy, or the squared error, to which ``temperature`` does not apply."""
        logits = model(**inputs(batch)).logits
        if not self.regression:
            return F.cross_entropy(logits / temperature, batch["labels"], reduction="sum")
        if temperature != 1:
            raise BenchError(f"a regression has no logits to divide by the temperature {temperature:g}: set method.temperature=1")
        return F.mse_loss(logits.squeeze(-1), batch["labels"], reduction="sum")

    def probe(self, model: nn.Module) -> Tensor:
        """Return logits (1, classes) of one token of ones through the linearised network."""
        return model.classifier(encoder.linearised(model))

    def capability(self, kind: type[Ability]) -> Ability | None:
        """Without the probe where the encoder is no BERT: others have other heads and norms."""
        return None if kind is HasProbe and self.checkpoint.config.model_type != "bert" else super().capability(kind)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        predicted, labels = self._predict(model, split)
        result = {name: METRICS[name](predicted, labels) for name in self.source.metrics}
        if split == "test" and "test_mm" in self.splits:  # MNLI: genres the training set does not have
            result["accuracy_mm"] = METRICS["accuracy"](*self._predict(model, "test_mm"))
        return result

    def _predict(self, model: nn.Module, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted and true class numbers, or scores, of a split: (n,) each."""
        predicted, labels = [], []
        with evaluating(model):
            for batch in self.batches(split, epoch=0, seed=0):
                logits = self._logits(model, batch)
                predicted.append((logits if self.regression else logits.argmax(-1)).cpu().numpy())
                labels.append(batch["labels"].cpu().numpy())
        return np.concatenate(predicted), np.concatenate(labels)

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        return encoder.macs(model, density, self.splits["test"].lengths, head=encoder.head_macs(model))
