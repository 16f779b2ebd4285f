"""The common part of all tasks on a BERT encoder: network, prunable tensors, batches, precision and optimizer."""

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bench.task import BenchError, Maskable, Task, one_of, seed_for
from bench.task.capabilities import Call, CanShrink

from . import checkpoint, encoder, tokens

GENERATED = ("sentences", "phrases")
"""Names of data sets that are made here."""
CHOICES = {"model.start": ("pretrained", "init"), "model.scope": ("all", "encoder", "units")}


class BertTask(Task):
    """Texts x one BERT encoder under a head. A batch is a dict of tensors: input_ids, token_type_ids, attention_mask (b, n) and
    labels (b, ...)."""

    head: ClassVar[str]
    """The network of transformers under which the encoder is trained: ``AutoModelFor<head>``."""
    scores: ClassVar[tuple[str, ...]] = ("logits",)
    """What transformers calls that which the head puts out."""
    outputs: int = 2
    """The number of outputs of a head for labels."""
    about: str
    """One line about the data."""
    evaluation_batch: ClassVar[int] = 128

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        for key, choices in CHOICES.items():
            section, _, option = key.partition(".")
            one_of(key, config[section][option], choices)
        self.pretrained = config["model"]["start"] == "pretrained"
        if config["model"]["scope"] != "units":
            self.lacks = frozenset({CanShrink})

    def identity(self) -> dict[str, Any]:
        """Return the identity of the task, in which a model is named by the last part of its name, because it may be a folder
        that lies elsewhere on another machine. Its content is in the fingerprint."""
        sections = super().identity()
        sections["model"]["name"] = Path(sections["model"]["name"]).name
        return sections

    @cached_property
    def checkpoint(self) -> checkpoint.Tiny | checkpoint.Folder:
        """The encoder's files and architecture."""
        name = self.config["model"]["name"]
        return checkpoint.Tiny() if name == "tiny" else checkpoint.Folder(name, self.config["model"]["root"])

    @property
    def marks(self) -> tokens.Marks:
        """What the tokenizer calls its marks."""
        named = self.checkpoint.pretrained_tokenizer
        return tokens.Marks(named.cls_token, named.sep_token, named.mask_token)

    @property
    def note(self) -> str:
        """What the data is, and whether the network has a pooler that is not pre-trained."""
        used = self.head == "SequenceClassification" or self.config["model"]["scope"] == "all"
        drawn = used and self.pretrained and not self.checkpoint.pooled
        return self.about + (" The pooler is drawn from the seed: the model's files hold none." if drawn else "")

    @property
    @abstractmethod
    def splits(self) -> Mapping[str, tokens.Encoded]:
        """Return every split, tokenised; the same object every time."""

    @property
    def max_length(self) -> int:
        """The largest number of tokens of an example. BenchError where the encoder has no such position."""
        config = self.checkpoint.config
        length, positions = int(self.config["data"]["max_length"]), config.max_position_embeddings
        if encoder.FAMILIES[config.model_type].offset:
            positions -= config.pad_token_id + 1
        if length > positions:
            raise BenchError(
                f"data.max_length={length}, but {self.config['model']['name']} has {positions} positions: set "
                f"data.max_length={positions} or less"
            )
        return length

    @cached_property
    def fingerprint(self) -> str:
        sha = hashlib.sha256(self.checkpoint.digest().encode())
        for name, split in sorted(self.splits.items()):
            sha.update(name.encode())
            split.update(sha)
        return sha.hexdigest()

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.splits["train"]) // self.batch_size)

    @property
    def architecture(self):
        """Return a ``BertConfig`` for the task."""
        config = copy.deepcopy(self.checkpoint.config)
        config.num_labels, config.return_dict = self.outputs, True
        return config

    def build(self, seed: int) -> nn.Module:
        return self._seeded(self.checkpoint.load if self.pretrained else checkpoint.draw, seed)

    def reinit(self, seed: int) -> nn.Module:
        return self._seeded(checkpoint.draw, seed)

    def _seeded(self, make, seed: int) -> nn.Module:
        """Return the result of ``make`` with its draws taken from ``seed``; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "init"))
            return make(self.architecture, self.head, self.config["model"]["scope"]).to(self.device)

    def maskables(self, model: nn.Module) -> list[Maskable]:
        return encoder.maskables(model, self.config["model"]["scope"])

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Return the network without the heads and neurons that ``masks`` prune."""
        return encoder.slim(model, masks)

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """The architecture, as transformers has it in config.json."""
        return checkpoint.facts(model)

    def bare(self, facts: Mapping[str, Any]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return checkpoint.bare(facts, self.head, self.config["model"]["scope"]).to(self.device)

    def folded(self, model: nn.Module) -> nn.Module:
        """Without gates."""
        return encoder.folded(model)

    def call(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Call:
        """The batch and the number of tokens are free."""
        given = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        free = {name: {0: "batch", 1: "length"} for name in given}
        return Call(Scores(model, self.scores), given, free, self.scores)

    def write_files(self, folder: Path, masks: Mapping[str, Tensor]) -> None:
        """The tokenizer."""
        self.checkpoint.pretrained_tokenizer.save_pretrained(folder)

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        for index in self.indices(split, epoch, seed)[start:]:
            yield self.batch(self.splits[split], index)

    def batch(self, data: tokens.Encoded, index: np.ndarray) -> dict[str, Tensor]:
        """Return the examples at ``index``. Where the encoder has no padding token any token serves, because nothing attends to
        it; where it knows one kind of segment, all tokens get that one, and where it knows none it is given none."""
        config = self.checkpoint.config
        batch = data.batch(index, self.device, pad=max(0, config.pad_token_id or 0))
        segments = getattr(config, "type_vocab_size", 0) if encoder.FAMILIES[config.model_type].segments else 0
        if segments:
            batch["token_type_ids"].clamp_(max=segments - 1)
        else:
            del batch["token_type_ids"]
        return batch

    def indices(self, split: str, epoch: int, seed: int) -> list[np.ndarray]:
        """Return the indices of the examples in every batch of an epoch."""
        lengths = self.splits[split].lengths
        if split == "train":
            group = int(self.config["train"].get("group", 1))
            return tokens.training_order(lengths, self.batch_size, group, seed_for(seed, "data", epoch))
        return tokens.chunks(np.argsort(lengths, kind="stable"), self.evaluation_batch)  # by length, so that little is padded

    def autocast(self) -> torch.autocast:
        """Return the context of the recipe's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config["train"]["precision"] == "bf16")

    def optimizer(self, model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        train = self.config["train"]
        decay = float(train["weight_decay"])
        optimizer = torch.optim.AdamW(model.parameters(), float(train["lr"]), weight_decay=decay, fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: max(0.0, 1.0 - step / steps))  # linear decay without warm-up


class Scores(nn.Module):
    """A network of transformers that takes and gives tensors."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor, ...]:
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.network(input_ids=input_ids, attention_mask=attention_mask, **segments)
        return tuple(output[name] for name in self.names)


def inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch without its labels: the arguments of the network."""
    return {key: value for key, value in batch.items() if key != "labels"}


def described(data: Mapping[str, Any], note: str, examples: str) -> str:
    """Return one line about the data: ``note``, and how many ``examples`` of it a limit leaves."""
    if data["name"] in GENERATED:
        return f"Generated {data['name']}: shows that the machinery works, says nothing about language."
    if data["train_limit"] is not None:
        note += f" Trained on a fixed subset of {data['train_limit']} {examples}."
    return note
