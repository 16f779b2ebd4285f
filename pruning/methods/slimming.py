"""Network slimming: a penalty during training shrinks the scales by which units are pruned (Liu et al. 2017)."""

from collections.abc import Iterator

from pruning.callbacks.l1 import l1_on_scales
from pruning.lab import Lab
from pruning.ticket import Densities, Ticket


def slimming(
    lab: Lab,
    densities: list[Densities],
    l1: float = 1e-4,
    score: str = "magnitude",
    rewind: str = "end",
    schedule: str = "whole",
    scheme: str = "global",
) -> Iterator[Ticket]:
    """Network slimming (Liu et al. 2017): train with an L1 penalty on the scales of units, prune once, and train further.

    l1      strength of the penalty, above 0
    rewind  the start state of the ticket; end is the end of the training with the penalty

    Other options as those of ``one_shot``.
    """
    trained = lab.train(lab.start("init"), lab.ones(), callback=l1_on_scales(l1, densities[0]))
    start = trained if rewind == "end" else lab.start(rewind)
    scores = lab.score(score, trained, lab.ones())
    for density in densities:
        yield Ticket(density, lab.allocate(scores, lab.ones(), density, scheme), start, schedule, scores, lab.ones(), scheme)
