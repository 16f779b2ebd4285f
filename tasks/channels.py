"""Channels of convolutional networks: which layers share them, and networks without some of them. A *space* is a set of channels
that are kept or removed together: the outputs of a convolution and all layers that read, normalise or add to them. Residual
additions join spaces. The image, the logits, and tensors that are reshaped, padded or split cannot be narrowed."""

import copy
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bench.task import BenchError, Maskable

WHOLE = ""
"""The space that cannot be narrowed."""
ELEMENTWISE = {operator.add, operator.iadd, torch.add, torch.flatten, F.relu, F.relu6, F.dropout, F.adaptive_avg_pool2d}
ELEMENTWISE |= {"add", "add_", "mean", "flatten"}
"""Functions and methods that leave channels where they are, or spread each over neighbouring features."""

KEEPING = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
"""Modules that leave channels where they are."""


@dataclass
class Spaces:
    """The spaces that the channels of a network belong to, by layer name."""

    reads: dict[str, str] = field(default_factory=dict)
    makes: dict[str, str] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    """Batch norm -> the convolution right before it."""


def spaces(model: nn.Module) -> Spaces:
    """Trace ``model`` and find the spaces of its convolutions, batch norms and linear layers."""
    found, at, joined, modules = Spaces(), {}, {}, dict(model.named_modules())

    def join(names: list[str]) -> str:
        roots = sorted({_root(joined, name) for name in names})  # WHOLE comes first
        joined.update(dict.fromkeys(roots[1:], roots[0]))
        return roots[0]

    for node in fx.Tracer().trace(model).nodes:
        inputs = [at[n] for n in node.all_input_nodes if n in at]
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            found.reads[node.target] = inputs[0]
            depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
            if isinstance(module, nn.Conv2d) and module.groups > 1 and not depthwise:
                join([WHOLE, inputs[0]])
            found.makes[node.target] = inputs[0] if depthwise else WHOLE if isinstance(module, nn.Linear) else node.target
            at[node] = found.makes[node.target]
        elif isinstance(module, nn.BatchNorm2d):
            found.norms[node.target] = at[node] = inputs[0]
            source = modules.get(node.args[0].target)
            if isinstance(source, nn.Conv2d):
                found.filters[node.target] = node.args[0].target
        elif isinstance(module, KEEPING) or node.target in ELEMENTWISE:
            at[node] = join(inputs) if inputs else WHOLE
        else:  # the outputs of the network among them
            at[node] = join([WHOLE, *inputs])
    for mapping in (found.reads, found.makes, found.norms):
        mapping.update({name: _root(joined, space) for name, space in mapping.items()})
    return found


def _root(joined: Mapping[str, str], space: str) -> str:
    while space in joined:
        space = joined[space]
    return space


def maskables(model: nn.Module, found: Spaces, inner: bool = False) -> list[Maskable]:
    """Return scale and shift of every batch norm whose channels may be removed, as budget ``channels``; the entries of one
    channel share a group.

    inner   only channels that one convolution alone produces, none that a residual addition ties to others
    """
    modules, groups, first = dict(model.named_modules()), {}, 0
    makers = Counter(space for layer, space in found.makes.items() if space != found.reads[layer])  # depthwise ones pass on
    listed = []
    for name, space in found.norms.items():
        norm = modules[name]
        if space == WHOLE or not norm.affine or (inner and makers[space] > 1):
            continue
        if space not in groups:
            groups[space] = torch.arange(first, first + norm.num_features)
            first += norm.num_features
        listed += [
            Maskable(f"{name}.weight", (norm.num_features,), "scale", "channels", groups=groups[space]),
            Maskable(f"{name}.bias", (norm.num_features,), "shift", "channels", groups=groups[space], follows=True),
        ]
    if not listed:
        raise BenchError("this network has no channel to prune: that takes batch norms with scales (model.affine: true)")
    return listed


def slim(model: nn.Module, masks: Mapping[str, Tensor], found: Spaces) -> nn.Module:
    """Return ``model`` without the channels whose batch-norm scale and shift ``masks`` prune: a new module with the same
    names."""
    kept: dict[str, Tensor] = {}
    for name, space in found.norms.items():
        for part in (f"{name}.weight", f"{name}.bias"):
            if part in masks:
                index = masks[part].nonzero().flatten()
                if not torch.equal(kept.setdefault(space, index), index):
                    raise BenchError(f"the mask of {part} cuts other channels than those it shares them with")
    small = copy.deepcopy(model)
    modules = dict(small.named_modules())
    wide = {space: modules[name].num_features for name, space in found.norms.items()}
    for name, space in found.norms.items():
        if space in kept:
            _narrow_norm(modules[name], kept[space])
    for name, space in found.reads.items():
        narrow(modules[name], kept.get(found.makes[name]), kept.get(space), wide.get(space, 1))
    return small


def density(name: str, found: Spaces, scales: Mapping[str, float]) -> float:
    """Return the share of a layer's multiply-adds that remains. ``scales``: name of a batch-norm scale -> share of its channels
    kept."""
    if name not in found.reads:  # it reads no channels
        return 1.0
    left = {space: scales[f"{norm}.weight"] for norm, space in found.norms.items() if f"{norm}.weight" in scales}
    inputs, outputs = left.get(found.reads[name], 1.0), left.get(found.makes[name], 1.0)
    return outputs if found.reads[name] == found.makes[name] else inputs * outputs  # depthwise: once


def _narrow_norm(norm: nn.BatchNorm2d, index: Tensor) -> None:
    norm.num_features = len(index)
    for part in ("weight", "bias"):
        setattr(norm, part, nn.Parameter(getattr(norm, part).data[index].clone()))
    if norm.track_running_stats:
        norm.running_mean, norm.running_var = norm.running_mean[index].clone(), norm.running_var[index].clone()


def narrow(layer: nn.Conv2d | nn.Linear, outputs: Tensor | None, inputs: Tensor | None, wide: int = 1) -> None:
    """Keep these channels of a layer whose input had ``wide`` channels; None: all."""
    weight = layer.weight.data
    if outputs is not None:
        weight = weight[outputs]
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.data[outputs].clone())
    if isinstance(layer, nn.Linear):
        if inputs is not None:
            each = layer.in_features // wide  # features that one channel is spread over
            weight = weight[:, (inputs[:, None] * each + torch.arange(each, device=inputs.device)).flatten()]
        layer.out_features, layer.in_features = weight.shape
    else:
        if layer.groups > 1:
            layer.groups = layer.in_channels = len(weight)
        elif inputs is not None:
            weight = weight[:, inputs]
        layer.out_channels = len(weight)
        layer.in_channels = weight.shape[1] * layer.groups
        if layer.weight.is_contiguous(memory_format=torch.channels_last):
            weight = weight.contiguous(memory_format=torch.channels_last)
    layer.weight = nn.Parameter(weight.clone())
