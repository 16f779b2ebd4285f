"""Node classification on citation graphs: two-layer graph networks, weights and edges prunable."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.task import Metric, unknown
from bench.task.examples import pick
from tasks.graph.task import GraphTask

from . import data

Nodes = tuple[Tensor, Tensor]


class GcnPlanetoid(GraphTask):
    """One citation graph x one network, trained on the whole graph at once. A batch is the nodes of a split and their labels,
    both (n,) int64."""

    metric = Metric("accuracy")

    @cached_property
    def _data(self) -> data.Citations:
        return data.load(self.config["data"])

    @cached_property
    def _nodes(self) -> dict[str, Nodes]:
        labels = torch.from_numpy(self._data.labels)
        nodes = {split: torch.from_numpy(index) for split, index in self._data.splits.items()}
        return {split: (index.to(self.device), labels[index].to(self.device)) for split, index in nodes.items()}

    @property
    def note(self) -> str:
        """Which split it is; the papers' numbers are on the public one."""
        choice = self.config["data"]
        drawn = f", {choice['per_class']} training nodes a class" if choice["split"] == "random" else ""
        return f"{data.title(choice['name'])}, {choice['split']} split{drawn}; accuracy of the last epoch"

    @property
    def steps_per_epoch(self) -> int:
        """One step: the whole graph is the only batch."""
        return 1

    @property
    def _outputs(self) -> int:
        return self._data.classes

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[Nodes]:
        if split not in self._nodes:
            raise unknown("split", split, self._nodes)
        return [self._nodes[split]][start:]

    def loss(self, model: nn.Module, batch: Nodes) -> Tensor:
        nodes, labels = batch
        return F.cross_entropy(model(self._graph)[nodes], labels)

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[Nodes]:
        """Return training nodes, in two parts; the graph around them is whole."""
        nodes, labels = self._nodes["train"]
        index = pick(labels.cpu(), self._data.classes, per_class, seed, balanced).to(self.device)
        return [(nodes[part], labels[part]) for part in index.tensor_split(2)]

    def summed_loss(self, model: nn.Module, batch: Nodes, temperature: float) -> Tensor:
        """Return the summed cross-entropy."""
        nodes, labels = batch
        return F.cross_entropy(model(self._graph)[nodes] / temperature, labels, reduction="sum")

    def probe(self, model: nn.Module) -> Tensor:
        """Return class scores (N, classes) where every word of a node counts 1: the graph belongs to the network's shape, so its
        words and edges are no data here."""
        return model(self._probe_graph)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return ``accuracy`` in percent and mean cross-entropy ``loss``."""
        ((nodes, labels),) = self.batches(split, 0, 0)
        training = model.training
        scores = model.eval()(self._graph)[nodes]
        model.train(training)
        return {
            "accuracy": 100 * float((scores.argmax(1) == labels).double().mean()),
            "loss": float(F.cross_entropy(scores, labels)),
        }

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """Return the multiply-adds of one inference on the whole graph.

        They are the features' non-zeros times the first weights, dense products after that, and for every layer each directed
        edge and self-loop times its width. Self-loops cannot be pruned.
        """
        return self._network_macs(model, density)
