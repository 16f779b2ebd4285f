"""Tickets found by training and pruning by magnitude: one shot, iterative magnitude pruning and its variants.

A method is a generator of tickets that reads like the pseudo-code of its paper; ``lab`` is its only door to a task
(``pruning.lab.Lab`` documents every member).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.maskable import ungrouped
from pruning.metadata import method
from pruning.ticket import Densities, Ticket


def dense(lab: Lab, densities: list[Densities]) -> Iterator[Ticket]:
    """The whole network, trained once: the baseline beside every number."""
    yield Ticket({}, lab.ones(), lab.start("init"))


def one_shot(lab: Lab, densities: list[Densities], score: str = "magnitude", rewind: str = "init",
             schedule: str = "replay", scheme: str = "global") -> Iterator[Ticket]:
    """Train, cut once to each density, rewind (Frankle & Carbin 2019, one-shot pruning)."""
    masks, start = lab.ones(), lab.start(rewind)
    scores = lab.score(score, lab.start("end"), masks)
    for density in densities:
        yield Ticket(density, lab.allocate(scores, masks, density, scheme), start, schedule, scores, masks, scheme)


@method(sequential=True)  # a ticket has been through the densities asked for before its own
def imp(lab: Lab, densities: list[Densities], score: str = "magnitude", rewind: str = "init", schedule: str = "replay",
        scheme: str = "global", rate: float | None = None) -> Iterator[Ticket]:
    """Iterative magnitude pruning: train, cut, rewind, again (Frankle & Carbin 2019; Frankle et al. 2020, Algorithm 1).

    rewind    init | a step ("2ep", "500it") | pretrained | reinit; end: go on from the trained weights (no rewinding)
    schedule  replay: the rest of the schedule from the rewind step (weight rewinding)
              whole: the full schedule again (learning-rate rewinding, with rewind=end)
              constant: the full length at the task's low rate (fine-tuning, with rewind=end)
    rate      the largest share of the survivors cut in one round; None: one round for each density asked
    """
    masks, start, trained = lab.ones(), lab.start(rewind), lab.start("end")
    reached = dict.fromkeys(lab.budgets, 1.0)
    for density in densities:
        for goal in rounds(reached, density, rate):
            scores, before = lab.score(score, trained, masks), masks
            masks = lab.allocate(scores, masks, goal, scheme)
            if rewind == "end":
                start = trained
            if goal == density:
                yield Ticket(density, masks, start, schedule, scores, before, scheme)
            trained = lab.train(start, masks, schedule)
        reached |= density


@method(sequential=True)
def imp_continued(lab: Lab, densities: list[Densities], score: str = "magnitude", rewind: str = "init", schedule: str = "replay",
                  scheme: str = "global", rate: float | None = None) -> Iterator[Ticket]:
    """IMP that rewinds only at the end: between rounds the network trains on from where it is, by the whole schedule (Frankle &
    Carbin 2019, Appendix B, strategy 2). Options as those of ``imp``."""
    start = lab.start(rewind)
    # imp is not asked for more than its last ticket, or it would train on from there
    for ticket in islice(imp(lab, densities, score, "end", "whole", scheme, rate), len(densities)):
        yield replace(ticket, start=start, schedule=schedule)


def imp_by_kind(lab: Lab, densities: list[Densities], rates: Mapping[str, float] | None = None, together: bool = False,
                score: str = "magnitude", rewind: str = "init", schedule: str = "replay") -> Iterator[Ticket]:
    """IMP with a rate for every kind of tensor (Frankle & Carbin 2019): of LeNet's layers 20 % of what is left goes in a
    round, of its output layer 10 %; of ResNet-20 convolutions alone.

    rates     kind -> share of the survivors cut in a round; tensors of other kinds stay whole, but count. None: 0.2 of every kind
    together  one ranking over all tensors of a kind, instead of one for each

    A density is a bound: its ticket is that of the first round to keep no more.
    """
    cut = ungrouped([m for m in lab.maskables if any(m.budget in density for density in densities)], "imp_by_kind")
    kinds = dict.fromkeys(m.kind for m in cut)
    rates = dict.fromkeys(kinds, 0.2) if rates is None else rates
    if not rates or rates.keys() - kinds or not all(0 < rate < 1 for rate in rates.values()):
        raise PruningError(f"rates={dict(rates)}: give one or more of the kinds {', '.join(kinds)} a share in (0, 1), such as "
                           f"'method.rates={{{cut[0].kind}: 0.2}}'")
    members = {m.name: m.kind if together else m.name for m in cut if m.kind in rates}
    kept = {members[m.name]: 1 - rates[m.kind] for m in cut if m.name in members}
    masks, start, trained, done = lab.ones(), lab.start(rewind), lab.start("end"), 0
    for density in densities:
        while any(masks.density(budget) > bound for budget, bound in density.items()):
            if done == MOST_ROUNDS:
                raise PruningError(f"{MOST_ROUNDS} rounds of rates={dict(rates)} do not reach density {dict(density)}: too much "
                                   "stays whole")
            if done:
                trained = lab.train(start, masks, schedule)
            if rewind == "end":
                start = trained
            done += 1
            goal = {pool: share ** done for pool, share in kept.items()}
            masks = lab.allocate_each(lab.score(score, trained, masks), masks, members, goal)
        yield Ticket(density, masks, start, schedule, notes={"rounds": done})


MOST_ROUNDS = 100


def rounds(before: Densities, after: Densities, rate: float | None) -> list[Densities]:
    """Densities of the rounds from ``before`` to ``after``: geometric, each cutting at most ``rate`` of the rest."""
    count = 1
    if rate is not None:
        if not 0 < rate < 1:
            raise PruningError(f"rate is {rate}; the share of the survivors cut in one round must lie in (0, 1)")
        # less a hair, or 0.8 ** 3 would take a fourth round
        count = max([1, *(math.ceil(math.log(after[b] / before[b]) / math.log(1 - rate) - 1e-9) for b in after)])
    steps = [{b: before[b] * (after[b] / before[b]) ** (i / count) for b in after} for i in range(1, count)]
    return [*steps, dict(after)]
