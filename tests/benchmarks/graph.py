"""Seconds and peak memory of one training epoch of a graph network: against the number of edges, with half of the edges really
dropped, and against PyTorch Geometric's GCNConv on a sparse adjacency. Variants are interleaved; medians are printed.

    python tests/benchmarks/graph.py sizes=10000,100000,1000000 hidden=256 threads=2
    python tests/benchmarks/graph.py arxiv                       ogbn-arxiv's size; add pyg=1 for the comparison

Every variant runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import torch
import torch.nn.functional as F

from tasks.gcn_ogb import make
from tasks.graph import models


class Geometric(torch.nn.Module):
    """The same network of PyTorch Geometric: fixed edges, normalised once, as its users have it."""

    def __init__(self, features: int, hidden: int, classes: int):
        from torch_geometric.nn import GCNConv
        super().__init__()
        widths = [features, hidden, hidden, classes]
        self.convs = torch.nn.ModuleList(GCNConv(*pair, cached=True) for pair in pairwise(widths))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(hidden) for _ in range(2))

    def forward(self, graph) -> torch.Tensor:
        x, adjacency = graph
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            x = F.dropout(F.relu(norm(conv(x, adjacency))), 0.5, self.training)
        return self.convs[-1](x, adjacency)


def measure(variant: str, nodes: int, edges: int, hidden: int, threads: int, epochs: int) -> dict[str, float]:
    """Median seconds of an epoch, by the clock and of computing (all threads), and peak GiB of this process."""
    torch.set_num_threads(threads)
    raw = make.nodes(nodes, edges, 128, 40)
    pairs = torch.from_numpy(raw.edges)
    if variant == "dropped":
        pairs = pairs[::2]
    features, labels = torch.from_numpy(raw.features), torch.from_numpy(raw.labels)
    train = torch.from_numpy(raw.splits["train"])
    if variant == "pyg":
        from torch_geometric.utils import to_torch_csr_tensor, to_undirected
        model, graph = Geometric(128, hidden, 40), (features, to_torch_csr_tensor(to_undirected(pairs.T), size=(nodes, nodes)))
    else:
        graph = models.graph(features, nodes, pairs)
        model = models.network({"name": "gcn", "layers": 3, "hidden": hidden, "batch_norm": True}, features=128, outputs=40,
                               edges=len(pairs), learn_edges=variant != "fixed", generator=torch.Generator().manual_seed(0))
    if variant == "masked":
        with torch.no_grad():
            model.edge_weight[1::2] = 0
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01, fused=True)
    seconds = []
    for _ in range(epochs + 1):
        began = time.perf_counter(), time.process_time()
        F.cross_entropy(model(graph)[train], labels[train]).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    clock, computing = map(statistics.median, zip(*seconds[1:], strict=True))
    return {"clock": clock, "computing": computing, "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20}


def main(*options: str) -> None:
    """A row for every size and variant."""
    given = dict(option.split("=") for option in options if "=" in option)
    hidden, threads, epochs, rounds = (int(given.get(key, default)) for key, default in
                                       (("hidden", 256), ("threads", 1), ("epochs", 3), ("rounds", 1)))
    sizes = [(max(2000, int(e) // 7), int(e)) for e in given.get("sizes", "10000,100000,1000000").split(",")]
    if "arxiv" in options:
        sizes = [(make.ARXIV["nodes"], make.ARXIV["edges"])]
    variants = ["trained", "masked", "dropped", "fixed", *(["pyg"] if "pyg" in given else [])]
    for nodes, edges in sizes:
        rows: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
        for _ in range(rounds):
            for variant in variants:
                job = [sys.executable, __file__, "one", variant, *map(str, (nodes, edges, hidden, threads, epochs))]
                rows[variant].append(json.loads(subprocess.run(job, check=True, capture_output=True, text=True).stdout))
        for variant, found in rows.items():
            clock, computing, memory = (statistics.median(row[key] for row in found) for key in found[0])
            print(f"{edges:>10,} edges {nodes:>9,} nodes {variant:8} {clock:8.3f} s/epoch, {computing:8.3f} s of it computing, "
                  f"{memory:6.2f} GiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure(sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        main(*sys.argv[1:])
