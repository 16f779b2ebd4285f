"""Graphs of OGB, synthetic ones like them, and small ones made in memory: checked, cleaned, split."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bench.task import BenchError, one_of
from tasks.graph.data import LinkGraph, NodeGraph, check_nodes, check_splits, undirected

from . import make, reader

FOLDERS = {"arxiv": "ogbn_arxiv", "arxiv_like": "arxiv_like", "collab": "ogbl_collab"}
LINKS = ("collab", "generated_links")
NAMES = (*FOLDERS, "generated", "generated_links")


def load(config: Mapping[str, Any]) -> NodeGraph | LinkGraph:
    """Return the graph of the config section ``data``. BenchError where it is missing or malformed: features must be finite and
    splits sound, and an edge may be listed in either direction."""
    name = one_of("data", config["name"], NAMES)
    if name in FOLDERS:
        read = reader.read_links if name in LINKS else reader.read_nodes
        raw = read(FOLDERS[name], config["root"])
    else:
        sizes = (int(config[key]) for key in ("nodes", "edges", "features", "classes"))
        raw = make.nodes(*sizes, float(config["homophily"]), int(config["graph_seed"]))
        if name in LINKS:
            raw = make.links(raw, int(config["held_out"]), int(config["false_pairs"]), int(config["graph_seed"]))
    nodes = len(raw.features)
    bad = np.flatnonzero(~np.isfinite(raw.features).all(1))
    if bad.size:
        raise BenchError(f"data {name}: node {bad[0]} has a feature that is not finite; all must be")
    graph = replace(raw, edges=undirected(raw.edges, nodes, name))
    if isinstance(graph, NodeGraph):
        check_splits(graph.splits, graph.labels, name)
        return graph
    for kind, parts in (("true", graph.true), ("false", graph.false)):
        for split, pairs in parts.items():
            if not len(pairs):
                raise BenchError(f"data {name}: split {split} has no {kind} links")
            check_nodes(pairs, nodes, name)
    return graph
