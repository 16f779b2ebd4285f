"""Hidden units of graph networks that may be pruned: every unit has a gate, 1 to begin with, by which its activation is
multiplied, as heads and neurons of transformers have (Chen et al. 2021). The units of a GAT are its attention heads."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.task import BenchError

from .convolutions import Convolution, GatConv
from .models import Plain

GATE = "gate"


def add_gates(network: nn.Module) -> None:
    """Give every hidden unit a gate. BenchError for a network whose layers share one stream of units."""
    if not isinstance(network, Plain):
        raise BenchError("model.scope=units needs layers with units of their own, which residual networks do not have")
    for conv in network.convolutions[:-1]:
        conv.gate = nn.Parameter(torch.ones(conv.attention.shape[1] if isinstance(conv, GatConv) else conv.weight.shape[1]))


def narrowed(network: Plain, kept: dict[str, Tensor]) -> Plain:
    """Return a copy without the units that are not ``kept`` (units,) bool, by the name of their gate."""
    small = copy.deepcopy(network)
    norms = {f"conv{name.removeprefix('norm')}": norm for name, norm in small.named_children() if name.startswith("norm")}
    named = {name: conv for name, conv in small.named_children() if isinstance(conv, Convolution)}
    for (name, conv), (_, reader) in pairwise(named.items()):
        index = kept[f"{name}.{GATE}"]
        entries = index.repeat_interleave(conv.weight.shape[1] // len(index))
        for part in ("weight", "root"):
            if hasattr(conv, part):
                setattr(conv, part, nn.Parameter(getattr(conv, part).detach()[:, entries].clone()))
            if hasattr(reader, part):
                setattr(reader, part, nn.Parameter(getattr(reader, part).detach()[entries].clone()))
        for owner, part in ((conv, "bias"), *([(norms[name], "weight"), (norms[name], "bias")] if name in norms else [])):
            setattr(owner, part, nn.Parameter(getattr(owner, part).detach()[entries].clone()))
        if name in norms:
            norms[name].num_features = int(entries.sum())
            for part in ("running_mean", "running_var"):
                setattr(norms[name], part, getattr(norms[name], part)[entries].clone())
        if isinstance(conv, GatConv):
            conv.attention = nn.Parameter(conv.attention.detach()[:, index].clone())
        conv.gate = nn.Parameter(conv.gate.detach()[index].clone())
    return small


def folded(model: nn.Module) -> nn.Module:
    """Return a copy without gates: the next layer's weights are multiplied by them. It computes the same, to rounding."""
    model = copy.deepcopy(model)
    for network in (module for module in model.modules() if isinstance(module, Plain)):
        for conv, reader in pairwise(network.convolutions):
            gate = conv.gate.detach().repeat_interleave(len(reader.weight) // max(1, len(conv.gate)))
            for part in ("weight", "root"):
                if hasattr(reader, part):
                    setattr(reader, part, nn.Parameter(getattr(reader, part).detach() * gate[:, None]))
            del conv.gate
    return model
