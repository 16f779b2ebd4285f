"""Scores: (model, maskables, data) -> a number per entry. Higher means keep.

A score may return two tensors instead of one: it is then the magnitude of their product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pruning.allocation.allocate import Score
from pruning.errors import PruningError
from pruning.maskable import Maskable
from pruning.metadata import ScoreInfo, info_of, score

MODES = ("eval", "train")
ScoreFunction = Callable[..., Mapping[str, Score]]
"""(model, maskables, data, **options) -> name of the maskable -> a tensor of its shape, or two whose product is meant."""


class ScoreData(Protocol):
    """What a score may see of a task: a few training examples, the loss and the probe; never the test split."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The maskable parameters of the state by name, as they were before any mask."""

    def batches(self, split: str = "train", epoch: int = 0) -> Iterable[Any]:
        """Yield batches of ``train`` or ``val``."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the training loss, a scalar."""

    def generator(self) -> torch.Generator:
        """Return random draws for this score, the same for every method."""

    def probe(self, model: nn.Module) -> Tensor:
        """Return logits of a data-free forward pass. NotApplicable where the task offers none."""

    def examples(self, per_class: int, balanced: bool) -> list[Any]:
        """Return a few training examples in two or more micro-batches. NotApplicable where the task offers none."""

    def summed_loss(self, model: nn.Module, batch: Any, temperature: float = 1.0) -> Tensor:
        """Return the loss summed over a micro-batch, outside autocast, logits divided by ``temperature``."""

    def filters(self, model: nn.Module) -> dict[str, str]:
        """Return batch-norm scale -> name of the weight whose filters make its channels."""

    def graph(self) -> tuple[Tensor, Tensor]:
        """Return the undirected edges (2, M) and the node features (N, F). NotApplicable where there is no graph."""




@contextmanager
def prepared(function: ScoreFunction, model: nn.Module) -> Iterator[None]:
    """Enter the context in which ``function`` sees ``model``: its own, and convolutions in full float32: the ten bits
    of TF32 are too few where scores span decades."""
    rounded, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        with info_of(function, ScoreInfo).prepare(model):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounded


def evaluate(
    function: ScoreFunction, model: nn.Module, maskables: list[Maskable], data: ScoreData, **options: Any
) -> dict[str, Tensor]:
    """One round of a score, products multiplied out."""
    with prepared(function, model):
        return group_mean_scores(multiplied(function(model, maskables, data, **options)), maskables)


def multiplied(scores: dict[str, Score]) -> dict[str, Tensor]:
    """Every score as one tensor."""
    return {name: ((s[0] * s[1]).abs() if isinstance(s, tuple) else s).detach().cpu() for name, s in scores.items()}


def group_mean_scores(scores: dict[str, Tensor], maskables: list[Maskable]) -> dict[str, Tensor]:
    """The scores as votes: 0 for tensors that follow others, and divided by the votes of a group, so that the sum of a group,
    by which it is ranked, is their mean however many tensors it spans."""
    grouped = [m for m in maskables if m.groups is not None and not m.follows]
    votes = torch.bincount(torch.cat([m.groups.reshape(-1) for m in grouped])) if grouped else None
    mean = {m.name: scores[m.name] / votes[m.groups] for m in grouped}
    return {**scores, **mean, **{m.name: torch.zeros(m.shape) for m in maskables if m.follows}}


