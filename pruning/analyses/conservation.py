"""Conservation of scores from layer to layer and from unit to unit (Tanaka et al. 2020). Nothing is trained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pruning.analyses.collapse import chosen, members
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.metadata import Row, analysis
from pruning.ticket import Densities


@analysis(keys=("score",))
def conservation(
    lab: Lab,
    densities: list[Densities],
    scores: Sequence[str] = ("random", "magnitude", "snip", "grasp", "synflow"),
    chain: bool = False,
    budget: str = "weights",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Row]:
    """Measure how far scores of the untrained network are conserved from layer to layer and from unit to unit (Tanaka et al.
    2020). A conserved score that is computed again in every round empties no layer before it has to. The densities are not used.

    size_slope        1 if every layer has the same total, 0 if mean scores do not depend on sizes; empty unless > 0
    spread            (largest - smallest total of a layer) / largest absolute total
    total             total of the last layer, which every path crosses: for synflow the flow R
    unit_error        largest |in - out| / |out| over the hidden units; empty unless ``chain``, and if a unit has an out of 0
    unit_correlation  correlation of the sums into and out of the hidden units; empty unless ``chain``

    scores   the scores to measure
    chain    whether every layer reads the one before it and nothing else, which is not so in residual networks
    budget   the budget whose layers are measured
    options  score -> its options, such as {snip: {mode: train}}
    """
    layers = members(lab, budget)
    for name, own in chosen(scores, options):
        scored = lab.score(name, lab.start("init"), lab.ones(), **own)
        found = {m.name: scored[m.name] if m.input_axis == 1 else scored[m.name].transpose(0, 1) for m in layers}
        totals, slope = layer_totals(found), size_slope(found)
        row = {
            "score": name,
            "size_slope": slope if math.isfinite(slope) else None,
            "spread": spread(totals),
            "total": list(totals.values())[-1],
            "unit_error": None,
            "unit_correlation": None,
        }
        if chain:
            into, out = (torch.cat(side) for side in zip(*unit_totals(found), strict=True))
            row["unit_error"] = float(((into - out).abs() / out.abs()).max()) if out.all() else None
            row["unit_correlation"] = float(torch.corrcoef(torch.stack([into, out]))[0, 1])
        yield row


def layer_totals(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the sum of the scores of every tensor: all equal if the score is conserved layer by layer. In a network with
    parallel branches only the sums over whole cuts of the graph are equal."""
    return {name: float(score.double().sum()) for name, score in scores.items()}


def spread(totals: Mapping[str, float]) -> float:
    """Return (largest - smallest) / largest absolute total: 0 for an exactly conserved score."""
    return (max(totals.values()) - min(totals.values())) / (max(map(abs, totals.values())) or 1.0)


def unit_totals(scores: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return for every two consecutive layers of a plain chain the summed scores into and out of each hidden unit, (units,)
    float64.

    Scores are (outputs, inputs, ...); a linear layer that reads a flattened image sums the pixels of each channel.
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
    """Return the least-squares slope of log mean score against log 1 / size over the tensors: 1 for a score conserved layer by
    layer, 0 for one that does not depend on sizes. Not finite unless every mean is positive."""
    x = torch.tensor([-math.log(s.numel()) for s in scores.values()], dtype=torch.float64)
    y = torch.stack([s.double().mean() for s in scores.values()]).log()
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
