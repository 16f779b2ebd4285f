"""Tour recommendation: the POIs between a start and an end. One network for each fold of a cross-validation, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.task import BenchError, Maskable, Metric, Task, seed_for, unknown

from . import baselines, data, metrics, models, objectives
from .models import Trips


class TourFlickr(Task):
    """The trips of one city x one kind of network. A batch is ``Trips`` of every fold's own split.

    All folds are trained and tested together: a seed's metrics are over the test trips of all folds, each recommended by the
    network that never saw it.
    """

    metric = Metric("pairs_f1")

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        super().__init__(config, device)
        model, train = config["model"], config["train"]
        if model["name"] not in models.NETWORKS:
            raise unknown("model", model["name"], models.NETWORKS)
        for objective in model["pretrain"]:
            if objective not in objectives.OBJECTIVES:
                raise unknown("model.pretrain", objective, objectives.OBJECTIVES)
        if not 0 <= float(model["dropout"]) < 1:
            raise BenchError(f"model.dropout is {model['dropout']}; it must lie in [0, 1)")
        if not 0 <= int(train["pretrain_epochs"]) < int(train["epochs"]):
            raise BenchError(
                f"train.pretrain_epochs is {train['pretrain_epochs']}; it must leave some of the {train['epochs']} epochs for "
                "recommendation"
            )
        if not float(train["temperature"]) > 0:
            raise BenchError(f"train.temperature is {train['temperature']}; similarities are divided by it: it must be above 0")

    @cached_property
    def _tours(self) -> data.Tours:
        return data.load(self.config["data"])

    @cached_property
    def _arrays(self) -> tuple[Tensor, Tensor, Tensor]:
        """POIs, hours and lengths of all trips."""
        tours = self._tours
        return tuple(torch.from_numpy(array).to(self.device) for array in (tours.pois, tours.hours, tours.lengths))  # type: ignore

    @property
    def note(self) -> str:
        """Whose trips, and how they are split."""
        city, folds = self.config["data"]["name"], self.config["data"]["folds"]
        split = f"{folds}-fold cross-validation" if folds else "leave-one-out"
        return f"Flickr trips of three or more visits, {city}, {split}: metrics over the test trips of all folds, last epoch"

    @property
    def fingerprint(self) -> str:
        return self._tours.fingerprint

    @property
    def pretraining_epochs(self) -> int:
        """Epochs at the beginning that are trained for the objectives of ``model.pretrain``."""
        return int(self.config["train"]["pretrain_epochs"]) if self.config["model"]["pretrain"] else 0

    @property
    def steps_per_epoch(self) -> int:
        """Enough batches for every training trip of the largest fold."""
        return -(-max(len(fold["train"]) for fold in self._tours.folds) // self.batch_size)

    def build(self, seed: int) -> nn.Module:
        tours, choice = self._tours, self.config["model"]
        places = models.Places(torch.from_numpy(tours.categories), tours.category_count, torch.from_numpy(tours.distances))
        generator = torch.Generator().manual_seed(seed_for(seed, "init"))
        return models.NETWORKS[choice["name"]](len(tours.folds), places, choice, generator).to(self.device)

    def maskables(self, model: nn.Module) -> list[Maskable]:
        """All matrices, of each fold's network apart; never embeddings, whose rows are the vocabulary, nor biases."""
        parameters, folds = dict(model.named_parameters()), len(self._tours.folds)
        return [
            Maskable(name, tuple(parameters[name].shape), kind, network=int(name.rpartition(".")[2]) % folds)
            for name, kind in models.kinds(model).items()
        ]

    def batches(self, split: str, epoch: int, seed: int, start: int = 0) -> Iterator[Trips]:
        if split == "train":
            return self._training_batches(epoch, seed, start)
        if split in ("val", "test"):
            return iter([self._trips(self._padded(split)[0])][start:])
        raise unknown("split", split, data.SPLITS)

    def _training_batches(self, epoch: int, seed: int, start: int) -> Iterator[Trips]:
        """Shuffled, then sorted by length within a few batches, so that little is padded. Batches of pre-training hold trips of
        two visits as well. The last batch is filled up with trips of the same epoch."""
        pretraining, count = epoch < self.pretraining_epochs, self.steps_per_epoch * self.batch_size
        rng = np.random.default_rng(seed_for(seed, "data", epoch))
        pairs, rows = self._tours.short[self._tours.lengths[self._tours.short] == 2], []
        for fold in self._tours.folds:
            order = rng.permutation(np.concatenate([fold["train"], pairs]) if pretraining else fold["train"])
            rows.append(np.resize(order, count))
        order, group = np.stack(rows), self.batch_size * int(self.config["train"]["group"])
        for at in range(0, count, group):
            part = order[:, at : at + group]
            order[:, at : at + group] = np.take_along_axis(part, np.argsort(self._tours.lengths[part], 1, kind="stable"), 1)
        turns = rng.permutation(self.steps_per_epoch)
        for step in turns[start:]:
            yield self._trips(order[:, step * self.batch_size : (step + 1) * self.batch_size], pretraining)

    def _padded(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The trips of a split (F, most of a fold), and which are its own: smaller folds repeat their first ones."""
        folds = [fold[split] for fold in self._tours.folds]
        most = max(map(len, folds))
        return np.stack([np.resize(fold, most) for fold in folds]), np.stack([np.arange(most) < len(fold) for fold in folds])

    def _trips(self, rows: np.ndarray, pretraining: bool = False) -> Trips:
        index, longest = torch.from_numpy(rows).to(self.device), int(self._tours.lengths[rows].max())
        pois, hours, lengths = (array[index] for array in self._arrays)
        return Trips(pois[..., :longest], hours[..., :longest], lengths, pretraining)

    def loss(self, model: nn.Module, batch: Trips) -> Tensor:
        """Cross-entropy of the middle POIs; of a batch of pre-training, its objectives. In training both are joined, the
        objectives with the weight ``train.joint``."""
        choice, train = self.config["model"], self.config["train"]
        if batch.pretraining:
            return objectives.pretraining(model, batch, choice["pretrain"], float(train["temperature"]))
        loss, joint = objectives.middle(batch, model(batch)), float(train["joint"])
        if model.training and joint and self.pretraining_epochs:
            loss = loss + joint * objectives.pretraining(model, batch, choice["pretrain"], float(train["temperature"]))
        return loss

    def examples(self, per_class: int, seed: int, balanced: bool) -> list[Trips]:
        """``per_class`` training trips for each POI of the city, from every fold. A trip has no class to balance by."""
        if balanced:
            raise BenchError("a trip has no class: give method.balanced=false")
        count = per_class * self._tours.poi_count
        least = min(len(fold["train"]) for fold in self._tours.folds)
        if not 2 <= count <= least:
            raise BenchError(f"per_class is {per_class}: that is {count} trips, and a fold has {least} for training")
        rng = np.random.default_rng(seed_for(seed, "examples"))
        rows = np.stack([rng.permutation(fold["train"])[:count] for fold in self._tours.folds])
        return [self._trips(part) for part in np.array_split(rows, 2, axis=1)]

    def summed_loss(self, model: nn.Module, batch: Trips, temperature: float) -> Tensor:
        """Cross-entropy of the middle POIs, summed over trips."""
        return objectives.middle(batch, model(batch) / temperature) * batch.lengths.numel()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Means of ``example_metrics``, and the cross-entropy ``loss`` of the middle POIs."""
        training = model.training
        with torch.no_grad():
            losses = [objectives.middle(batch, model.eval()(batch)) for batch in self.batches(split, 0, 0)]
        model.train(training)
        means = {name: float(values.mean()) for name, values in self.example_metrics(model, split).items()}
        return means | {"loss": float(torch.stack(losses).mean())}

    def example_metrics(self, model: nn.Module, split: str) -> dict[str, Tensor]:
        """F1, pairs F1 and F1 of the middle in percent, of each trip of a split of all folds, float64."""
        rows, own = self._padded(split)
        training = model.training
        found = model.eval().recommend(self._trips(rows), int(self.config["model"]["beam"])).tolist()
        model.train(training)
        tours = self._tours
        pairs = [
            (tours.pois[trip, : tours.lengths[trip]].tolist(), found[fold][i][: tours.lengths[trip]])
            for fold in range(len(rows))
            for i, trip in enumerate(rows[fold][own[fold]])
        ]
        return _metrics(pairs)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Recommendations that need no training."""
        return tuple(baselines.BASELINES)

    def baseline_metrics(self, name: str, split: str, seed: int) -> dict[str, Tensor]:
        """As ``example_metrics``, of a baseline; it learns from the training and validation trips of the fold and short trips."""
        return _metrics(baselines.recommend(name, self._tours, split, seed))

    def optimizer(self, model: nn.Module, steps: int) -> tuple[Optimizer, LambdaLR]:
        """Adam at a rate that is constant for the epochs of pre-training, and then falls linearly to 0."""
        train = self.config["train"]
        optimizer = Adam(model.parameters(), float(train["lr"]), weight_decay=float(train["weight_decay"]), fused=True)
        falling = steps * (1 - int(train["pretrain_epochs"]) / self.epochs)
        return optimizer, LambdaLR(optimizer, lambda step: min(1.0, max(0.0, (steps - step) / falling)))

    def macs(self, model: nn.Module, density: Mapping[str, float]) -> float:
        """One recommendation by one network, decoded greedily, of a trip of mean length: every matrix as often as it is used."""
        mean = float(np.mean(np.concatenate([self._tours.lengths[fold["test"]] for fold in self._tours.folds])))
        folds = len(self._tours.folds)
        uses = model.uses(mean)
        parameters = dict(model.named_parameters())
        return sum(
            uses[name.partition(".each.")[0]] * parameters[name].numel() * density.get(name, 1.0) / folds
            for name in models.kinds(model)
        )


def _metrics(pairs: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([100 * metric(real, found) for real, found in pairs], dtype=torch.float64)
        for name, metric in metrics.METRICS.items()
    }
