"""Node classification on citation graphs: two-layer graph networks, weights and edges prunable."""

from collections.abc import Iterable
from functools import cached_property

from bench.task import Metric
from tasks.graph.data import NodeGraph
from tasks.graph.task import Batch, GraphTask

from . import data


class GcnPlanetoid(GraphTask):
    """One citation graph x one network, trained on the whole graph at once."""

    metric = Metric("accuracy")

    @cached_property
    def _data(self) -> NodeGraph:
        return data.load(self.config["data"])

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

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterable[Batch]:
        return [self._whole(split)][start:]
