"""Node classification and link prediction at the scale of OGB: weights and edges prunable, the whole graph at once or sampled."""

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.task import BenchError, Metric, evaluating, one_of, seed_for
from bench.task.capabilities import Call, HasExamples, HasProbe
from tasks.graph import models
from tasks.graph.convolutions import Affine
from tasks.graph.data import LinkGraph, NodeGraph
from tasks.graph.graph import Graph
from tasks.graph.models import Network
from tasks.graph.sparse import Pattern, dense
from tasks.graph.task import Batch, GraphTask

from . import data
from .sampling import sample

TITLES = {
    "arxiv": "ogbn-arxiv, split by year",
    "collab": "ogbl-collab, split by year",
    "arxiv_like": "SYNTHETIC graph of ogbn-arxiv's size: for cost and memory only, accuracy means nothing",
    "generated": "generated graph",
    "generated_links": "generated graph, links predicted",
}
HITS = 50
PIECE = 2**16  # pairs scored at a time


class Links(nn.Module):
    """A graph network whose embeddings an MLP compares: scores (b,) of pairs (2, b), by the product of both ends' embeddings."""

    def __init__(self, encoder: Network, width: int, layers: int, dropout: float, generator: torch.Generator):
        super().__init__()
        self.encoder = encoder
        widths = [width] * layers + [1]
        self.scorer = nn.ModuleList(Affine(widths[i], widths[i + 1], generator) for i in range(layers))
        self.dropout = dropout

    def forward(self, graph: Graph, pairs: Tensor) -> Tensor:
        return self.compare(self.encoder(graph), pairs)

    def compare(self, embedding: Tensor, pairs: Tensor) -> Tensor:
        """Return scores (b,) from embeddings (N, width)."""
        hidden = embedding[pairs[0]] * embedding[pairs[1]]
        for layer in self.scorer[:-1]:
            hidden = F.dropout(F.relu(layer(hidden)), self.dropout, self.training)
        return self.scorer[-1](hidden).squeeze(1)

    @property
    def first(self) -> Affine:
        """The layer that reads the features."""
        return self.encoder.first

    @property
    def edge_weight(self) -> nn.Parameter:
        """The edges' values."""
        return self.encoder.edge_weight


