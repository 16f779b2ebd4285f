"""The common part of all tasks on one graph: the network, its prunable tensors, the optimizer and the cost."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.task import BenchError, Maskable, Task, evaluating, one_of, seed_for, write_tensors
from bench.task.capabilities import Call
from bench.task.examples import pick

from . import models, units
from .data import LinkGraph, NodeGraph
from .graph import Graph, from_edges, thinned
from .sparse import Sparse, dense, from_csr

SCOPES = ("weights", "units")
EDGES = "edges.safetensors"
"""The file that lists a ticket's edges."""


class Batch(NamedTuple):
    """What a network is asked on a graph, and the right answers."""

    places: Tensor
    """Nodes (b,) int64, or pairs of nodes (2, b)."""
    truth: Tensor
    """Labels (b,) int64 of nodes; of pairs 1 for a true link and 0 for a false one, float32."""
    part: tuple[Tensor, ...] | None = None
    """The part of the graph in which ``places`` count, for tasks that sample it. None: the whole graph."""


class GraphTask(Task):
    """A network on one graph, which is whole in every example. The nodes are classified, unless a subclass asks otherwise."""

    later_defaults: ClassVar = {"model": {"directed": False, "scope": "weights"}}

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        one_of("model", config["model"]["name"], models.NETWORKS)
        for key in ("dropout", "input_dropout"):
            if not 0 <= float(config["model"][key]) < 1:
                raise BenchError(f"model.{key} is {config['model'][key]}; it must lie in [0, 1)")
        self._directed = bool(config["model"]["directed"])
        one_of("model.scope", config["model"]["scope"], SCOPES)

    @property
    @abstractmethod
    def _data(self) -> NodeGraph | LinkGraph:
        """The graph; the same object every time."""

    @cached_property
    def _graph(self) -> Graph:
        features, edges = self._data.features, torch.from_numpy(self._data.edges).to(self.device)
        if sparse.issparse(features):
            arrays = (features.indptr, features.indices, features.data)
            indptr, indices, values = (torch.from_numpy(array).to(self.device) for array in arrays)
            inputs = from_csr(indptr.long(), indices.long(), values, features.shape[1])
        else:
            inputs = torch.from_numpy(features).to(self.device)
        return from_edges(inputs, features.shape[0], edges, self._directed)

    @property
    def fingerprint(self) -> str:
        return self._data.fingerprint

    @property
    def _outputs(self) -> int:
        """Numbers that the network puts out for a node."""
        return self._data.classes

    def _whole(self, split: str) -> Batch:
        """Return all labelled nodes of a split, on the whole graph."""
        nodes = torch.from_numpy(self._data.splits[one_of("split", split, self._data.splits)])
        return Batch(nodes.to(self.device), torch.from_numpy(self._data.labels)[nodes].to(self.device))

    def _seen(self, part: tuple[Tensor, ...] | None) -> Graph:
        """Return the graph of a batch."""
        return self._graph

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(self._seen(batch.part))[batch.places], batch.truth)

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[Batch]:
        """Return training nodes, in two parts; the graph around them is whole."""
        nodes, labels, _ = self._whole("train")
        index = pick(labels.cpu(), self._data.classes, per_class, seed, balanced).to(self.device)
        return [Batch(nodes[part], labels[part]) for part in index.tensor_split(2)]

    def summed_loss(self, model: nn.Module, batch: Batch, temperature: float) -> Tensor:
        """Return the summed cross-entropy."""
        return F.cross_entropy(model(self._graph)[batch.places] / temperature, batch.truth, reduction="sum")

    def probe(self, model: nn.Module) -> Tensor:
        """Return class scores (N, classes) where every feature of a node is 1: the graph belongs to the network's shape, so its
        edges, and which features of a sparse graph are there, are no data here."""
        features = self._graph.features
        sparsely = isinstance(features, Sparse)
        ones = Sparse(features.pattern, torch.ones_like(features.values)) if sparsely else torch.ones_like(features)
        return model(dataclasses.replace(self._graph, features=ones))

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return the accuracy in percent and the mean ``loss``, on the whole graph: without gradients it needs little memory."""
        nodes, labels, _ = self._whole(split)
        with evaluating(model):
            scores = model(self._graph)[nodes]
        return {"accuracy": accuracy(scores, labels), "loss": float(F.cross_entropy(scores, labels))}

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """The sizes of the graph and of what is asked of its nodes."""
        nodes, features = self._data.features.shape
        edges = len(self._data.edges) * (2 if self._directed else 1)
        return {"nodes": nodes, "features": features, "edges": edges, "outputs": self._outputs}

    def build(self, seed: int) -> nn.Module:
        return self._network(self.facts(None), seed).to(self.device)

    def bare(self, facts: Mapping[str, Any]) -> nn.Module:
        return self._network(facts, 0).to(self.device)

    def _network(self, facts: Mapping[str, Any], seed: int) -> nn.Module:
        network = models.network(
            self.config["model"],
            features=facts["features"],
            outputs=facts["outputs"],
            edges=facts["edges"],
            learn_edges=float(self.config["train"]["edge_lr"]) > 0,
            generator=torch.Generator().manual_seed(seed_for(seed, "init")),
        )
        if self.config["model"]["scope"] == "units":
            units.add_gates(network)
        return network

    def maskables(self, model: nn.Module) -> list[Maskable]:
        """Return all weight matrices, and the edges with a budget of their own; never biases, norms, attention or self-loops.
        With scope ``units`` the gates of hidden units take the place of the matrices."""
        matrices, edges = [], []
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if name.endswith("edge_weight"):
                edges.append(Maskable(name, shape, "edge", budget="edges"))
            elif self.config["model"]["scope"] == "units":
                if name.endswith(units.GATE):
                    matrices.append(Maskable(name, shape, "unit", budget="units"))
            elif parameter.ndim == 2:
                matrices.append(Maskable(name, shape, "linear", input_axis=0))
        return matrices + edges

    def edges(self) -> tuple[Tensor, Tensor]:
        """Return the edges (2, M), or both directions (2, 2M) where each has a value of its own, and all nodes' features
        (N, F)."""
        features, edges = self._data.features, torch.from_numpy(self._data.edges).T
        if self._directed:
            edges = torch.cat([edges, edges.flip(0)], 1)
        return edges, torch.from_numpy(features.toarray() if sparse.issparse(features) else features)

    def slim(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Return the network on the graph without the edges and units that ``masks`` prune; pruned weights stay, as zeros."""
        return self._smaller(model, {name: mask.to(self.device) for name, mask in masks.items()})

    def _smaller(self, network: models.Network, masks: Mapping[str, Tensor]) -> models.Network:
        small = network.without(masks["edge_weight"])
        return units.narrowed(small, dict(masks)) if self.config["model"]["scope"] == "units" else small

    def folded(self, model: nn.Module) -> nn.Module:
        return units.folded(model) if self.config["model"]["scope"] == "units" else model

    def call(self, model: nn.Module, batch: Any) -> Call:
        """The features of the nodes are free in their values alone: the graph is part of the network."""
        network, graph = model.settled(self._graph)
        return Call(models.OnGraph(network, graph), {"features": dense(graph.features)}, {}, ("scores",))

    def write_files(self, folder: Path, masks: Mapping[str, Tensor]) -> None:
        """The edges that are kept (2, M), in the order of the network's ``edge_weight``; self-loops are not listed."""
        (kept,) = (mask for name, mask in masks.items() if name.endswith("edge_weight"))
        write_tensors(folder / EDGES, {"edges": self.edges()[0][:, kept].contiguous()}, {})

    @contextmanager
    def with_fixed_masks(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside the context, the network reads the graph without the edges that ``masks`` prune: the same bits at lower cost,
        see ``tasks.graph.graph.thinned``."""
        (name,) = (m.name for m in self.maskables(model) if m.budget == "edges")
        if name not in masks or masks[name].all():
            yield
            return
        whole, thin = self._graph, thinned(self._graph, masks[name].to(self.device))
        hook = model.register_forward_pre_hook(lambda module, inputs: (thin, *inputs[1:]) if inputs[0] is whole else None)
        try:
            yield
        finally:
            hook.remove()

    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """Return Adam at constant rates. Weight decay applies to the first layer alone; edges have a smaller rate of their
        own."""
        train = self.config["train"]
        first = list(model.first.parameters())
        apart = {id(parameter) for parameter in (*first, model.edge_weight)}
        others = [p for p in model.parameters() if id(p) not in apart]
        groups = [{"params": first, "weight_decay": float(train["weight_decay"])}, {"params": others}]
        if model.edge_weight.requires_grad:
            groups.append({"params": [model.edge_weight], "lr": float(train["edge_lr"])})
        optimizer = Adam(groups, float(train["lr"]), fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Return the multiply-adds of one inference on the whole graph. They are the features' non-zeros times the first weights,
        dense products after that, and for every layer each directed edge and self-loop times its width. Self-loops cannot be
        pruned."""
        features = self._data.features
        entries = features.nnz if sparse.issparse(features) else features.size
        links = 2 * len(self._data.edges) * density.get("edge_weight", 1.0)
        return model.macs(entries, features.shape[0], links, density)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the share in percent of nodes whose highest score (N, classes) is that of their label (N,)."""
    return 100 * float((scores.argmax(1) == labels).double().mean())
