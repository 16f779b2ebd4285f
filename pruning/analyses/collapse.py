"""Layer collapse (Tanaka et al. 2020): where a score first leaves a tensor empty, and what every layer has left on the way.
Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from pruning.allocation.allocate import QK, RemainingEntries
from pruning.errors import NotApplicable, PruningError, not_finite, one_of
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import analysis
from pruning.methods.at_init import density_schedule
from pruning.ticket import Densities

SCORES = ("random", "magnitude", "snip", "grasp", "synflow")


@analysis(keys=("score",))
def collapse(lab: Lab, densities: list[Densities], scores: Sequence[str] = SCORES, rounds: int = 1, path: str = "exponential",
             regrow: bool = False, budget: str = "weights", step: float = 0.25,
             options: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[dict]:
    """Critical compression of scores of the untrained network (Tanaka et al. 2020), in powers of ten: the largest total / kept
    that leaves no tensor empty, beside the largest there can be. In a residual network a shortcut may pass an empty tensor by.

    critical_exponent  exact for one round; for more, on a grid of ``step``
    max_exponent       one entry left in every tensor
    share              critical / max exponent

    rounds, path, regrow  as in ``pruning.methods.at_init``: 100 rounds of synflow are SynFlow, 60 of snip iterative SNIP or FORCE
    options               score -> its options: {snip: {mode: train}}
    The densities have no part in it.
    """
    layers = members(lab, budget)
    most = max_exponent(layers)
    if not step > 0:
        raise PruningError(f"step is {step}; the grid of exponents needs a distance")
    for name, mine in chosen(scores, options):
        if rounds == 1:
            found = lab.score(name, lab.start("init"), lab.ones(), **mine)
            critical = one_shot_exponent({m.name: found[m.name] for m in layers})
        else:
            critical = critical_exponent(lambda density, name=name, mine=mine: _cut(
                lab, name, {budget: density}, rounds, path, regrow, mine), most, step)
        yield {"score": name, "critical_exponent": critical, "max_exponent": most, "share": critical / most}


@analysis(keys=("score", "layer", "density"), plots=("share",))
def layer_densities(
    lab: Lab,
    densities: list[Densities],
    scores: Sequence[str] = SCORES,
    rounds: int = 1,
    path: str = "exponential",
    regrow: bool = False,
    budget: str = "weights",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[dict]:
    """What scores of the untrained network leave of every tensor, as shares of it. Tensors count from 1 in the network's order.

    share      entries kept
    effective  those of them on a path from the input, or a bias, to the output: the others hang on units that lost all they had
               on one side (Frankle et al. 2021, neuron collapse); none where the task offers no probe, or for the queries and
               keys of an attention, which its answer does not change
    kept       their number

    Options as those of ``collapse``.
    """
    for name, mine in chosen(scores, options):
        for density in (d[budget] for d in densities if budget in d):
            masks = _cut(lab, name, {budget: density}, rounds, path, regrow, mine)
            try:
                flow = lab.score("synflow", lab.start("init"), masks)
            except NotApplicable:
                flow = None
            for layer, m in enumerate(members(lab, budget), 1):
                kept, seen = int(masks[m.name].sum()), flow is not None and m.kind not in QK
                yield {"score": name, "layer": layer, "density": density, "share": kept / m.size,
                       "effective": int((flow[m.name] > 0).sum()) / m.size if seen else None, "kept": kept}


@analysis(keys=("score", "density"))
def prune_size(lab: Lab, densities: list[Densities], scores: Sequence[str] = ("synflow",), rounds: int = 100,
               path: str = "exponential", budget: str = "weights",
               options: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[dict]:
    """How much is cut at a time (Tanaka et al. 2020): the largest share that the scores lost in one round have of what a whole
    layer scores. A score that is conserved and loses less than 1 in every round empties no layer: hence many rounds, and an
    exponential path.

    ratio      largest over the rounds, up to the first that leaves nothing to score; a layer's score is that of the budget's last
    collapsed  tensors left empty in the end
    """
    last = members(lab, budget)[-1].name
    for name, mine in chosen(scores, options):
        for density in (d[budget] for d in densities if budget in d):
            masks, ratios = lab.ones(), []
            for goal in density_schedule({budget: density}, rounds, path):
                found = lab.score(name, lab.start("init"), masks, **mine)
                whole = float(found[last][masks[last]].double().sum())
                if not whole > 0:
                    break
                survivors = RemainingEntries(lab.maskables, masks)
                survivors.cut(found, goal, floors=False, seed=lab.seed)
                kept = masks.replace({m.name: survivors.mask(m) for m in lab.maskables})
                ratios.append(lost_score(found, masks, kept) / whole)
                masks = kept
            yield {"score": name, "density": density, "ratio": max(ratios, default=None), "collapsed": len(masks.collapsed())}


def lost_score(scores: Mapping[str, Tensor], before: Masks, after: Masks) -> float:
    """Sum of the scores of the entries that are in ``before`` and not in ``after``."""
    return sum(float(score[before[name] & ~after[name]].double().sum()) for name, score in scores.items())


def max_exponent(maskables: list[Maskable]) -> float:
    """log10 of the largest compression that leaves an entry in each tensor: total / tensors."""
    return math.log10(sum(m.size for m in maskables) / len(maskables))


def one_shot_exponent(scores: Mapping[str, Tensor]) -> float:
    """log10 of the critical compression of one cut, exact: the first tensor to be emptied is the one whose best entry is the
    lowest ranked, so that entry must be kept."""
    for name, score in scores.items():
        if not score.isfinite().all():
            raise not_finite(name)
    last = min(score.max() for score in scores.values())
    kept = 1 + sum(int((score > last).sum()) for score in scores.values())
    return math.log10(sum(score.numel() for score in scores.values()) / kept)


def critical_exponent(ticket: Callable[[float], Masks], last: float, step: float = 0.25) -> float:
    """log10 of the critical compression: on a grid of ``step``, the largest exponent up to ``last`` at which ``ticket(density)``
    leaves no tensor empty. Found by halving: what collapses is taken to collapse at every higher compression."""
    sound, beyond = 0, math.floor(last / step + 1e-9) + 1
    at = beyond - 1  # SynFlow's answer, so asked first
    while beyond - sound > 1:
        sound, beyond = (sound, at) if ticket(10 ** -(at * step)).collapsed() else (at, beyond)
        at = (sound + beyond) // 2
    return sound * step


def members(lab: Lab, budget: str) -> list[Maskable]:
    """The maskables of a budget, of which there must be some."""
    found = [m for m in lab.maskables if m.budget == budget]
    if not found:
        raise PruningError("this task has no tensors in the budget of the analysis: choose another analysis.budget")
    return found


def chosen(scores: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Every score with its options. Raises PruningError for options of one that is not asked for."""
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(mine, Mapping) for mine in options.values()):
        raise PruningError(f"options is {options}; it maps a score to its options, such as {{snip: {{mode: train}}}}")
    for name in options:
        one_of("score in the options", name, scores)
    return [(name, options.get(name, {})) for name in scores]


def _cut(lab: Lab, score: str, density: Densities, rounds: int, path: str, regrow: bool, options: Mapping[str, Any]) -> Masks:
    return lab.cut(score, lab.start("init"), density_schedule(density, rounds, path), regrow=regrow, floors=False, **options)[0]
