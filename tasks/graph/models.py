"""Graph networks: stacks of ``convolutions``, whose edges have one prunable value each."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.task import BenchError, one_of

from .convolutions import Affine, Convolution, GatConv, GcnConv, GenConv, GinConv, SageConv
from .graph import Graph, narrowed
from .sparse import Sparse, dropout


class Network(nn.Module):
    """Scores or embeddings (N, outputs) of a Graph. ``edge_weight`` starts at 1 and is trained if ``learn_edges``."""

    def __init__(self, edges: int, learn_edges: bool, dropout: float, input_dropout: float):
        super().__init__()
        self.edge_weight = nn.Parameter(torch.ones(edges), requires_grad=learn_edges)
        self.dropout, self.input_dropout = dropout, input_dropout
        self._kept: Tensor | None = None
        self._narrowed: tuple[Graph, Graph] | None = None

    def without(self, kept: Tensor) -> Self:
        """Return a copy that has values only for the edges that are ``kept`` (M,) bool; every graph that it reads loses the
        others first."""
        small = copy.deepcopy(self)
        small.edge_weight = nn.Parameter(self.edge_weight.detach()[kept].clone(), self.edge_weight.requires_grad)
        small._kept = kept
        return small

    def settled(self, graph: Graph) -> tuple[Self, Graph]:
        """The network, and the graph without the edges there is no value for, which it reads as it is. Parameters are shared."""
        network = copy.copy(self)
        network._kept, network._narrowed = None, None
        return network, self._seen(graph)

    def _seen(self, graph: Graph) -> Graph:
        """Return the graph without the edges that have no value; the result for the last graph is cached."""
        if self._kept is None:
            return graph
        if self._narrowed is None or self._narrowed[0] is not graph:
            self._narrowed = graph, narrowed(graph, self._kept)
        return self._narrowed[1]

    def forward(self, graph: Graph) -> Tensor:
        graph = self._seen(graph)
        value = self.edge_weight.index_select(0, graph.edge)
        features = graph.features
        if isinstance(features, Sparse):
            features = Sparse(features.pattern, features.values.to(value.dtype))
        return self.layers(dropout(features, self.input_dropout, self.training), self.conv1.mixer(graph.links, value))

    def layers(self, inputs: Sparse | Tensor, mix: Any) -> Tensor:
        """All that comes after input dropout and the edges' normalisation."""
        raise NotImplementedError

    @property
    def first(self) -> Affine:
        """The layer that reads the features."""
        return self.conv1

    def _numbered(self, name: str) -> Iterator[nn.Module]:
        """Return modules named name1, name2, ..."""
        return (module for key, module in self.named_children() if key.removeprefix(name).isdigit())

    def _number(self, name: str, modules: list[nn.Module]) -> None:
        for number, module in enumerate(modules, 1):
            self.add_module(f"{name}{number}", module)

    def macs(self, entries: float, nodes: int, links: float, density: Mapping[str, float]) -> float:
        """Multiply-adds of one inference: features with ``entries`` that are not zero, ``links`` kept directed edges, weights at
        ``density`` (by parameter name, absent: 1). Norms, activations and the edges' normalisation are not counted."""
        return sum(
            module.macs(
                entries if module is self.first else nodes * module.weight.shape[0], nodes, links, partial(_share, density, name)
            )
            for name, module in self.named_children()
            if isinstance(module, Affine)
        )


class OnGraph(nn.Module):
    """A network on one graph, as a function of dense features (N, F)."""

    def __init__(self, network: nn.Module, graph: Graph):
        super().__init__()
        self.network, self._graph = network, graph

    def forward(self, features: Tensor, *pairs: Tensor) -> Tensor:
        return self.network(replace(self._graph, features=features), *pairs)


