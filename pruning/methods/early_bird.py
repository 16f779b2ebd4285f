"""Early-bird tickets: watch the masks a training would be cut with, and stop once they have settled.

One observer for every task: channels of a CNN (You et al. 2020), heads and neurons of a transformer (Chen et al. 2021), edges
and weights of a graph network together (You et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pruning.allocation.allocate import Densities, Scheme, allocate
from pruning.callbacks.base import Rule, Run, Together, below
from pruning.callbacks.low_precision import LowPrecision
from pruning.errors import NotApplicable, PruningError, one_of
from pruning.masks import Masks
from pruning.methods.magnitude import Ticket
from pruning.methods.slimming import on_scales
from pruning.scores import heard


class EarlyBird(Rule):
    """Draws after every epoch the masks that magnitude would cut, at each of ``densities``, and changes nothing of the run.

    The distance of a budget is the largest share of its entries on which the newest mask differs from one of the ``window``
    masks before it. Both are kept: raw, and divided by the budget's first distance that is not 0. A ticket emerges after
    the first epoch later than ``after`` at which the distances are below ``eps``; the training stops when all have.

    stop        each: of every budget; joint: the mean over the budgets; a budget's name: of that one
    normalised  whether ``eps`` speaks of the normalised distances, or of the raw ones
    every       share of an epoch between two masks, where epochs are too long to wait for their ends

    A budget of density 1 is not watched. Ties are ordered once for the whole run: drawn anew they would keep a mask of many
    equal scores moving for ever.
    """

    def __init__(self, densities: list[Densities], window: int, eps: float, normalised: bool, stop: str = "each",
                 after: float = 0, scheme: Scheme = "global", every: float = 1.0):
        self.densities = [{b: d for b, d in asked.items() if d < 1} for asked in densities]
        for asked in self.densities:
            if not asked:
                raise PruningError("an early bird needs a density below 1 to watch masks at")
            one_of("stop rule", stop, ("each", "joint", *asked))
        if window < 1:
            raise PruningError(f"window is {window}; the newest mask is compared with at least one before it")
        if not eps > 0:
            raise PruningError(f"eps is {eps}; distances fall below nothing but a positive number")
        if not 0 < every <= 1:
            raise PruningError(f"every is {every}; masks are drawn once an epoch (1) or after a share of one, in (0, 1)")
        self.window, self.eps, self.normalised, self.stop, self.after, self.scheme = window, eps, normalised, stop, after, scheme
        self.every = every

    def options(self) -> dict[str, Any]:
        return {"name": "early_bird", "densities": [dict(sorted(d.items())) for d in self.densities], "window": self.window,
                "eps": self.eps, "normalised": self.normalised, "stop": self.stop, "after": self.after, "scheme": self.scheme} \
            | ({} if self.every == 1 else {"every": self.every})

    def begin(self, run: Run) -> None:
        self._ties = run.generator("early-bird ties").initial_seed()
        self._like = Masks.ones(run.maskables)
        self._drawn: list[list[Masks]] = [[] for _ in self.densities]
        self._raw: list[dict[str, list[float]]] = [{b: [] for b in asked} for asked in self.densities]
        self._emerged = [0] * len(self.densities)

    def after_step(self, run: Run) -> None:
        behind = run.step % run.steps_per_epoch
        if behind and behind % max(1, round(self.every * run.steps_per_epoch)) == 0:
            self._draw(run)

    def after_epoch(self, run: Run) -> None:
        self._draw(run)

    def _draw(self, run: Run) -> None:
        scores = heard({name: parameter.detach().abs() for name, parameter in run.parameters.items()}, run.maskables)
        for i, asked in enumerate(self.densities):
            masks = allocate(scores, run.masks, asked, run.maskables, self.scheme, self._ties)
            for budget, distances in self._raw[i].items():
                distances.append(max(masks.distance(old, budget) for old in self._drawn[i])
                                 if len(self._drawn[i]) == self.window else math.nan)
            self._drawn[i] = [*self._drawn[i], masks][-self.window:]
            if not self._emerged[i] and run.step > self.after * run.steps_per_epoch and self._settled(i):
                self._emerged[i] = run.step

    def _settled(self, i: int) -> bool:
        last = {b: (normalise(raw) if self.normalised else raw)[-1] for b, raw in self._raw[i].items()}
        if self.stop == "joint":
            return sum(last.values()) / len(last) < self.eps
        return all(distance < self.eps for budget, distance in last.items() if self.stop in ("each", budget))

    def finished(self, run: Run) -> bool:
        return all(self._emerged)

    def state(self) -> dict[str, Tensor]:
        """For the i-th densities: ``i/emerged`` (a step, 0: not yet), ``i/raw/<budget>`` and ``i/normalised/<budget>``
        (masks drawn,), and ``i/mask/<k>/<tensor>``, the last ``window`` masks, the newest at the end."""
        tensors = {}
        for i, drawn in enumerate(self._drawn):
            tensors[f"{i}/emerged"] = torch.tensor(self._emerged[i])
            for budget, raw in self._raw[i].items():
                tensors[f"{i}/raw/{budget}"] = torch.tensor(raw, dtype=torch.float64)
                tensors[f"{i}/normalised/{budget}"] = torch.tensor(normalise(raw), dtype=torch.float64)
            for k, masks in enumerate(drawn):
                tensors |= {f"{i}/mask/{k}/{name}": masks[name] for b in self.densities[i] for name in masks.names(b)}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        for i, asked in enumerate(self.densities):
            self._emerged[i] = int(tensors[f"{i}/emerged"])
            self._raw[i] = {b: tensors[f"{i}/raw/{b}"].tolist() for b in asked}
            self._drawn[i] = _masks(below(str(i), tensors), self._like)


def normalise(raw: list[float]) -> list[float]:
    """Distances divided by the first that is not 0: 1 means as much change as when masks first moved."""
    first = next((r for r in raw if r > 0), 1.0)
    return [r / first for r in raw]


def emerged(lab, start, rule: Rule, densities: list[Densities]) -> Iterator[tuple[Densities, Any, Masks, dict[str, Any]]]:
    """Train the whole network from ``start`` under ``rule``, an ``EarlyBird`` or one together with others, until all its
    tickets have emerged. For each of ``densities``: itself, the state and the masks when it did, and notes. One that never
    does is drawn at the end of training, and its notes say so."""
    def look(state) -> dict[str, Tensor]:
        left = lab.found(state)
        return below("early_bird", left) or left

    schedule = "replay" if start == lab.start("init") else "whole"
    with lab.apart():
        end = lab.train(start, lab.ones(), schedule, rule=rule)
    for i, density in enumerate(densities):
        found = below(str(i), look(end))
        step = int(found["emerged"])
        with lab.apart():  # a ticket's search is the training up to there, whatever else was watched
            state = lab.train(start, lab.ones(), schedule, until=step or None, rule=rule)
            masks = _masks(below(str(i), look(state)), lab.ones())[-1]
            curves = {f"{kind}_distance": {name.partition("/")[2]: [None if math.isnan(d) else d for d in curve.tolist()]
                                           for name, curve in found.items() if name.startswith(f"{kind}/")}
                      for kind in ("raw", "normalised")}
            yield density, state, masks, {"emerged_step": step or None, **curves}


def _masks(found: dict[str, Tensor], like: Masks) -> list[Masks]:
    """The masks of one density, oldest first; what was not watched is kept whole."""
    kept = below("mask", found)
    order = sorted({int(name.partition("/")[0]) for name in kept})
    return [like.replace({name: mask.bool() for name, mask in below(str(k), kept).items()}) for k in order]


def early_bird(lab, densities: list[Densities], window: int = 4, eps: float = 0.1, normalised: bool = False,
               stop: str = "each", after: float = 0.0, weights: str = "inherit", scheme: str = "global",
               l1: float = 0.0, bits: int | None = None, every: float = 1.0) -> Iterator[Ticket]:
    """Early-bird tickets, all from one training, which ends when the last has emerged (You et al. 2020).

    window    earlier masks the newest is compared with; the published code holds five masks, so 4
    weights   inherit: go on from where the ticket emerged, by the rest of the schedule; reset: the initial weights, by the
              whole schedule; reinit: newly drawn ones. A ticket that never emerged goes through the whole schedule again
    l1        strength of the penalty on what is ranked, while searching: 1e-4 on the scales of batch norms in the paper
    bits      search in numbers of so many bits, see ``LowPrecision``; the ticket is trained in the task's precision
    every     epochs between two masks, 1 or a share: the paper's epoch is a 160th of its training
    """
    bird = EarlyBird(densities, window, eps, normalised, stop, after, scheme, every)
    yield from _tickets(lab, densities, bird, weights, l1, bits)


def early_bert(lab, densities: list[Densities], window: int = 4, eps: float = 0.1, every: float = 0.05, after: float = 0.0,
               stop: str = "each", l1: float = 1e-4, weights: str = "reset") -> Iterator[Ticket]:
    """EarlyBERT (Chen et al. 2021): heads and feed-forward neurons have a factor each, penalised while it is fine-tuned with all
    else; the smallest go, of heads in every layer as many, of neurons wherever they are. Options as those of ``early_bird``.

    every, after  in epochs. The paper's code does not wait for masks to settle, but draws them at 20 % of the first epoch:
                  every=0.1, window=1, after=0.1 and an eps above 1
    """
    if not HEADS_AND_NEURONS.keys() <= set(lab.budgets):
        raise NotApplicable("early_bert cuts the heads and neurons of a transformer, which are no budgets here: tasks on BERT "
                            "have them with model.scope=units")
    bird = EarlyBird(densities, window, eps, False, stop, after, HEADS_AND_NEURONS, every)
    yield from _tickets(lab, densities, bird, weights, l1)


HEADS_AND_NEURONS = {"heads": "uniform", "neurons": "global"}


def _tickets(lab, densities: list[Densities], bird: EarlyBird, weights: str, l1: float,
             bits: int | None = None) -> Iterator[Ticket]:
    one_of("weights", weights, ("inherit", "reset", "reinit"))
    others = [*([on_scales(l1, densities[0])] if l1 else []), *([LowPrecision(bits)] if bits is not None else [])]
    rule = Together(*others, bird) if others else bird
    for density, state, masks, notes in emerged(lab, lab.start("init"), rule, densities):
        start = state if weights == "inherit" else lab.start("init" if weights == "reset" else "reinit")
        schedule = "replay" if state.step < lab.steps else "whole"
        scores = lab.score("magnitude", state, lab.ones())
        yield Ticket(density, masks, start, schedule, scores, lab.ones(), bird.scheme, notes)
