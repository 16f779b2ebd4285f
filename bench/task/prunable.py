"""What may be pruned of any network, found by the types of its modules."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bench.errors import BenchError, UsageError, first_line
from bench.task import Maskable
from bench.task.macs import TRANSPOSED, is_conv1d, kind_of


def weights(model: nn.Module) -> list[Maskable]:
    """Return the weights of linear, convolutional and recurrent layers and of attentions, in the network's order; never
    embeddings, nor what is tied to one, norms or biases."""
    shared = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    found: dict[int, Maskable] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for module in model.modules():
        kind = kind_of(module)
        if not kind:
            continue
        axis = 0 if isinstance(module, TRANSPOSED) or is_conv1d(module) else 1
        for key, weight in module.named_parameters(recurse=False):
            if weight.ndim > 1 and "bias" not in key and id(weight) not in shared:
                found.setdefault(id(weight), Maskable(names[id(weight)], tuple(weight.shape), kind, input_axis=axis))
    return list(found.values())


def units(model: nn.Module) -> list[Maskable]:
    """Return the channels of a network with batch norms, found by tracing it; see ``tasks.channels``."""
    from tasks import channels

    try:
        spaces = channels.spaces(model)
    except Exception as error:  # whatever torch.fx cannot trace
        raise BenchError(
            f"prunable='channels' needs a network that torch.fx can trace ({first_line(error)}): prune its weights instead"
        ) from None
    try:
        found: list[Maskable] = channels.maskables(model, spaces)
    except BenchError:
        raise BenchError(
            "prunable='channels' takes convolutions with a BatchNorm2d after them, and this network has none whose channels can "
            "be removed: prune its weights instead"
        ) from None
    return found


def chosen(prunable: Any) -> Callable[[nn.Module], list[Maskable]]:
    """Return the function that finds what may be pruned: for ``weights``, ``channels``, a list of names, or a function."""
    known: dict[str, Callable[[nn.Module], list[Maskable]]] = {"weights": weights, "channels": units}
    if isinstance(prunable, str):
        if prunable not in known:
            raise UsageError(f"prunable={prunable!r} is neither 'weights' nor 'channels', nor a list of names, nor a function")
        return known[prunable]
    if callable(prunable):
        function: Callable[[nn.Module], list[Maskable]] = prunable
        return function

    def named(model: nn.Module) -> list[Maskable]:
        usual, parameters = {m.name: m for m in weights(model)}, dict(model.named_parameters())
        for name in prunable:
            if name not in parameters:
                raise BenchError(f"prunable names {name}, which is no parameter of the network")
        return [usual.get(name, Maskable(name, tuple(parameters[name].shape), "weight")) for name in prunable]

    return named
