"""What may be pruned of any network, found by the types of its modules."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from bench.errors import BenchError, UsageError, first_line
from bench.task import Maskable, neurons
from bench.task.macs import TRANSPOSED, is_conv1d, kind_of
from tasks import channels


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


class Units(NamedTuple):
    """A kind of units that can be removed. ``find`` looks for them in a network and a few of its inputs; the others take what it
    found, see ``tasks.channels`` and ``bench.task.neurons``."""

    find: Callable[[nn.Module, Any], Any]
    maskables: Callable[[nn.Module, Any], list[Maskable]]
    slim: Callable[[nn.Module, Mapping[str, Tensor], Any], nn.Module]
    density: Callable[[str, Any, Mapping[str, float]], float]


def _channels(model: nn.Module, inputs: Any) -> Any:
    try:
        found = channels.spaces(model)
    except Exception as error:  # whatever torch.fx cannot trace
        raise BenchError(
            f"prunable='channels' needs a network that torch.fx can trace ({first_line(error)}): prune its weights instead"
        ) from None
    try:
        channels.maskables(model, found)
    except BenchError:
        raise BenchError(
            "prunable='channels' takes convolutions with a BatchNorm2d after them, and this network has none whose channels can "
            "be removed: prune its weights instead"
        ) from None
    return found


def _neurons(model: nn.Module, inputs: Any) -> dict[str, str]:
    if found := neurons.readers(model, inputs):
        return found
    raise BenchError(
        "prunable='neurons' takes a linear layer whose outputs go into one other linear layer alone, through activations that "
        "leave 0 at 0 such as ReLU and GELU, and this network has none: prune its weights instead"
    )


UNITS = {
    "channels": Units(_channels, channels.maskables, channels.slim, channels.density),
    "neurons": Units(_neurons, neurons.maskables, neurons.slim, neurons.density),
}


def chosen(prunable: Any) -> Callable[[nn.Module], list[Maskable]] | Units:
    """Return what finds what may be pruned: for ``weights``, a kind of units, a list of names, or a function."""
    if isinstance(prunable, str):
        if prunable != "weights" and prunable not in UNITS:
            raise UsageError(f"prunable={prunable!r} is none of 'weights', 'channels', 'neurons', a list of names, or a function")
        return UNITS.get(prunable, weights)
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
