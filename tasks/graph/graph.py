"""Graphs as the networks read them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.task import BenchError

from .sparse import Pattern, Sparse


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


def from_edges(features: Sparse | Tensor, nodes: int, edges: Tensor, directed: bool = False) -> Graph:
    """Return the graph of undirected ``edges`` (M, 2), each listed once. Both directions share a value, or with ``directed``
    there are 2M values, those of the listed directions first. BenchError for an edge listed twice."""
    target, source = torch.cat([edges, edges.flip(1)]).T
    place, order = torch.sort(target * nodes + source)
    twice = place[1:][place.diff() == 0]
    if twice.numel():
        pair = divmod(int(twice[0]), nodes)
        raise BenchError(f"edge {pair} is listed twice, or in both directions: an undirected edge must be listed once")
    return Graph(features, Pattern(target[order], source[order], (nodes, nodes)), order if directed else order % len(edges))


def thinned(graph: Graph, kept: Tensor) -> Graph:
    """Return the graph without the links whose edge is not ``kept`` (M,) bool; edges keep their numbers. A network whose other
    edges are 0 computes the same bits on it: a zero changes no sum. (gat draws its attention's dropout for the links that
    exist.)"""
    inside = kept[graph.edge]
    links = Pattern(graph.links.rows[inside], graph.links.columns[inside], graph.links.shape)
    return Graph(graph.features, links, graph.edge[inside])


def narrowed(graph: Graph, kept: Tensor) -> Graph:
    """Return the graph without the links whose edge is not ``kept``, with the remaining edges renumbered."""
    thin = thinned(graph, kept)
    return replace(thin, edge=(kept.cumsum(0) - 1)[thin.edge])
