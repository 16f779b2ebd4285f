"""Checks every graph must pass before a network sees it. All raise BenchError, in one line."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import numpy as np

from bench.task import BenchError


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


def fingerprint(shapes: list, arrays: Iterable[np.ndarray]) -> str:
    """Return the sha256 of shapes and arrays."""
    sha = hashlib.sha256(json.dumps(shapes).encode())
    for array in arrays:
        sha.update(json.dumps([array.dtype.str, array.size]).encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()
