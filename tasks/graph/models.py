"""Graph networks in which every edge has one prunable value.

The message along an edge is multiplied by the edge's value w, which starts at 1; every sum that normalises adds up |w|, so
that it stays positive for all signs. A value of 0 is therefore exactly an edge removed. A node's own message has weight
1 and is no edge. Every forward pass normalises the masked values again, and gradients flow through it.

    gcn     x_i <- sum_j w_ij W x_j / sqrt(d_i d_j), j among i and its neighbours, d_i = 1 + sum_j |w_ij| (Kipf & Welling 2017)
    gat     x_i <- sum_j w_ij e_ij W x_j / sum_j |w_ij| e_ij, e_ij = exp of the attention of i to j (Velickovic et al. 2018)
    gin     x_i <- W ((1 + eps) x_i + mean_j w_ij x_j), one linear layer, eps learned (Xu et al. 2019, with UGS' mean)
    sage    x_i <- R x_i + W (mean_j w_ij x_j) (Hamilton et al. 2017)
    resgcn  residual blocks norm - ReLU - dropout - softmax aggregation - linear (DeeperGCN, Li et al. 2020)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.task import BenchError, unknown

from .sparse import Pattern, Sparse, dropout, product, times

FAINT = -60.0
"""The smallest exponent of a softmax below the largest: smaller ones could become zero, and a node would be left without
weights."""
TEMPERATURE = 0.1
"""The temperature of resgcn's softmax aggregation."""


@dataclass(frozen=True)
class Graph:
    """What a network reads.

    features  (N, F), sparse or dense
    links     pattern (N, N) of the adjacency without self-loops: row i lists the nodes that i hears
    edge      for each link the number of its value in ``edge_weight``
    """

    features: Sparse | Tensor
    links: Pattern
    edge: Tensor


def graph(features: Sparse | Tensor, nodes: int, edges: Tensor, directed: bool = False) -> Graph:
    """Return the graph of undirected ``edges`` (M, 2), each listed once.

    Both directions share a value, or with ``directed`` there are 2M values, those of the listed directions first. BenchError for
    an edge listed twice.
    """
    target, source = torch.cat([edges, edges.flip(1)]).T
    place, order = torch.sort(target * nodes + source)
    twice = place[1:][place.diff() == 0]
    if twice.numel():
        pair = divmod(int(twice[0]), nodes)
        raise BenchError(f"edge {pair} is listed twice, or in both directions: an undirected edge must be listed once")
    return Graph(features, Pattern(target[order], source[order], (nodes, nodes)), order if directed else order % len(edges))


def thinned(graph: Graph, kept: Tensor) -> Graph:
    """Return the graph without the links whose edge is not ``kept`` (M,) bool; edges keep their numbers.

    A network whose other edges are 0 computes the same bits on it: a zero changes no sum. (gat draws its attention's dropout for
    the links that exist.)
    """
    inside = kept[graph.edge]
    links = Pattern(graph.links.rows[inside], graph.links.columns[inside], graph.links.shape)
    return Graph(graph.features, links, graph.edge[inside])


def narrowed(graph: Graph, kept: Tensor) -> Graph:
    """Return the graph without the links whose edge is not ``kept``, with the remaining edges renumbered."""
    thin = thinned(graph, kept)
    return replace(thin, edge=(kept.cumsum(0) - 1)[thin.edge])


def sparse(indptr: Tensor, indices: Tensor, values: Tensor, columns: int) -> Sparse:
    """From CSR: (N + 1,), (n,), (n,), with ``columns`` columns."""
    nodes = indptr.numel() - 1
    rows = torch.repeat_interleave(torch.arange(nodes, device=indptr.device), indptr.diff())
    return Sparse(Pattern(rows, indices, (nodes, columns)), values)


def dense(features: Sparse | Tensor) -> Tensor:
    """Features (N, F) with their zeros."""
    if not isinstance(features, Sparse):
        return features
    pattern = features.pattern
    return features.values.new_zeros(pattern.shape).index_put((pattern.rows, pattern.columns), features.values)


