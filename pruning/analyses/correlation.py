"""How far the largest weights of two networks are the same ones (Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from pruning.allocation.allocate import allocate
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import analysis
from pruning.ticket import Densities


@analysis(keys=("pair", "density", "p"))
def correlation(lab: Lab, densities: list[Densities], shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5), share: float = 0.2,
                maker: str = "one_shot") -> Iterator[dict]:
    """Correlation indicator R_p: the share of the p largest weights of every layer that two networks have in common (Liu et al.
    2021, Eq. 1). p where they are independent, more where one tells of the other.

    dense            initial and trained network, p each of ``shares``; the only pair without a density
    ticket, reinit   initial weights, or newly drawn ones, and the trained weights trained once more, all under one mask; p =
                     ``share`` of the weights the mask leaves
    to-initial, to-trained  the same sparse network against the whole initial and trained ones; p = ``share`` of all weights,
                     so only densities above it. Masks rank all layers together: where one is left less than ``share``, the rest
                     is drawn among what was cut, and the two count as more independent than they are

    maker            whose masks: one_shot, imp, admm

    Tensors of budgets whose density is not asked are left out.
    """
    among = [m for m in lab.maskables if any(m.budget in density for density in densities)]
    initial, reinit, trained = (lab.score("magnitude", lab.start(name), lab.ones()) for name in ("init", "reinit", "end"))
    for p in shares:
        yield {"pair": "dense", "density": None, "p": p, "r": indicator(initial, trained, p, among)}
    for ticket in lab.tickets("prune_finetune", densities, maker=maker):
        masks, (density, *_) = ticket.masks, ticket.densities.values()
        retrained = lab.score("magnitude", lab.train(ticket.start, masks, ticket.schedule), masks)
        pairs = {"ticket": (initial, masks), "reinit": (reinit, masks)}
        if density > share:
            pairs |= {"to-initial": (initial, None), "to-trained": (trained, None)}
        for pair, (other, mask) in pairs.items():
            yield {"pair": pair, "density": density, "p": share, "r": indicator(other, retrained, share, among, mask)}


def indicator(one: Mapping[str, Tensor], other: Mapping[str, Tensor], p: float, maskables: list[Maskable],
              mask: Masks | None = None) -> float:
    """R_p of two networks, given the magnitudes of their weights. ``mask``: one both have, outside of which no weight is
    counted; None: all weights are."""
    if not 0 < p <= 1:
        raise PruningError(f"p is {p}; the share of the largest weights must lie in (0, 1]")
    apart = [Maskable(m.name, m.shape, m.kind, m.name, floor=0) for m in maskables]
    whole = Masks.ones(apart)
    inside = whole.replace({m.name: mask[m.name] for m in apart}) if mask else whole
    counted = {m.name: p * inside.kept(m.name) / m.size for m in apart if round(p * inside.kept(m.name))}
    first, second = (allocate({**scores}, inside, counted, apart) for scores in (one, other))
    both = sum(int((first[name] & second[name]).sum()) for name in counted)
    return both / max(1, sum(first.kept(name) for name in counted))
