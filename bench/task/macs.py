"""The cost of inference in multiply-adds, counted by the layers of a network in one forward pass."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def module_macs(model: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """Return the multiply-adds of one forward pass by the name of a weight. A copy of the model runs on the meta device: nothing
    is computed, and ``model`` stays as it is."""
    counted = applications(copy.deepcopy(model).to("meta"), tuple(x.to("meta") for x in inputs), 1)
    return {name: round(macs) for name, macs in counted.items()}


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
        if kind_of(module) and id(module) not in inside:
            module.register_forward_hook(hook(name))
    called(model.eval(), inputs)  # with gradients, or PyTorch's fused transformer layers would go past the hooks
    return counts


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a layer whose weights may be pruned, or None."""
    if isinstance(module, CONVOLUTIONS):
        return "conv"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "recurrent"
    return "linear" if isinstance(module, (nn.Linear, nn.Bilinear, nn.MultiheadAttention)) or is_conv1d(module) else None


def is_conv1d(module: nn.Module) -> bool:
    """Return whether a module is transformers' linear layer with weights (in, out); it need not be installed."""
    return f"{type(module).__module__}.{type(module).__name__}" == "transformers.pytorch_utils.Conv1D"


def called(model: Callable[..., Any], inputs: Any) -> Any:
    """Return what a network makes of inputs: a tensor, a tuple of arguments, or a dict by the names of arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
