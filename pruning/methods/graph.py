"""Graph tickets: the edges of a graph (budget ``edges``) pruned alone or together with the weights of the network. Edge values
are trained by the optimizer of the task, in the same step as the weights where both are trained; the papers take a second pass
over the data for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.allocation import allocate
from pruning.callbacks.base import Callback, CallbackList, TrainingContext, below, load_optimizer_state, optimizer_state
from pruning.errors import NotApplicable, PruningError, one_of
from pruning.hashed_options import later
from pruning.lab import Lab
from pruning.maskable import Maskable
from pruning.metadata import method
from pruning.methods.early_bird import EarlyBird, emerged
from pruning.schedules import geometric
from pruning.scores import ScoreData, magnitude
from pruning.ticket import Densities, State, Ticket

PENALTIES = ("mean", "half_sum")


@dataclass
class FreezeExcept(Callback):
    """Trains only one ``side``: the ``edges``, or the ``network``, which is everything else."""

    name = "alone"
    side: str

    def after_backward(self, context: TrainingContext) -> None:
        edges = {m.name for m in _edges(context.maskables)}
        for name, parameter in context.model.named_parameters():
            if (name in edges) != (self.side == "edges"):
                parameter.grad = None  # with a gradient of 0, weight decay and momentum would still move it


@dataclass
class Sparsifier(Callback):
    """Pulls the edge values towards values that keep ``density`` of the edges, by the alternating direction method of
    multipliers.

    The loss has rho * penalty(values - target + dual) added for each direction of an edge in each of two layers, as the published
    code does. Every ``every`` epochs target becomes values + dual, pruned, and dual becomes dual + values - target.

    penalty     half_sum: half the sum of squares (Li et al. 2020); mean: their mean over all ``nodes`` ** 2 pairs of nodes
                (GEBT's code; on Cora four million times weaker)
    directions  number of directions of an edge that share one value
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
        strength = 2 * self.directions * self.rho * (1 if self.penalty == "half_sum" else 2 / self.nodes**2)
        for name, target in self.target.items():
            values = context.parameters[name]
            _gradient(name, values).add_(values.detach() - target + self.dual[name], alpha=strength)

    def after_epoch(self, context: TrainingContext) -> None:
        if context.step % (self.every * context.steps_per_epoch):
            return
        values = {name: context.parameters[name].detach() for name in self.target}
        lifted = {name: value + self.dual[name] for name, value in values.items()}
        sizes = {name: value.abs() for name, value in lifted.items()}
        masks = allocate(sizes, context.masks, {"edges": self.density}, self._edges, seed=self._ties)
        for name, value in values.items():
            self.target[name] = lifted[name] * masks[name].to(value.device)
            self.dual[name] = lifted[name] - self.target[name]

    def state(self) -> dict[str, Tensor]:
        return {f"target/{n}": t for n, t in self.target.items()} | {f"dual/{n}": t for n, t in self.dual.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.target = {n: t.to(self.target[n]) for n, t in below("target", tensors).items()}
        self.dual = {n: t.to(self.dual[n]) for n, t in below("dual", tensors).items()}


@dataclass
class SoftMasks(Callback):
    """Trains a factor on every maskable entry, starting near 1, under an L1 penalty; edge values are trained through their
    factors alone. The scores are the factors of the epoch with the best validation metric (Chen et al. 2021, UGS)."""

    name = "soft_masks"
    lr: float
    weight_decay: float
    weight_penalty: float
    edge_penalty: float

    def on_start(self, context: TrainingContext) -> None:
        generator = context.generator("soft masks")
        self._edges = {m.name for m in _edges(context.maskables)}
        self._mask: dict[str, Tensor] = {}
        self.soft: dict[str, nn.Parameter] = {}
        for name, parameter in context.parameters.items():
            noise = 1e-5 * (2 * torch.rand(parameter.shape, generator=generator) - 1)  # breaks ties between equal factors
            self._mask[name] = context.masks[name].to(parameter)
            self.soft[name] = nn.Parameter(self._mask[name] * (1 + noise.to(parameter)))
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
            soft.grad = (gradient * self._plain[name] + penalty * soft.detach().sign()) * self._mask[name]
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
        """Return ``scores/<tensor>``, the |factor| of the best epoch to prune by, and everything that resuming needs."""
        tensors = {"best_value": torch.tensor(self._best_value, dtype=torch.float64)}
        for name, soft in self.soft.items():
            tensors |= {f"scores/{name}": self.scores[name], f"soft/{name}": soft.detach()}
        return tensors | {f"adam/{key}": t for key, t in optimizer_state(self._optimizer, self.soft).items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self._best_value = float(tensors["best_value"])
        for name, soft in self.soft.items():
            soft.data.copy_(tensors[f"soft/{name}"])
            self.scores[name] = tensors[f"scores/{name}"].to(soft)
        load_optimizer_state(self._optimizer, self.soft, below("adam", tensors))


def sgcn(
    lab: Lab, densities: list[Densities], weights: str = "reset", rho: float = 1e-3, penalty: str = "mean", every: int = 25
) -> Iterator[Ticket]:
    """SGCN (Li et al. 2020): train the network, then the edges of the frozen network, each by the whole schedule; prune the edges
    and retrain.

    weights  reset: retrain the initial weights with edge values of 1; inherit: the trained weights and edge values
    rho      strength of the penalty that sparsifies the edges
    penalty  half_sum (Li et al. 2020) or mean over all pairs of nodes, as in GEBT's code
    every    epochs between two updates of the sparse target
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


def geb(
    lab: Lab,
    densities: list[Densities],
    weights: str = "reset",
    window: int = 3,
    eps: float = 0.1,
    normalised: bool = True,
    after: int = 5,
    rho: float = 1e-3,
    penalty: str = "mean",
    every: int = 25,
) -> Iterator[Ticket]:
    """Graph early bird (You et al. 2022, Algorithm 1): ``sgcn`` whose training of the edges stops once their mask has settled.
    Other options as those of ``sgcn``.

    window      number of earlier masks that the newest is compared with
    eps         distance below which the mask counts as settled
    normalised  compare eps with distances divided by the first that is not 0
    after       epochs before the ticket may emerge
    """
    one_of("weights", weights, ("reset", "inherit"))
    for density in _edges_only(densities):
        watch = EarlyBird([density], window, eps, normalised, after=after)
        callback = CallbackList(FreezeExcept("edges"), _sparsifier(lab, density, every, rho, penalty), watch)
        yield from _early_tickets(lab, density, _network_trained(lab), callback, weights)


def gebt(
    lab: Lab,
    densities: list[Densities],
    weights: str = "inherit",
    stop: str = "joint",
    window: int = 3,
    eps: float = 0.1,
    normalised: bool = True,
    after: int = 5,
    rho: float = 1e-3,
    penalty: str = "mean",
    every: int = 1,
    watch_weights: float | None = None,
) -> Iterator[Ticket]:
    """Joint early bird (You et al. 2022, Algorithm 2): weights and edges are trained together from the start until their masks
    have settled. Other options as those of ``geb``.

    weights        inherit: retrain the ticket's weights and edge values under its masks; reset: the initial weights under its
                   masks; dense_fresh: all initial weights on the ticket's graph, as the published code does
    stop           joint: the mean of the two distances must settle; edges, weights: that one; each: both
    watch_weights  density at which weights are watched with weights=dense_fresh, which prunes none
    """
    one_of("weights", weights, ("inherit", "reset", "dense_fresh"))
    if weights == "dense_fresh":
        densities = _edges_only(densities)
    elif watch_weights is not None:
        raise PruningError("watch_weights is for weights=dense_fresh; else weights are watched at their own density")
    for density in densities:
        watched = dict(density) if watch_weights is None else {**density, "weights": watch_weights}
        watch = EarlyBird([watched], window, eps, normalised, stop, after)
        callback = CallbackList(_sparsifier(lab, density, every, rho, penalty), watch)
        yield from _early_tickets(lab, density, lab.start("init"), callback, weights)


def _early_tickets(lab: Lab, density: Densities, start: State, callback: CallbackList, weights: str) -> Iterator[Ticket]:
    """Train from ``start`` until the masks have settled; yield the ticket, in which budgets without a density stay whole."""
    for _, at_emergence, notes in emerged(lab, start, callback, [density]):
        with lab.search() as search:
            state, masks, scores = at_emergence()
        masks = lab.ones().replace({name: masks[name] for budget in density for name in masks.names(budget)})
        start = state if weights == "inherit" else lab.start("init")
        yield Ticket(density, masks, start, "whole", scores, lab.ones(), notes=notes, search=search)


@method(sequential=True)  # as in imp, earlier densities are rounds on the way
def ugs(
    lab: Lab,
    densities: list[Densities],
    lr: float = 0.008,
    weight_decay: float = 8e-5,
    weight_penalty: float = 1e-2,
    edge_penalty: float = 1e-2,
    rewind: str = "init",
    rate: float | None = None,
) -> Iterator[Ticket]:
    """Unified graph sparsification (Chen et al. 2021, UGS): train weights and soft masks, prune the smallest factors, rewind,
    repeat.

    lr              learning rate of the soft masks
    weight_decay    weight decay of the soft masks
    weight_penalty  strength of the L1 penalty on the factors of weights
    edge_penalty    strength of the L1 penalty on the factors of edges
    rewind          the start state: init, or a step such as 2ep
    rate            the largest share of the remaining entries pruned in one round; None: one round for each density
    """
    masks, start = lab.ones(), lab.start(rewind)
    reached = dict.fromkeys(lab.budgets, 1.0)
    for density in densities:
        for target in geometric(reached, density, rate):
            end = lab.train(start, masks, callback=SoftMasks(lr, weight_decay, weight_penalty, edge_penalty))
            scores, before = lab.learned_scores(end), masks
            masks = lab.allocate(scores, masks, target)
        yield Ticket(density, masks, start, scores=scores, before=before)
        reached |= density


def degree(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Score edges by their entry in the normalised adjacency, 1 / sqrt(degree * degree) with self-loops, so that edges between
    well-connected nodes are pruned first. Everything else is scored by magnitude."""
    edges, features = data.graph()
    degrees = torch.bincount(_undirected(edges).reshape(-1), minlength=len(features)).double() + 1
    return _edge_scores(model, maskables, data, degrees[edges].prod(0).rsqrt())


def jaccard(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Score edges by the Jaccard similarity of the non-zero features of their two nodes, 0 where neither has any (Wu et al.
    2019). Everything else is scored by magnitude."""
    edges, features = data.graph()
    present = (features != 0).float()
    if present.mean() > 0.5:
        raise NotApplicable("score jaccard compares which features two nodes have, but here every node has most of them")
    size = present.sum(1)
    # in pieces, because the features of all pairs would not fit into memory
    common = torch.cat([(present[u] * present[v]).sum(1) for u, v in zip(*(e.split(4096) for e in edges), strict=True)])
    union = size[edges].sum(0) - common
    return _edge_scores(model, maskables, data, common / union.clamp(min=1))


def _edge_scores(model: nn.Module, maskables: list[Maskable], data: ScoreData, values: Tensor) -> dict[str, Tensor]:
    (edge,) = _edges(maskables)
    return magnitude(model, maskables, data) | {edge.name: values}


def _edges(maskables: list[Maskable]) -> list[Maskable]:
    return [m for m in maskables if m.budget == "edges"]


def _edges_only(densities: list[Densities]) -> list[Densities]:
    for density in densities:
        for budget in density:
            if budget != "edges" and density[budget] < 1:
                raise NotApplicable(f"this method prunes edges alone: ask for no density of {budget} (here {density[budget]:g})")
    return densities


def _network_trained(lab: Lab) -> State:
    return lab.train(lab.start("init"), lab.ones(), callback=FreezeExcept("network"))


def _sparsifier(lab: Lab, density: Densities, every: int, rho: float, penalty: str) -> Sparsifier:
    (edges, features), (edge,) = lab.graph(), _edges(lab.maskables)
    return Sparsifier(density.get("edges", 1.0), every, rho, penalty, len(features), 2 * _undirected(edges).shape[1] // edge.size)


def _undirected(edges: Tensor) -> Tensor:
    """Return every edge once, (2, M), also where both of its directions are listed."""
    once: Tensor = torch.unique(edges.sort(0).values, dim=1)
    return once


def _gradient(name: str, parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise PruningError(
            f"{name} has no gradient, but this method learns its values: the recipe must train it (for the edges "
            "of a graph, with a learning rate above 0)"
        )
    return parameter.grad
