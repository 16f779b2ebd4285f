"""BERT-like encoders: the tensors that may be pruned, the network without some of its units, and the cost of
inference. Families differ only in how transformers names the parts of a layer, which ``FAMILIES`` says."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.task import BenchError, Maskable


@dataclass(frozen=True)
class Units:
    """Units of a layer that have a gate each, by which they are multiplied (Chen et al. 2021).

    gate    the module that holds the gates; its output is multiplied by them, or, if it is the reader, its input
    makers  the linear layers whose rows make the units, as far as a network has them
    reader  the linear layer whose columns read them
    """

    kind: str
    budget: str
    gate: str
    makers: tuple[str, ...]
    reader: str


@dataclass(frozen=True)
class Family:
    """How transformers names the parts of one family of encoders.

    layers    the list of layers, in the encoder
    kinds     the matrices of a layer -> their kinds (Chen et al. 2020 prune these and the pooler's)
    units     heads and neurons of a layer
    counts    attributes of a module of the layer that hold the number of heads and of their entries: (module, heads, entries)
    segments  whether the network takes segment numbers
    offset    positions at the start that no token has: the padding's number and those before it
    """

    layers: str
    kinds: Mapping[str, str]
    units: tuple[Units, Units]
    counts: tuple[str, str, str]
    segments: bool = True
    offset: bool = False


def _as_bert(ending: str = "", *more: str) -> tuple[dict[str, str], tuple[Units, Units]]:
    """Return kinds and units of a layer that is laid out as BERT's, whose queries, keys and values end in ``ending``; ``more``
    makes entries of heads as well."""
    made = tuple(f"attention.self.{part}{ending}" for part in ("query", "key", "value"))
    kinds = dict(zip(made, ("query", "key", "value"), strict=True))
    kinds |= {"attention.output.dense": "out", "intermediate.dense": "ffn", "output.dense": "ffn"}
    heads = Units("attention_head", "heads", "attention.self", (*made, *more), "attention.output.dense")
    return kinds, (heads, Units("neuron", "neurons", "intermediate", ("intermediate.dense",), "output.dense"))


_BERT_COUNTS = ("attention.self", "num_attention_heads", "all_head_size")
_DISTILBERT = ("attention.q_lin", "attention.k_lin", "attention.v_lin")
_DISTILBERT_KINDS = dict(zip(_DISTILBERT, ("query", "key", "value"), strict=True))
_DISTILBERT_KINDS |= {"attention.out_lin": "out", "ffn.lin1": "ffn", "ffn.lin2": "ffn"}
_DISTILBERT_UNITS = (
    Units("attention_head", "heads", "attention.out_lin", _DISTILBERT, "attention.out_lin"),
    Units("neuron", "neurons", "ffn.lin2", ("ffn.lin1",), "ffn.lin2"),
)
_DISTILBERT_COUNTS = ("attention", "n_heads", "dim")
FAMILIES = {
    "bert": Family("encoder.layer", *_as_bert(), _BERT_COUNTS),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), Family("encoder.layer", *_as_bert(), _BERT_COUNTS, offset=True)),
    "electra": Family("encoder.layer", *_as_bert(), _BERT_COUNTS),
    "deberta-v2": Family(
        "encoder.layer", *_as_bert("_proj", "attention.self.pos_key_proj", "attention.self.pos_query_proj"), _BERT_COUNTS
    ),
    "distilbert": Family("transformer.layer", _DISTILBERT_KINDS, _DISTILBERT_UNITS, _DISTILBERT_COUNTS, segments=False),
}
"""``model_type`` of transformers -> how it names its parts."""


def family(model: nn.Module) -> Family:
    """Return how the parts of a network of transformers are named."""
    return FAMILIES[model.config.model_type]


def base(model: nn.Module) -> nn.Module:
    """Return the encoder of a network with a head."""
    return getattr(model, model.base_model_prefix)


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the module of every layer of a network with a head."""
    path = f"{model.base_model_prefix}.{family(model).layers}"
    for i, layer in enumerate(model.get_submodule(path)):
        yield f"{path}.{i}", layer


def add_gates(model: nn.Module) -> None:
    """Give every head and feed-forward neuron a gate, 1 to begin with."""
    for _, layer in layers(model):
        for units, count in zip(family(model).units, (model.config.num_attention_heads, _neurons(model.config)), strict=True):
            module = layer.get_submodule(units.gate)
            module.gate = nn.Parameter(torch.ones(count))
            if units.gate == units.reader:
                module.register_forward_pre_hook(_gated_input)
            else:
                module.register_forward_hook(_gated)


def _neurons(config) -> int:
    return config.hidden_dim if hasattr(config, "hidden_dim") else config.intermediate_size


def _gated(module: nn.Module, inputs: tuple, output):
    """The output, each unit multiplied by its gate; the entries of a unit are adjacent."""
    units, *rest = output if isinstance(output, tuple) else (output,)
    gated = _times_gates(module, units)
    return (gated, *rest) if isinstance(output, tuple) else gated


def _gated_input(module: nn.Module, inputs: tuple):
    """The input, each unit multiplied by its gate."""
    return (_times_gates(module, inputs[0]), *inputs[1:])


def _times_gates(module: nn.Module, units: Tensor) -> Tensor:
    return units * module.gate.to(units.dtype).repeat_interleave(units.shape[-1] // len(module.gate))


def slim(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy without the units that the masks of gates prune: the rows that make them and the columns that read them are
    removed."""
    model = copy.deepcopy(model)
    for path, layer in layers(model):
        for units in family(model).units:
            holder = layer.get_submodule(units.gate)
            kept = masks[f"{path}.{units.gate}.gate"]
            reader = layer.get_submodule(units.reader)
            entries = kept.repeat_interleave(reader.in_features // len(kept))
            there = {name for name, _ in layer.named_modules()}
            for maker in there.intersection(units.makers):
                _keep(layer.get_submodule(maker), rows=entries)
            _keep(reader, columns=entries)
            holder.gate = nn.Parameter(holder.gate.detach()[kept])
            if units.budget == "heads":
                module, heads, size = family(model).counts
                setattr(layer.get_submodule(module), heads, int(kept.sum()))
                setattr(layer.get_submodule(module), size, int(entries.sum()))
    return model


def folded(model: nn.Module) -> nn.Module:
    """Return a copy without gates: the columns of the matrix that reads a unit are multiplied by its gate instead."""
    model = copy.deepcopy(model)
    for _, layer in layers(model):
        for units in family(model).units:
            holder, reader = layer.get_submodule(units.gate), layer.get_submodule(units.reader)
            if not hasattr(holder, "gate"):
                return model
            each = reader.in_features // max(1, len(holder.gate))
            reader.weight = nn.Parameter(reader.weight.detach() * holder.gate.detach().repeat_interleave(each))
            del holder.gate
            holder._forward_hooks.clear()  # ``add_gates`` registered the one there is
            holder._forward_pre_hooks.clear()
    return model


def is_slim(model: nn.Module) -> bool:
    """Return whether a network lacks some heads or neurons of its architecture."""
    sizes = zip(family(model).units, (model.config.hidden_size, _neurons(model.config)), strict=True)
    whole = [(units.reader, size) for units, size in sizes]
    return any(layer.get_submodule(reader).in_features != size for _, layer in layers(model) for reader, size in whole)


def _keep(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep these outputs or inputs of a linear layer."""
    if rows is not None:
        linear.weight, linear.bias = nn.Parameter(linear.weight.detach()[rows]), nn.Parameter(linear.bias.detach()[rows])
    if columns is not None:
        linear.weight = nn.Parameter(linear.weight.detach()[:, columns].contiguous())
    linear.out_features, linear.in_features = linear.weight.shape


def maskables(model: nn.Module, scope: str = "all") -> list[Maskable]:
    """Return the tensors that may be pruned, without embeddings, norms, biases and the task's head. Scope ``all``: six matrices
    of every layer and the pooler's, where the encoder has one; ``encoder``: without the pooler's; ``units``: a gate for every
    head and feed-forward neuron instead."""
    if scope == "units":
        return [
            Maskable(f"{path}.{units.gate}.gate", tuple(layer.get_submodule(units.gate).gate.shape), units.kind, units.budget)
            for path, layer in layers(model)
            for units in family(model).units
        ]
    names = {f"{path}.{part}.weight": kind for path, _ in layers(model) for part, kind in family(model).kinds.items()}
    if scope == "all" and pooler(model) is not None:
        names[_pooler_weight(model)] = "pooler"
    parameters = dict(model.named_parameters())
    for name in names.keys() - parameters.keys():
        raise BenchError(
            f"the model has no parameter {name}, which is to be pruned; its layers must be named as transformers names those of "
            f"{model.config.model_type}"
        )
    return [Maskable(name, tuple(parameters[name].shape), kind) for name, kind in names.items()]


def pooler(model: nn.Module) -> nn.Module | None:
    """Return the pooler of the encoder, or None."""
    return getattr(base(model), "pooler", None)


def _pooler_weight(model: nn.Module) -> str:
    return f"{model.base_model_prefix}.pooler.dense.weight"


def linearised(model: nn.Module) -> Tensor:
    """Return the pooled state (1, hidden) of a token of ones in a BERT, in the model's own precision, where norms only scale and
    shift and no activation saturates: gelu and tanh are left out. Equal tokens get equal attention, so queries and keys play no
    part."""

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
    """Return the mean multiply-adds of one example over examples of ``lengths`` tokens (an array), none of them padding.

    n tokens cost n times every encoder matrix, and n * n * hidden twice a layer (queries times keys, weights times
    values: no weight there to prune, but whole heads); the pooler sees one token. Embeddings are looked up, not multiplied, and
    relative positions are not counted. The task's head costs ``head``.
    """
    tokens, squares = float(lengths.mean()), float((lengths.astype(float) ** 2).mean())
    sizes, total = {name: p.numel() for name, p in model.named_parameters()}, head
    for path, _ in layers(model):
        heads, neurons = (density.get(f"{path}.{units.gate}.gate", 1.0) for units in family(model).units)
        total += 2.0 * squares * model.config.hidden_size * heads
        for part, kind in family(model).kinds.items():
            name = f"{path}.{part}.weight"
            total += tokens * sizes[name] * density.get(name, 1.0) * (neurons if kind == "ffn" else heads)
    if pooler(model) is not None:
        name = _pooler_weight(model)
        total += sizes[name] * density.get(name, 1.0)
    return total


def head_macs(model: nn.Module) -> int:
    """Return the multiply-adds of the task's head for one token: the entries of its matrices, that of the tied embeddings of a
    language model among them."""
    encoder = {id(p) for p in base(model).parameters()}
    matrices = {id(p): p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in encoder}
    tied = model.get_output_embeddings()
    if tied is not None:
        matrices[id(tied.weight)] = tied.weight.numel()
    return sum(matrices.values())
