"""Correlation indicator: how many of their largest weights two networks have in common (Liu et al. 2021)."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from pruning.allocation import allocate
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import Row, analysis
from pruning.ticket import Densities


@analysis(keys=("pair", "density", "p"))
def correlation(
    lab: Lab,
    densities: list[Densities],
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    share: float = 0.2,
    maker: str = "one_shot",
) -> Iterator[Row]:
    """Measure the correlation indicator R_p: the share of the p largest weights of every layer that two networks have in common
    (Liu et al. 2021, Eq. 1). Independent networks have p; correlated ones have more.

    dense                   the initial and the trained network, p each of ``shares``; the only pair without a density
    ticket, reinit          the initial weights, or weights of another seed, and the retrained network, all under the ticket's
                            masks; p = ``share`` of the weights that the masks keep
    to-initial, to-trained  the retrained network and the dense initial or trained one; p = ``share`` of all weights, so only
                            densities above it. Masks rank all layers together: in a layer that keeps less than ``share``, the
                            rest is drawn from pruned weights, and the two seem more independent than they are

    shares  values of p for the pair dense
    share   value of p for the other pairs
    maker   the method that finds the masks: one_shot, imp or admm

    Tensors of budgets without a density are left out.
    """
    measured = [m for m in lab.maskables if any(m.budget in density for density in densities)]
    initial, reinit, trained = (lab.score("magnitude", lab.start(name), lab.ones()) for name in ("init", "reinit", "end"))
    for p in shares:
        yield {"pair": "dense", "density": None, "p": p, "r": indicator(initial, trained, p, measured)}
    for ticket in lab.tickets("prune_finetune", densities, maker=maker):
        masks, (density, *_) = ticket.masks, ticket.densities.values()
        retrained = lab.score("magnitude", lab.train(ticket.start, masks, ticket.schedule), masks)
        pairs: dict[str, tuple[dict[str, Tensor], Masks | None]] = {"ticket": (initial, masks), "reinit": (reinit, masks)}
        if density > share:
            pairs |= {"to-initial": (initial, None), "to-trained": (trained, None)}
        for pair, (other, mask) in pairs.items():
            yield {"pair": pair, "density": density, "p": share, "r": indicator(other, retrained, share, measured, mask)}


def indicator(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], p: float, maskables: list[Maskable], mask: Masks | None = None
) -> float:
    """Return R_p of two networks, given the magnitudes of their weights. ``mask``: the mask of both, outside of which no weight
    counts; None: all weights count."""
    if not 0 < p <= 1:
        raise PruningError(f"p is {p}; the share of the largest weights must lie in (0, 1]")
    layers = [Maskable(m.name, m.shape, m.kind, m.name, floor=0) for m in maskables]
    whole = Masks.ones(layers)
    inside = whole.replace({m.name: mask[m.name] for m in layers}) if mask else whole
    counted = {m.name: p * inside.kept(m.name) / m.size for m in layers if round(p * inside.kept(m.name))}
    first, second = (allocate({**scores}, inside, counted, layers) for scores in (one, other))
    both = sum(int((first[name] & second[name]).sum()) for name in counted)
    return both / max(1, sum(first.kept(name) for name in counted))