class Affine(nn.Module):
    """x W + b: weight (inputs, outputs) as the papers write it, Glorot uniform, and bias, 0."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(_glorot(inputs, outputs, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Sparse | Tensor) -> Tensor:
        return times(inputs, self.weight) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """Multiply-adds of x W where x has ``entries`` that are not zero."""
        return entries * self.weight.shape[1] * density("weight")


class Convolution(Affine):
    """A layer. ``mixer`` prepares, once for all layers, what depends on the edges alone."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Any:
        raise NotImplementedError

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """And of the aggregation: over ``links`` and the node itself, as wide as the output."""
        return super().macs(entries, nodes, links, density) + (links + nodes) * self.weight.shape[1]


class GcnConv(Convolution):
    """Symmetrically normalised sum over a node and its neighbours (Kipf & Welling 2017)."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Callable[[Tensor], Tensor]:
        scale = (1 + _row_sums(links, value.abs())).rsqrt()

        def mix(hidden: Tensor) -> Tensor:
            scaled = scale * hidden
            return scale * (product(links, value, scaled) + scaled)

        return mix

    def forward(self, inputs: Sparse | Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        return mix(times(inputs, self.weight)) + self.bias


class MeanConvolution(Convolution):
    """A convolution that takes the mean over a node's neighbours, weighted by the links' values."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Callable[[Tensor], Tensor]:
        total = _row_sums(links, value.abs())
        total = torch.where(total > 0, total, 1)  # without neighbours the mean is 0
        return lambda hidden: product(links, value, hidden) / total


