"""How far a score is conserved from layer to layer and from unit to unit (Tanaka et al. 2020). Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pruning.analyses.collapse import chosen, members
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.metadata import analysis
from pruning.ticket import Densities


@analysis(keys=("score",))
def conservation(
    lab: Lab,
    densities: list[Densities],
    scores: Sequence[str] = ("random", "magnitude", "snip", "grasp", "synflow"),
    chain: bool = False,
    budget: str = "weights",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[dict]:
    """How far scores of the untrained network are conserved from layer to layer and from unit to unit (Tanaka et al. 2020): what
    is conserved and scored anew in every round empties no layer before the last possible moment.

    size_slope        1 if every layer has the same total, 0 if mean scores know nothing of sizes; none unless all are positive
    spread            (largest - smallest total of a layer) / largest absolute one
    total             the last layer's, which every path crosses: for synflow the flow R
    unit_error        largest |in - out| / |out| over the hidden units; none unless ``chain``, or where a unit has no out
    unit_correlation  of what goes into the hidden units and what comes out of them; none unless ``chain``

    chain    whether every layer reads the one listed before it and nothing else: not so where there are shortcuts
    options  score -> its options: {snip: {mode: train}}
    The densities have no part in it.
    """
    layers = members(lab, budget)
    for name, mine in chosen(scores, options):
        scored = lab.score(name, lab.start("init"), lab.ones(), **mine)
        found = {m.name: scored[m.name] for m in layers}
        totals, slope = layer_totals(found), size_slope(found)
        row = {"score": name, "size_slope": slope if math.isfinite(slope) else None, "spread": spread(totals),
               "total": list(totals.values())[-1], "unit_error": None, "unit_correlation": None}
        if chain:
            into, out = (torch.cat(side) for side in zip(*unit_totals(found), strict=True))
            row["unit_error"] = float(((into - out).abs() / out.abs()).max()) if out.all() else None
            row["unit_correlation"] = float(torch.corrcoef(torch.stack([into, out]))[0, 1])
        yield row


def layer_totals(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Sum of the scores of every tensor: all equal where a score is conserved layer by layer. In a network of parallel
    branches only the sums over whole cuts are equal."""
    return {name: float(score.double().sum()) for name, score in scores.items()}


def spread(totals: Mapping[str, float]) -> float:
    """(largest - smallest) / largest absolute total: 0 for a score conserved exactly."""
    return (max(totals.values()) - min(totals.values())) / (max(map(abs, totals.values())) or 1.0)


def unit_totals(scores: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For every two consecutive layers of a plain chain, the summed score into and out of each hidden unit, (units,) float64.

    Weights are (outputs, inputs, ...) as torch's; a linear layer that reads a flattened image sums each channel's pixels.
    Raises PruningError where shapes do not fit together.
    """
    layers = {name: score.double().reshape(len(score), -1, math.prod(score.shape[2:])) for name, score in scores.items()}
    pairs = []
    for (_, before), (name, after) in pairwise(layers.items()):
        units = len(before)
        if after.shape[1] % units:
            raise PruningError(f"{name} reads {after.shape[1]} units but the layer before it has {units}: this is no plain chain")
        pairs.append((before.sum((1, 2)), after.reshape(len(after), units, -1).sum((0, 2))))
    return pairs


def size_slope(scores: Mapping[str, Tensor]) -> float:
    """Slope of log mean score against log 1 / size over the tensors, a least-squares fit: 1 for a score conserved layer by layer,
    0 for one that knows nothing of sizes. Not finite unless every mean is positive."""
    x = torch.tensor([-math.log(s.numel()) for s in scores.values()], dtype=torch.float64)
    y = torch.stack([s.double().mean() for s in scores.values()]).log()
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
