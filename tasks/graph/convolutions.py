"""Graph convolutions in which every edge has one prunable value.

The message along an edge is multiplied by the edge's value w, which starts at 1; every sum that normalises adds up |w|, so
that it stays positive for all signs. A value of 0 is therefore exactly an edge removed. A node's own message has weight
1 and is no edge. Every forward pass normalises the masked values again, and gradients flow through it.

    gcn     x_i <- sum_j w_ij W x_j / sqrt(d_i d_j), j among i and its neighbours, d_i = 1 + sum_j |w_ij| (Kipf & Welling 2017)
    gat     x_i <- sum_j w_ij e_ij W x_j / sum_j |w_ij| e_ij, e_ij = exp of the attention of i to j (Velickovic et al. 2018)
    gin     x_i <- W ((1 + eps) x_i + mean_j w_ij x_j), one linear layer, eps learned (Xu et al. 2019, with UGS' mean)
    sage    x_i <- R x_i + W (mean_j w_ij x_j) (Hamilton et al. 2017)
    resgcn  residual blocks norm - ReLU - dropout - softmax aggregation - linear (DeeperGCN, Li et al. 2020)
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sparse import Pattern, Sparse, product, times

FAINT = -60.0
"""The smallest exponent of a softmax below the largest: smaller ones could become zero, and a node would be left without
weights."""
TEMPERATURE = 0.1
"""The temperature of resgcn's softmax aggregation."""


class Affine(nn.Module):
    """x W + b: weight (inputs, outputs) as the papers write it, Glorot uniform, and bias, 0."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(_glorot(inputs, outputs, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Sparse | Tensor) -> Tensor:
        return times(inputs, self.weight) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """Multiply-adds of x W where x has ``entries`` that are not zero."""
        return entries * self.weight.shape[1] * density("weight")


class Convolution(Affine):
    """A layer. ``mixer`` prepares, once for all layers, what depends on the edges alone."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Any:
        raise NotImplementedError

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """And of the aggregation: over ``links`` and the node itself, as wide as the output."""
        return super().macs(entries, nodes, links, density) + (links + nodes) * self.weight.shape[1]


class GcnConv(Convolution):
    """Symmetrically normalised sum over a node and its neighbours (Kipf & Welling 2017)."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Callable[[Tensor], Tensor]:
        scale = (1 + _row_sums(links, value.abs())).rsqrt()

        def mix(hidden: Tensor) -> Tensor:
            scaled = scale * hidden
            return scale * (product(links, value, scaled) + scaled)

        return mix

    def forward(self, inputs: Sparse | Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        return mix(times(inputs, self.weight)) + self.bias


class MeanConvolution(Convolution):
    """A convolution that takes the mean over a node's neighbours, weighted by the links' values."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Callable[[Tensor], Tensor]:
        total = _row_sums(links, value.abs())
        total = torch.where(total > 0, total, 1)  # without neighbours the mean is 0
        return lambda hidden: product(links, value, hidden) / total


class GinConv(MeanConvolution):
    """The node times (1 + eps), which is learned, plus the mean of its neighbours, after one linear map."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__(inputs, outputs, generator)
        self.eps = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Sparse | Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        hidden = times(inputs, self.weight)
        return (1 + self.eps) * hidden + mix(hidden) + self.bias


class SageConv(MeanConvolution):
    """One linear map of the node itself plus another of the mean of its neighbours (GraphSAGE)."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__(inputs, outputs, generator)
        self.root = nn.Parameter(_glorot(inputs, outputs, generator=generator))

    def forward(self, inputs: Sparse | Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        own, hidden = times(inputs, torch.cat([self.root, self.weight], 1)).chunk(2, 1)
        return own + mix(hidden.contiguous()) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        return super().macs(entries, nodes, links, density) + entries * self.root.shape[1] * density("root")


class GatConv(Convolution):
    """``heads`` side by side, each ``outputs`` wide. attention (2, heads, outputs): of a link's target and its source node."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator, heads: int, dropout: float):
        super().__init__(inputs, heads * outputs, generator)
        self.attention = nn.Parameter(_glorot(2, heads, outputs, generator=generator))
        self.dropout = dropout

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> tuple[Pattern, Tensor]:
        return links, value

    def forward(self, inputs: Sparse | Tensor, mix: tuple[Pattern, Tensor]) -> Tensor:
        links, value = mix
        hidden = times(inputs, self.weight).unflatten(1, self.attention.shape[1:])
        target, source = (hidden * self.attention.unsqueeze(1)).sum(3)
        slope = partial(F.leaky_relu, negative_slope=0.2)
        # no attention of a node is above this; any number would do, the same for all neighbours, if nothing overflows
        highest = slope(target + source.amax(0)).detach()
        own = (slope(target + source) - highest).clamp(min=FAINT).exp()
        logits = slope(target.index_select(0, links.rows) + source.index_select(0, links.columns))
        attention = (logits - highest.index_select(0, links.rows)).clamp(min=FAINT).exp() * value.unsqueeze(1)
        heads = []
        for head in range(hidden.shape[1]):
            of_head, message = attention[:, head].contiguous(), hidden[:, head].contiguous()
            self_attention = own[:, head, None]
            total = self_attention + _row_sums(links, of_head.abs())
            kept = F.dropout(torch.cat([of_head, self_attention.squeeze(1)]), self.dropout, self.training)
            of_head, self_kept = kept.split([of_head.numel(), hidden.shape[0]])
            heads.append((product(links, of_head, message) + self_kept.unsqueeze(1) * message) / total)
        return torch.cat(heads, 1) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """Both halves of the attention cost a product for each node and output."""
        return super().macs(entries, nodes, links, density) + 2 * nodes * self.weight.shape[1]


class GenConv(Convolution):
    """Softmax aggregation of ReLU messages, channel by channel, over the neighbours and the node itself; then a linear layer."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Callable[[Tensor], Tensor]:
        size = value.abs()

        def mix(hidden: Tensor) -> Tensor:
            # what a node says is the same to all, so the softmax over neighbours is a quotient of two products
            message = F.relu(hidden) + 1e-7
            power = (TEMPERATURE * (message - message.amax(0).detach())).clamp(min=FAINT).exp()
            weighted = power * message
            return (weighted + product(links, value, weighted)) / (power + product(links, size, power))

        return mix

    def forward(self, inputs: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        return times(inputs + mix(inputs), self.weight) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """Two aggregations, as wide as the input, which is as wide as the output."""
        return super().macs(entries, nodes, links, density) + (links + nodes) * self.weight.shape[0]


def _row_sums(pattern: Pattern, values: Tensor) -> Tensor:
    """(R, 1)"""
    return product(pattern, values, values.new_ones(pattern.shape[1], 1))


def _glorot(*shape: int, generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6 / sum(shape[-2:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
