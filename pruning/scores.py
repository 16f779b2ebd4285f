"""Scores: functions (model, maskables, data) -> one number for each entry. Higher means keep. A score may return a pair of
tensors (a, b), which means |a * b|."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pruning.allocation.selection import Score
from pruning.errors import PruningError, one_of
from pruning.maskable import Maskable
from pruning.metadata import ScoreInfo, info_of, score

MODES = ("eval", "train")
ScoreFunction = Callable[..., Mapping[str, Score]]
"""(model, maskables, data, **options) -> name of the maskable -> a tensor of its shape, or a pair of such (see ``Score``)."""


class ScoreData(Protocol):
    """What a score may see of a task: a few training examples, the loss and the probe; never the test split."""

    weights: Mapping[str, Tensor]
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
    """Enter the context in which ``function`` scores ``model``: the one it declares, with convolutions in full float32, because
    TF32 has too few bits for scores that span decades."""
    rounded, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        with info_of(function, ScoreInfo).prepare(model):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounded


def evaluate(
    function: ScoreFunction, model: nn.Module, maskables: list[Maskable], data: ScoreData, **options: Any
) -> dict[str, Tensor]:
    """Return the scores of a model, as one tensor for each maskable, averaged over groups."""
    with prepared(function, model):
        return group_mean_scores(multiplied(function(model, maskables, data, **options)), maskables)


def multiplied(scores: Mapping[str, Score]) -> dict[str, Tensor]:
    """Return every score as one tensor on the CPU, pairs multiplied."""
    return {name: ((s[0] * s[1]).abs() if isinstance(s, tuple) else s).detach().cpu() for name, s in scores.items()}


def group_mean_scores(scores: dict[str, Tensor], maskables: list[Maskable]) -> dict[str, Tensor]:
    """Divide scores by the number of scored entries in their group, so that the sum of a group, by which it is ranked, is their
    mean. Tensors marked ``follows`` get 0."""
    grouped = [(m.name, m.groups) for m in maskables if m.groups is not None and not m.follows]
    mean = {}
    if grouped:
        counts = torch.bincount(torch.cat([groups.reshape(-1) for _, groups in grouped]))
        mean = {name: scores[name] / counts[groups] for name, groups in grouped}
    return {**scores, **mean, **{m.name: torch.zeros(m.shape) for m in maskables if m.follows}}


def magnitude(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Score entries by |w| (Han et al. 2015; Frankle & Carbin 2019)."""
    parameters = dict(model.named_parameters())
    return {m.name: parameters[m.name].detach().abs() for m in maskables}


def random(model: nn.Module, maskables: list[Maskable], data: ScoreData, draw: int = 0) -> dict[str, Tensor]:
    """Draw scores uniformly from [0, 1), one for all entries of a group: the baseline without information. Another ``draw`` gives
    other numbers."""
    generator = data.generator()
    generator.manual_seed(generator.initial_seed() + draw)
    drawn = {m.name: torch.rand(m.shape, generator=generator) for m in maskables if m.groups is None}
    most = max((int(m.groups.max()) for m in maskables if m.groups is not None), default=-1)
    of_groups = torch.rand(most + 1, generator=generator)
    return drawn | {m.name: of_groups[m.groups] for m in maskables if m.groups is not None}


def snip(
    model: nn.Module, maskables: list[Maskable], data: ScoreData, per_class: int = 10, balanced: bool = True, mode: str = "eval"
) -> dict[str, Tensor]:
    """Score entries by |w * dL/dw|, the change of the loss when the entry is pruned, to first order (Lee et al. 2019, SNIP).

    The gradient is that of the masked network and w the weight before masking, so that pruned entries have a score too, as FORCE
    needs (de Jorge et al. 2021). The absolute value is taken of the sum over all examples.
    """
    leaves = _leaves(model, maskables, mode)
    total = [torch.zeros_like(w) for w in leaves.values()]
    for batch in data.examples(per_class, balanced):
        torch._foreach_add_(total, _gradients(data.summed_loss(model, batch), leaves))
    return {name: (data.weights[name] * g).abs() for name, g in zip(leaves, total, strict=True)}


