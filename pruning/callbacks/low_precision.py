"""Training in low precision, for searches on cheap hardware (You et al. 2020; Yang et al. 2019, SWALP)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.callbacks.base import Callback, TrainingContext
from pruning.errors import PruningError


@dataclass
class LowPrecision(Callback):
    """Rounds weights, gradients and momentum to block floating point of ``bits`` bits, see ``rounded``. The precision is
    emulated, so that a step takes longer than in full precision. Activations and the gradients passed back through the network
    keep the task's precision; bf16 has 8 bits."""

    name = "low_precision"
    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 24:
            raise PruningError(f"bits is {self.bits}; a low-precision search takes 2 to 24 bits, 8 in the papers")

    def after_backward(self, context: TrainingContext) -> None:
        self._round(context, "gradients", (p.grad for p in context.model.parameters() if p.grad is not None))

    def after_step(self, context: TrainingContext) -> None:
        parameters, state = list(context.model.parameters()), context.optimizer.state
        self._round(context, "weights", (p.data for p in parameters))
        kept = ((p, value) for p in parameters for value in state.get(p, {}).values())
        self._round(context, "momentum", (value for p, value in kept if torch.is_tensor(value) and value.shape == p.shape))

    def _round(self, context: TrainingContext, what: str, tensors: Iterable[Tensor]) -> None:
        seed = context.generator(f"round {what} {context.step}").initial_seed()
        draws: dict[torch.device, torch.Generator] = {}
        for tensor in tensors:
            if tensor.device not in draws:  # drawn on the device: copying the numbers would take longer than the step
                draws[tensor.device] = torch.Generator(tensor.device).manual_seed(seed)
            tensor.copy_(rounded(tensor, self.bits, draws[tensor.device]))


def rounded(tensor: Tensor, bits: int, draw: torch.Generator) -> Tensor:
    """Return ``tensor`` in block floating point: integers of ``bits`` bits, sign included, times one power of two for each slice
    along dimension 0. Rounding is stochastic and unbiased; 0 stays 0 (Yang et al. 2019)."""
    largest = tensor.abs()
    if tensor.ndim > 1:
        largest = largest.amax(tuple(range(1, tensor.ndim)), keepdim=True)
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - bits + 1)
    steps = tensor.div(unit).add_(torch.empty_like(tensor).uniform_(generator=draw)).floor_()
    return steps.clamp_(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).mul_(unit)
