"""Computing seconds and peak memory of a training epoch of graph networks on synthetic graphs, on one thread.

    python tests/benchmarks/graph.py arxiv             ogbn-arxiv's size, 3 layers of 256: our GCN with edges trained, fixed and
                                                       thinned, and PyTorch Geometric's GCNConv on a sparse adjacency
    python tests/benchmarks/graph.py resgcn28          the same graph, ResGCN-28 (or another network), one epoch
    python tests/benchmarks/graph.py thinned           against the density of the edges: Cora and ogbn-arxiv's size
    python tests/benchmarks/graph.py growth PLOT.svg   against the number of edges, 10^4 to 10^7, seven a node, 32 units

Options: hidden=256 epochs=3 sizes=10000,100000. Variants that are compared take turns, epoch by epoch, and the ratios are medians
of paired ones; peak memory is that of a process with the one variant. Seconds are those the processor worked.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F

from bench.config import settings
from bench.runner.jobs import open_task
from tasks.gcn_ogb import make
from tasks.graph import models
from tasks.graph.graph import from_edges, thinned

FEATURES, CLASSES = 128, 40
ARXIV = {"nodes": make.ARXIV["nodes"], "edges": make.ARXIV["edges"]}


class Geometric(torch.nn.Module):
    """The GCN of PyTorch Geometric: fixed edges, normalised once, as its users have it."""

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


def epoch_of(variant: str, raw, hidden: int) -> Callable[[], float]:
    """What trains an epoch of ``variant`` on the graph and returns its seconds.

    trained, fixed   our GCN with edge values trained, or fixed at 1
    0.5              trained, on the graph thinned to that density of the edges
    pyg              PyTorch Geometric's, edges fixed
    resgcn28, ...    our other networks, edges trained
    """
    nodes, pairs, features, labels = len(raw.features), *map(torch.from_numpy, (raw.edges, raw.features, raw.labels))
    train = torch.from_numpy(raw.splits["train"])
    if variant == "pyg":
        from torch_geometric.utils import to_torch_csr_tensor, to_undirected

        model, graph = (
            Geometric(FEATURES, hidden, CLASSES),
            (features, to_torch_csr_tensor(to_undirected(pairs.T), size=(nodes, nodes))),
        )
    else:
        graph = from_edges(features, nodes, pairs)
        choice = (
            {"name": variant, "hidden": hidden}
            if variant in models.NETWORKS
            else {"name": "gcn", "layers": 3, "hidden": hidden, "batch_norm": True}
        )
        model = models.network(
            choice,
            features=FEATURES,
            outputs=CLASSES,
            edges=len(pairs),
            learn_edges=variant != "fixed",
            generator=torch.Generator().manual_seed(0),
        )
        if variant[0].isdigit():
            kept = torch.rand(len(pairs), generator=torch.Generator().manual_seed(0)) < float(variant)
            model.edge_weight.data.mul_(kept)
            graph = thinned(graph, kept)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01, fused=True)

    def epoch() -> float:
        began = time.process_time()
        F.cross_entropy(model(graph)[train], labels[train]).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return epoch


@cache
def arxiv():
    """A graph of ogbn-arxiv's size."""
    return make.nodes(**ARXIV, features=FEATURES, classes=CLASSES)


def of_cora(density: str, stack: ExitStack) -> Callable[[], float]:
    """What trains an epoch of the task's own network on Cora, with that share of its edges ("trained": all)."""
    task = open_task(settings("tasks/gcn_planetoid", [])[0])
    model = task.build(0)
    optimizer, _ = task.optimizer(model, 1)
    (batch,) = task.batches("train", 0, 0)
    share = float(density.replace("trained", "1"))
    kept = torch.rand(model.edge_weight.shape, generator=torch.Generator().manual_seed(0)) < share
    model.edge_weight.data.mul_(kept)
    stack.enter_context(task.with_fixed_masks(model, {"edge_weight": kept}))

    def epoch() -> float:
        began = time.process_time()
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return epoch


