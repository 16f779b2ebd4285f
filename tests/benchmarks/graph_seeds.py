"""Training several seeds of one configuration at once, against one after the other: seconds a seed and step, interleaved.

    python tests/benchmarks/graph_seeds.py data=cora seeds=10 data.root=...

Two ways to stack GCNs of two layers, neither of them what `bench` runs:

    blocks  the desk recipe: every seed has its own edge values and dropout of the features, so the graphs stand side by side in
            one large graph without links between them
    wide    where seeds share graph and features (edges fixed, no input dropout): hidden units side by side, one sparse product

Prints median seconds for both ways and the median of their paired ratios.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config import settings
from bench.runner.jobs import open_task
from tasks.graph.convolutions import GcnConv
from tasks.graph.graph import Graph
from tasks.graph.sparse import Pattern, Sparse, dropout, times


def side_by_side(pattern: Pattern, copies: int) -> Pattern:
    """The block-diagonal pattern."""
    rows, columns = (
        torch.cat([index + i * size for i in range(copies)])
        for index, size in zip((pattern.rows, pattern.columns), pattern.shape, strict=True)
    )
    return Pattern(rows, columns, tuple(size * copies for size in pattern.shape))


class Blocks(nn.Module):
    """GCNs (S of them) on S copies of the graph."""

    def __init__(self, networks: list[nn.Module], graph: Graph):
        super().__init__()
        count, edges = len(networks), networks[0].edge_weight.numel()
        self.edge_weight = nn.Parameter(torch.cat([n.edge_weight.detach() for n in networks]))
        self.first, self.second = (
            nn.Parameter(torch.stack([conv.weight.detach() for conv in convs]))
            for convs in zip(*((n.conv1, n.conv2) for n in networks), strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(count, 1, w.shape[2])) for w in (self.first, self.second))
        self.features = Sparse(side_by_side(graph.features.pattern, count), graph.features.values.repeat(count))
        self.links = side_by_side(graph.links, count)
        self.edge = torch.cat([graph.edge + i * edges for i in range(count)])
        self.rates = networks[0].input_dropout, networks[0].dropout

    def forward(self) -> Tensor:
        """Class scores (S, N, C)."""
        mix = GcnConv.mixer(self.links, self.edge_weight.index_select(0, self.edge))
        hidden = mix(times(dropout(self.features, self.rates[0], self.training), self.first.flatten(0, 1)))
        hidden = F.dropout(F.relu(hidden.unflatten(0, (len(self.first), -1)) + self.biases[0]), self.rates[1], self.training)
        return mix((hidden @ self.second).flatten(0, 1)).unflatten(0, (len(self.first), -1)) + self.biases[1]


class Wide(nn.Module):
    """GCNs (S of them) that read the same graph: their hidden units (S x H) and their outputs (S x C) side by side."""

    def __init__(self, networks: list[nn.Module], graph: Graph):
        super().__init__()
        self.first = nn.Parameter(torch.cat([n.conv1.weight.detach() for n in networks], 1))
        self.second = nn.Parameter(torch.stack([n.conv2.weight.detach() for n in networks]))
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(len(networks) * conv.weight.shape[1])) for conv in (networks[0].conv1, networks[0].conv2)
        )
        self.graph, self.dropout = graph, networks[0].dropout
        self.value = torch.ones(graph.edge.numel())

    def forward(self) -> Tensor:
        """Class scores (S, N, C)."""
        mix = GcnConv.mixer(self.graph.links, self.value)
        hidden = F.dropout(F.relu(mix(times(self.graph.features, self.first)) + self.biases[0]), self.dropout, self.training)
        hidden = hidden.unflatten(1, (len(self.second), -1)).transpose(0, 1)
        out = mix((hidden @ self.second).transpose(0, 1).flatten(1)) + self.biases[1]
        return out.unflatten(1, (len(self.second), -1)).transpose(0, 1)


def step(optimizers: list[torch.optim.Optimizer], losses) -> float:
    """Seconds of a training step of all."""
    began = time.perf_counter()
    for optimizer, loss in zip(optimizers, losses, strict=True):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began


def compare(kind: type[nn.Module], options: list[str], seeds: int, repeats: int = 40) -> tuple[float, float, float]:
    """Milliseconds a seed one by one and stacked, and how many times faster stacked is."""
    task = open_task(settings("tasks/gcn_planetoid", options)[0])
    networks = [task.build(seed) for seed in range(seeds)]
    stacked, (batch,) = kind(networks, task._graph), task.batches("train", 0, 0)
    _check(task, networks, stacked, batch)
    rate = {"lr": 0.01, "fused": True}
    alone = [lambda n=network: task.loss(n, batch) for network in networks]
    together = [lambda: F.cross_entropy(stacked()[:, batch[0]].flatten(0, 1), batch[1].repeat(seeds)) * seeds]
    optimizers = [torch.optim.Adam(n.parameters(), **rate) for n in networks], [torch.optim.Adam(stacked.parameters(), **rate)]
    pairs = [(step(optimizers[0], alone), step(optimizers[1], together)) for _ in range(repeats)][2:]
    single, stack = (1000 * statistics.median(side) / seeds for side in zip(*pairs, strict=True))
    return single, stack, statistics.median(one / other for one, other in pairs)


def _check(task, networks: list[nn.Module], stacked: nn.Module, batch) -> None:
    """Both compute the same."""
    with torch.no_grad():
        apart = torch.stack([network.eval()(task._graph) for network in networks])
        torch.testing.assert_close(stacked.eval()(), apart, rtol=0, atol=1e-5)
    for network in (*networks, stacked):
        network.train()


def main(*options: str) -> None:
    """A line for each way and number of seeds."""
    torch.set_num_threads(1)
    counts = [int(o.removeprefix("seeds=")) for o in options if o.startswith("seeds=")] or [2, 5, 10]
    options = [o for o in options if not o.startswith("seeds=")] or ["protocol=smoke"]
    for kind, recipe in ((Blocks, []), (Wide, ["train.edge_lr=0", "model.input_dropout=0"])):
        for seeds in counts:
            single, stack, ratio = compare(kind, [*options, *recipe], seeds)
            print(
                f"{kind.__name__:6} {seeds:3} seeds: {single:6.2f} ms a seed one by one, {stack:6.2f} ms stacked: {ratio:.2f} x",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
