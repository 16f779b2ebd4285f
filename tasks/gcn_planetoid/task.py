"""Node classification on citation graphs: two-layer GCN, weights and edges prunable."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from bench.examples import pick
from bench.task import BenchError, Maskable, Metric, Task, seed_for, unknown

from . import data, models

Nodes = tuple[Tensor, Tensor]


class GcnPlanetoid(Task):
    """One citation graph x one GCN, trained on the whole graph at once. A batch is the nodes of a split and their labels,
    both (n,) int64."""

    metric = Metric("accuracy")
    offers = frozenset({"edges", "examples", "probe"})

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        if config["model"]["name"] != "gcn":
            raise unknown("model", config["model"]["name"], ("gcn",))
        for key in ("dropout", "input_dropout"):
            if not 0 <= float(config["model"][key]) < 1:
                raise BenchError(f"model.{key} is {config['model'][key]}; it must lie in [0, 1)")

    @cached_property
    def _citations(self) -> data.Citations:
        return data.load(self.config["data"])

    @cached_property
    def _graph(self) -> models.Graph:
        features = self._citations.features
        arrays = (features.indptr, features.indices, features.data, self._citations.edges)
        indptr, indices, values, edges = (torch.from_numpy(array).to(self.device) for array in arrays)
        return models.graph(indptr.long(), indices.long(), values, features.shape[1], edges)

    @cached_property
    def _nodes(self) -> dict[str, Nodes]:
        labels = torch.from_numpy(self._citations.labels)
        nodes = {split: torch.from_numpy(index) for split, index in self._citations.splits.items()}
        return {split: (index.to(self.device), labels[index].to(self.device)) for split, index in nodes.items()}

    @property
    def note(self) -> str:
        """Which split; the papers' numbers are of the public one."""
        choice = self.config["data"]
        drawn = f", {choice['per_class']} training nodes a class" if choice["split"] == "random" else ""
        return f"{data.TITLES[choice['name']]}, {choice['split']} split{drawn}; accuracy of the last epoch"

    @property
    def fingerprint(self) -> str:
        return self._citations.fingerprint

    @property
    def steps_per_epoch(self) -> int:
        """The whole graph is the one batch."""
        return 1

    def build(self, seed: int) -> nn.Module:
        citations, choice = self._citations, self.config["model"]
        network = models.Gcn(citations.features.shape[1], int(choice["hidden"]), citations.classes, len(citations.edges),
                             float(self.config["train"]["edge_lr"]) > 0, float(choice["dropout"]),
                             float(choice["input_dropout"]), torch.Generator().manual_seed(seed_for(seed, "init")))
        return network.to(self.device)

    def maskables(self, model: nn.Module) -> list[Maskable]:
        """Both weight matrices, and the undirected edges with a budget of their own; never biases or self-loops."""
        shape = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        return [*(Maskable(name, shape[name], "linear") for name in ("conv1.weight", "conv2.weight")),
                Maskable("edge_weight", shape["edge_weight"], "edge", budget="edges")]

    def edges(self) -> tuple[Tensor, Tensor]:
        """The undirected edges (2, M) and the features of all nodes (N, F)."""
        features = torch.from_numpy(self._citations.features.toarray())
        return torch.from_numpy(self._citations.edges).T, features

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[Nodes]:
        if split not in self._nodes:
            raise unknown("split", split, self._nodes)
        return [self._nodes[split]][start:]

    def loss(self, model: nn.Module, batch: Nodes) -> Tensor:
        nodes, labels = batch
        return F.cross_entropy(model(self._graph)[nodes], labels)

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[Nodes]:
        """Training nodes, in two parts; the graph around them is whole."""
        nodes, labels = self._nodes["train"]
        index = pick(labels.cpu(), self._citations.classes, per_class, seed, balanced).to(self.device)
        return [(nodes[part], labels[part]) for part in index.tensor_split(2)]

    def summed_loss(self, model: nn.Module, batch: Nodes, temperature: float) -> Tensor:
        """Cross-entropy."""
        nodes, labels = batch
        return F.cross_entropy(model(self._graph)[nodes] / temperature, labels, reduction="sum")

    def probe(self, model: nn.Module) -> Tensor:
        """Class scores (N, classes) where every word a node has counts 1: the graph is the network's shape, its words and
        edges are no data here."""
        return model(dataclasses.replace(self._graph, values=torch.ones_like(self._graph.values)))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``accuracy`` in percent and mean cross-entropy ``loss``."""
        (nodes, labels), = self.batches(split, 0, 0)
        training = model.training
        scores = model.eval()(self._graph)[nodes]
        model.train(training)
        return {"accuracy": 100 * float((scores.argmax(1) == labels).double().mean()),
                "loss": float(F.cross_entropy(scores, labels))}

    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        """Adam at constant rates. Weight decay on the first layer alone; edges at their own, smaller rate."""
        train = self.config["train"]
        groups = [{"params": list(model.conv1.parameters()), "weight_decay": float(train["weight_decay"])},
                  {"params": list(model.conv2.parameters())}]
        if model.edge_weight.requires_grad:
            groups.append({"params": [model.edge_weight], "lr": float(train["edge_lr"])})
        optimizer = Adam(groups, float(train["lr"]), fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """One inference on the whole graph: X W1 over the non-zero features, H W2, and for both layers every directed edge
        and self-loop times the layer's width. Self-loops cannot be pruned. Normalisation is not counted."""
        citations = self._citations
        nodes, hidden, classes = citations.labels.size, int(self.config["model"]["hidden"]), citations.classes
        first = citations.features.nnz * hidden * density.get("conv1.weight", 1.0)
        second = nodes * hidden * classes * density.get("conv2.weight", 1.0)
        links = 2 * len(citations.edges) * density.get("edge_weight", 1.0) + nodes
        return first + second + links * (hidden + classes)
