"""Distances that training moves kept and pruned weights (Frankle & Carbin 2019)."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pruning.lab import Lab
from pruning.masks import Masks
from pruning.metadata import Row, analysis
from pruning.ticket import Densities


@analysis(keys=("density",))
def travel(lab: Lab, densities: list[Densities]) -> Iterator[Row]:
    """Measure how far the dense training moves the weights that magnitude pruning then keeps, and those that it prunes (Frankle &
    Carbin 2019): are winning weights close to their final values from the start?

    kept          mean |trained - initial| of kept weights
    cut           mean |trained - initial| of pruned weights
    outward_kept  share of kept weights that end further from 0 than they began
    outward_cut   share of pruned weights that end further from 0 than they began
    """
    initial, trained = lab.start("init"), lab.start("end")
    before, after = (dict(lab.network(state).named_parameters()) for state in (initial, trained))
    scores = lab.score("magnitude", trained, lab.ones())
    for density in densities:
        masks = lab.allocate(scores, lab.ones(), density)
        names = [m.name for m in lab.maskables if m.budget in density]
        begin, end, kept = (_flat(side, names) for side in (before, after, masks))
        moves = {"kept": moved(begin[kept], end[kept]), "cut": moved(begin[~kept], end[~kept])}
        yield {
            "density": next(iter(density.values())),
            **{name: far for name, (far, _) in moves.items()},
            **{f"outward_{name}": outward for name, (_, outward) in moves.items()},
        }


def _flat(tensors: Mapping[str, Tensor] | Masks, names: list[str]) -> Tensor:
    return torch.cat([tensors[name].detach().cpu().reshape(-1) for name in names])


def moved(before: Tensor, after: Tensor) -> tuple[float | None, float | None]:
    """Return the mean distance between two values of each weight and the share of weights that end further from 0; None for both
    if there are no weights."""
    if not len(before):
        return None, None
    return float((after - before).abs().mean()), float((after.abs() > before.abs()).float().mean())
