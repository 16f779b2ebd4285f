"""How masks differ: between the epochs of one training, between methods, between seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.metadata import analysis
from pruning.ticket import Densities


@analysis(keys=("budget", "density", "earlier", "epoch"))
def mask_distance(lab: Lab, densities: list[Densities], score: str = "magnitude", every: int = 1) -> Iterator[dict]:
    """Share of the entries on which the masks differ that a score would cut at two epochs of the dense training (You et al. 2020,
    the matrix by which early-bird tickets were found). Epoch 0 is the initial network.

    every  epochs between two looks
    """
    if every < 1:
        raise PruningError(f"every is {every}; two looks are at least one epoch apart")
    epochs = range(0, lab.epochs + 1, every)
    states = [lab.start("init") if epoch == 0 else lab.train(lab.start("init"), lab.ones(), until=epoch * lab.steps // lab.epochs)
              for epoch in epochs]
    scores = [lab.score(score, state, lab.ones()) for state in states]
    for density in densities:
        masks = [lab.allocate(found, lab.ones(), density) for found in scores]
        for budget, asked in density.items():
            for i, epoch in enumerate(epochs):
                for j in range(i):
                    yield {"budget": budget, "density": asked, "earlier": epochs[j], "epoch": epoch,
                           "distance": masks[i].distance(masks[j], budget)}


@analysis(keys=("one", "other", "budget", "density"))
def overlap(
    lab: Lab,
    densities: list[Densities],
    methods: Sequence[str] = ("imp", "one_shot", "magnitude_at_init", "random_ticket"),
    seeds: bool = True,
) -> Iterator[dict]:
    """Intersection over union of the kept entries of two methods' tickets, or of one method's on two seeds.

    seeds     also compare every method with itself on the next seed
    expected  of two random masks of these densities
    """
    found = {name: [ticket.masks for ticket in lab.tickets(name, densities)] for name in methods}
    pairs = [(one, other, found[one], found[other]) for i, one in enumerate(methods) for other in methods[:i]]
    if seeds:
        next_seed = lab.sibling(seed=lab.seed + 1)
        pairs += [(name, "next seed", masks, [ticket.masks for ticket in next_seed.tickets(name, densities)])
                  for name, masks in found.items()]
        lab.charge(next_seed.spent(), 1.0)
    for one, other, ours, theirs in pairs:
        for density, mine, yours in zip(densities, ours, theirs, strict=True):
            for budget, asked in density.items():
                a, b = mine.density(budget), yours.density(budget)
                yield {"one": one, "other": other, "budget": budget, "density": asked, "overlap": mine.overlap(yours, budget),
                       "expected": a * b / (a + b - a * b)}
