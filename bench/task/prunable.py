"""What may be pruned of any network, found by the types of its modules, and how often its weights are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from bench.errors import BenchError, UsageError
from bench.task import Maskable

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def applications(model: nn.Module, inputs: Any, examples: int) -> dict[str, float]:
    """Return the multiply-adds of one example by the name of a weight: its entries, times how often they are applied. Counted for
    the layers of ``weights`` in one forward pass of a network of the caller's own, on which hooks are left."""
    counts: dict[str, float] = {}

    def hook(name: str) -> Callable[..., None]:
        def count(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(module, TRANSPOSED):
                times = given[0].numel() / given[0].shape[1]
            else:
                first = output
                while isinstance(first, tuple):  # of recurrent layers with their state, of packed sequences, of attentions
                    first = first[0]
                times = first.numel() / first.shape[1 if isinstance(module, CONVOLUTIONS) else -1]
            for key, weight in module.named_parameters(recurse=isinstance(module, nn.MultiheadAttention)):
                if weight.ndim > 1:
                    path = f"{name}.{key}" if name else key
                    counts[path] = counts.get(path, 0.0) + weight.numel() * times / examples

        return count

    inside = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}  # counted with the attention
    for name, module in model.named_modules():
        if _kind(module) and id(module) not in inside:
            module.register_forward_hook(hook(name))
    called(model.eval(), inputs)  # with gradients, or PyTorch's fused transformer layers would go past the hooks
    return counts


def _kind(module: nn.Module) -> str | None:
    """Return the kind of a layer whose weights may be pruned, or None."""
    if isinstance(module, CONVOLUTIONS):
        return "conv"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "recurrent"
    return "linear" if isinstance(module, (nn.Linear, nn.Bilinear, nn.MultiheadAttention)) or _is_conv1d(module) else None


def _is_conv1d(module: nn.Module) -> bool:
    """Return whether a module is transformers' linear layer with weights (in, out); it need not be installed."""
    return f"{type(module).__module__}.{type(module).__name__}" == "transformers.pytorch_utils.Conv1D"


def weights(model: nn.Module) -> list[Maskable]:
    """Return the weights of linear, convolutional and recurrent layers and of attentions, in the network's order; never
    embeddings, nor what is tied to one, norms or biases."""
    shared = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    found: dict[int, Maskable] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for module in model.modules():
        kind = _kind(module)
        if not kind:
            continue
        axis = 0 if isinstance(module, TRANSPOSED) or _is_conv1d(module) else 1
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
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BenchError(
            f"prunable='channels' needs a network that torch.fx can trace ({why}): prune its weights instead"
        ) from None
    found: list[Maskable] = channels.maskables(model, spaces)
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


def called(model: nn.Module, inputs: Any) -> Any:
    """Return what a network makes of inputs: a tensor, a tuple of arguments, or a dict by the names of arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
