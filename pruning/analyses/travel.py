"""How far training moves the weights that a ticket keeps, beside those it cuts (Frankle & Carbin 2019, Appendix F.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pruning.lab import Lab
from pruning.masks import Masks
from pruning.metadata import analysis
from pruning.ticket import Densities


@analysis(keys=("density",))
def travel(lab: Lab, densities: list[Densities]) -> Iterator[dict]:
    """How far the dense training moves the weights that one cut by magnitude then keeps, and those it cuts (Frankle & Carbin
    2019, Appendix F.1): are winning weights near their goal from the start?

    kept, cut                    mean |trained - initial|
    outward_kept, outward_cut    share of them that ends further from 0 than it began
    """
    initial, trained = lab.start("init"), lab.start("end")
    before, after = (dict(lab.network(state).named_parameters()) for state in (initial, trained))
    scores = lab.score("magnitude", trained, lab.ones())
    for density in densities:
        masks = lab.allocate(scores, lab.ones(), density)
        names = [m.name for m in lab.maskables if m.budget in density]
        begin, end, kept = (_flat(side, names) for side in (before, after, masks))
        found = {"kept": moved(begin[kept], end[kept]), "cut": moved(begin[~kept], end[~kept])}
        yield {"density": next(iter(density.values())), **{name: far for name, (far, _) in found.items()},
               **{f"outward_{name}": outward for name, (_, outward) in found.items()}}


def _flat(tensors: Mapping[str, Tensor] | Masks, names: list[str]) -> Tensor:
    return torch.cat([tensors[name].detach().cpu().reshape(-1) for name in names])


def moved(before: Tensor, after: Tensor) -> tuple[float | None, float | None]:
    """Mean distance between two values of each weight, and the share of weights that the second leaves further from 0; None
    where there are no weights."""
    if not len(before):
        return None, None
    return float((after - before).abs().mean()), float((after.abs() > before.abs()).float().mean())