def grasp(
    model: nn.Module,
    maskables: list[Maskable],
    data: ScoreData,
    per_class: int = 10,
    balanced: bool = True,
    mode: str = "eval",
    temperature: float = 200.0,
) -> dict[str, Tensor]:
    """Score entries by w * Hg, with g the gradient and H the Hessian of the loss (Wang et al. 2020, GraSP): to first order, half
    of what |g|^2 loses when the entry is pruned. Keeping the largest scores preserves the norm of the gradient.

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
        first, *others = ((g * p).sum() for g, p in zip(gradient, part, strict=True))
        torch._foreach_add_(product, _gradients(sum(others, first), leaves))
    return {name: w.detach() * hg for (name, w), hg in zip(leaves.items(), product, strict=True)}


def grasp_magnitude(
    model: nn.Module,
    maskables: list[Maskable],
    data: ScoreData,
    per_class: int = 10,
    balanced: bool = True,
    mode: str = "eval",
    temperature: float = 200.0,
) -> dict[str, Tensor]:
    """Score entries by |w * Hg|: those that change the norm of the gradient most in either direction (Frankle et al. 2021)."""
    scores = grasp(model, maskables, data, per_class, balanced, mode, temperature)
    return {name: values.abs() for name, values in scores.items()}


def l1_filter(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Score channels by the sum of |w| over their filter (Li et al. 2017)."""
    return _filter_scores(model, maskables, data, lambda filters: filters.abs().sum(1))


def fpgm(model: nn.Module, maskables: list[Maskable], data: ScoreData) -> dict[str, Tensor]:
    """Score channels by the sum of the distances of their filter to the other filters of the layer: low near the geometric
    median, which the others can best replace (He et al. 2019, FPGM)."""
    return _filter_scores(model, maskables, data, lambda filters: torch.cdist(filters, filters).sum(1))


def _filter_scores(
    model: nn.Module, maskables: list[Maskable], data: ScoreData, score: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return ``score`` of the filters (channels, weights) that feed each batch norm; 0 where no filter feeds it directly."""
    parameters, filters = dict(model.named_parameters()), data.filters(model)
    found = {name: score(parameters[filters[name]].detach().flatten(1)) for name in filters}
    return {m.name: found[m.name] if m.name in found else torch.zeros(m.shape) for m in maskables}


@contextmanager
def absolute(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the context every parameter and buffer has its absolute value and the model is in eval mode. Afterwards the state is
    restored bit for bit, even if a score converted the model to float64."""
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
    """Score entries by ||w| * dR/d|w||, R the sum of all logits of the network with absolute weights on an input of ones (Tanaka
    et al. 2020, SynFlow). Reads no data. Uses float64 where R overflows float32. R rises with every weight, but not with every
    edge of a graph, because edges enter the degrees by which messages are divided."""
    leaves = _leaves(model, maskables)
    flow = data.probe(model).sum()
    if not flow.isfinite() and flow.dtype == torch.float32:
        leaves = _leaves(model.double(), maskables)
        flow = data.probe(model).sum()
    return {name: (w.detach(), g) for (name, w), g in zip(leaves.items(), _gradients(flow, leaves), strict=True)}


def _leaves(model: nn.Module, maskables: list[Maskable], mode: str = "eval") -> dict[str, nn.Parameter]:
    """Return the maskable parameters of a model in ``mode``, the only ones that require gradients."""
    one_of("mode", mode, MODES)
    if model.training != (mode == "train"):
        model.train(mode == "train")
    wanted = {m.name for m in maskables}
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in wanted)
    return {m.name: parameters[m.name] for m in maskables}


def _gradients(value: Tensor, leaves: dict[str, nn.Parameter], create_graph: bool = False) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(leaves.values()), create_graph=create_graph, materialize_grads=True))
