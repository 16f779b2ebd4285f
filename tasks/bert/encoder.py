"""BERT encoders: their files, the network under a head, the tensors that may be pruned, and the cost of inference."""

from __future__ import annotations

import copy
import hashlib
import json
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.task import BenchError, Maskable
from tasks import hub

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

KINDS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "intermediate.dense": "ffn",
    "output.dense": "ffn",
}
"""The six matrices of an encoder layer (Chen et al. 2020 prune these and the pooler's)."""

POOLER = "bert.pooler.dense.weight"

UNITS = {"attention.self": ("attention_head", "heads"), "intermediate": ("neuron", "neurons")}
"""The modules whose outputs are units of a layer, with their kind and budget. Each unit has a gate that its output is multiplied
by (Chen et al. 2021)."""

SLIM = "bert_slim"
"""The ``model_type`` of networks without some heads or neurons."""

ATTENTION = "eager"
"""With dropout on, PyTorch's fused attention has no fast kernel on the CPU: this one trains a quarter faster there."""

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def encoder(name: str, root: str | None) -> Tiny | Folder:
    """Return the encoder called ``name``: ``tiny``, a folder, or a hub repository, which is looked for under ``root`` or
    $BENCH_MODELS by the last part of its name, then on the hub. BenchError where none is found that fits."""
    return Tiny() if name == "tiny" else Folder(name, root)


