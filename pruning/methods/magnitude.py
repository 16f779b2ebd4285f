"""Tickets found by training and pruning by magnitude: one shot, iterative magnitude pruning and its variants. A method is a
generator of tickets that reads like the pseudo-code of its paper; ``lab`` is its only door to a task (``pruning.lab.Lab``
documents every member)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import ungrouped
from pruning.metadata import method
from pruning.schedules import geometric
from pruning.ticket import Densities, Ticket

MAX_ROUNDS = 100
"""Rounds after which ``imp_by_kind`` gives up on a density that its rates never reach."""


def dense(lab: Lab, densities: list[Densities]) -> Iterator[Ticket]:
    """The dense network, trained once: the baseline of every table."""
    yield Ticket({}, lab.ones(), lab.start("init"))


def one_shot(
    lab: Lab,
    densities: list[Densities],
    score: str = "magnitude",
    rewind: str = "init",
    schedule: str = "replay",
    scheme: str = "global",
) -> Iterator[Ticket]:
    """Train, prune once to each density, and rewind (Frankle & Carbin 2019, one-shot pruning). Options as those of ``imp``.

    score  the score to prune by, such as magnitude
    """
    masks, start = lab.ones(), lab.start(rewind)
    scores = lab.score(score, lab.start("end"), masks)
    for density in densities:
        yield Ticket(density, lab.allocate(scores, masks, density, scheme), start, schedule, scores, masks, scheme)


@method(sequential=True)  # earlier densities are rounds on the way to later ones
def imp(
    lab: Lab,
    densities: list[Densities],
    score: str = "magnitude",
    rewind: str = "init",
    schedule: str = "replay",
    scheme: str = "global",
    rate: float | None = None,
) -> Iterator[Ticket]:
    """Iterative magnitude pruning: train, prune, rewind, repeat (Frankle & Carbin 2019; Frankle et al. 2020, Algorithm 1).

    score     the score to prune by, such as magnitude
    rewind    the start state: init, a step (2ep, 500it, 10%), pretrained or reinit; end keeps the trained weights
    schedule  replay: the rest of the schedule from the rewind step (weight rewinding);
              whole: the full schedule again (learning-rate rewinding, with rewind=end);
              constant: the full length at the task's low rate (fine-tuning, with rewind=end)
    scheme    the layerwise distribution of the kept entries; global ranks all tensors of a budget together
    rate      the largest share of the remaining entries pruned in one round; None: one round for each density
    """
    masks, start, trained = lab.ones(), lab.start(rewind), lab.start("end")
    reached = dict.fromkeys(lab.budgets, 1.0)
    for density in densities:
        for target in geometric(reached, density, rate):
            scores, before = lab.score(score, trained, masks), masks
            masks = lab.allocate(scores, masks, target, scheme)
            if rewind == "end":
                start = trained
            if target == density:
                yield Ticket(density, masks, start, schedule, scores, before, scheme)
            trained = lab.train(start, masks, schedule)
        reached |= density


@method(sequential=True)
def imp_continued(
    lab: Lab,
    densities: list[Densities],
    score: str = "magnitude",
    rewind: str = "init",
    schedule: str = "replay",
    scheme: str = "global",
    rate: float | None = None,
) -> Iterator[Ticket]:
    """IMP that rewinds only at the end: between rounds the network trains on from its current weights, by the whole schedule
    (Frankle & Carbin 2019, Appendix B, strategy 2). Options as those of ``imp``."""
    start = lab.start(rewind)
    # islice stops imp at its last ticket, which it would otherwise train
    for ticket in islice(imp(lab, densities, score, "end", "whole", scheme, rate), len(densities)):
        yield replace(ticket, start=start, schedule=schedule)


def imp_by_kind(
    lab: Lab,
    densities: list[Densities],
    rates: Mapping[str, float] | None = None,
    together: bool = False,
    score: str = "magnitude",
    rewind: str = "init",
    schedule: str = "replay",
) -> Iterator[Ticket]:
    """IMP with a pruning rate for each kind of tensor (Frankle & Carbin 2019): LeNet's layers lose 20 % of their remaining
    entries in a round and its output layer 10 %; in ResNet-20 only convolutions are pruned.

    rates     kind -> share of the remaining entries pruned in a round; None: 0.2 of every kind. Tensors of other kinds stay
              dense and count in the density
    together  one ranking over all tensors of a kind, instead of one for each tensor

    A density is an upper bound: its ticket comes from the first round that keeps no more. Other options as those of ``imp``.
    """
    prunable = ungrouped([m for m in lab.maskables if any(m.budget in density for density in densities)], "imp_by_kind")
    kinds = dict.fromkeys(m.kind for m in prunable)
    rates = dict.fromkeys(kinds, 0.2) if rates is None else rates
    if not rates or rates.keys() - kinds or not all(0 < rate < 1 for rate in rates.values()):
        raise PruningError(
            f"rates={dict(rates)}: give one or more of the kinds {', '.join(kinds)} a share in (0, 1), such as "
            f"rates={{{prunable[0].kind}: 0.2}}"
        )
    members = {m.name: m.kind if together else m.name for m in prunable if m.kind in rates}
    kept = {members[m.name]: 1 - rates[m.kind] for m in prunable if m.name in members}
    masks, start, trained, done = lab.ones(), lab.start(rewind), lab.start("end"), 0
    for density in densities:
        while any(masks.density(budget) > bound for budget, bound in density.items()):
            if done == MAX_ROUNDS:
                raise PruningError(
                    f"{MAX_ROUNDS} rounds of rates={dict(rates)} do not reach density {dict(density)}: too much stays dense"
                )
            if done:
                trained = lab.train(start, masks, schedule)
            if rewind == "end":
                start = trained
            done += 1
            target = {pool: share**done for pool, share in kept.items()}
            masks = lab.allocate_each(lab.score(score, trained, masks), masks, members, target)
        yield Ticket(density, masks, start, schedule, notes={"rounds": done})
