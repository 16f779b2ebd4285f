"""Controls: functions (ticket, lab) -> another ticket to compare with, which differs in one respect. A control whose ticket would
equal the original is not applicable."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pruning.errors import NotApplicable, PruningError
from pruning.lab import Lab
from pruning.metadata import control
from pruning.patterns import shuffled as shuffled_by_pattern
from pruning.ticket import State, Ticket


@control(searched=False, sanity=True)
def random(ticket: Ticket, lab: Lab) -> Ticket:
    """Draw a random mask of equal density in every budget; for a random ticket, another one."""
    drawn = lab.score("random", ticket.start, lab.ones())
    if ticket.scores and all(torch.equal(drawn[name], score) for name, score in ticket.scores.items()):
        drawn = lab.score("random", ticket.start, lab.ones(), draw=1)
    kept = {budget: ticket.masks.density(budget) for budget in lab.budgets}
    return _cut(ticket, lab, drawn, lab.ones(), kept)


@control(sanity=True)
def shuffle(ticket: Ticket, lab: Lab) -> Ticket:
    """Permute the mask within every tensor, so that every layer keeps its density (Frankle et al. 2021); under a pattern within
    every row, every m neighbours of n:m, or whole blocks."""
    if any(m.groups is not None and m.pattern is None for m in lab.maskables):
        raise NotApplicable("control shuffle cannot permute entries that are kept or pruned in groups; use control random")
    generator = lab.generator("shuffle")
    shuffled = {}
    for m in lab.maskables:
        mask = ticket.masks[m.name]
        if m.pattern is None:
            shuffled[m.name] = mask.reshape(-1)[torch.randperm(m.size, generator=generator)].reshape(m.shape)
        else:
            shuffled[m.name] = shuffled_by_pattern(mask, m, generator)
    return _changed(ticket, replace(ticket, masks=ticket.masks.replace(shuffled)))


@control(sanity=True)
def reinit(ticket: Ticket, lab: Lab) -> Ticket:
    """Put the masks on weights drawn from another seed, trained by the whole schedule even if the ticket trains only the rest
    of it (Frankle & Carbin 2019)."""
    return _from(lab.start("reinit"), ticket)


def shuffle_layers(ticket: Ticket, lab: Lab) -> Ticket:
    """Put the masks on pre-trained weights whose layers are exchanged, trained like the control reinit (the shuffled weights of
    Chen et al. 2020, as in their code)."""
    return _from(lab.start("shuffled_layers"), ticket)


def shuffle_weights(ticket: Ticket, lab: Lab) -> Ticket:
    """Put the masks on pre-trained weights permuted within every maskable tensor, trained like the control reinit: only the
    distribution of each tensor is kept."""
    return _from(lab.start("shuffled_weights"), ticket)


def noise_half(ticket: Ticket, lab: Lab) -> Ticket:
    """Add Gaussian noise to the ticket's weights, with half the standard deviation of each tensor (Frankle & Carbin 2019,
    Appendix F)."""
    return _noisy(ticket, lab, 0.5)


def noise_threefold(ticket: Ticket, lab: Lab) -> Ticket:
    """As noise_half with 3 standard deviations: little but the mask carries information."""
    return _noisy(ticket, lab, 3.0)


def resample(ticket: Ticket, lab: Lab) -> Ticket:
    """Draw every weight again from the kept weights of its tensor, so that only their distribution remains (Frankle & Carbin
    2019, Appendix F)."""

    def drawn(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        generator = lab.generator("resample")
        return {name: _draws(weight, ticket.masks[name], generator) for name, weight in weights.items()}

    return replace(ticket, start=lab.derived_state(ticket.start, f"resample {ticket.masks.digest()}", drawn))


@control(sanity=True)
def invert(ticket: Ticket, lab: Lab) -> Ticket:
    """Keep the entries with the lowest scores (Frankle et al. 2021). For pruning at initialisation in several rounds these are
    the scores of the dense network, for learned masks the learned scores; nothing is searched again."""
    if ticket.scores is None:
        raise NotApplicable("control invert needs the scores that the ticket was pruned by; this method stores none")
    reversed_scores = {name: -score for name, score in ticket.scores.items()}
    kept = {budget: ticket.masks.density(budget) for budget in ticket.densities}
    return _cut(ticket, lab, reversed_scores, ticket.before, kept, ticket.scheme, ticket.floors)


@control(searched=False)
def dense_as_long(ticket: Ticket, lab: Lab) -> Ticket:
    """Train the dense network for as many steps as search and training of the ticket took together."""
    steps = round(lab.spent().dense_steps) + lab.training_steps(ticket)
    return replace(ticket, densities={}, masks=lab.ones(), start=lab.start("init"), schedule=f"stretch:{steps}")


def reinit_as_long(ticket: Ticket, lab: Lab) -> Ticket:
    """Put the masks on weights drawn from another seed and train until the multiply-adds of the dense training are used up, if
    masked entries cost nothing (Scratch-B of Liu et al. 2019)."""
    steps = round(lab.steps * lab.macs(lab.ones()) / lab.macs(ticket.masks))
    return replace(ticket, start=lab.start("reinit"), schedule=f"stretch:{steps}")


@control(changes_cost=True)
def slim(ticket: Ticket, lab: Lab) -> Ticket:
    """Remove the pruned units from the network before it is trained: as accurate, smaller, and its speed is measured."""
    lab.shrinking()
    return replace(ticket, slim=True)


def _noisy(ticket: Ticket, lab: Lab, deviations: float) -> Ticket:
    def noisy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        generator = lab.generator("noise")  # the same draws for all strengths
        drawn = {name: torch.randn(weight.shape, generator=generator).to(weight.device) for name, weight in weights.items()}
        return {name: weight + deviations * weight.std(correction=0) * drawn[name] for name, weight in weights.items()}

    return replace(ticket, start=lab.derived_state(ticket.start, f"noise {deviations}", noisy))


def _draws(weight: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the kept entries of ``weight``, with replacement, in its shape; unchanged if the mask keeps none."""
    kept = weight[mask.to(weight.device)]
    if not len(kept):
        return weight
    return kept[torch.randint(len(kept), weight.shape, generator=generator).to(weight.device)]


def _from(start: State, ticket: Ticket) -> Ticket:
    """Return the ticket with another start state, trained by the whole schedule even if it trains only the rest of it."""
    if start.key == ticket.start.key:
        raise NotApplicable(f"control on the state {start.key}: the ticket starts from the same weights already")
    return replace(ticket, start=start, schedule="whole" if ticket.schedule == "replay" else ticket.schedule)


def _cut(ticket: Ticket, lab: Lab, *how: Any) -> Ticket:
    """Return the ticket with masks allocated by the arguments ``how``."""
    try:
        masks = lab.allocate(*how)
    except PruningError as error:  # the ticket keeps fewer entries than the floors need
        raise NotApplicable(str(error)) from None
    return _changed(ticket, replace(ticket, masks=masks))


def _changed(ticket: Ticket, controlled: Ticket) -> Ticket:
    if controlled.masks == ticket.masks:
        raise NotApplicable("the control's masks are the ticket's own: it would compare the ticket with itself")
    return controlled


Control = Callable[[Ticket, Lab], Ticket]
_CONTROLS = (random, shuffle, reinit, shuffle_layers, shuffle_weights, noise_half, noise_threefold, resample, invert)
CONTROLS: dict[str, Control] = {f.__name__: f for f in (*_CONTROLS, dense_as_long, reinit_as_long, slim)}
