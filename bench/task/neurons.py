"""Hidden neurons of a network of one's own: what one linear layer makes and one other alone reads, as in perceptrons and in the
feed-forward layers of transformers. They are found by trial, so the network need not be traceable. The functions are those of
``tasks.channels``; the neurons of a network are given as layer -> the layer that reads it."""

import copy
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.task import Maskable
from bench.task.macs import called
from bench.task.tensor_trees import tensors


def readers(model: nn.Module, inputs: Any) -> dict[str, str]:
    """Find the neurons of a network of the caller's own, whose weights are changed, by what it makes of ``inputs``."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.eval().parameters():
            if not parameter.any():  # training may make it something else, such as an offset within an activation
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        return {one: two for one, two in _candidates(model, inputs) if _is_read(model, one, two, inputs)}


def maskables(model: nn.Module, found: Mapping[str, str]) -> list[Maskable]:
    """Return the rows and biases of the layers whose neurons may be removed, as budget ``neurons``; those of one neuron share a
    group."""
    listed, first = [], 0
    for name in found:
        layer = cast(nn.Linear, model.get_submodule(name))
        shape = (layer.out_features, layer.in_features)
        rows = torch.arange(first, first := first + layer.out_features)
        groups = rows[:, None].expand(shape).contiguous()
        listed.append(Maskable(f"{name}.weight", shape, "linear", "neurons", groups=groups))
        if layer.bias is not None:
            listed.append(Maskable(f"{name}.bias", shape[:1], "shift", "neurons", groups=rows, follows=True))
    return listed


def slim(model: nn.Module, masks: Mapping[str, Tensor], found: Mapping[str, str]) -> nn.Module:
    """Return a copy without the neurons whose rows ``masks`` prune."""
    from tasks.channels import narrow

    small = copy.deepcopy(model)
    for one, two in found.items():
        if (mask := masks.get(f"{one}.weight")) is not None:
            kept = mask[:, 0].nonzero().flatten()
            narrow(small.get_submodule(one), kept, None)
            narrow(small.get_submodule(two), None, kept, len(mask))
    return small


def density(layer: str, found: Mapping[str, str], shares: Mapping[str, float]) -> float:
    """Return the share of a layer's multiply-adds that remains. ``shares``: name of a weight -> share of its rows kept."""
    touching = [layer, *(one for one, two in found.items() if two == layer)]
    first, second = ([shares.get(f"{name}.weight", 1.0) for name in touching] + [1.0])[:2]
    return first * second


def _candidates(model: nn.Module, inputs: Any) -> list[tuple[str, str]]:
    """The pairs of linear layers that run one after the other, where all cut neurons of the first arrive at the second as 0. All
    layers are tried in one forward pass, because the trial of a pair takes two of them."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    parameters, zeros = dict(model.named_parameters()), dict[str, bool]()

    def note(name: str, given: tuple[Tensor, ...]) -> None:
        zeros[name] = zeros.get(name, True) and _zeros(given)

    hooks = [m.register_forward_pre_hook(lambda _, given, name=name: note(name, given)) for name, m in linear.items()]
    cut = {key: p for name, module in linear.items() for key, p in _cut(name, module).items() if key in parameters}
    _with(cut, model, inputs)
    for hook in hooks:
        hook.remove()
    pairs = [(one, two) for one, two in pairwise(zeros) if zeros[two]]
    return [(one, two) for one, two in pairs if 2 <= linear[one].out_features == linear[two].in_features]


def _is_read(model: nn.Module, one: str, two: str, inputs: Any) -> bool:
    """Whether what layer ``one`` makes goes to ``two`` alone, and 0 arrives as 0: every second neuron is removed by way of
    trial."""
    maker, reader = cast(nn.Linear, model.get_submodule(one)), cast(nn.Linear, model.get_submodule(two))
    small = {name: value[::2] for name, value in _of_neurons(one, maker).items()}
    width = maker.out_features
    try:
        maker.out_features = reader.in_features = len(range(0, width, 2))  # the network itself may go by these
        narrow = _with(small | {f"{two}.weight": reader.weight[:, ::2]}, model, inputs, tied=False)
    except Exception:  # something else reads them too, and does not expect so few
        return False
    finally:
        maker.out_features = reader.in_features = width
    read: list[Tensor] = []
    hook = reader.register_forward_pre_hook(lambda module, given: read.extend(given))
    masked = _with(_cut(one, maker), model, inputs)
    hook.remove()
    if not read or not _zeros(read):
        return False
    pairs = list(zip(tensors(masked), tensors(narrow), strict=True))
    return bool(pairs) and all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in pairs)


def _of_neurons(name: str, layer: nn.Linear) -> dict[str, Tensor]:
    """Return the parameters of a layer of this ``name`` that have a row for each neuron. A layer of another class may have more,
    such as a scale."""
    return {f"{name}.{key}": value for key, value in layer.named_parameters(recurse=False) if key in ("weight", "bias")}


def _cut(name: str, layer: nn.Linear) -> dict[str, Tensor]:
    """Return weight and bias of a layer with those of every second neuron at 0."""
    cut = {key: value.clone() for key, value in _of_neurons(name, layer).items()}
    for value in cut.values():
        value[1::2] = 0
    return cut


def _zeros(read: Iterable[Tensor]) -> bool:
    """Whether every second input of a layer is 0."""
    return not any(bool(x[..., 1::2].any()) for x in read)


def _with(changed: Mapping[str, Tensor], model: nn.Module, inputs: Any, tied: bool = True) -> Any:
    """Return what a network makes of inputs with other parameters; without ``tied`` those that share one keep theirs."""
    return called(lambda *words, **named: functional_call(model, dict(changed), words, named, tie_weights=tied), inputs)
