"""Graphs in Planetoid's format, such as three citation networks, and a generated one; checked, cleaned, split. Another graph in
that format needs no code: copy ``data/cora.yaml`` under its name."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from bench.task import BenchError, one_of, seed_for
from tasks.graph.data import NodeGraph, check_splits, undirected

from . import reader

TITLES = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
"""Names of graphs whose folder is called otherwise, as torch-geometric calls it."""
SPLITS = ("public", "random")


def load(config: Mapping[str, Any]) -> NodeGraph:
    """Return the graph of the config section ``data``, its features as CSR float32, every row summing to 1 or all zero.
    BenchError where it is missing, or is not an undirected graph with finite features and non-empty, disjoint splits."""
    name = config["name"]
    if not re.fullmatch(r"\w[\w.-]*", str(name)):  # it is a folder's name too
        raise BenchError(f"data.name is {name!r}; it must be letters, digits, _, - and .")
    one_of("data.split", config["split"], SPLITS)
    raw = _generated(config) if name == "generated" else reader.read(title(name), config["root"])
    features, edges = _normalised(raw.features, name), undirected(raw.edges, raw.labels.size, name)
    splits = raw.splits if config["split"] == "public" else _drawn(raw.labels, config)
    check_splits(splits, raw.labels, name)
    return NodeGraph(features, edges, raw.labels, splits)


def title(name: str) -> str:
    """Return how a graph is called in notes, and its folder."""
    return TITLES.get(name, name)


def _normalised(features: sparse.csr_matrix, name: str) -> sparse.csr_matrix:
    """Return rows divided by their sums, as all GCN papers do; an all-zero row stays zero."""
    features = features.astype(np.float64)
    features.sum_duplicates()
    features.eliminate_zeros()
    bad = np.flatnonzero(~np.isfinite(features.data))
    if bad.size:
        node = int(np.searchsorted(features.indptr, bad[0], side="right")) - 1
        raise BenchError(f"data {name}: node {node} has a feature that is {features.data[bad[0]]}; all must be finite")
    sums = np.asarray(features.sum(axis=1)).reshape(-1)
    features = sparse.diags_array(1 / np.where(sums == 0, 1, sums)) @ features
    return sparse.csr_matrix(features, dtype=np.float32)


def _drawn(labels: np.ndarray, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return ``per_class`` training nodes of every class, then ``val`` and ``test`` of the rest; unlabelled nodes are in none."""
    per_class, val, test = (int(config[key]) for key in ("per_class", "val", "test"))
    order = np.random.default_rng(seed_for(config["split_seed"], "split")).permutation(labels.size)
    train = [order[labels[order] == label][:per_class] for label in range(int(labels.max()) + 1)]
    if min(map(len, train)) < per_class:
        raise BenchError(f"data.per_class is {per_class}, but a class has only {min(map(len, train))} nodes")
    chosen = np.concatenate(train)
    rest = order[(labels[order] >= 0) & ~np.isin(order, chosen)]
    if min(val, test) < 0 or val + test > rest.size:
        raise BenchError(f"data.val={val} and data.test={test} ask for more than the {rest.size} nodes left of training")
    parts = {"train": chosen, "val": rest[:val], "test": rest[val : val + test]}
    return {split: np.sort(nodes) for split, nodes in parts.items()}


def _generated(config: Mapping[str, Any]) -> NodeGraph:
    """Return a stochastic block model: an edge stays within its class with probability ``homophily`` (else goes anywhere), and a
    node draws half of its ``words`` from those of its class."""
    if config["split"] != "random":
        raise BenchError("data generated has no public split: data.split must be random")
    nodes, classes, vocabulary, words = (int(config[key]) for key in ("nodes", "classes", "features", "words"))
    rng = np.random.default_rng(seed_for(config["graph_seed"], "graph"))
    labels = np.sort(rng.permutation(nodes) % classes)  # sorted: nodes of a class lie side by side
    starts = np.searchsorted(labels, np.arange(classes + 1))
    source = rng.integers(nodes, size=nodes * int(config["degree"]) // 2)
    within = rng.random(source.size) < float(config["homophily"])
    label = labels[source]
    target = np.where(within, rng.integers(starts[label], starts[label + 1]), rng.integers(nodes, size=source.size))
    topic = vocabulary // classes
    own = labels[:, None] * topic + rng.integers(topic, size=(nodes, words // 2))
    drawn = np.concatenate([own, rng.integers(vocabulary, size=(nodes, words - words // 2))], axis=1)
    row = np.repeat(np.arange(nodes), words)
    features = sparse.csr_matrix((np.ones(row.size), (row, drawn.reshape(-1))), (nodes, vocabulary))
    features.sum_duplicates()
    features.data[:] = 1
    return NodeGraph(features, np.stack([source, target], axis=1), labels, {})
