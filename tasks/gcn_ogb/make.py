"""Synthetic graphs in OGB's raw layout: as large as ogbn-arxiv, or of any size. Cost and memory can be measured on them;
accuracies mean nothing.

    python -m tasks.gcn_ogb.make DIR                        DIR/ogb/arxiv_like: 169,343 nodes, 1,166,243 edges
    python -m tasks.gcn_ogb.make DIR nodes=1000 edges=7000  smaller
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from bench.task import BenchError, seed_for
from tasks.graph.data import LinkGraph, NodeGraph

from .reader import SPLITS

ARXIV = {"nodes": 169_343, "edges": 1_166_243, "features": 128, "classes": 40}
SHARES = (0.54, 0.18)  # of the nodes that train and validate, the oldest first
TAIL = 2.5  # exponent of the degrees' power law


def nodes(nodes: int, edges: int, features: int, classes: int, homophily: float = 0.65, seed: int = 0) -> NodeGraph:
    """Return a graph with ``edges`` different undirected edges, each listed once, with power-law degrees. The end of an edge lies
    in the class of its start with probability ``homophily``, else anywhere. Features are the centre of a class plus noise."""
    if edges > nodes * (nodes - 1) // 20:
        raise BenchError(f"edges={edges} is more than a tenth of all pairs of {nodes} nodes: that is no sparse graph")
    rng = np.random.default_rng(seed_for(seed, "ogb like"))
    labels = np.sort(rng.permutation(nodes) % classes)
    weight = rng.pareto(TAIL - 1, nodes) + 1
    weight = np.minimum(weight, np.sqrt(nodes))  # a node in a small class could not find enough partners otherwise
    total = np.concatenate([[0], np.cumsum(weight)])
    starts = np.searchsorted(labels, np.arange(classes + 1))
    code = np.empty(0, np.int64)
    while code.size < edges:
        source = np.searchsorted(total, rng.random(edges) * total[-1], side="right") - 1
        alike = rng.random(edges) < homophily
        low, high = (np.where(alike, total[starts[labels[source] + end]], total[-end]) for end in (0, 1))
        target = np.searchsorted(total, low + rng.random(edges) * (high - low), side="right") - 1
        pair = np.sort(np.stack([source, np.clip(target, 0, nodes - 1)]), axis=0)
        code = np.union1d(code, (pair[0] * nodes + pair[1])[pair[0] != pair[1]])
    pairs = np.stack(np.divmod(rng.permutation(code)[:edges], nodes), axis=1)
    pairs = np.where(rng.random(edges)[:, None] < 0.5, pairs, pairs[:, ::-1])
    centres = rng.standard_normal((classes, features))
    values = (0.3 * centres[labels] + rng.standard_normal((nodes, features))).round(3).astype(np.float32)
    ages = rng.permutation(nodes)
    cuts = np.cumsum([int(share * nodes) for share in SHARES])
    splits = dict(zip(SPLITS, map(np.sort, np.split(ages, cuts)), strict=True))
    return NodeGraph(values, pairs, labels, splits)


def links(graph: NodeGraph, held_out: int, false: int, seed: int = 0) -> LinkGraph:
    """Return the same graph with ``held_out`` edges each for val and test, and ``false`` random pairs to tell them from."""
    rng = np.random.default_rng(seed_for(seed, "ogb like links"))
    val, test, train = np.split(rng.permutation(graph.edges), [held_out, 2 * held_out])
    known = {(min(pair), max(pair)) for pair in graph.edges.tolist()}
    drawn = rng.integers(len(graph.features), size=(4 * false, 2))
    drawn = [pair for pair in drawn.tolist() if pair[0] != pair[1] and (min(pair), max(pair)) not in known][: 2 * false]
    apart, true = np.array(drawn, dtype=np.int64), {"train": train, "val": val, "test": test}
    return LinkGraph(graph.features, train, true, {"val": apart[:false], "test": apart[false:]})


def write(graph: NodeGraph, folder: Path) -> None:
    """Write it to disk as OGB does. BenchError if ``folder`` exists already."""
    write_graph(graph, folder)
    _table(folder / "raw" / "node-label.csv.gz", graph.labels[:, None])
    for ours, theirs in SPLITS.items():
        _table(folder / "split" / "time" / f"{theirs}.csv.gz", graph.splits[ours][:, None])


def write_graph(graph: NodeGraph | LinkGraph, folder: Path) -> None:
    """Write the part without labels and splits."""
    if folder.exists():
        raise BenchError(f"{folder} is there already: delete it, or name another folder")
    for part in ("raw", "split/time"):
        (folder / part).mkdir(parents=True)
    _table(folder / "raw" / "node-feat.csv.gz", graph.features)
    _table(folder / "raw" / "edge.csv.gz", graph.edges)
    _table(folder / "raw" / "num-node-list.csv.gz", np.array([[len(graph.features)]]))
    _table(folder / "raw" / "num-edge-list.csv.gz", np.array([[len(graph.edges)]]))


def _table(path: Path, rows: np.ndarray) -> None:
    import pyarrow as pa
    from pyarrow import csv

    table = pa.table([pa.array(np.ascontiguousarray(column)) for column in rows.T], [str(i) for i in range(rows.shape[1])])
    with gzip.open(path, "wb", compresslevel=1) as stream:
        csv.write_csv(table, stream, csv.WriteOptions(include_header=False))


def main(folder: str, *sizes: str) -> None:
    """Write ``arxiv_like`` below ``folder``."""
    try:
        given = {key: int(value) for key, value in (size.split("=") for size in sizes)}
        made = nodes(**ARXIV | given)
    except (ValueError, TypeError) as error:
        raise BenchError(f"sizes are written nodes=1000 edges=7000 features=128 classes=40 ({error})") from None
    write(made, Path(folder) / "ogb" / "arxiv_like")


if __name__ == "__main__":
    try:
        if len(sys.argv) < 2:
            raise BenchError("say where: python -m tasks.gcn_ogb.make DIR")
        main(*sys.argv[1:])
    except BenchError as error:
        sys.exit(f"make: {error}")
