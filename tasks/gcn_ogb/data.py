"""Graphs of OGB, synthetic ones like them, and small ones made in memory: checked, cleaned, split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.task import BenchError, unknown
from tasks.graph.checks import check_nodes, check_splits, fingerprint, undirected

from . import make, reader

FOLDERS = {"arxiv": "ogbn_arxiv", "arxiv_like": "arxiv_like", "collab": "ogbl_collab"}
LINKS = ("collab", "generated_links")
NAMES = (*FOLDERS, "generated", "generated_links")


@dataclass(frozen=True)
class NodeGraph:
    """A graph whose nodes are to be classified: features (N, F) float32; edges (M, 2), each undirected edge once, no self-loops;
    labels (N,) int64, negative: none; node numbers by split; how many classes; sha256 of all that."""

    features: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: int
    fingerprint: str


@dataclass(frozen=True)
class LinkGraph:
    """A graph whose links are to be predicted: features and edges likewise; true links by split (P, 2), false ones of val and
    test (Q, 2); sha256 of all that."""

    features: np.ndarray
    edges: np.ndarray
    true: dict[str, np.ndarray]
    false: dict[str, np.ndarray]
    fingerprint: str


def load(config: Mapping[str, Any]) -> NodeGraph | LinkGraph:
    """Return the graph of the config section ``data``. BenchError where it is missing or malformed."""
    name = config["name"]
    if name not in NAMES:
        raise unknown("data", name, NAMES)
    if name in FOLDERS:
        read = reader.read_links if name in LINKS else reader.read_nodes
        raw = read(FOLDERS[name], config["root"])
    else:
        raw = make.nodes(
            *(int(config[key]) for key in ("nodes", "edges", "features", "classes")),
            float(config["homophily"]),
            int(config["graph_seed"]),
        )
        if name in LINKS:
            raw = make.links(raw, int(config["held_out"]), int(config["false_pairs"]), int(config["graph_seed"]))
    return checked(raw, name)


def checked(raw: reader.Nodes | reader.Links, name: str) -> NodeGraph | LinkGraph:
    """Return the graph that was read, after checking that its features are finite and its splits sound. An edge may be listed in
    either direction."""
    nodes = len(raw.features)
    bad = np.flatnonzero(~np.isfinite(raw.features).all(1))
    if bad.size:
        raise BenchError(f"data {name}: node {bad[0]} has a feature that is not finite; all must be")
    edges = undirected(raw.edges, nodes, name)
    if isinstance(raw, reader.Nodes):
        check_splits(raw.splits, raw.labels, name)
        sha = fingerprint([raw.features.shape, edges.shape], (raw.features, edges, raw.labels, *raw.splits.values()))
        return NodeGraph(raw.features, edges, raw.labels, raw.splits, int(raw.labels.max()) + 1, sha)
    for kind, parts in (("true", raw.true), ("false", raw.false)):
        for split, pairs in parts.items():
            if not len(pairs):
                raise BenchError(f"data {name}: split {split} has no {kind} links")
            check_nodes(pairs, nodes, name)
    sha = fingerprint([raw.features.shape, edges.shape], (raw.features, edges, *raw.true.values(), *raw.false.values()))
    return LinkGraph(raw.features, edges, raw.true, raw.false, sha)
