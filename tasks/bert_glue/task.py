"""GLUE with a BERT encoder, fine-tuned as in Chen et al. 2020 (The Lottery Ticket Hypothesis for Pre-trained BERT)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from bench.examples import pick
from bench.task import BenchError, Maskable, Metric, Task, seed_for, unknown

from . import encoder, glue, tokens
from .metrics import METRICS

EVALUATION_BATCH = 128
EXAMPLE_BATCH = 16

CHOICES = {
    "model.start": ("pretrained", "init"),
    "model.scope": ("all", "encoder"),
    "train.precision": ("bf16", "fp32"),
}


class BertGlue(Task):
    """One GLUE data set x one BERT encoder. A batch is a dict of tensors: input_ids, token_type_ids, attention_mask
    (b, n) and labels (b,), class numbers or raw scores."""

    offers = frozenset({"examples"})

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        data = config["data"]
        self.source = glue.source(data["name"])
        self.metric = Metric(self.source.metrics[0])
        self.regression = not self.source.labels
        for key, choices in CHOICES.items():
            section, _, option = key.partition(".")
            if config[section][option] not in choices:
                raise unknown(key, str(config[section][option]), choices)
        self.pretrained = config["model"]["start"] == "pretrained"
        self.note = _note(data)

    def identity(self) -> dict[str, Any]:
        """As the contract has it, but a model goes by the last part of its name: it may be a folder, which is another
        one elsewhere. Its content is in the fingerprint."""
        sections = super().identity()
        sections["model"]["name"] = Path(sections["model"]["name"]).name
        return sections

    @cached_property
    def encoder(self) -> encoder.Tiny | encoder.Folder:
        """The encoder's files and architecture."""
        return encoder.encoder(self.config["model"]["name"], self.config["model"]["root"])

    @cached_property
    def splits(self) -> dict[str, tokens.Encoded]:
        """Every split, tokenised."""
        length = min(int(self.config["data"]["max_length"]), self.encoder.config.max_position_embeddings)
        return {split: tokens.encode(texts, self.encoder.tokenizer, length)
                for split, texts in glue.splits(self.config["data"]).items()}

    @cached_property
    def fingerprint(self) -> str:
        sha = hashlib.sha256(self.encoder.digest().encode())
        for name, split in sorted(self.splits.items()):
            sha.update(name.encode())
            split.update(sha)
        return sha.hexdigest()

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.splits["train"]) // self.batch_size)

    @cached_property
    def _architecture(self):
        """The encoder's, with a head for this data set."""
        config = copy.deepcopy(self.encoder.config)
        config.num_labels = 1 if self.regression else len(self.source.labels)
        return config

    def build(self, seed: int) -> nn.Module:
        make = self.encoder.load if self.pretrained else encoder.draw
        return encoder.seeded(make, self._architecture, seed).to(self.device)

    def reinit(self, seed: int) -> nn.Module:
        return encoder.seeded(encoder.draw, self._architecture, seed).to(self.device)

    def maskables(self, model: nn.Module) -> list[Maskable]:
        return encoder.maskables(model, self.config["model"]["scope"])

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        data = self.splits[split]
        if split == "train":
            order = tokens.training_order(data.lengths, self.batch_size, int(self.config["train"]["group"]),
                                          seed_for(seed, "data", epoch))
        else:  # by length, so that little is padded
            order = tokens.chunks(np.argsort(data.lengths, kind="stable"), EVALUATION_BATCH)
        for index in order[start:]:
            yield data.batch(index, self.device, pad=self.encoder.config.pad_token_id)

    def _logits(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """(b, classes) in float32; (b,) for a regression."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config["train"]["precision"] == "bf16"):
            logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits.float()
        return logits.squeeze(-1) if self.regression else logits

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        measure = F.mse_loss if self.regression else F.cross_entropy
        return measure(self._logits(model, batch), batch["labels"])

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[dict[str, Tensor]]:
        """Training sentences in two or more micro-batches; of a regression ``per_class`` whatever their score."""
        data = self.splits["train"]
        if self.regression:
            index = pick(torch.zeros(len(data), dtype=torch.int64), 1, per_class, seed, balanced)
        else:
            index = pick(torch.from_numpy(data.labels), len(self.source.labels), per_class, seed, balanced)
        parts = index.tensor_split(max(2, -(-len(index) // EXAMPLE_BATCH)))
        return [data.batch(part.numpy(), self.device, pad=self.encoder.config.pad_token_id) for part in parts if len(part)]

    def summed_loss(self, model: nn.Module, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Cross-entropy, or squared error, which knows no temperature."""
        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
        if not self.regression:
            return F.cross_entropy(logits / temperature, batch["labels"], reduction="sum")
        if temperature != 1:
            raise BenchError(f"a regression has no logits to divide by the temperature {temperature:g}: set method.temperature=1")
        return F.mse_loss(logits.squeeze(-1), batch["labels"], reduction="sum")

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        predicted, labels = self._predict(model, split)
        result = {name: METRICS[name](predicted, labels) for name in self.source.metrics}
        if split == "test" and "test_mm" in self.splits:  # MNLI: genres the training set does not have
            result["accuracy_mm"] = METRICS["accuracy"](*self._predict(model, "test_mm"))
        return result

    @torch.inference_mode()
    def _predict(self, model: nn.Module, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true class numbers, or scores, of a split: (n,) each."""
        training = model.training
        model.eval()
        predicted, labels = [], []
        for batch in self.batches(split, epoch=0, seed=0):
            logits = self._logits(model, batch)
            predicted.append((logits if self.regression else logits.argmax(-1)).cpu().numpy())
            labels.append(batch["labels"].cpu().numpy())
        model.train(training)
        return np.concatenate(predicted), np.concatenate(labels)

    def optimizer(self, model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        train = self.config["train"]
        optimizer = torch.optim.AdamW(model.parameters(), lr=float(train["lr"]), betas=(0.9, 0.999), eps=1e-8,
                                      weight_decay=float(train["weight_decay"]), fused=True)
        return optimizer, LambdaLR(optimizer, partial(_remaining, steps))

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        return encoder.macs(model, density, self.splits["test"].lengths)


def _remaining(steps: int, step: int) -> float:
    """Linear decay from 1 to 0, no warm-up."""
    return max(0.0, 1.0 - step / steps)


def _note(data: Mapping[str, Any]) -> str:
    name = data["name"]
    if name == "sentences":
        return "Generated sentences: shows that the machinery works, says nothing about language."
    share = f"{100 * float(data['val']):g} % of its training set, {data['val_max']} examples at most"
    note = f"GLUE {name}: the official dev set is reported as test (its test labels are hidden); val is {share}."
    if data["train_limit"] is not None:
        note += f" Trained on a fixed subset of {data['train_limit']} examples."
    return note