def compare(what: str, epoch: dict[str, Callable[[], float]], epochs: int) -> None:
    """Prints seconds of each variant, and their ratio to those of the first."""
    seconds = [{variant: run() for variant, run in epoch.items()} for _ in range(epochs + 1)][1:]
    first = next(iter(epoch))
    for variant in epoch:
        ratio, middle = (
            statistics.median(of(row) for row in seconds)
            for of in (lambda row, v=variant: row[v] / row[first], lambda row, v=variant: row[v])
        )
        print(f"{what}, {variant:8} {middle:8.4f} s/epoch, {ratio:5.2f} x {first}", flush=True)


def alone(variant: str, size: dict[str, int], hidden: int, epochs: int) -> tuple[float, float]:
    """Seconds of the fastest epoch but the first, and peak GiB, of a process with nothing else; both are printed."""
    job = [sys.executable, __file__, "one", variant, json.dumps(size), str(hidden), str(epochs)]
    seconds, memory = map(float, subprocess.run(job, check=True, capture_output=True, text=True).stdout.split())
    print(f"{size['edges']:>10,} edges, {hidden} units, {variant:8} {seconds:8.4f} s/epoch, {memory:6.2f} GiB", flush=True)
    return seconds, memory


def plot(path: str, found: dict[int, tuple[float, float]]) -> None:
    """Seconds and memory against edges, and what both would be if they grew in proportion to them."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    edges = list(found)
    for axes, values, name in zip(
        figure.subplots(1, 2),
        zip(*found.values(), strict=True),
        ("seconds of an epoch", "peak memory of the process, GiB"),
        strict=True,
    ):
        axes.loglog(edges, values, "o-", color="#0072B2", label="measured")
        middle = len(edges) // 2
        slope = (values[middle] - values[0]) / (edges[middle] - edges[0])
        axes.loglog(edges, [values[0] + slope * (e - edges[0]) for e in edges], ":", color="grey", label="in proportion")
        axes.set(xlabel="undirected edges", ylabel=name)
        axes.legend(frameon=False)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main(what: str, *options: str) -> None:
    """One of the tables above."""
    given = dict(option.split("=") for option in options if "=" in option)
    hidden, epochs = int(given.get("hidden", 256)), int(given.get("epochs", 3))
    if what == "arxiv":
        variants = ["pyg", "trained", "fixed", "0.5", "0.1"]
        for variant in variants:  # before this process grows: the peak of one that it starts begins at its own size
            alone(variant, ARXIV, hidden, 1)
        compare(f"{hidden} units", {variant: epoch_of(variant, arxiv(), hidden) for variant in variants}, epochs)
    elif what in models.NETWORKS:
        alone(what, ARXIV, int(given.get("hidden", 128)), 0)
    elif what == "thinned":
        densities = ["trained", "0.8", "0.5", "0.2", "0.05"]
        with ExitStack() as stack:
            compare("Cora", {density: of_cora(density, stack) for density in densities}, 200)
        compare(f"{hidden} units", {density: epoch_of(density, arxiv(), hidden) for density in densities}, epochs)
    elif what == "growth":
        found = {}
        for edges in map(int, given.get("sizes", "10000,100000,1000000,10000000").split(",")):
            size = {"nodes": max(2000, edges // 7), "edges": edges}
            found[edges] = alone("trained", size, int(given.get("hidden", 32)), 1 if edges > 10**6 else 10)
        for path in options:
            if path.endswith(".svg"):
                plot(path, found)
    else:
        raise SystemExit(f"unknown table {what}: one of arxiv, thinned, growth, {', '.join(models.NETWORKS)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["one"]:
        variant, size, hidden, epochs = sys.argv[2:]
        once = epoch_of(variant, make.nodes(**json.loads(size), features=FEATURES, classes=CLASSES), int(hidden))
        first = once()
        fastest = min((once() for _ in range(int(epochs))), default=first)
        print(fastest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    else:
        main(*(sys.argv[1:] or ("growth", "sizes=10000,100000")))