class GcnOgb(GraphTask):
    """One OGB graph x one network. ``train.neighbours``: links drawn for a node at each hop, null: all of the graph."""

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        self._links = config["data"]["name"] in data.LINKS
        self.metric = Metric(f"hits@{HITS}" if self._links else "accuracy")
        self.lacks = frozenset({HasExamples, HasProbe} if self._links else ())
        for key in ("neighbours", "batch_size"):
            value = config["train"][key]
            if any(not isinstance(number, int) or number < 1 for number in (value if isinstance(value, list) else [value or 1])):
                raise BenchError(f"train.{key} is {value}: whole numbers from 1 on, or null for all")

    @cached_property
    def _data(self) -> NodeGraph | LinkGraph:
        return data.load(self.config["data"])

    @property
    def note(self) -> str:
        """Which data it is; synthetic data is named as such."""
        return f"{TITLES[self.config['data']['name']]}; {self.metric.name} of the last epoch"

    @property
    def batch_size(self) -> int:
        """The number of examples in a batch: 1, the whole graph. Sampled steps are charged the same, which is too much."""
        return 1

    @property
    def steps_per_epoch(self) -> int:
        size = self.config["train"]["batch_size"]
        examples = len(self._data.true["train"] if self._links else self._data.splits["train"])
        return -(-examples // size) if size else 1

    @property
    def _outputs(self) -> int:
        return int(self.config["model"]["hidden"]) if self._links else super()._outputs

    def _network(self, facts: Mapping[str, Any], seed: int) -> nn.Module:
        network = super()._network(facts, seed)
        if not self._links:
            return network
        generator = torch.Generator().manual_seed(seed_for(seed, "scorer"))
        return Links(network, facts["outputs"], 3, float(self.config["model"]["dropout"]), generator)

    def call(self, model: nn.Module, batch: Batch) -> Call:
        """Of links also the pairs are free, and how many there are."""
        if not self._links:
            return super().call(model, batch)
        encoder, graph = model.encoder.settled(self._graph)
        small = copy.copy(model)
        small._modules = {**model._modules, "encoder": encoder}
        given = {"features": dense(graph.features), "pairs": batch[0]}
        return Call(models.OnGraph(small, graph), given, {"pairs": {1: "batch"}}, ("scores",))

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield training nodes, or links with as many random false pairs, in the order of (seed, epoch); val and test as one
        batch."""
        return self._training(epoch, seed, start) if split == "train" else iter([self._whole(split)][start:])

    def _whole(self, split: str) -> Batch:
        if not self._links:
            return super()._whole(split)
        one_of("split", split, self._data.true)
        true, false = (torch.from_numpy(kind[split]).T for kind in (self._data.true, self._data.false))
        return self._judged(true, false, None)

    def _training(self, epoch: int, seed: int, start: int) -> Iterator[Batch]:
        known = torch.from_numpy(self._data.true["train"].T if self._links else self._data.splits["train"])
        size = self.config["train"]["batch_size"]
        order = torch.arange(known.shape[-1])
        if size:
            order = torch.randperm(order.numel(), generator=torch.Generator().manual_seed(seed_for(seed, "order", epoch)))
        for number, chosen in enumerate(order.split(size or order.numel())):
            if number >= start:
                generator = torch.Generator().manual_seed(seed_for(seed, "sample", epoch, number))
                if self._links:
                    true = known[:, chosen]
                    # a pair drawn by chance is hardly ever a link, and OGB's own training does not look either
                    false = torch.randint(len(self._data.features), true.shape, generator=generator)
                    yield self._judged(true, false, generator)
                else:
                    yield self._labelled(known[chosen], generator)

    def _labelled(self, nodes: Tensor, generator: torch.Generator | None) -> Batch:
        labels = torch.from_numpy(self._data.labels)[nodes].to(self.device)
        part = self._part(nodes, generator)
        return Batch((nodes if part is None else torch.arange(nodes.numel())).to(self.device), labels, part)

    def _judged(self, true: Tensor, false: Tensor, generator: torch.Generator | None) -> Batch:
        pairs = torch.cat([true, false], 1)
        truth = (torch.arange(pairs.shape[1]) < true.shape[1]).float().to(self.device)
        nodes, places = torch.unique(pairs, return_inverse=True)
        part = self._part(nodes, generator)
        return Batch((pairs if part is None else places).to(self.device), truth, part)

    def _part(self, nodes: Tensor, generator: torch.Generator | None) -> tuple[Tensor, ...] | None:
        """Return the graph sampled around ``nodes``: its nodes (n,), these first, and its links (l,) by row and column, which are
        positions among its nodes, and by number in the whole graph. None where the whole graph is used."""
        fanouts = self.config["train"]["neighbours"]
        if generator is None or fanouts is None:
            return None
        return tuple(t.to(self.device) for t in sample(self._cpu_links, nodes, fanouts, generator))

    @cached_property
    def _cpu_links(self) -> Pattern:
        links = self._graph.links
        return links if self.device.type == "cpu" else Pattern(links.rows.cpu(), links.columns.cpu(), links.shape)

    def _seen(self, part: tuple[Tensor, ...] | None) -> Graph:
        if part is None:
            return self._graph
        nodes, rows, columns, number = part
        links = Pattern(rows, columns, (nodes.numel(), nodes.numel()))
        return Graph(self._graph.features.index_select(0, nodes), links, self._graph.edge.index_select(0, number))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy over classes, or of true against false pairs."""
        if not self._links:
            return super().loss(model, batch)
        return F.binary_cross_entropy_with_logits(model(self._seen(batch.part), batch.places), batch.truth)

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Return the network without the pruned edges; the MLP that compares embeddings has none."""
        if not self._links:
            return super().slim(model, masks)
        small = copy.deepcopy(model)
        own = {name.removeprefix("encoder."): mask.to(self.device) for name, mask in masks.items()}
        small.encoder = self._smaller(model.encoder, own)
        return small

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return the official metric in percent and the mean ``loss``, on the whole graph."""
        if not self._links:
            return super().evaluate(model, split)
        ((pairs, truth, _),) = self.batches(split, 0, 0)
        with evaluating(model):
            embedding = model.encoder(self._graph)
            scores = torch.cat([model.compare(embedding, some) for some in pairs.split(PIECE, 1)])
        loss = float(F.binary_cross_entropy_with_logits(scores, truth))
        return {self.metric.name: hits(scores[truth == 1], scores[truth == 0], HITS), "loss": loss}

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Return the multiply-adds of one inference on the whole graph; for links, also of all test pairs."""
        if not self._links:
            return super().macs(model, density)
        pairs = len(self._data.true["test"]) + len(self._data.false["test"])
        scored = sum(layer.weight.numel() * density.get(f"scorer.{i}.weight", 1.0) for i, layer in enumerate(model.scorer))
        inside = {name.removeprefix("encoder."): share for name, share in density.items()}
        return super().macs(model.encoder, inside) + pairs * (model.scorer[0].weight.shape[0] + scored)


def hits(positive: Tensor, negative: Tensor, k: int) -> float:
    """Return the share in percent of true edges (P,) scored above the k-th best of the false ones (Q,), OGB's official metric (Hu
    et al. 2020). A tie is no hit; with fewer than ``k`` false ones every edge is a hit."""
    if negative.numel() < k:
        return 100.0
    return 100 * float((positive > torch.topk(negative, k).values[-1]).double().mean())