class GinConv(MeanConvolution):
    """The node times (1 + eps), which is learned, plus the mean of its neighbours, after one linear map."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__(inputs, outputs, generator)
        self.eps = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Sparse | Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        hidden = times(inputs, self.weight)
        return (1 + self.eps) * hidden + mix(hidden) + self.bias


class SageConv(MeanConvolution):
    """One linear map of the node itself plus another of the mean of its neighbours (GraphSAGE)."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__(inputs, outputs, generator)
        self.root = nn.Parameter(_glorot(inputs, outputs, generator=generator))

    def forward(self, inputs: Sparse | Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        own, hidden = times(inputs, torch.cat([self.root, self.weight], 1)).chunk(2, 1)
        return own + mix(hidden.contiguous()) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        return super().macs(entries, nodes, links, density) + entries * self.root.shape[1] * density("root")


class GatConv(Convolution):
    """``heads`` side by side, each ``outputs`` wide. attention (2, heads, outputs): of a link's target and its source node."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator, heads: int, dropout: float):
        super().__init__(inputs, heads * outputs, generator)
        self.attention = nn.Parameter(_glorot(2, heads, outputs, generator=generator))
        self.dropout = dropout

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> tuple[Pattern, Tensor]:
        return links, value

    def forward(self, inputs: Sparse | Tensor, mix: tuple[Pattern, Tensor]) -> Tensor:
        links, value = mix
        hidden = times(inputs, self.weight).unflatten(1, self.attention.shape[1:])
        target, source = (hidden * self.attention.unsqueeze(1)).sum(3)
        slope = partial(F.leaky_relu, negative_slope=0.2)
        # no attention of a node is above this; any number would do, the same for all neighbours, if nothing overflows
        highest = slope(target + source.amax(0)).detach()
        own = (slope(target + source) - highest).clamp(min=FAINT).exp()
        logits = slope(target.index_select(0, links.rows) + source.index_select(0, links.columns))
        attention = (logits - highest.index_select(0, links.rows)).clamp(min=FAINT).exp() * value.unsqueeze(1)
        heads = []
        for head in range(hidden.shape[1]):
            mine, message = attention[:, head].contiguous(), hidden[:, head].contiguous()
            self_attention = own[:, head, None]
            total = self_attention + _row_sums(links, mine.abs())
            kept = F.dropout(torch.cat([mine, self_attention.squeeze(1)]), self.dropout, self.training)
            mine, self_kept = kept.split([mine.numel(), hidden.shape[0]])
            heads.append((product(links, mine, message) + self_kept.unsqueeze(1) * message) / total)
        return torch.cat(heads, 1) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """Both halves of the attention cost a product for each node and output."""
        return super().macs(entries, nodes, links, density) + 2 * nodes * self.weight.shape[1]


class GenConv(Convolution):
    """Softmax aggregation of ReLU messages, channel by channel, over the neighbours and the node itself; then a linear layer."""

    @staticmethod
    def mixer(links: Pattern, value: Tensor) -> Callable[[Tensor], Tensor]:
        size = value.abs()

        def mix(hidden: Tensor) -> Tensor:
            # what a node says is the same to all, so the softmax over neighbours is a quotient of two products
            message = F.relu(hidden) + 1e-7
            power = (TEMPERATURE * (message - message.amax(0).detach())).clamp(min=FAINT).exp()
            said = power * message
            return (said + product(links, value, said)) / (power + product(links, size, power))

        return mix

    def forward(self, inputs: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        return times(inputs + mix(inputs), self.weight) + self.bias

    def macs(self, entries: float, nodes: int, links: float, density: Callable[[str], float]) -> float:
        """Two aggregations, as wide as the input, which is as wide as the output."""
        return super().macs(entries, nodes, links, density) + (links + nodes) * self.weight.shape[0]


class Network(nn.Module):
    """Scores or embeddings (N, outputs) of a Graph. ``edge_weight`` starts at 1 and is trained if ``learn_edges``."""

    def __init__(self, edges: int, learn_edges: bool, dropout: float, input_dropout: float):
        super().__init__()
        self.edge_weight = nn.Parameter(torch.ones(edges), requires_grad=learn_edges)
        self.dropout, self.input_dropout = dropout, input_dropout
        self._kept: Tensor | None = None
        self._narrowed: tuple[Graph, Graph] | None = None

    def without(self, kept: Tensor) -> Network:
        """Return a copy that has values only for the edges that are ``kept`` (M,) bool; every graph that it reads loses the
        others first."""
        small = copy.deepcopy(self)
        small.edge_weight = nn.Parameter(self.edge_weight.detach()[kept].clone(), self.edge_weight.requires_grad)
        small._kept = kept
        return small

    def settled(self, graph: Graph) -> tuple[Network, Graph]:
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

    kind: type[Convolution]
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
        **options: Any,
    ):
        super().__init__(edges, learn_edges, dropout, input_dropout)
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


class Gcn(Plain):
    """A stack of ``GcnConv``."""

    kind = GcnConv


class Gin(Plain):
    """A stack of ``GinConv``."""

    kind = GinConv


class Sage(Plain):
    """A stack of ``SageConv``."""

    kind = SageConv


class Gat(Plain):
    """``heads`` of ``hidden`` units each, side by side; the last layer has one. Dropout on attention too."""

    activation = staticmethod(F.elu)

    def _convolutions(self, widths: list[int], generator: torch.Generator, heads: int = 8) -> list[Convolution]:
        rate = self.dropout
        inputs = [widths[0], *(heads * width for width in widths[1:-1])]
        return [
            *(GatConv(i, o, generator, heads, rate) for i, o in zip(inputs[:-1], widths[1:-1], strict=True)),
            GatConv(inputs[-1], widths[-1], generator, 1, rate),
        ]


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
    "gcn": Gcn,
    "gat": Gat,
    "gin": Gin,
    "sage": Sage,
    **{f"resgcn{n}": partial(ResGcn, layers=n) for n in (7, 14, 28)},
}


def network(choice: Mapping[str, Any], **sizes: Any) -> Network:
    """Return the network of the config section ``model``; ``sizes``: features, outputs, edges, learn_edges, generator."""
    options = {key: value for key, value in choice.items() if key not in ("name", "directed", "scope")}
    if choice["name"] not in NETWORKS:
        raise unknown("model", choice["name"], NETWORKS)
    return NETWORKS[choice["name"]](**sizes, **options)


def _row_sums(pattern: Pattern, values: Tensor) -> Tensor:
    """(R, 1)"""
    return product(pattern, values, values.new_ones(pattern.shape[1], 1))


def _glorot(*shape: int, generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6 / sum(shape[-2:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _share(density: Mapping[str, float], layer: str, key: str) -> float:
    return density.get(f"{layer}.{key}", 1.0)
