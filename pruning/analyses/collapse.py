"""Layer collapse (Tanaka et al. 2020): the compression at which a score empties a tensor, and the densities of all layers.
Nothing is trained."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from pruning.allocation import RemainingEntries
from pruning.errors import NotApplicable, PruningError, not_finite, one_of
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.metadata import Row, analysis
from pruning.schedules import density_schedule
from pruning.ticket import Densities

SCORES = ("random", "magnitude", "snip", "grasp", "synflow")


@analysis(keys=("score",))
def collapse(
    lab: Lab,
    densities: list[Densities],
    scores: Sequence[str] = SCORES,
    rounds: int = 1,
    path: str = "exponential",
    regrow: bool = False,
    budget: str = "weights",
    step: float = 0.25,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Row]:
    """Measure the critical compression of scores of the untrained network: the largest total / kept that leaves no tensor empty,
    in powers of ten (Tanaka et al. 2020). In a residual network a shortcut may bypass an empty tensor. The densities are not
    used.

    critical_exponent  log10 of the critical compression: exact for one round, else on a grid of ``step``
    max_exponent       log10 of the largest possible compression, one entry left in every tensor
    share              critical_exponent / max_exponent

    scores   the scores to prune by
    rounds   rounds of pruning, as in ``pruning.methods.at_init``: 100 of synflow are SynFlow, 60 of snip iterative SNIP
    path     schedule of the densities over the rounds: exponential or linear
    regrow   pruned entries may come back in later rounds: with snip, this is FORCE
    budget   the budget that is pruned
    step     distance of the grid of exponents for several rounds
    options  score -> its options, such as {snip: {mode: train}}
    """
    layers = members(lab, budget)
    most = max_exponent(layers)
    if not step > 0:
        raise PruningError(f"step is {step}; the grid of exponents needs a distance")
    for name, own in chosen(scores, options):
        if rounds == 1:
            found = lab.score(name, lab.start("init"), lab.ones(), **own)
            critical = one_shot_exponent({m.name: found[m.name] for m in layers})
        else:
            ticket = partial(_cut, lab, name, budget, rounds=rounds, path=path, regrow=regrow, options=own)
            critical = critical_exponent(ticket, most, step)
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
) -> Iterator[Row]:
    """Measure the densities of all layers after pruning the untrained network by scores. Layers count from 1 in the network's
    order.

    share      share of the layer's entries that are kept
    effective  share of them that lie on a path from the input, or a bias, to the output: the others belong to units that lost
               all inputs or all outputs (Frankle et al. 2021, neuron collapse). Empty where the task has no data-free probe, and
               for queries and keys of attentions, which do not change the probe's output
    kept       number of entries kept

    Options as those of ``collapse``.
    """
    blind_to = lab.score_info("synflow").blind_to
    for name, own in chosen(scores, options):
        for density in (d[budget] for d in densities if budget in d):
            masks = _cut(lab, name, budget, density, rounds, path, regrow, own)
            try:
                flow = lab.score("synflow", lab.start("init"), masks)
            except NotApplicable:
                flow = {}
            for layer, m in enumerate(members(lab, budget), 1):
                kept, seen = int(masks[m.name].sum()), m.name in flow and m.kind not in blind_to
                yield {
                    "score": name,
                    "layer": layer,
                    "density": density,
                    "share": kept / m.size,
                    "effective": int((flow[m.name] > 0).sum()) / m.size if seen else None,
                    "kept": kept,
                }


@analysis(keys=("score", "density"))
def prune_size(
    lab: Lab,
    densities: list[Densities],
    scores: Sequence[str] = ("synflow",),
    rounds: int = 100,
    path: str = "exponential",
    budget: str = "weights",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Row]:
    """Measure how much is pruned in one round: the sum of the pruned scores divided by the total score of a layer (Tanaka et al.
    2020). A conserved score whose ratio stays below 1 in every round empties no layer, which is why SynFlow takes many rounds on
    an exponential path.

    ratio      the largest ratio of all rounds up to the first that leaves nothing to score, by the total of the last layer
    collapsed  number of tensors left empty at the end

    Options as those of ``collapse``.
    """
    last = members(lab, budget)[-1].name
    for name, own in chosen(scores, options):
        for density in (d[budget] for d in densities if budget in d):
            masks, ratios = lab.ones(), []
            for target in density_schedule({budget: density}, rounds, path):
                found = lab.score(name, lab.start("init"), masks, **own)
                whole = float(found[last][masks[last]].double().sum())
                if not whole > 0:
                    break
                remaining = RemainingEntries(lab.maskables, masks)
                remaining.cut(found, target, floors=False, seed=lab.seed)
                kept = masks.replace({m.name: remaining.mask(m) for m in lab.maskables})
                ratios.append(lost_score(found, masks, kept) / whole)
                masks = kept
            yield {"score": name, "density": density, "ratio": max(ratios, default=None), "collapsed": len(masks.collapsed())}


def lost_score(scores: Mapping[str, Tensor], before: Masks, after: Masks) -> float:
    """Return the sum of the scores of entries that are kept in ``before`` and pruned in ``after``."""
    return sum(float(score[before[name] & ~after[name]].double().sum()) for name, score in scores.items())


def max_exponent(maskables: list[Maskable]) -> float:
    """Return log10 of the largest compression that leaves an entry in each tensor: total / tensors (Tanaka et al. 2020)."""
    return math.log10(sum(m.size for m in maskables) / len(maskables))


def one_shot_exponent(scores: Mapping[str, Tensor]) -> float:
    """Return log10 of the exact critical compression of one round: the tensor whose best entry ranks lowest is emptied first, so
    that entry must be kept."""
    for name, score in scores.items():
        if not score.isfinite().all():
            raise not_finite(name)
    last = min(score.max() for score in scores.values())
    kept = 1 + sum(int((score > last).sum()) for score in scores.values())
    return math.log10(sum(score.numel() for score in scores.values()) / kept)


def critical_exponent(ticket: Callable[[float], Masks], last: float, step: float = 0.25) -> float:
    """Return log10 of the critical compression: the largest exponent on a grid of ``step`` up to ``last`` at which
    ``ticket(density)`` leaves no tensor empty. Bisection assumes that every compression above a collapse collapses too."""
    sound, beyond = 0, math.floor(last / step + 1e-9) + 1
    at = beyond - 1  # the answer for SynFlow, hence tried first
    while beyond - sound > 1:
        sound, beyond = (sound, at) if ticket(10 ** -(at * step)).collapsed() else (at, beyond)
        at = (sound + beyond) // 2
    return sound * step


def members(lab: Lab, budget: str) -> list[Maskable]:
    """Return the maskables of a budget; PruningError if there are none."""
    found = [m for m in lab.maskables if m.budget == budget]
    if not found:
        raise PruningError(f"this task has no tensors in budget {budget}: choose another budget")
    return found


def chosen(scores: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every score with its options. PruningError for options of a score that is not listed."""
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(values, Mapping) for values in options.values()):
        raise PruningError(f"options is {options}; it maps a score to its options, such as {{snip: {{mode: train}}}}")
    for name in options:
        one_of("score in the options", name, scores)
    return [(name, options.get(name, {})) for name in scores]


def _cut(
    lab: Lab, score: str, budget: str, density: float, rounds: int, path: str, regrow: bool, options: Mapping[str, Any]
) -> Masks:
    goals = density_schedule({budget: density}, rounds, path)
    return lab.cut(score, lab.start("init"), goals, regrow=regrow, floors=False, **options)[0]