def magnitude(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """|w| (Han et al. 2015; Frankle & Carbin 2019)."""
    parameters = dict(model.named_parameters())
    return {m.name: parameters[m.name].detach().abs() for m in maskables}


def random(model: nn.Module, maskables: list[Maskable], data: ScoreData, draw: int = 0) -> dict[str, Tensor]:
    """Uniform on [0, 1), one number for all entries of a group: no information, the floor under every method. Another ``draw`` is
    of other numbers."""
    generator = data.generator()
    generator.manual_seed(generator.initial_seed() + draw)
    drawn = {m.name: torch.rand(m.shape, generator=generator) for m in maskables if m.groups is None}
    most = max((int(m.groups.max()) for m in maskables if m.groups is not None), default=-1)
    of_groups = torch.rand(most + 1, generator=generator)
    return drawn | {m.name: of_groups[m.groups] for m in maskables if m.groups is not None}


def snip(model: nn.Module, maskables: list[Maskable], data: ScoreData, per_class: int = 10, balanced: bool = True,
         mode: str = "eval") -> dict[str, Tensor]:
    """|c-gradient| = |w * dL/dw|, c the mask (Lee et al. 2019, SNIP): what cutting the entry does to the loss, to first order.

    The gradient is that of the masked network and w the weight before masking, so that what is cut has a score too: for FORCE,
    where entries come back (de Jorge et al. 2021). Absolute values are taken of the sum over all examples.
    """
    leaves = _leaves(model, maskables, mode)
    total = [torch.zeros_like(w) for w in leaves.values()]
    for batch in data.examples(per_class, balanced):
        torch._foreach_add_(total, _gradients(data.summed_loss(model, batch), leaves))
    return {name: (data.weights[name] * g).abs() for name, g in zip(leaves, total, strict=True)}


def grasp(model: nn.Module, maskables: list[Maskable], data: ScoreData, per_class: int = 10, balanced: bool = True,
          mode: str = "eval", temperature: float = 200.0) -> dict[str, Tensor]:
    """w * Hg, g and H the loss's gradient and Hessian (Wang et al. 2020, GraSP): to first order, half of what |g|^2 loses
    when the entry is cut. Kept is where that is largest, so that the gradient's norm survives.

    Logits are divided by ``temperature``. Hg is the gradient of <g, gradient of a micro-batch>, g held fixed, summed over the
    micro-batches.
    """
    if not temperature > 0:
        raise PruningError(f"temperature is {temperature}; logits are divided by it, so it must be above 0")
    leaves, batches = _leaves(model, maskables, mode), data.examples(per_class, balanced)
    gradient, product = ([torch.zeros_like(w) for w in leaves.values()] for _ in range(2))
    for batch in batches:
        torch._foreach_add_(gradient, _gradients(data.summed_loss(model, batch, temperature), leaves))
    for batch in batches:
        part = _gradients(data.summed_loss(model, batch, temperature), leaves, create_graph=True)
        torch._foreach_add_(product, _gradients(sum((g * p).sum() for g, p in zip(gradient, part, strict=True)), leaves))
    return {name: w.detach() * hg for (name, w), hg in zip(leaves.items(), product, strict=True)}


def grasp_magnitude(model: nn.Module, maskables: list[Maskable], data: ScoreData, per_class: int = 10, balanced: bool = True,
                    mode: str = "eval", temperature: float = 200.0) -> dict[str, Tensor]:
    """|w * Hg|: keeps the entries that change the gradient's norm most, in either direction (Frankle et al. 2021, of GraSP)."""
    scores = grasp(model, maskables, data, per_class, balanced, mode, temperature)
    return {name: values.abs() for name, values in scores.items()}


def l1_filter(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Sum of |w| over the filter that makes a channel (Li et al. 2017)."""
    return _of_filters(model, maskables, data, lambda filters: filters.abs().sum(1))


def fpgm(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Sum of the distances of a channel's filter to the other filters of its layer: 0 is the geometric median's, which the
    others can best replace (He et al. 2019, FPGM)."""
    return _of_filters(model, maskables, data, lambda filters: torch.cdist(filters, filters).sum(1))


def _of_filters(
    model: nn.Module, maskables: list[Maskable], data: ScoreData, score: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """``score`` of the filters (channels, weights) behind every batch norm's scale; 0 where none is right behind it."""
    parameters, filters = dict(model.named_parameters()), data.filters(model)
    return {m.name: score(parameters[filters[m.name]].detach().flatten(1)) if m.name in filters else torch.zeros(m.shape)
            for m in maskables}


@contextmanager
def absolute(model: nn.Module) -> Iterator[None]:
    """Inside, every parameter and buffer is its absolute value and the model is in eval mode; after it the state is what it
    was, bit for bit, even where a score went on in float64."""
    state, training = model.state_dict(), model.training
    saved = {name: tensor.clone() for name, tensor in state.items()}
    dtype = next(model.parameters()).dtype
    try:
        for tensor in state.values():
            tensor.copy_(tensor.abs())
        yield model.eval()
    finally:
        model.to(dtype).train(training)
        model.load_state_dict(saved)


@score(prepare=absolute, blind_to=("query", "key"))  # an attention's softmax of a constant is uniform
def synflow(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Score]:
    """| |w| * dR/d|w| |, R the sum of all logits of the network of absolute values on an input of ones (Tanaka et al. 2020,
    SynFlow). Reads no data. In float64 where float32 cannot hold R. R rises with every weight; not so with an edge of a graph,
    which its nodes' degrees divide by."""
    leaves = _leaves(model, maskables)
    flow = data.probe(model).sum()
    if not flow.isfinite() and flow.dtype == torch.float32:
        leaves = _leaves(model.double(), maskables)
        flow = data.probe(model).sum()
    return {name: (w.detach(), g) for (name, w), g in zip(leaves.items(), _gradients(flow, leaves), strict=True)}


def _leaves(model: nn.Module, maskables: list[Maskable], mode: str = "eval") -> dict[str, nn.Parameter]:
    """The maskable parameters, the only ones to be differentiated by, of a model in ``mode``."""
    if mode not in MODES:
        raise PruningError(f"unknown mode {mode!r}: one of {', '.join(MODES)}")
    if model.training != (mode == "train"):
        model.train(mode == "train")
    wanted = {m.name for m in maskables}
    parameters = {name: p.requires_grad_(name in wanted) for name, p in model.named_parameters()}
    return {m.name: parameters[m.name] for m in maskables}


def _gradients(value: Tensor, leaves: dict[str, nn.Parameter], create_graph: bool = False) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, list(leaves.values()), create_graph=create_graph, materialize_grads=True)
