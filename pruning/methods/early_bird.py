"""Early-bird tickets: watch the masks that pruning by magnitude would give during a training, and stop once they have settled.
One callback serves all tasks: channels of a CNN (You et al. 2020), heads and neurons of a transformer (Chen et al. 2021), edges
and weights of a graph network together (You et al. 2022)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pruning.allocation import allocate
from pruning.callbacks.base import Callback, CallbackList, TrainingContext, below
from pruning.callbacks.l1 import l1_on_scales
from pruning.callbacks.low_precision import LowPrecision
from pruning.errors import NotApplicable, PruningError, one_of
from pruning.hashed_options import later
from pruning.lab import Lab
from pruning.masks import Masks
from pruning.scores import group_mean_scores
from pruning.ticket import Densities, Scheme, State, Ticket


@dataclass
class EarlyBird(Callback):
    """Observes the masks of magnitude pruning at each of ``densities`` after every epoch; the training itself is unchanged.

    The distance of a budget is the largest share of its entries on which the newest mask differs from one of the ``window``
    masks before it. It is stored raw, and normalised: divided by the budget's first distance that is not 0. A ticket emerges
    after the first epoch later than ``after`` at which the distances are below ``eps``; the training stops when all tickets have
    emerged (You et al. 2020). The method ``early_bird`` says what the fields mean.

    A budget of density 1 is not watched. Ties use one fixed order per training; otherwise masks with many equal scores would
    never converge.
    """

    name = "early_bird"
    densities: list[Densities]
    window: int
    eps: float
    normalised: bool
    stop: str = "each"
    after: float = 0
    scheme: Scheme = "global"
    every: float = later(1.0)

    def __post_init__(self) -> None:
        self.densities = [{budget: d for budget, d in densities.items() if d < 1} for densities in self.densities]
        for densities in self.densities:
            if not densities:
                raise PruningError("an early bird needs a density below 1 to watch masks at")
            one_of("stop rule", self.stop, ("each", "joint", *densities))
        if self.window < 1:
            raise PruningError(f"window is {self.window}; the newest mask is compared with at least one before it")
        if not self.eps > 0:
            raise PruningError(f"eps is {self.eps}; distances can only fall below a positive number")
        if not 0 < self.every <= 1:
            raise PruningError(f"every is {self.every}; masks are drawn once an epoch (1) or after a share of one, in (0, 1)")

    def on_start(self, context: TrainingContext) -> None:
        self._ties = context.generator("early-bird ties").initial_seed()
        self._like = Masks.ones(context.maskables)
        self._drawn: list[list[Masks]] = [[] for _ in self.densities]
        self._raw: list[dict[str, list[float]]] = [{b: [] for b in densities} for densities in self.densities]
        self._emerged = [0] * len(self.densities)

    def after_step(self, context: TrainingContext) -> None:
        step_of_epoch = context.step % context.steps_per_epoch
        if step_of_epoch and step_of_epoch % max(1, round(self.every * context.steps_per_epoch)) == 0:
            self._draw(context)

    def after_epoch(self, context: TrainingContext) -> None:
        self._draw(context)

    def _draw(self, context: TrainingContext) -> None:
        magnitudes = {name: parameter.detach().abs() for name, parameter in context.parameters.items()}
        scores = group_mean_scores(magnitudes, context.maskables)
        for i, densities in enumerate(self.densities):
            masks = allocate(scores, context.masks, densities, context.maskables, self.scheme, self._ties)
            for budget, distances in self._raw[i].items():
                far = [masks.distance(old, budget) for old in self._drawn[i]]
                distances.append(max(far) if len(far) == self.window else math.nan)
            self._drawn[i] = [*self._drawn[i], masks][-self.window :]
            if not self._emerged[i] and context.step > self.after * context.steps_per_epoch and self._settled(i):
                self._emerged[i] = context.step

    def _settled(self, i: int) -> bool:
        last = {b: (normalise(raw) if self.normalised else raw)[-1] for b, raw in self._raw[i].items()}
        if self.stop == "joint":
            return sum(last.values()) / len(last) < self.eps
        return all(distance < self.eps for budget, distance in last.items() if self.stop in ("each", budget))

    def finished(self, context: TrainingContext) -> bool:
        return all(self._emerged)

    def state(self) -> dict[str, Tensor]:
        """Return for the i-th densities: ``i/emerged`` (a step; 0: not yet), ``i/raw/<budget>`` and ``i/normalised/<budget>``,
        one distance for each mask drawn, and ``i/mask/<k>/<tensor>``, the last ``window`` masks, oldest first."""
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
        for i, densities in enumerate(self.densities):
            self._emerged[i] = int(tensors[f"{i}/emerged"])
            self._raw[i] = {b: tensors[f"{i}/raw/{b}"].tolist() for b in densities}
            self._drawn[i] = _masks(below(str(i), tensors), self._like)


def normalise(raw: list[float]) -> list[float]:
    """Return distances divided by the first that is not 0, so that 1 means as much change as when masks first moved."""
    first = next((r for r in raw if r > 0), 1.0)
    return [r / first for r in raw]


def emerged(
    lab: Lab, start: State, callback: EarlyBird | CallbackList, densities: list[Densities]
) -> Iterator[tuple[Densities, Callable[[], tuple[State, Masks, dict[str, Tensor]]], dict[str, Any]]]:
    """Train the whole network from ``start`` under ``callback``, an ``EarlyBird`` or a list with one, until all its tickets have
    emerged. Yield for each of ``densities``: itself, a function that trains up to the emergence of its ticket and returns the
    state, the masks and the magnitudes there, and notes. A ticket that never emerges is drawn at the end of training, and its
    notes say so.

    A ticket's search is the training up to its emergence alone, even where other tickets were watched in the same training:
    call the function inside the ticket's own ``lab.search()``.
    """
    schedule = "replay" if start == lab.start("init") else "whole"

    def watched(state: State) -> dict[str, Tensor]:
        stored = lab.callback_state(state)
        return below(EarlyBird.name, stored) or stored

    def at_emergence(index: int, step: int) -> tuple[State, Masks, dict[str, Tensor]]:
        state = lab.train(start, lab.ones(), schedule, until=step or None, callback=callback)
        masks = _masks(below(str(index), watched(state)), lab.ones())[-1]
        return state, masks, lab.score("magnitude", state, lab.ones())

    with lab.search():
        end = lab.train(start, lab.ones(), schedule, callback=callback)
    for index, density in enumerate(densities):
        observed = below(str(index), watched(end))
        step = int(observed["emerged"])
        notes: dict[str, Any] = {"emerged_step": step or None}
        for kind in ("raw", "normalised"):
            curves = {budget: curve.tolist() for budget, curve in below(kind, observed).items()}
            notes[f"{kind}_distance"] = {b: [None if math.isnan(d) else d for d in curve] for b, curve in curves.items()}
        yield density, partial(at_emergence, index, step), notes


def _masks(observed: dict[str, Tensor], like: Masks) -> list[Masks]:
    """Return the masks of one density, oldest first; tensors that were not watched are kept whole."""
    tensors = below("mask", observed)
    order = sorted({int(name.partition("/")[0]) for name in tensors})
    return [like.replace({name: mask.bool() for name, mask in below(str(k), tensors).items()}) for k in order]


def early_bird(
    lab: Lab,
    densities: list[Densities],
    window: int = 4,
    eps: float = 0.1,
    normalised: bool = False,
    stop: str = "each",
    after: float = 0.0,
    weights: str = "inherit",
    scheme: str = "global",
    l1: float = 0.0,
    bits: int | None = None,
    every: float = 1.0,
) -> Iterator[Ticket]:
    """Early-bird tickets, all from one training that ends when the last ticket has emerged (You et al. 2020).

    window      number of earlier masks that the newest is compared with; the published code holds five masks, so 4
    eps         distance below which masks count as settled
    normalised  compare eps with distances divided by the first that is not 0
    stop        each: every budget must settle; joint: the mean over the budgets; a budget's name: that budget alone
    after       epochs before a ticket may emerge
    weights     inherit: train on from where the ticket emerged, by the rest of the schedule (the whole schedule if it never
                emerged); reset: the initial weights, by the whole schedule; reinit: weights drawn from another seed
    scheme      the layerwise distribution of the kept entries
    l1          strength of the penalty on scales of units during the search: 1e-4 in the paper; 0: none
    bits        search in a precision of so many bits, the ticket is trained in the task's precision; None: the task's
    every       epochs between two masks, at most 1: the paper's epoch is a 160th of its training
    """
    bird = EarlyBird(densities, window, eps, normalised, stop, after, scheme, every)
    yield from _tickets(lab, densities, bird, weights, l1, bits)


def early_bert(
    lab: Lab,
    densities: list[Densities],
    window: int = 4,
    eps: float = 0.1,
    every: float = 0.05,
    after: float = 0.0,
    stop: str = "each",
    l1: float = 1e-4,
    weights: str = "reset",
) -> Iterator[Ticket]:
    """EarlyBERT (Chen et al. 2021): every attention head and feed-forward neuron has a factor, trained under an L1 penalty while
    the network is fine-tuned. The smallest factors are pruned: equally many heads in each layer, neurons by one ranking.

    every  epochs between two masks, at most 1
    after  epochs before a ticket may emerge

    The paper's code does not wait for masks to settle but draws them at 20 % of the first epoch: every=0.1, window=1, after=0.1
    and an eps above 1. Other options as those of ``early_bird``.
    """
    if not HEADS_AND_NEURONS.keys() <= set(lab.budgets):
        raise NotApplicable(
            "early_bert prunes the heads and neurons of a transformer, but this task has no such budgets: on "
            "transformers choose the scope of the model that prunes whole units"
        )
    bird = EarlyBird(densities, window, eps, False, stop, after, HEADS_AND_NEURONS, every)
    yield from _tickets(lab, densities, bird, weights, l1)


HEADS_AND_NEURONS = {"heads": "uniform", "neurons": "global"}


def _tickets(
    lab: Lab, densities: list[Densities], bird: EarlyBird, weights: str, l1: float, bits: int | None = None
) -> Iterator[Ticket]:
    one_of("weights", weights, ("inherit", "reset", "reinit"))
    others: list[Callback] = [l1_on_scales(l1, densities[0])] if l1 else []
    others += [LowPrecision(bits)] if bits is not None else []
    callback = CallbackList(*others, bird) if others else bird
    for density, at_emergence, notes in emerged(lab, lab.start("init"), callback, densities):
        with lab.search() as search:
            state, masks, scores = at_emergence()
        start = state if weights == "inherit" else lab.start("init" if weights == "reset" else "reinit")
        schedule = "replay" if state.step < lab.steps else "whole"
        yield Ticket(density, masks, start, schedule, scores, lab.ones(), bird.scheme, notes, search=search)
