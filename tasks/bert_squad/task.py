"""SQuAD v1.1 with a BERT encoder, fine-tuned as in Chen et al. 2020 (The Lottery Ticket Hypothesis for Pre-trained BERT)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.task import Metric, evaluating
from tasks.bert import encoder
from tasks.bert.task import BertTask, described, inputs

from . import metrics, squad, windows


class BertSquad(BertTask):
    """Questions whose answer is a span of a text x one BERT encoder. An example is a window of the text, its labels (b, 2) the
    first and last token of the answer."""

    head = "QuestionAnswering"
    scores = ("start_logits", "end_logits")
    evaluation_batch = 32
    metric = Metric("f1")

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        note = "SQuAD v1.1: the official dev set is reported as test; val is whole articles of the training set."
        self.about, limit = described(config["data"], note, "questions"), config["data"]["test_limit"]
        if limit is not None and self.about == note:
            self.about += f" Tested on a fixed subset of {limit} questions."

    @cached_property
    def splits(self) -> dict[str, windows.Windows]:
        """Return every split, tokenised and cut into windows."""
        data, length = self.config["data"], self.max_length
        how = (self.checkpoint.tokenizer, length, int(data["max_question"]), int(data["stride"]), self.marks)
        return {split: windows.encode(questions, *how) for split, questions in squad.splits(data).items()}

    def _logits(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the scores of every token as start and as end of the answer, (b, n) float32 each; padding has -inf."""
        with self.autocast():
            output = model(**inputs(batch))
        padding = batch["attention_mask"] == 0
        return tuple(logits.float().masked_fill(padding, -torch.inf) for logits in (output.start_logits, output.end_logits))

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        starts, ends = self._logits(model, batch)
        return (F.cross_entropy(starts, batch["labels"][:, 0]) + F.cross_entropy(ends, batch["labels"][:, 1])) / 2

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        rights = [[text for text, _ in right] for right in self.splits[split].questions.answers]
        return metrics.scores(self.answers(model, split), rights)

    def answers(self, model: nn.Module, split: str) -> list[str]:
        """Return the model's answer to every question of a split."""
        data = self.splits[split]
        scores: list[tuple[np.ndarray, np.ndarray]] = [None] * len(data)
        with evaluating(model):
            for index, batch in zip(self.indices(split, 0, 0), self.batches(split, 0, 0), strict=True):
                starts, ends = (logits.cpu().numpy() for logits in self._logits(model, batch))
                for row, window in enumerate(index):
                    length = data.lengths[window]
                    scores[window] = starts[row, :length], ends[row, :length]
        options, behind, found = self.config["data"], np.searchsorted(data.of, np.arange(len(data.questions) + 1)), []
        for i, context in enumerate(data.questions.contexts):
            own = range(behind[i], behind[i + 1])
            start, end = windows.best(
                *zip(*(scores[w] for w in own), strict=True),
                [data.characters[data.span(w)] for w in own],
                int(options["n_best"]),
                int(options["max_answer"]),
            )
            found.append(context[start:end])
        return found

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        lengths = self.splits["test"].lengths
        return encoder.macs(model, density, lengths, head=model.qa_outputs.weight.numel() * float(lengths.mean()))
