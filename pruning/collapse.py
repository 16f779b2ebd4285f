"""Layer collapse and conservation (Tanaka et al. 2020), measured on scores and masks without any training."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .maskable import Maskable
from .masks import Masks


def layer_totals(scores: dict[str, Tensor]) -> dict[str, float]:
    """Sum of the scores of every tensor: all equal where a score is conserved layer by layer. In a network of parallel
    branches only the sums over whole cuts are equal."""
    return {name: float(score.double().sum()) for name, score in scores.items()}


def spread(totals: dict[str, float]) -> float:
    """(largest - smallest) / largest absolute total: 0 for a score conserved exactly."""
    return (max(totals.values()) - min(totals.values())) / max(map(abs, totals.values()))


def unit_totals(scores: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For every two consecutive layers of a plain chain, the summed score into and out of each hidden unit, (units,) float64.

    Weights are (outputs, inputs, ...) as torch's; a linear layer that reads a flattened image sums each channel's pixels.
    """
    layers = [score.double().reshape(len(score), -1, math.prod(score.shape[2:])) for score in scores.values()]
    pairs = []
    for before, after in pairwise(layers):
        units = len(before)
        if after.shape[1] % units:
            raise ValueError(f"a layer of {units} units is followed by one that reads {after.shape[1]}: this is no plain chain")
        pairs.append((before.sum((1, 2)), after.reshape(len(after), units, -1).sum((0, 2))))
    return pairs


def size_slope(scores: dict[str, Tensor]) -> float:
    """Slope of log mean score against log 1 / size over the tensors, a least-squares fit: 1 for a score conserved layer by layer,
    0 for one that knows nothing of sizes. NaN where a mean is not positive."""
    x = torch.tensor([-math.log(s.numel()) for s in scores.values()], dtype=torch.float64)
    y = torch.stack([s.double().mean() for s in scores.values()]).log()
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def max_exponent(maskables: list[Maskable]) -> float:
    """log10 of the largest compression that leaves an entry in each tensor: total / tensors."""
    return math.log10(sum(m.size for m in maskables) / len(maskables))


def critical_exponent(ticket: Callable[[float], Masks], last: float, step: float = 0.25) -> float:
    """log10 of the critical compression: on a grid of ``step``, the largest exponent up to ``last`` before ``ticket(density)``
    first leaves a tensor empty. It stops there, and asks for no density below 10 ** -last."""
    for i in range(1, math.floor(last / step + 1e-9) + 1):
        if ticket(10 ** -(i * step)).collapsed():
            return (i - 1) * step
    return math.floor(last / step + 1e-9) * step
