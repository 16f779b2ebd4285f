"""Controls: (ticket, lab) -> the ticket a sceptic would train beside it. One that changes nothing is an error."""

from __future__ import annotations

from dataclasses import replace

import torch

from .errors import NotApplicable, PruningError
from .methods import Ticket


def random(ticket: Ticket, lab) -> Ticket:
    """A random mask of equal density in every budget."""
    drawn = lab.score("random", ticket.start, lab.ones())
    kept = {budget: ticket.masks.density(budget) for budget in lab.budgets}
    return _changed(ticket, replace(ticket, masks=lab.allocate(drawn, lab.ones(), kept)))


def shuffle(ticket: Ticket, lab) -> Ticket:
    """Every tensor's mask permuted within the tensor: keeps the density of every layer (Frankle et al. 2021)."""
    if any(m.groups is not None for m in lab.maskables):
        raise NotApplicable("control shuffle would tear groups of entries apart; use control random")
    generator = lab.generator("shuffle")
    shuffled = {}
    for name, mask in ticket.masks.items():
        flat = mask.reshape(-1)
        shuffled[name] = flat[torch.randperm(flat.numel(), generator=generator)].reshape(mask.shape)
    return _changed(ticket, replace(ticket, masks=ticket.masks.replace(shuffled)))


def reinit(ticket: Ticket, lab) -> Ticket:
    """The same masks on newly drawn weights, trained by the whole schedule where the ticket replays its rest (Frankle &
    Carbin 2019)."""
    start = lab.start("reinit")
    if start.key == ticket.start.key:
        raise PruningError("control reinit: the ticket starts from these very weights already")
    return replace(ticket, start=start, schedule="whole" if ticket.schedule == "replay" else ticket.schedule)


def invert(ticket: Ticket, lab) -> Ticket:
    """The last decision with its ranking reversed: keep what the score called worst (Frankle et al. 2021)."""
    if ticket.scores is None:
        raise NotApplicable("control invert needs the scores the ticket was drawn with; this method keeps none")
    worst = {name: -score for name, score in ticket.scores.items()}
    return _changed(ticket, replace(ticket, masks=lab.allocate(worst, ticket.before, ticket.densities, ticket.scheme)))


def dense_as_long(ticket: Ticket, lab) -> Ticket:
    """The whole network trained for as many steps as search and training of the ticket took together."""
    steps = lab.spent_steps() + lab.training_steps(ticket)
    return replace(ticket, densities={}, masks=lab.ones(), start=lab.start("init"), schedule=f"stretch:{steps}")


def slim(ticket: Ticket, lab) -> Ticket:
    """The same ticket with what it cut really gone from the network, and trained so: as good, smaller and measured."""
    lab.need("slim", "cut units out of its network")
    return replace(ticket, slim=True)


def _changed(ticket: Ticket, control: Ticket) -> Ticket:
    if control.masks == ticket.masks:
        raise PruningError("the control did not change the masks, so it would compare the ticket with itself")
    return control


CONTROLS = {"random": random, "shuffle": shuffle, "reinit": reinit, "invert": invert, "dense_as_long": dense_as_long,
            "slim": slim}
