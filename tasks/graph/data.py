"""Graphs as files hold them, and the checks that each must pass before a network sees it. All raise BenchError, in one line."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from bench.task import BenchError


@dataclass(frozen=True)
class NodeGraph:
    """A graph whose nodes are to be classified: features (N, F), dense or CSR; edges (M, 2) int64, as listed or, once checked,
    each undirected edge once and no self-loops; labels (N,) int64, negative: none; node numbers by split."""

    features: np.ndarray | sparse.csr_matrix
    edges: np.ndarray
    labels: np.ndarray
    splits: dict[str, np.ndarray]

    @cached_property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of everything."""
        return _digest(self, (self.labels, *self.splits.values()))


@dataclass(frozen=True)
class LinkGraph:
    """A graph whose links are to be predicted: features and edges as above; the true links by split (P, 2), and false ones of val
    and test (Q, 2)."""

    features: np.ndarray
    edges: np.ndarray
    true: dict[str, np.ndarray]
    false: dict[str, np.ndarray]

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of everything."""
        return _digest(self, (*self.true.values(), *self.false.values()))


def undirected(edges: np.ndarray, nodes: int, name: str) -> np.ndarray:
    """Return listed pairs (E, 2) as edges (M, 2): one edge where either direction is listed, and no self-loops."""
    check_nodes(edges, nodes, name)
    pairs = np.sort(edges, axis=1)
    code = np.unique(pairs[:, 0] * nodes + pairs[:, 1])
    pairs = np.stack(np.divmod(code, nodes), axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        raise BenchError(f"data {name} has no edge between two different nodes: nothing to convolve over")
    return pairs


def check_nodes(pairs: np.ndarray, nodes: int, name: str) -> None:
    """Refuse edges (E, 2) with a number that is no node's."""
    outside = np.flatnonzero((pairs < 0).any(1) | (pairs >= nodes).any(1))
    if outside.size:
        pair = tuple(pairs[outside[0]].tolist())
        raise BenchError(f"data {name}: edge {pair} names a node outside 0..{nodes - 1}; the files are damaged or mixed up")


def check_splits(splits: Mapping[str, np.ndarray], labels: np.ndarray, name: str) -> None:
    """Refuse an empty split, an unlabelled node in a split (labels (N,), negative: none), and a node in two splits."""
    for split, nodes in splits.items():
        if not nodes.size:
            raise BenchError(f"data {name}: split {split} has no nodes")
        if nodes.min() < 0 or nodes.max() >= labels.size:
            raise BenchError(f"data {name}: split {split} names a node outside 0..{labels.size - 1}")
        if (labels[nodes] < 0).any():
            raise BenchError(f"data {name}: node {nodes[labels[nodes] < 0][0]} of split {split} has no label")
    nodes, count = np.unique(np.concatenate(list(splits.values())), return_counts=True)
    if (count > 1).any():
        raise BenchError(f"data {name}: node {nodes[count > 1][0]} is in two splits")


def _digest(graph: NodeGraph | LinkGraph, asked: Iterable[np.ndarray]) -> str:
    """Return the sha256 of a graph, and of what is ``asked`` of it."""
    features = [graph.features]
    if sparse.issparse(graph.features):
        features = [graph.features.data, *(x.astype(np.int64) for x in (graph.features.indices, graph.features.indptr))]
    sha = hashlib.sha256(json.dumps([graph.features.shape, graph.edges.shape]).encode())
    for array in (*features, graph.edges, *asked):
        sha.update(json.dumps([array.dtype.str, array.size]).encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()
