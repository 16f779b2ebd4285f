"""Pruning at initialisation: score the initial weights, prune, score again, over a schedule of densities."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning.allocation import RemainingEntries
from pruning.errors import NotApplicable
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import method
from pruning.schedules import density_schedule
from pruning.scores import ScoreData, ScoreFunction, group_mean_scores, multiplied, prepared
from pruning.ticket import Densities, Scheme, Ticket


def at_init(
    lab: Lab,
    densities: list[Densities],
    score: str,
    rounds: int = 1,
    path: str = "exponential",
    scheme: Scheme = "global",
    regrow: bool = False,
    floors: bool = False,
    rewind: str = "init",
    **options: Any,
) -> Iterator[Ticket]:
    """Prune the initial weights by a score in several rounds to each density, each time starting from the dense network.

    rounds   number of rounds of scoring and pruning
    path     the density after round k of n: exponential: density ** (k / n); linear: 1 - (1 - density) * k / n
    scheme   the layerwise distribution of the kept entries; global ranks all tensors of a budget together
    regrow   every round chooses among all entries, so that pruned ones may come back
    floors   no tensor falls below its floor; the papers let tensors lose all their entries
    rewind   the state that is scored and trained: init, or a step such as 1ep
    options  options of the score

    The ``scores`` of a ticket are those of the dense network, so that the control invert keeps the lowest of them.
    """
    schemes = scheme.values() if isinstance(scheme, Mapping) else [scheme]
    blind_to = lab.score_info(score).blind_to
    if "global" in schemes and any(m.kind in blind_to for m in lab.maskables):
        raise NotApplicable(
            f"score {score} is zero for every tensor of kind {' or '.join(blind_to)}, so one ranking over all "
            "tensors would prune them first: scheme=qk_uniform prunes them at random, each to the density "
            "of the budget"
        )
    start = lab.start(rewind)
    for density in densities:
        with lab.search() as search:
            masks, scores = lab.cut(score, start, density_schedule(density, rounds, path), scheme, regrow, floors, **options)
        yield Ticket(density, masks, start, "replay", scores, lab.ones(), scheme, floors=floors, search=search)


def cut(
    score: ScoreFunction,
    model: nn.Module,
    maskables: list[Maskable],
    data: ScoreData,
    goals: list[Densities],
    scheme: Scheme = "global",
    regrow: bool = False,
    floors: bool = False,
    seed: int = 0,
    **options: Any,
) -> tuple[Masks, dict[str, Tensor]]:
    """Score and prune ``model`` to each of the densities ``goals`` in turn; return the masks and the scores of the dense network.

    The model is masked in place and of no use afterwards. Everything happens in memory, so that each of a hundred rounds costs
    little more than its forward and backward pass.
    """
    whole, grouped = Masks.ones(maskables), any(m.groups is not None for m in maskables)
    first: dict[str, Tensor] = {}
    parameters = dict(model.named_parameters())
    orders = {m.name: _memory_order(parameters[m.name]) for m in maskables}
    remaining = RemainingEntries(maskables, whole, orders)
    for budget, density in goals[-1].items():
        remaining.count(budget, density)  # checked while every tensor has entries: there must be enough for all floors
    with prepared(score, model):
        whole_weights = {m.name: parameters[m.name].detach().clone() for m in maskables} if regrow else {}
        for goal in goals:
            scores = score(model, maskables, data, **options)
            if grouped:
                scores = group_mean_scores(multiplied(scores), maskables)
            first = first or multiplied(scores)
            if regrow:
                remaining = RemainingEntries(maskables, whole, orders)
                for m in maskables:
                    parameters[m.name].data.copy_(whole_weights[m.name])
            for name, pruned in remaining.cut(scores, goal, scheme, seed, floors).items():
                flat = parameters[name].data.permute(*orders[name]).view(-1)
                flat.index_fill_(0, torch.from_numpy(pruned).to(flat.device), 0)
            del scores  # or the next round's gradients would need memory of their own
    return whole.replace({m.name: remaining.mask(m) for m in maskables}), first


def _memory_order(tensor: Tensor) -> list[int]:
    """Return the dimensions from the slowest to the fastest in memory."""
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda dimension: -strides[dimension])


def synflow(
    lab: Lab,
    densities: list[Densities],
    rounds: int = 100,
    path: str = "exponential",
    scheme: str = "global",
    floors: bool = False,
) -> Iterator[Ticket]:
    """SynFlow (Tanaka et al. 2020): data-free, in a hundred rounds; it empties no layer before it has to. Its score is zero for
    queries and keys of attentions, for which scheme qk_uniform is made. Options as those of ``at_init``."""
    return at_init(lab, densities, "synflow", rounds, path, scheme, floors=floors)


def snip(
    lab: Lab,
    densities: list[Densities],
    per_class: int = 10,
    balanced: bool = True,
    mode: str = "eval",
    scheme: str = "global",
    floors: bool = False,
) -> Iterator[Ticket]:
    """SNIP (Lee et al. 2019): prune once by connection sensitivity, at the weights that are trained afterwards.

    per_class  training examples of each class that are scored
    balanced   false: as many examples in all, of any class
    mode       eval or train: the mode of batch norm and dropout while scoring
    scheme     the layerwise distribution of the kept entries
    floors     no tensor falls below its floor; the paper lets tensors lose all their entries
    """
    return at_init(lab, densities, "snip", 1, scheme=scheme, floors=floors, per_class=per_class, balanced=balanced, mode=mode)


def iter_snip(
    lab: Lab,
    densities: list[Densities],
    rounds: int = 60,
    path: str = "exponential",
    per_class: int = 10,
    balanced: bool = True,
    mode: str = "eval",
    scheme: str = "global",
    floors: bool = False,
) -> Iterator[Ticket]:
    """Iterative SNIP (de Jorge et al. 2021): pruned entries stay pruned; every round scores the same examples. Options as those
    of ``snip`` and ``at_init``."""
    return at_init(lab, densities, "snip", rounds, path, scheme, floors=floors, per_class=per_class, balanced=balanced, mode=mode)


def force(
    lab: Lab,
    densities: list[Densities],
    rounds: int = 60,
    path: str = "exponential",
    per_class: int = 10,
    balanced: bool = True,
    mode: str = "eval",
    scheme: str = "global",
    floors: bool = False,
) -> Iterator[Ticket]:
    """FORCE (de Jorge et al. 2021): iterative SNIP in which pruned entries may come back. Options as those of ``iter_snip``."""
    return at_init(lab, densities, "snip", rounds, path, scheme, True, floors, per_class=per_class, balanced=balanced, mode=mode)


def grasp(
    lab: Lab,
    densities: list[Densities],
    per_class: int = 10,
    balanced: bool = True,
    mode: str = "eval",
    temperature: float = 200.0,
    scheme: str = "global",
    floors: bool = False,
) -> Iterator[Ticket]:
    """GraSP (Wang et al. 2020): prune once so that the norm of the gradient is kept. Other options as those of ``snip``.

    temperature  number that logits are divided by
    """
    options: dict[str, Any] = {"per_class": per_class, "balanced": balanced, "mode": mode, "temperature": temperature}
    return at_init(lab, densities, "grasp", scheme=scheme, floors=floors, **options)


def prune_later(
    lab: Lab,
    densities: list[Densities],
    score: str = "snip",
    rewind: str = "1ep",
    rounds: int = 1,
    path: str = "exponential",
    scheme: str = "global",
    floors: bool = False,
) -> Iterator[Ticket]:
    """Prune the weights of an early step by a score and train on from there (Frankle et al. 2021): does the score
    fail, or the moment? Other options as those of ``at_init``.

    score   the score to prune by, with its own defaults; synflow is meant for 100 rounds
    rewind  the step that is pruned, such as 1ep
    """
    return at_init(lab, densities, score, rounds, path, scheme, floors=floors, rewind=rewind)


@method(searches_no_data=True)
def magnitude_at_init(lab: Lab, densities: list[Densities], scheme: str = "global", floors: bool = False) -> Iterator[Ticket]:
    """Prune once by the magnitude of the untrained weights (Frankle et al. 2021). Options as those of ``at_init``."""
    return at_init(lab, densities, "magnitude", scheme=scheme, floors=floors)


def random_ticket(lab: Lab, densities: list[Densities], layers: str = "uniform", floors: bool = False) -> Iterator[Ticket]:
    """A random ticket (Su et al. 2020): only the densities of the layers are chosen. For a random ticket with the layer
    densities of another method, run the control shuffle on that method.

    layers  the layerwise distribution of the kept entries
    floors  no tensor falls below its floor
    """
    return at_init(lab, densities, "random", scheme=layers, floors=floors)
