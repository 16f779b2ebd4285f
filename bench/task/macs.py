"""The cost of inference, counted from shapes in multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def module_macs(model: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """Return the multiply-adds of one forward pass by weight name, for every Conv2d and Linear; each position of an output costs
    one filter. A copy of the model runs on the meta device: nothing is computed, and ``model`` stays as it is."""
    model = copy.deepcopy(model).to("meta").eval()
    macs: dict[str, int] = {}

    def counter(name: str) -> Callable[..., None]:
        def count(module: nn.Module, _: object, output: Tensor) -> None:
            weight: Any = module.weight  # (out, ...): one row makes one output value
            macs[name] = macs.get(name, 0) + output.numel() * weight[0].numel()

        return count

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(counter(f"{name}.weight"))
    with torch.no_grad():
        model(*(x.to("meta") for x in inputs))
    return macs
