"""Differences of masks: between epochs of one training, between methods, and between seeds."""

from collections.abc import Iterator, Sequence

from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.metadata import Row, analysis
from pruning.ticket import Densities


@analysis(keys=("budget", "density", "earlier", "epoch"))
def mask_distance(lab: Lab, densities: list[Densities], score: str = "magnitude", every: int = 1) -> Iterator[Row]:
    """Measure the distance of the masks that a score gives at two epochs of the dense training: the share of entries on which
    they differ (You et al. 2020, the matrix by which early-bird tickets were found). Epoch 0 is the initial network.

    score  the score to prune by
    every  epochs between two masks
    """
    if every < 1:
        raise PruningError(f"every is {every}; two masks are at least one epoch apart")
    epochs = range(0, lab.epochs + 1, every)
    start, whole = lab.start("init"), lab.ones()
    states = [start, *(lab.train(start, whole, until=epoch * lab.steps // lab.epochs) for epoch in epochs[1:])]
    scores = [lab.score(score, state, whole) for state in states]
    for density in densities:
        masks = [lab.allocate(values, lab.ones(), density) for values in scores]
        for budget, target in density.items():
            for i, epoch in enumerate(epochs):
                for before, old in zip(epochs[:i], masks, strict=False):
                    row = {"budget": budget, "density": target, "earlier": before, "epoch": epoch}
                    yield {**row, "distance": masks[i].distance(old, budget)}


@analysis(keys=("one", "other", "budget", "density"))
def overlap(
    lab: Lab,
    densities: list[Densities],
    methods: Sequence[str] = ("imp", "one_shot", "magnitude_at_init", "random_ticket"),
    seeds: bool = True,
) -> Iterator[Row]:
    """Measure the overlap, intersection over union of the kept entries, of the tickets of two methods or of one method with two
    seeds.

    methods   the methods to compare
    seeds     also compare every method with itself on the next seed

    overlap   intersection over union of the kept entries
    expected  the overlap of two random masks of these densities
    """
    masks_of = {name: [ticket.masks for ticket in lab.tickets(name, densities)] for name in methods}
    pairs = [(one, other, masks_of[one], masks_of[other]) for i, one in enumerate(methods) for other in methods[:i]]
    if seeds:
        next_lab = lab.sibling(seed=lab.seed + 1)
        again = {name: [ticket.masks for ticket in next_lab.tickets(name, densities)] for name in methods}
        pairs += [(name, "next seed", masks, again[name]) for name, masks in masks_of.items()]
        lab.charge(next_lab.spent(), 1.0)
    for one, other, one_masks, other_masks in pairs:
        for density, first, second in zip(densities, one_masks, other_masks, strict=True):
            for budget, target in density.items():
                a, b = first.density(budget), second.density(budget)
                yield {
                    "one": one,
                    "other": other,
                    "budget": budget,
                    "density": target,
                    "overlap": first.overlap(second, budget),
                    "expected": a * b / (a + b - a * b),
                }
