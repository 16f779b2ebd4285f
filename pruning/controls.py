"""Controls: (ticket, lab) -> the ticket a sceptic would train beside it. One that changes nothing is an error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pruning.errors import NotApplicable, PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.metadata import control
from pruning.ticket import Ticket


@control(searched=False, sanity=True)
def random(ticket: Ticket, lab: Lab) -> Ticket:
    """A random mask of equal density in every budget; of a random ticket other draws."""
    drawn = lab.score("random", ticket.start, lab.ones())
    if ticket.scores and all(torch.equal(drawn[name], score) for name, score in ticket.scores.items()):
        drawn = lab.score("random", ticket.start, lab.ones(), draw=1)
    kept = {budget: ticket.masks.density(budget) for budget in lab.budgets}
    return _cut(ticket, lab, drawn, lab.ones(), kept)


@control(sanity=True)
def shuffle(ticket: Ticket, lab: Lab) -> Ticket:
    """Every tensor's mask permuted within the tensor: keeps the density of every layer (Frankle et al. 2021)."""
    if any(m.groups is not None for m in lab.maskables):
        raise NotApplicable("control shuffle would tear groups of entries apart; use control random")
    generator = lab.generator("shuffle")
    shuffled = {}
    for name, mask in ticket.masks.items():
        flat = mask.reshape(-1)
        shuffled[name] = flat[torch.randperm(flat.numel(), generator=generator)].reshape(mask.shape)
    return _changed(ticket, replace(ticket, masks=ticket.masks.replace(shuffled)))


@control(sanity=True)
def reinit(ticket: Ticket, lab: Lab) -> Ticket:
    """The same masks on newly drawn weights, trained by the whole schedule where the ticket replays its rest (Frankle &
    Carbin 2019)."""
    return _from(lab.start("reinit"), ticket)


def shuffle_layers(ticket: Ticket, lab: Lab) -> Ticket:
    """The same masks on pre-trained weights whose layers have changed places, trained as ``reinit`` is (the shuffled weights of
    Chen et al. 2020, as their code makes them)."""
    return _from(lab.start("shuffled_layers"), ticket)


def shuffle_weights(ticket: Ticket, lab: Lab) -> Ticket:
    """The same masks on pre-trained weights permuted within every tensor that may be masked, trained as ``reinit`` is: keeps
    each tensor's distribution and nothing else."""
    return _from(lab.start("shuffled_weights"), ticket)


def noise_half(ticket: Ticket, lab: Lab) -> Ticket:
    """The same ticket, Gaussian noise added to its weights: half the standard deviation of their tensor (Frankle & Carbin 2019,
    Appendix F)."""
    return _noisy(ticket, lab, 0.5)


def noise_threefold(ticket: Ticket, lab: Lab) -> Ticket:
    """The same with three standard deviations: little is left of the weights but which were kept."""
    return _noisy(ticket, lab, 3.0)


