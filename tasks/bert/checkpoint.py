"""The files of pre-trained BERT-like encoders, and the networks that are made of them; ``encoder`` says what may be pruned."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.task import BenchError
from tasks import hub

from . import encoder
from .sentences import WORDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The weights are in one file, or an index says in which of several files each is."""

FILES = ["config.json", WEIGHTS, INDEX, "model-*-of-*.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
"""The files of an encoder's folder that are read. Pickled weights are never read."""
PICKLED = "pytorch_model*.bin"
CONVERT = (
    "import glob, torch, safetensors.torch as s; files = glob.glob('{0}'); s.save_file({{k: v.clone().contiguous() "
    "for f in files for k, v in torch.load(f, weights_only=True).items()}}, '{1}', {{'format': 'pt'}})"
)
"""A program that turns pickled weights {0} into safetensors {1}."""

SLIM = "_slim"
"""How the ``model_type`` of networks without some heads or neurons ends."""
ATTENTION = "eager"
"""With dropout on, PyTorch's fused attention has no fast kernel on the CPU: this one trains a quarter faster there."""
TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)


class Folder:
    """A pre-trained encoder: a folder, or a hub repository, which is looked for under ``root`` or $BENCH_MODELS by the last part
    of its name, then on the hub. BenchError where none is found that fits."""

    def __init__(self, name: str, root: str | None):
        mirror = hub.mirror(root, "BENCH_MODELS")
        here = mirror / Path(name).name if mirror else None
        if Path(name).expanduser().is_dir():
            self.path = Path(name).expanduser()
        elif here is not None and here.is_dir():
            self.path = here
        else:
            lacking = f"{here} is none" if here else "neither model.root nor $BENCH_MODELS is set"
            remedy = f"set model.name to a folder with config.json, model.safetensors and tokenizer.json ({lacking})"
            self.path = hub.snapshot(name, "model", FILES, ["config.json", "model*.safetensors"], remedy)
        if any(self.path.glob(PICKLED)) and not any((self.path / file).is_file() for file in (WEIGHTS, INDEX)):
            raise BenchError(
                f"model folder {self.path} has its weights in {PICKLED} alone, pickles, which are never read; "
                f'convert them: python -c "{CONVERT.format(self.path / PICKLED, self.path / WEIGHTS)}"'
            )
        for alternatives in (("config.json",), (WEIGHTS, INDEX), ("tokenizer.json", "vocab.txt")):
            if not any((self.path / file).is_file() for file in alternatives):
                raise BenchError(f"model folder {self.path} has no {' or '.join(alternatives)}; fetch {name} again")
        with _readable(self.path):
            entries = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            self.kind = _known_kind(entries.get("model_type", "bert"), name)  # the first ones had no such entry

    @cached_property
    def weights(self) -> list[Path]:
        """The files that hold the weights."""
        if (self.path / WEIGHTS).is_file():
            return [self.path / WEIGHTS]
        with _readable(self.path):
            names = json.loads((self.path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
            return [self.path / name for name in sorted(set(names))]

    @cached_property
    def pooled(self) -> bool:
        """Whether a pooler is among the weights."""
        from safetensors import safe_open

        with _readable(self.path):
            names = [name for file in self.weights for name in safe_open(file, "pt").keys()]  # noqa: SIM118
            return any(name.endswith("pooler.dense.weight") for name in names)

    def digest(self) -> str:
        """sha256 of the files that make the network."""
        sha = hashlib.sha256()
        for file in (self.path / "config.json", *self.weights):
            with _readable(self.path), open(file, "rb") as stream:
                sha.update(hashlib.file_digest(stream, "sha256").digest())
        return sha.hexdigest()

    @cached_property
    def pretrained_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer as transformers has it."""
        from transformers import AutoTokenizer

        with _readable(self.path):
            return AutoTokenizer.from_pretrained(self.path, config=self.config, local_files_only=True)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to token numbers. Raises BenchError where the network has no embedding for one of them."""
        with _readable(self.path):
            made = self.pretrained_tokenizer.backend_tokenizer
            largest = max(made.get_vocab().values())
        if largest >= self.config.vocab_size:
            raise BenchError(
                f"model folder {self.path}: its tokenizer makes token numbers up to {largest}, but its network has "
                f"embeddings for {self.config.vocab_size} tokens; take both from the same model"
            )
        return made

    @cached_property
    def config(self):
        """The architecture, a configuration of transformers."""
        from transformers import AutoConfig

        with _readable(self.path):  # the first BERTs did not say that they are
            return type(AutoConfig.for_model(self.kind)).from_pretrained(self.path, local_files_only=True)

    def load(self, config, head: str, scope: str) -> nn.Module:
        """The network of the pre-trained weights, in float32 whatever the file holds; a pooler or a head that the file lacks, or
        has for other classes, is drawn from the global generator. Raises BenchError where anything else does not fit."""
        import transformers

        def pretrained(kind: Any) -> nn.Module:
            how = dict(local_files_only=True, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True)
            how |= {"config": config, "dtype": torch.float32, "attn_implementation": ATTENTION}
            model, found = kind.from_pretrained(self.path, **how)
            reshaped = [name for name, *_ in found["mismatched_keys"]]
            for what, names in (
                ("lack", found["missing_keys"]),
                ("have another shape of", reshaped),
                ("have, beyond the network's,", found["unexpected_keys"]),
            ):
                if wrong := sorted(name for name in names if ".layer." in name or "embeddings." in name):
                    raise BenchError(
                        f"model folder {self.path}: its weights {what} {wrong[0]} ({len(wrong)} such): they and its "
                        "config.json are not of one encoder"
                    )
            return model

        transformers.utils.logging.disable_progress_bar()
        before = transformers.utils.logging.get_verbosity()
        transformers.utils.logging.set_verbosity_error()  # that the head is new is the point, not a warning
        try:
            with _readable(self.path):
                return _network(head, scope, pretrained)
        finally:
            transformers.utils.logging.set_verbosity(before)


@contextmanager
def _readable(folder: Path | str) -> Iterator[None]:
    """Inside the context, any error of transformers about a damaged model folder becomes one line that names the folder."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        why = next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)
        raise BenchError(f"model folder {folder} cannot be read ({why}): its files are damaged or do not fit together") from None


class Tiny:
    """A small BERT with random weights and a generated vocabulary. It needs no file and no network."""

    def digest(self) -> str:
        """sha256 of the architecture."""
        return hashlib.sha256(self.config.to_json_string().encode()).hexdigest()

    @cached_property
    def pretrained_tokenizer(self) -> PreTrainedTokenizerFast:
        """The words of the generated sentences; any other word is spelled."""
        from transformers import BertTokenizer

        letters = string.ascii_lowercase + string.digits
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *WORDS]
        vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
        return BertTokenizer(vocab=vocabulary)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token numbers."""
        return self.pretrained_tokenizer.backend_tokenizer

    @cached_property
    def config(self):
        """The architecture, a ``BertConfig``."""
        from transformers import BertConfig

        return BertConfig(vocab_size=self.tokenizer.get_vocab_size(), **TINY)

    def load(self, config, head: str, scope: str) -> nn.Module:
        """There is nothing to load: raises BenchError."""
        raise BenchError("model tiny has no pre-trained weights: set model.start=init, or model.name to an encoder")


def draw(config, head: str, scope: str) -> nn.Module:
    """Return the network of architecture ``config``, with every weight drawn from the global generator."""
    with _readable(config.name_or_path):
        return _network(head, scope, lambda kind: kind.from_config(config, dtype=torch.float32, attn_implementation=ATTENTION))


def _network(head: str, scope: str, make: Callable[[Any], nn.Module]) -> nn.Module:
    """Return what ``make`` makes of a class of transformers: an encoder under ``head``. Where the head uses no pooler but
    ``scope`` includes it, the encoder keeps its own, frozen, if its family has one, so that masks are over the same tensors
    whatever the head. With scope ``units`` every head and feed-forward neuron has a gate, 1 to begin with."""
    import transformers

    model = make(getattr(transformers, f"AutoModelFor{head}"))
    base = encoder.base(model)
    if scope == "all" and getattr(base, "pooler", base) is None:
        base.pooler = make(transformers.AutoModel).pooler.requires_grad_(False)
    if scope == "units":
        encoder.add_gates(model)
    return model


def facts(model: nn.Module) -> dict[str, Any]:
    """The architecture, as transformers writes and reads it; of a network without some heads or neurons under a type of its own,
    since transformers has no word for that."""
    config = model.config
    entries = {**json.loads(config.to_json_string(use_diff=False)), "dtype": "float32", "architectures": [type(model).__name__]}
    if encoder.is_slim(model):
        entries["model_type"] = config.model_type + SLIM
    return entries


def bare(entries: Mapping[str, Any], head: str, scope: str) -> nn.Module:
    """The network of an architecture that ``facts`` wrote; entries that are no part of one are not looked at."""
    from transformers import AutoConfig

    with _readable("of this config.json"):
        kind = str(entries.get("model_type", "bert")).removesuffix(SLIM)
        config = AutoConfig.for_model(_known_kind(kind, "of this config.json"))
        known = config.to_dict().keys() - {"model_type", "architectures"}
        made = type(config)(**{key: value for key, value in entries.items() if key in known})
        return draw(made, head, scope)


def _known_kind(kind: str, whose: str) -> str:
    """Return a ``model_type``, after a check that it is one of ``encoder.FAMILIES``."""
    if kind not in encoder.FAMILIES:
        raise BenchError(
            f"model {whose} is of type {kind!r}; this task prunes the layers of types {', '.join(encoder.FAMILIES)}, such as "
            "google-bert/bert-base-uncased"
        )
    return kind