class Plain(Network):
    """Convolutions with an activation, dropout and, if asked, batch norm in between."""

    activation = staticmethod(F.relu)

    def __init__(
        self,
        features: int,
        outputs: int,
        edges: int,
        learn_edges: bool,
        generator: torch.Generator,
        hidden: int = 16,
        layers: int = 2,
        batch_norm: bool = False,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        kind: type[Convolution] = GcnConv,
        **options: Any,
    ):
        super().__init__(edges, learn_edges, dropout, input_dropout)
        self.kind = kind
        if layers < 2:
            raise BenchError(f"model.layers is {layers}; it must be 2 at least")
        self._number("conv", self._convolutions([features, *[hidden] * (layers - 1), outputs], generator, **options))
        if batch_norm:
            self._number("norm", [nn.BatchNorm1d(conv.weight.shape[1]) for conv in list(self._numbered("conv"))[:-1]])

    def _convolutions(self, widths: list[int], generator: torch.Generator) -> list[Convolution]:
        return [self.kind(*pair, generator) for pair in pairwise(widths)]

    def layers(self, inputs: Sparse | Tensor, mix: Any) -> Tensor:
        first, *others = self.convolutions
        norms = list(self._numbered("norm")) or [nn.Identity()] * len(others)
        hidden = first(inputs, mix)
        for maker, norm, conv in zip([first, *others[:-1]], norms, others, strict=True):
            units = self.activation(norm(hidden))
            if hasattr(maker, "gate"):  # see ``tasks.graph.units``
                units = units * maker.gate.repeat_interleave(units.shape[1] // max(1, len(maker.gate)))
            hidden = conv(F.dropout(units, self.dropout, self.training), mix)
        return hidden

    @property
    def convolutions(self) -> list[Convolution]:
        """The layers in order."""
        return list(self._numbered("conv"))

    def macs(self, entries: float, nodes: int, links: float, density: Mapping[str, float]) -> float:
        """Pruned units count in the layers on either side of them."""
        total, inputs = 0.0, 1.0
        for number, conv in enumerate(self.convolutions, 1):
            outputs = _share(density, f"conv{number}", "gate")
            read = (nodes * conv.weight.shape[0] if number > 1 else entries) * inputs
            total += conv.macs(read, nodes, links, partial(_share, density, f"conv{number}")) * outputs
            inputs = outputs
        return total


class Gat(Plain):
    """``heads`` of ``hidden`` units each, side by side; the last layer has one. Dropout on attention too."""

    activation = staticmethod(F.elu)

    def _convolutions(self, widths: list[int], generator: torch.Generator, heads: int = 8) -> list[Convolution]:
        inputs, each = [widths[0], *(heads * width for width in widths[1:-1])], [heads] * (len(widths) - 2) + [1]
        return [GatConv(i, o, generator, n, self.dropout) for i, o, n in zip(inputs, widths[1:], each, strict=True)]


class ResGcn(Network):
    """An encoder, ``layers`` residual blocks (the first without norm, activation and shortcut), a decoder."""

    def __init__(
        self,
        features: int,
        outputs: int,
        edges: int,
        learn_edges: bool,
        generator: torch.Generator,
        layers: int,
        hidden: int = 128,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
    ):
        super().__init__(edges, learn_edges, dropout, input_dropout)
        self.encoder = Affine(features, hidden, generator)
        self._number("conv", [GenConv(hidden, hidden, generator) for _ in range(layers)])
        self._number("norm", [nn.BatchNorm1d(hidden) for _ in range(layers)])
        self.decoder = Affine(hidden, outputs, generator)

    @property
    def first(self) -> Affine:
        return self.encoder

    def layers(self, inputs: Sparse | Tensor, mix: Any) -> Tensor:
        first, *others = self._numbered("conv")
        *norms, last = self._numbered("norm")
        hidden = first(self.encoder(inputs), mix)
        for norm, conv in zip(norms, others, strict=True):
            hidden = hidden + conv(self._ready(norm, hidden), mix)
        return self.decoder(self._ready(last, hidden))

    def _ready(self, norm: nn.Module, hidden: Tensor) -> Tensor:
        return F.dropout(F.relu(norm(hidden)), self.dropout, self.training)


NETWORKS: dict[str, Callable[..., Network]] = {
    **{name: partial(Plain, kind=kind) for name, kind in (("gcn", GcnConv), ("gin", GinConv), ("sage", SageConv))},
    "gat": Gat,
    **{f"resgcn{n}": partial(ResGcn, layers=n) for n in (7, 14, 28)},
}


def network(choice: Mapping[str, Any], **sizes: Any) -> Network:
    """Return the network of the config section ``model``; ``sizes``: features, outputs, edges, learn_edges, generator."""
    options = {key: value for key, value in choice.items() if key not in ("name", "directed", "scope")}
    return NETWORKS[one_of("model", choice["name"], NETWORKS)](**sizes, **options)


def _share(density: Mapping[str, float], layer: str, key: str) -> float:
    return density.get(f"{layer}.{key}", 1.0)