def resample(ticket: Ticket, lab: Lab) -> Ticket:
    """The same ticket, every weight drawn anew from those of its tensor that the mask keeps: their distribution without their
    places (Frankle & Carbin 2019, Appendix F)."""
    def drawn(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        generator = lab.generator("resample")
        return {name: _draws(weight, ticket.masks[name], generator) for name, weight in weights.items()}

    return replace(ticket, start=lab.derived_state(ticket.start, f"resample {ticket.masks.digest()}", drawn))


@control(sanity=True)
def invert(ticket: Ticket, lab: Lab) -> Ticket:
    """The ranking by the ticket's scores reversed: keep what they called worst (Frankle et al. 2021). Of tickets cut before
    training, in however many rounds, the scores are those of the whole network; of learned masks the learned ones: nothing is
    searched again."""
    if ticket.scores is None:
        raise NotApplicable("control invert needs the scores the ticket was drawn with; this method keeps none")
    worst = {name: -score for name, score in ticket.scores.items()}
    kept = {budget: ticket.masks.density(budget) for budget in ticket.densities}
    return _cut(ticket, lab, worst, ticket.before, kept, ticket.scheme, ticket.floors)


@control(searched=False)
def dense_as_long(ticket: Ticket, lab: Lab) -> Ticket:
    """The whole network trained for as many steps as search and training of the ticket took together."""
    steps = round(lab.spent().dense_steps) + lab.training_steps(ticket)
    return replace(ticket, densities={}, masks=lab.ones(), start=lab.start("init"), schedule=f"stretch:{steps}")


def reinit_as_long(ticket: Ticket, lab: Lab) -> Ticket:
    """The same masks on newly drawn weights, trained for so many steps that, if masked entries cost nothing, it takes as many
    multiply-adds as the dense training (Scratch-B of Liu et al. 2019)."""
    steps = round(lab.steps * lab.macs(lab.ones()) / lab.macs(ticket.masks))
    return replace(ticket, start=lab.start("reinit"), schedule=f"stretch:{steps}")


@control(changes_cost=True)
def slim(ticket: Ticket, lab: Lab) -> Ticket:
    """The same ticket with what it cut really gone from the network, and trained so: as good, smaller and measured."""
    lab.need("slim", "cut units out of its network")
    return replace(ticket, slim=True)


def shuffled_layers(weights: Mapping[str, Tensor], maskables: list[Maskable], generator: torch.Generator) -> dict[str, Tensor]:
    """The maskable weights, those of whole layers having changed places together. A layer is the n-th of every kind and shape
    that there are several of, so these must be equally many: else NotApplicable."""
    alike: dict[tuple, list[str]] = defaultdict(list)
    for m in maskables:
        alike[m.kind, m.shape].append(m.name)
    stacks = [names for names in alike.values() if len(names) > 1]
    counts = sorted({len(names) for names in stacks})
    if len(counts) != 1:
        raise NotApplicable("shuffled layers need layers of one shape, as an encoder's are; here tensors of one kind and shape "
                            f"come in numbers of {', '.join(map(str, counts)) or 'one'}")
    order = list(range(counts[0]))
    while order == sorted(order):
        order = torch.randperm(counts[0], generator=generator).tolist()
    return {names[to]: weights[names[of]] for names in stacks for to, of in enumerate(order)}


def shuffled_weights(weights: Mapping[str, Tensor], maskables: list[Maskable], generator: torch.Generator) -> dict[str, Tensor]:
    """The maskable weights, the entries of every tensor permuted within it."""
    def permuted(tensor: Tensor) -> Tensor:
        order = torch.randperm(tensor.numel(), generator=generator)
        return tensor.reshape(-1)[order.to(tensor.device)].reshape(tensor.shape)

    return {m.name: permuted(weights[m.name]) for m in maskables}


def _noisy(ticket: Ticket, lab: Lab, deviations: float) -> Ticket:
    def noisy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        generator = lab.generator("noise")  # one draw for all strengths
        drawn = {name: torch.randn(weight.shape, generator=generator).to(weight.device) for name, weight in weights.items()}
        return {name: weight + deviations * weight.std(correction=0) * drawn[name] for name, weight in weights.items()}

    return replace(ticket, start=lab.derived_state(ticket.start, f"noise {deviations}", noisy))


def _draws(weight: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Entries of ``weight`` where ``mask`` keeps them, with replacement, in the shape of all; as it is where it keeps none."""
    kept = weight[mask.to(weight.device)]
    if not len(kept):
        return weight
    return kept[torch.randint(len(kept), weight.shape, generator=generator).to(weight.device)]


def _from(start, ticket: Ticket) -> Ticket:
    """The ticket on other initial weights, trained by the whole schedule where it replays its rest."""
    if start.key == ticket.start.key:
        raise NotApplicable(f"control on the state {start.key}: the ticket starts from these very weights already")
    return replace(ticket, start=start, schedule="whole" if ticket.schedule == "replay" else ticket.schedule)


def _cut(ticket: Ticket, lab: Lab, *how) -> Ticket:
    """The ticket on masks that ``how`` has the lab allocate."""
    try:
        masks = lab.allocate(*how)
    except PruningError as error:  # the ticket keeps less than tensors have floors
        raise NotApplicable(str(error)) from None
    return _changed(ticket, replace(ticket, masks=masks))


def _changed(ticket: Ticket, controlled: Ticket) -> Ticket:
    if controlled.masks == ticket.masks:
        raise NotApplicable("the control's masks are the ticket's own: it would compare the ticket with itself")
    return controlled


CONTROLS = {"random": random, "shuffle": shuffle, "reinit": reinit, "shuffle_layers": shuffle_layers,
            "shuffle_weights": shuffle_weights, "noise_half": noise_half, "noise_threefold": noise_threefold,
            "resample": resample, "invert": invert, "dense_as_long": dense_as_long,
            "reinit_as_long": reinit_as_long, "slim": slim}
SHUFFLES = {"shuffled_layers": shuffled_layers, "shuffled_weights": shuffled_weights}
"""Name of a start state -> what makes its maskable weights of the pre-trained ones."""
