"""Tickets found before any training: score the initial weights, cut, score again, along a path of densities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning.allocation.allocate import RemainingEntries
from pruning.errors import NotApplicable, PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import method
from pruning.scores import group_mean_scores, multiplied, prepared
from pruning.ticket import Densities, Ticket

PATHS = ("exponential", "linear")


def at_init(lab: Lab, densities: list[Densities], score: str, rounds: int = 1, path: str = "exponential", scheme: str = "global",
            regrow: bool = False, floors: bool = False, rewind: str = "init", **options: Any) -> Iterator[Ticket]:
    """Tickets of the initial weights, cut in ``rounds`` to each density, each time from the whole network.

    path     exponential: density ** (k / rounds) after round k; linear: 1 - (1 - density) * k / rounds
    regrow   every round chooses among all entries anew, so what was cut may come back
    floors   no tensor falls below its floor; the papers let tensors lose all they have
    rewind   a step whose weights to take instead of the initial ones
    options  the score's own

    A ticket's ``scores`` are those of the whole network: an inverted ticket keeps what they call worst.
    """
    schemes = scheme.values() if isinstance(scheme, Mapping) else [scheme]
    unseen = lab.score_info(score).blind_to
    if "global" in schemes and any(m.kind in unseen for m in lab.maskables):
        raise NotApplicable(f"score {score} is zero for every tensor of kind {' or '.join(unseen)}, so one ranking over all "
                            "tensors would prune them first: method.scheme=qk_uniform prunes them at random, each to the density "
                            "of the budget")
    start = lab.start(rewind)
    for density in densities:
        with lab.search() as search:
            masks, scores = lab.cut(score, start, density_schedule(density, rounds, path), scheme, regrow, floors, **options)
        yield Ticket(density, masks, start, "replay", scores, lab.ones(), scheme, floors=floors, search=search)


def density_schedule(density: Densities, rounds: int, path: str) -> list[Densities]:
    """Densities after every round, from 1 to ``density``."""
    if path not in PATHS:
        raise PruningError(f"unknown path {path!r}: one of {', '.join(PATHS)}")
    if rounds < 1:
        raise PruningError(f"rounds is {rounds}; cutting takes at least one")
    shares = [k / rounds for k in range(1, rounds)]
    if path == "linear":
        between = [{b: 1 - (1 - d) * share for b, d in density.items()} for share in shares]
    else:
        between = [{b: d ** share for b, d in density.items()} for share in shares]
    return [*between, dict(density)]


def cut(score: Callable, model: nn.Module, maskables: list[Maskable], data, goals: list[Densities], scheme: str = "global",
        regrow: bool = False, floors: bool = False, seed: int = 0, **options: Any) -> tuple[Masks, dict[str, Tensor]]:
    """Masks after scoring and cutting ``model`` to each of ``goals`` in turn, and the scores of the whole network.

    The model is the caller's to throw away: it is masked in place, and all happens in memory, because one round of a hundred
    should cost little more than the forward and backward pass it is made of.
    """
    whole, first, grouped = Masks.ones(maskables), None, any(m.groups is not None for m in maskables)
    parameters = dict(model.named_parameters())
    orders = {m.name: sorted(range(len(m.shape)), key=lambda d, p=parameters[m.name]: -p.stride(d)) for m in maskables}
    survivors = RemainingEntries(maskables, whole, orders)
    for budget, density in goals[-1].items():
        survivors.count(budget, density)  # before any tensor lost all it had: there must be an entry for each
    with prepared(score, model):
        whole_weights = {m.name: parameters[m.name].detach().clone() for m in maskables} if regrow else {}
        for goal in goals:
            scores = score(model, maskables, data, **options)
            if grouped:
                scores = group_mean_scores(multiplied(scores), maskables)
            first = first or multiplied(scores)
            if regrow:
                survivors = RemainingEntries(maskables, whole, orders)
                for m in maskables:
                    parameters[m.name].data.copy_(whole_weights[m.name])
            for name, dead in survivors.cut(scores, goal, scheme, seed, floors).items():
                flat = parameters[name].data.permute(orders[name]).view(-1)
                flat.index_fill_(0, torch.from_numpy(dead).to(flat.device), 0)
            del scores  # or the next round's gradients would need memory of their own
    return whole.replace({m.name: survivors.mask(m) for m in maskables}), first


def synflow(lab: Lab, densities: list[Densities], rounds: int = 100, path: str = "exponential", scheme: str = "global",
            floors: bool = False) -> Iterator[Ticket]:
    """SynFlow (Tanaka et al. 2020): data-free, a hundred rounds; never empties a layer while another is full. Blind to the
    queries and keys of an attention, which are to be cut by themselves: scheme qk_uniform."""
    return at_init(lab, densities, "synflow", rounds, path, scheme, floors=floors)


def snip(lab: Lab, densities: list[Densities], per_class: int = 10, balanced: bool = True, mode: str = "eval",
         scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """SNIP (Lee et al. 2019): one cut by connection sensitivity; the weights scored are those trained."""
    return at_init(lab, densities, "snip", 1, scheme=scheme, floors=floors, per_class=per_class, balanced=balanced, mode=mode)


def iter_snip(lab: Lab, densities: list[Densities], rounds: int = 60, path: str = "exponential", per_class: int = 10,
              balanced: bool = True, mode: str = "eval", scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """Iterative SNIP (de Jorge et al. 2021): what is cut stays cut; the same examples in every round."""
    return at_init(lab, densities, "snip", rounds, path, scheme, floors=floors, per_class=per_class, balanced=balanced,
                   mode=mode)


def force(lab: Lab, densities: list[Densities], rounds: int = 60, path: str = "exponential", per_class: int = 10,
          balanced: bool = True, mode: str = "eval", scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """FORCE (de Jorge et al. 2021): as iterative SNIP, but what was cut may come back; the same examples in every round."""
    return at_init(lab, densities, "snip", rounds, path, scheme, True, floors, per_class=per_class, balanced=balanced,
                   mode=mode)


def grasp(lab: Lab, densities: list[Densities], per_class: int = 10, balanced: bool = True, mode: str = "eval",
          temperature: float = 200.0, scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """GraSP (Wang et al. 2020): one cut that keeps the norm of the gradient."""
    return at_init(lab, densities, "grasp", 1, scheme=scheme, floors=floors, per_class=per_class, balanced=balanced, mode=mode,
                   temperature=temperature)


def prune_later(lab: Lab, densities: list[Densities], score: str = "snip", rewind: str = "1ep", rounds: int = 1,
                path: str = "exponential", scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """The same after some training: weights of an early step are scored and cut, and trained on from there (Frankle et al. 2021,
    pruning later). Is it the score that fails, or the moment?

    score  with its own defaults; synflow is meant for 100 rounds
    """
    return at_init(lab, densities, score, rounds, path, scheme, floors=floors, rewind=rewind)


@method(searches_no_data=True)
def magnitude_at_init(lab: Lab, densities: list[Densities], scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """One cut by the magnitude of the untrained weights."""
    return at_init(lab, densities, "magnitude", scheme=scheme, floors=floors)


def random_ticket(lab: Lab, densities: list[Densities], layers: str = "uniform", floors: bool = False) -> Iterator[Ticket]:
    """A random ticket (Su et al. 2020): only the density of every layer is chosen, by an allocation scheme. For any other
    method's layer densities put control shuffle on it."""
    return at_init(lab, densities, "random", scheme=layers, floors=floors)
