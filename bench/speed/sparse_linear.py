"""Linear layers that compute with their kept weights alone. They are faster where few weights are left and few inputs come at
once."""

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DENSEST = 0.1
"""Layers that keep a larger share of their weights stay dense: no kernel for single weights gains there."""


class Csr(nn.Module):
    """A linear layer whose weight (out, in) is a sparse matrix in compressed rows."""

    def __init__(self, linear: nn.Linear, mask: Tensor):
        super().__init__()
        self.weight = (linear.weight.detach() * mask).to_sparse_csr()
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        flat: Tensor = torch.sparse.mm(self.weight, inputs.reshape(-1, inputs.shape[-1]).T)
        outputs = flat.T.reshape(*inputs.shape[:-1], -1)
        return outputs if self.bias is None else outputs + self.bias


class Condensed(nn.Module):
    """A linear layer whose outputs read k inputs each: their indices (out, k) and weights (out, k). Outputs that keep fewer than
    the most are filled up with zeros (Lasby et al. 2024, Dynamic sparse training with structured sparsity)."""

    index: Tensor
    weight: Tensor

    def __init__(self, linear: nn.Linear, mask: Tensor):
        super().__init__()
        fan_in = max(1, int(mask.sum(1).max()))
        index = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :fan_in].contiguous()
        self.register_buffer("index", index)
        self.register_buffer("weight", (linear.weight.detach() * mask).gather(1, index))
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.reshape(-1, inputs.shape[-1])
        if len(flat) == 1:
            outputs = (flat[0][self.index] * self.weight).sum(1, keepdim=True).T
        else:  # a bag is an output: the fastest kernel of torch for rows of few entries on a CPU
            outputs = F.embedding_bag(self.index, flat.T.contiguous(), mode="sum", per_sample_weights=self.weight).T
        outputs = outputs.reshape(*inputs.shape[:-1], -1)
        return outputs if self.bias is None else outputs + self.bias


class SemiStructured(nn.Module):
    """A linear layer of half precision whose weight keeps two of every four inputs, for GPUs whose tensor cores know that."""

    def __init__(self, linear: nn.Linear, mask: Tensor):
        super().__init__()
        self.linear = copy.deepcopy(linear)
        weight = (linear.weight.detach() * mask).half().contiguous()
        self.linear.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(weight), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs)
        return outputs


def is_very_sparse(mask: Tensor) -> bool:
    """Return whether a layer keeps so few weights that computing with single ones may be faster."""
    return 0 < round(float(mask.float().mean()), 2) <= DENSEST


def is_two_of_four(mask: Tensor) -> bool:
    """Return whether of every four inputs in a row at most two are kept."""
    return mask.shape[1] % 4 == 0 and bool((mask.reshape(len(mask), -1, 4).sum(2) <= 2).all())


def replaced(
    network: nn.Module,
    masks: Mapping[str, Tensor],
    kind: Callable[[nn.Linear, Tensor], nn.Module],
    wanted: Callable[[Tensor], bool],
) -> nn.Module | None:
    """Return a copy in which the linear layers whose mask is ``wanted`` are of ``kind``; None where there is no such layer."""
    network, found = copy.deepcopy(network), False
    for name, module in list(network.named_modules()):
        mask = masks.get(f"{name}.weight")
        if isinstance(module, nn.Linear) and mask is not None and mask.shape == module.weight.shape and wanted(mask):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, kind(module, mask.to(module.weight.device)))
            found = True
    return network if found else None