class Folder:
    """A pre-trained encoder in a folder of the hub's layout."""

    def __init__(self, name: str, root: str | None):
        mirror = hub.mirror(root, "BENCH_MODELS")
        here = mirror / Path(name).name if mirror else None
        if Path(name).expanduser().is_dir():
            self.path = Path(name).expanduser()
        elif here is not None and here.is_dir():
            self.path = here
        else:
            lacking = f"{here} is none" if here else "neither model.root nor $BENCH_MODELS is set"
            self.path = hub.snapshot(
                name,
                "model",
                FILES,
                ["config.json", "model*.safetensors"],
                f"set model.name to a folder with config.json, model.safetensors and tokenizer.json ({lacking})",
            )
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
            kind = entries.get("model_type", "bert")  # the first ones had no such entry
        if kind != "bert":
            raise BenchError(
                f"model {name} is of type {kind!r}; this task prunes the layers of type 'bert', such as "
                "google-bert/bert-base-uncased"
            )

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
        """The architecture, a ``BertConfig``."""
        from transformers import BertConfig

        with _readable(self.path):
            return BertConfig.from_pretrained(self.path, local_files_only=True)

    def load(self, config, head: str, scope: str) -> nn.Module:
        """The network of the pre-trained weights, in float32 whatever the file holds; a pooler or a head that the file lacks, or
        has for other classes, is drawn from the global generator. Raises BenchError where anything else does not fit."""
        import transformers

        def pretrained(kind: Any) -> nn.Module:
            model, found = kind.from_pretrained(
                self.path,
                config=config,
                dtype=torch.float32,
                attn_implementation=ATTENTION,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            reshaped = [name for name, *_ in found["mismatched_keys"]]
            for what, names in (
                ("lack", found["missing_keys"]),
                ("have another shape of", reshaped),
                ("have, beyond the network's,", found["unexpected_keys"]),
            ):
                if wrong := sorted(name for name in names if ".layer." in name or "embeddings." in name):
                    raise BenchError(
                        f"model folder {self.path}: its weights {what} {wrong[0]} ({len(wrong)} such): they and its "
                        "config.json are not of one BERT"
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
    """What ``make`` makes of a class of transformers: an encoder under ``head``. Where the head knows no pooler but ``scope`` has
    it, the encoder keeps its own, frozen, so that masks are over the same tensors whatever the head. Where the scope is
    ``units``, every head and feed-forward neuron has a gate, 1 to begin with."""
    import transformers

    model = make(getattr(transformers, f"AutoModelFor{head}"))
    if scope == "all" and model.bert.pooler is None:
        model.bert.pooler = make(transformers.AutoModel).pooler.requires_grad_(False)
    if scope == "units":
        for layer in model.bert.encoder.layer:
            heads, neurons = model.config.num_attention_heads, model.config.intermediate_size
            for part, units in zip(UNITS, (heads, neurons), strict=True):
                module = layer.get_submodule(part)
                module.gate = nn.Parameter(torch.ones(units))
                module.register_forward_hook(_gated)
    return model


def _gated(module: nn.Module, inputs: tuple, output):
    """Return the output with every unit multiplied by its gate; the entries of a unit are adjacent."""
    units, *rest = output if isinstance(output, tuple) else (output,)
    gated = units * module.gate.to(units.dtype).repeat_interleave(units.shape[-1] // len(module.gate))
    return (gated, *rest) if isinstance(output, tuple) else gated


def slim(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy without the units whose gates are masked: the rows that produce them and the columns that read them are
    removed."""
    model = copy.deepcopy(model)
    for i, layer in enumerate(model.bert.encoder.layer):
        attention, ffn = layer.attention.self, layer.intermediate
        heads, neurons = (masks[f"bert.encoder.layer.{i}.{part}.gate"] for part in UNITS)
        entries = heads.repeat_interleave(attention.attention_head_size)
        for linear in (attention.query, attention.key, attention.value):
            _keep(linear, rows=entries)
        _keep(layer.attention.output.dense, columns=entries)
        _keep(ffn.dense, rows=neurons)
        _keep(layer.output.dense, columns=neurons)
        attention.gate, ffn.gate = nn.Parameter(attention.gate.detach()[heads]), nn.Parameter(ffn.gate.detach()[neurons])
        attention.num_attention_heads, attention.all_head_size = int(heads.sum()), int(entries.sum())
    return model


def folded(model: nn.Module) -> nn.Module:
    """A copy without gates: what a gate multiplies is read by one matrix, whose columns take it over."""
    model = copy.deepcopy(model)
    for layer in model.bert.encoder.layer:
        for part, reader in ((layer.attention.self, layer.attention.output.dense), (layer.intermediate, layer.output.dense)):
            if not hasattr(part, "gate"):
                return model
            each = reader.in_features // max(1, len(part.gate))
            reader.weight = nn.Parameter(reader.weight.detach() * part.gate.detach().repeat_interleave(each))
            del part.gate
            part._forward_hooks.clear()  # ``_network`` registered the one there is
    return model


def facts(model: nn.Module) -> dict[str, Any]:
    """The architecture, as transformers writes and reads it; of a network without some heads or neurons under a type of its own,
    since transformers has no word for that."""
    config = model.config
    entries = {**json.loads(config.to_json_string(use_diff=False)), "dtype": "float32", "architectures": [type(model).__name__]}
    whole = (config.num_attention_heads, config.intermediate_size)
    sizes = [
        (layer.attention.self.num_attention_heads, layer.intermediate.dense.out_features) for layer in model.bert.encoder.layer
    ]
    if any(size != whole for size in sizes):
        entries["model_type"] = SLIM
    return entries


def bare(entries: Mapping[str, Any], head: str, scope: str) -> nn.Module:
    """The network of an architecture that ``facts`` wrote; entries that are no part of one are not looked at."""
    from transformers import BertConfig

    with _readable("of this config.json"):
        known = BertConfig().to_dict().keys() - {"model_type", "architectures"}
        return draw(BertConfig(**{key: value for key, value in entries.items() if key in known}), head, scope)


def _keep(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Remove outputs or inputs from a linear layer."""
    if rows is not None:
        linear.weight, linear.bias = nn.Parameter(linear.weight.detach()[rows]), nn.Parameter(linear.bias.detach()[rows])
    if columns is not None:
        linear.weight = nn.Parameter(linear.weight.detach()[:, columns].contiguous())
    linear.out_features, linear.in_features = linear.weight.shape


def maskables(model: nn.Module, scope: str = "all") -> list[Maskable]:
    """all: six matrices a layer and the pooler's; encoder: without the pooler's; units: a gate for every head and feed-forward
    neuron instead. Never embeddings, norms, biases, the task's head."""
    if scope == "units":
        return [
            Maskable(f"bert.encoder.layer.{i}.{part}.gate", tuple(layer.get_submodule(part).gate.shape), kind, budget)
            for i, layer in enumerate(model.bert.encoder.layer)
            for part, (kind, budget) in UNITS.items()
        ]
    names = {
        f"bert.encoder.layer.{i}.{part}.weight": kind
        for i in range(model.config.num_hidden_layers)
        for part, kind in KINDS.items()
    }
    if scope == "all":
        names[POOLER] = "pooler"
    parameters = dict(model.named_parameters())
    for name in names.keys() - parameters.keys():
        raise BenchError(
            f"the model has no parameter {name}, which is to be pruned; its layers must be named as transformers' "
            "BertModel names them"
        )
    return [Maskable(name, tuple(parameters[name].shape), kind) for name, kind in names.items()]


def linearised(model: nn.Module) -> Tensor:
    """Return the pooled state (1, hidden) of a token of ones, in the model's own precision.

    Norms only scale and shift, and nothing saturates: gelu and tanh are left out. Equal tokens get equal attention, so queries
    and keys have no effect.
    """

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        return x * layer.weight + layer.bias

    bert = model.bert
    x = torch.ones_like(bert.pooler.dense.weight[:1])
    for layer in bert.encoder.layer:
        attention = layer.attention.output
        x = norm(attention.LayerNorm, attention.dense(layer.attention.self.value(x)) + x)
        x = norm(layer.output.LayerNorm, layer.output.dense(layer.intermediate.dense(x)) + x)
    return bert.pooler.dense(x)


def macs(model: nn.Module, density: Mapping[str, float], lengths, head: float) -> float:
    """Mean multiply-adds of one example over examples of ``lengths`` tokens (an array), none of them padding.

    n tokens cost n times every encoder matrix, and n * n * hidden twice a layer (queries times keys, weights times
    values: no weight there to prune, but whole heads); the pooler sees one token. Embeddings are looked up, not multiplied.
    The task's head costs ``head``.
    """
    tokens, squares = float(lengths.mean()), float((lengths.astype(float) ** 2).mean())
    sizes, total = {name: p.numel() for name, p in model.named_parameters()}, head
    for i in range(model.config.num_hidden_layers):
        layer = f"bert.encoder.layer.{i}"
        heads, neurons = (density.get(f"{layer}.{part}.gate", 1.0) for part in UNITS)
        total += 2.0 * squares * model.config.hidden_size * heads
        for part, kind in KINDS.items():
            name = f"{layer}.{part}.weight"
            total += tokens * sizes[name] * density.get(name, 1.0) * (neurons if kind == "ffn" else heads)
    if model.bert.pooler is not None:
        total += sizes[POOLER] * density.get(POOLER, 1.0)
    return total
