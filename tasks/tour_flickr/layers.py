"""Layers of several independent networks side by side, one for each fold: F of everything, computed in one product.

Each network's matrices are parameters of their own, since each network is pruned to the density asked for; what is never pruned
is one tensor (F, ...). No layer mixes networks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn uniformly from [-bound, bound)."""
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)


class Matrices(nn.Module):
    """F matrices (out, in), which may be pruned."""

    def __init__(self, networks: int, inputs: int, outputs: int, bound: float, generator: torch.Generator):
        super().__init__()
        self.each = nn.ParameterList(uniform((outputs, inputs), bound, generator) for _ in range(networks))

    def forward(self) -> Tensor:
        """Return (F, in, out), to multiply rows by."""
        return torch.stack(list(self.each)).transpose(1, 2)


class Linear(nn.Module):
    """F linear layers, initialised as torch's."""

    def __init__(self, networks: int, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        self.weight = Matrices(networks, inputs, outputs, inputs**-0.5, generator)
        self.bias = uniform((networks, 1, outputs), inputs**-0.5, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(F, ..., in) -> (F, ..., out)"""
        rows = x.flatten(1, -2) if x.ndim > 2 else x[:, None]
        return torch.baddbmm(self.bias, rows, self.weight()).view(*x.shape[:-1], -1)


class GRU(nn.Module):
    """F gated recurrent units in one or two directions, initialised as torch's. Directions count as networks of their own here:
    network d * F + f reads for network f in direction d."""

    def __init__(self, networks: int, inputs: int, hidden: int, generator: torch.Generator, directions: int = 1):
        super().__init__()
        count, bound = networks * directions, hidden**-0.5
        self.hidden, self.directions = hidden, directions
        self.input = Matrices(count, inputs, 3 * hidden, bound, generator)
        self.recurrent = Matrices(count, hidden, 3 * hidden, bound, generator)
        self.input_bias = uniform((count, 1, 3 * hidden), bound, generator)
        self.recurrent_bias = uniform((count, 1, 3 * hidden), bound, generator)

    def forward(self, x: Tensor, there: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read rows x (F, n, length, in) from ``state`` (F, n, hidden); steps not ``there`` (F, n, length) change nothing.

        Return the states after every step (F, n, length, directions * hidden) and the last ones (F, n, directions * hidden).
        """
        networks, rows = x.shape[:2]
        if self.directions == 2:  # the second reads from the end
            x, there = torch.cat([x, x.flip(2)]), torch.cat([there, there.flip(2)])
        gates = torch.baddbmm(self.input_bias, x.flatten(1, 2), self.input()).view(*x.shape[:3], -1)
        h = x.new_zeros(len(x), rows, self.hidden) if state is None else state
        matrix, states = self.recurrent(), []
        for read, present in zip(gates.unbind(2), there[..., None].unbind(2), strict=True):
            h = torch.where(present, self.step(read, h, matrix), h)
            states.append(h)
        outputs = torch.stack(states, 2)
        if self.directions == 2:
            outputs = torch.cat([outputs[:networks], outputs[networks:].flip(2)], -1)
            h = torch.cat([h[:networks], h[networks:]], -1)
        return outputs, h

    def step(self, gates: Tensor, h: Tensor, matrix: Tensor) -> Tensor:
        """Return the states after one step. gates: what the inputs give, (F, n, 3 * hidden); matrix: ``recurrent()``."""
        own = torch.baddbmm(self.recurrent_bias, h, matrix)
        (read_gates, read_new), (own_gates, own_new) = (x.split([2 * self.hidden, self.hidden], -1) for x in (gates, own))
        reset, update = torch.sigmoid(read_gates + own_gates).chunk(2, -1)
        new = torch.tanh(read_new + reset * own_new)
        return new + update * (h - new)


class Table(nn.Module):
    """F tables of vectors: embeddings. Never pruned: a row is a word of the vocabulary."""

    def __init__(self, networks: int, rows: int, width: int, generator: torch.Generator):
        super().__init__()
        self.rows = rows
        self.vectors = nn.Parameter(torch.randn(networks, rows, width, generator=generator) / math.sqrt(width))

    def forward(self, index: Tensor) -> Tensor:
        """Numbers (F, ...) -> their vectors (F, ..., width)"""
        networks = len(index)
        offsets = torch.arange(networks, device=index.device).view(-1, *[1] * (index.ndim - 1)) * self.rows
        return nn.functional.embedding(index + offsets, self.vectors.flatten(0, 1))
