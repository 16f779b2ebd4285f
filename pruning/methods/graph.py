"""Graph tickets: edges (budget ``edges``) found together with, or apart from, the network's weights.

sgcn   train, freeze the network, sparsify the edges to the end, cut, retrain (Li et al. 2020)
geb    the same, but sparsifying stops when the graph's early-bird ticket emerges (You et al. 2022, Algorithm 1)
gebt   edges and weights in one training, stopped at their joint early-bird ticket (You et al. 2022, Algorithm 2)
ugs    soft masks on edges and weights with an L1 penalty, cut round by round, rewound (Chen et al. 2021)

Edge values are trained by the task's own optimizer, in the step that trains the weights where both learn; the papers take
a second pass over the data for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.allocation.allocate import allocate
from pruning.callbacks.base import Callback, CallbackList, TrainingContext, below
from pruning.errors import NotApplicable, PruningError, one_of
from pruning.identity import later
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.metadata import method
from pruning.methods.early_bird import EarlyBird, emerged
from pruning.methods.magnitude import rounds
from pruning.scores import magnitude
from pruning.ticket import Densities, State, Ticket

PENALTIES = ("mean", "half_sum")


@dataclass
class FreezeExcept(Callback):
    """Only one side learns: the ``edges``, or the ``network`` (everything else)."""

    name = "alone"
    side: str

    def after_backward(self, context: TrainingContext) -> None:
        edges = {m.name for m in _edges(context.maskables)}
        for name, parameter in context.model.named_parameters():
            if (name in edges) != (self.side == "edges"):
                parameter.grad = None  # a gradient of 0 would still be moved by weight decay and momentum


@dataclass
class Sparsifier(Callback):
    """Pulls the edge values towards some that keep ``density`` of the edges, by the alternating direction method of
    multipliers: loss + rho * penalty(values - target + dual) for each direction of an edge in each of two layers, as the
    published code has them; every ``every`` epochs target = values + dual, cut; dual += values - target.

    penalty  half_sum: half the sum of squares (Li et al. 2020); mean: their mean over all ``nodes`` ** 2 pairs of nodes
             (what GEBT's code does; on Cora four million times weaker)
    directions  of an edge that one value stands for
    """

    name = "sparsifier"
    density: float
    every: int
    rho: float
    penalty: str
    nodes: int
    directions: int = later(2)

    def __post_init__(self) -> None:
        one_of("penalty", self.penalty, PENALTIES)

    def on_start(self, context: TrainingContext) -> None:
        self._ties = context.generator("sparsifier ties").initial_seed()
        self._edges = _edges(context.maskables)
        self.target = {m.name: torch.zeros_like(context.parameters[m.name], requires_grad=False) for m in self._edges}
        self.dual = {name: zeros.clone() for name, zeros in self.target.items()}

    def after_backward(self, context: TrainingContext) -> None:
        strength = 2 * self.directions * self.rho * (1 if self.penalty == "half_sum" else 2 / self.nodes ** 2)
        for name, target in self.target.items():
            values = context.parameters[name]
            _gradient(name, values).add_(values.detach() - target + self.dual[name], alpha=strength)

    def after_epoch(self, context: TrainingContext) -> None:
        if context.step % (self.every * context.steps_per_epoch):
            return
        values = {name: context.parameters[name].detach() for name in self.target}
        wanted = {name: value + self.dual[name] for name, value in values.items()}
        masks = allocate({name: value.abs() for name, value in wanted.items()}, context.masks, {"edges": self.density},
                         self._edges, seed=self._ties)
        for name, value in values.items():
            self.target[name] = wanted[name] * masks[name].to(value.device)
            self.dual[name] = wanted[name] - self.target[name]

    def state(self) -> dict[str, Tensor]:
        return {f"target/{n}": t for n, t in self.target.items()} | {f"dual/{n}": t for n, t in self.dual.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.target = {n: t.to(self.target[n]) for n, t in below("target", tensors).items()}
        self.dual = {n: t.to(self.dual[n]) for n, t in below("dual", tensors).items()}


@dataclass
class SoftMasks(Callback):
    """A trainable factor, about 1, on every maskable entry, under an L1 penalty; edges learn through theirs alone. Keeps those
    of the epoch that did best on the validation data."""

    name = "soft_masks"
    lr: float
    weight_decay: float
    weight_penalty: float
    edge_penalty: float

    def on_start(self, context: TrainingContext) -> None:
        generator = context.generator("soft masks")
        self._edges = {m.name for m in _edges(context.maskables)}
        self._alive, self.soft = {}, {}
        for name, parameter in context.parameters.items():
            noise = 1e-5 * (2 * torch.rand(parameter.shape, generator=generator) - 1)  # or equal factors would tie
            self._alive[name] = context.masks[name].to(parameter)
            self.soft[name] = nn.Parameter(self._alive[name] * (1 + noise.to(parameter)))
        self._optimizer = torch.optim.Adam(self.soft.values(), self.lr, weight_decay=self.weight_decay)
        self.scores = {name: soft.detach().abs() for name, soft in self.soft.items()}
        self._best_value = -torch.inf

    def before_forward(self, context: TrainingContext) -> None:
        self._plain = {name: parameter.detach().clone() for name, parameter in context.parameters.items()}
        for name, parameter in context.parameters.items():
            parameter.data.mul_(self.soft[name].detach())

    def after_backward(self, context: TrainingContext) -> None:
        for name, parameter in context.parameters.items():
            soft, gradient = self.soft[name], _gradient(name, parameter)
            penalty = self.edge_penalty if name in self._edges else self.weight_penalty
            soft.grad = (gradient * self._plain[name] + penalty * soft.detach().sign()) * self._alive[name]
            parameter.grad = None if name in self._edges else gradient * soft.detach()
        self._lift(context)
        self._optimizer.step()

    def _lift(self, context: TrainingContext) -> None:
        for name, parameter in context.parameters.items():
            parameter.data.copy_(self._plain[name])

    def after_epoch(self, context: TrainingContext) -> None:
        self.before_forward(context)
        value = context.validate()
        self._lift(context)
        if value > self._best_value:
            self._best_value = value
            self.scores = {name: soft.detach().abs() for name, soft in self.soft.items()}

    def state(self) -> dict[str, Tensor]:
        """``scores/<tensor>``: |factor| of the best epoch, to cut by; and what resuming needs."""
        tensors = {"best_value": torch.tensor(self._best_value, dtype=torch.float64)}
        for name, soft in self.soft.items():
            tensors |= {f"scores/{name}": self.scores[name], f"soft/{name}": soft.detach()}
            tensors |= {f"adam/{name}/{key}": value for key, value in self._optimizer.state[soft].items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        self._best_value = float(tensors["best_value"])
        for name, soft in self.soft.items():
            soft.data.copy_(tensors[f"soft/{name}"])
            self.scores[name] = tensors[f"scores/{name}"].to(soft)
            self._optimizer.state[soft] = {key: tensors[f"adam/{name}/{key}"].clone() if key == "step" else
                                           tensors[f"adam/{name}/{key}"].to(soft, copy=True)
                                           for key in ("step", "exp_avg", "exp_avg_sq")}


def sgcn(lab: Lab, densities: list[Densities], weights: str = "reset", rho: float = 1e-3, penalty: str = "mean",
         every: int = 25) -> Iterator[Ticket]:
    """Train the network, then the edges of the frozen network, each for a whole training; cut the edges; retrain.

    weights  reset: retrain from the initial weights, edges at 1; inherit: from the trained weights and edge values
    """
    one_of("weights", weights, ("reset", "inherit"))
    for density in _edges_only(densities):
        callback = CallbackList(FreezeExcept("edges"), _sparsifier(lab, density, every, rho, penalty))
        with lab.search() as search:
            end = lab.train(_network_trained(lab), lab.ones(), "whole", callback=callback)
            scores = lab.score("magnitude", end, lab.ones())
        masks = lab.allocate(scores, lab.ones(), density)
        start = end if weights == "inherit" else lab.start("init")
        yield Ticket(density, masks, start, "whole", scores, lab.ones(), search=search)


def geb(lab: Lab, densities: list[Densities], weights: str = "reset", window: int = 3, eps: float = 0.1, normalised: bool = True,
        after: int = 5, rho: float = 1e-3, penalty: str = "mean", every: int = 25) -> Iterator[Ticket]:
    """Graph early bird: as ``sgcn``, but the edges' training stops when the edges to keep have settled."""
    one_of("weights", weights, ("reset", "inherit"))
    for density in _edges_only(densities):
        watch = EarlyBird([density], window, eps, normalised, after=after)
        callback = CallbackList(FreezeExcept("edges"), _sparsifier(lab, density, every, rho, penalty), watch)
        for _, at_emergence, notes in emerged(lab, _network_trained(lab), callback, [density]):
            with lab.search() as search:
                state, masks = at_emergence()
                scores = lab.score("magnitude", state, lab.ones())
            start = state if weights == "inherit" else lab.start("init")
            yield Ticket(density, masks, start, "whole", scores, lab.ones(), notes=notes, search=search)


def gebt(lab: Lab, densities: list[Densities], weights: str = "inherit", stop: str = "joint", window: int = 3, eps: float = 0.1,
         normalised: bool = True, after: int = 5, rho: float = 1e-3, penalty: str = "mean", every: int = 1,
         watch_weights: float | None = None) -> Iterator[Ticket]:
    """Joint early bird: weights and edges learn in one training from the start, which stops at their ticket.

    weights        inherit: retrain the ticket's weights and edge values under its masks; reset: the initial weights under its
                   masks; dense_fresh: all initial weights, on the ticket's graph (what the published code does)
    stop           joint: the mean of the two distances; edges, weights: one of them; each: both
    watch_weights  dense_fresh alone, which is asked no density of weights: the one at which they are watched
    """
    one_of("weights", weights, ("inherit", "reset", "dense_fresh"))
    if weights == "dense_fresh":
        densities = _edges_only(densities)
    elif watch_weights is not None:
        raise PruningError("watch_weights is for weights=dense_fresh; else the weights are watched at the density asked")
    for density in densities:
        watched = dict(density) if watch_weights is None else {**density, "weights": watch_weights}
        watch = EarlyBird([watched], window, eps, normalised, stop, after)
        callback = CallbackList(_sparsifier(lab, density, every, rho, penalty), watch)
        for _, at_emergence, notes in emerged(lab, lab.start("init"), callback, [density]):
            with lab.search() as search:
                state, masks = at_emergence()
                scores = lab.score("magnitude", state, lab.ones())
            start = state if weights == "inherit" else lab.start("init")
            pruned = lab.ones().replace({name: masks[name] for budget in density for name in masks.names(budget)})
            yield Ticket(density, pruned, start, "whole", scores, lab.ones(), notes=notes, search=search)


@method(sequential=True)  # as imp: densities asked for earlier are rounds on the way
def ugs(lab: Lab, densities: list[Densities], lr: float = 0.008, weight_decay: float = 8e-5, weight_penalty: float = 1e-2,
        edge_penalty: float = 1e-2, rewind: str = "init", rate: float | None = None) -> Iterator[Ticket]:
    """Unified graph sparsification: train weights and soft masks, cut the smallest factors, rewind, again.

    lr, weight_decay              of the soft masks' Adam
    weight_penalty, edge_penalty  of their L1 norms
    rate                          largest share of the survivors cut in a round; None: one round for each density asked
    """
    masks, start = lab.ones(), lab.start(rewind)
    reached = dict.fromkeys(lab.budgets, 1.0)
    for density in densities:
        for goal in rounds(reached, density, rate):
            end = lab.train(start, masks, callback=SoftMasks(lr, weight_decay, weight_penalty, edge_penalty))
            scores, before = lab.learned_scores(end), masks
            masks = lab.allocate(scores, masks, goal)
        yield Ticket(density, masks, start, scores=scores, before=before)
        reached |= density


def degree(model: nn.Module, maskables: list[Maskable], data) -> dict[str, Tensor]:
    """Edges by their entry in the normalised adjacency, 1 / sqrt(degree * degree), a node's link to itself counted: those
    between well-connected nodes go first. Everything else by magnitude."""
    edges, features = data.graph()
    degrees = torch.bincount(_undirected(edges).reshape(-1), minlength=len(features)).double() + 1
    return _edge_scores(model, maskables, data, degrees[edges].prod(0).rsqrt())


def jaccard(model: nn.Module, maskables: list[Maskable], data) -> dict[str, Tensor]:
    """Edges by what their two nodes' non-zero features have in common: intersection over union, 0 where neither has any
    (Wu et al. 2019). Everything else by magnitude."""
    edges, features = data.graph()
    present = (features != 0).float()
    if present.mean() > 0.5:
        raise NotApplicable("score jaccard compares which features two nodes have, but here every node has most of them")
    size = present.sum(1)
    # in pieces: a whole graph of feature pairs would not fit into memory
    common = torch.cat([(present[u] * present[v]).sum(1) for u, v in zip(*(e.split(4096) for e in edges), strict=True)])
    union = size[edges].sum(0) - common
    return _edge_scores(model, maskables, data, common / union.clamp(min=1))


def _edge_scores(model: nn.Module, maskables: list[Maskable], data, values: Tensor) -> dict[str, Tensor]:
    edge, = _edges(maskables)
    return magnitude(model, maskables, data) | {edge.name: values}


def _edges(maskables: list[Maskable]) -> list[Maskable]:
    return [m for m in maskables if m.budget == "edges"]


def _edges_only(densities: list[Densities]) -> list[Densities]:
    for density in densities:
        for budget in density:
            if budget != "edges" and density[budget] < 1:
                raise NotApplicable(f"this method cuts edges alone: set densities.{budget}={density[budget]:g} to null")
    return densities


def _network_trained(lab: Lab) -> State:
    return lab.train(lab.start("init"), lab.ones(), callback=FreezeExcept("network"))


def _sparsifier(lab: Lab, density: Densities, every: int, rho: float, penalty: str) -> Sparsifier:
    (edges, features), (edge,) = lab.graph(), _edges(lab.maskables)
    return Sparsifier(density.get("edges", 1.0), every, rho, penalty, len(features), 2 * _undirected(edges).shape[1] // edge.size)


def _undirected(edges: Tensor) -> Tensor:
    """Every edge once, (2, M), where both of its directions may be listed."""
    return edges.sort(0).values.unique(dim=1)


def _gradient(name: str, parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise PruningError(f"{name} has no gradient, but this method learns its values: let the recipe train it "
                           "(a graph task: train.edge_lr above 0)")
    return parameter.grad
