"""What is measured example by example: predictions without training, and the epoch that an oracle would choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pruning.errors import NotApplicable, PruningError
from pruning.lab import Lab
from pruning.metadata import Row, analysis
from pruning.ticket import Densities, Ticket

Metrics = Mapping[str, Tensor]
"""Metric -> its value for each example (n,)."""


@analysis(keys=("baseline",), on_boards=True)
def baselines(lab: Lab, densities: list[Densities], split: str = "test") -> Iterator[Row]:
    """Score predictions that need no training on the same data.

    split  data of the metrics: test, val or train
    """
    if not lab.baselines():
        raise NotApplicable("this task knows no predictions that need no training")
    for name in lab.baselines():
        yield {"baseline": name, **_means(lab.baseline_metrics(name, split))}


@analysis(keys=("network", "density", "epoch"))
def oracle_epoch(
    lab: Lab,
    densities: list[Densities],
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    looks: int = 20,
    split: str = "test",
) -> Iterator[Row]:
    """Score the same trainings at their last epoch and at the epoch that looks best on the test data (published protocol,
    optimistic): some papers report that one, chosen for the whole test set or even for each of its examples.

    method   the method of tickets to measure beside the dense network; None: none
    options  options of that method
    looks    number of epochs that are looked at, the last ones of a training; a baseline is drawn as often
    split    data of the metrics: test, val or train

    epoch    last; best of the test set: the one with the best mean; best of each example: another one for every example,
             by the order of the metrics
    """
    if not 1 <= looks <= lab.epochs:
        raise PruningError(f"looks is {looks}; give 1 to {lab.epochs}, the epochs of a training")
    networks = [("dense", 1.0, Ticket({}, lab.ones(), lab.start("init")))]
    if method:
        networks += [("ticket", next(iter(t.densities.values())), t) for t in lab.tickets(method, densities, **(options or {}))]
    for name, density, ticket in networks:
        yield from _chosen(name, density, _epochs(lab, ticket, looks, split))
    for name in lab.baselines():
        yield from _chosen(f"{name} (no training)", 1.0, [lab.baseline_metrics(name, split, draw) for draw in range(looks)])


def _epochs(lab: Lab, ticket: Ticket, looks: int, split: str) -> list[Metrics]:
    """Return the metrics after each of the last epochs of a training."""
    if ticket.trained:
        raise NotApplicable("a method that finds its masks while it trains gives no ticket whose training can be observed")
    per_epoch = lab.steps // lab.epochs
    steps = range(lab.steps - (looks - 1) * per_epoch, lab.steps + 1, per_epoch)
    states = [lab.train(ticket.start, ticket.masks, ticket.schedule, step) for step in steps]
    return [lab.example_metrics(lab.network(state), split) for state in states]


def _chosen(network: str, density: float, epochs: list[Metrics]) -> Iterator[Row]:
    """Yield the rows of one network: its last epoch, and both oracles."""
    names = list(epochs[0])
    whole = max(epochs, key=lambda metrics: tuple(float(metrics[name].mean()) for name in names))
    values = torch.stack([torch.stack([metrics[name] for name in names], 1) for metrics in epochs])  # (epochs, n, metrics)
    each = torch.stack([max(of_example, key=lambda row: tuple(row.tolist())) for of_example in values.unbind(1)])
    for epoch, metrics in (
        ("last", epochs[-1]),
        ("best of the test set", whole),
        ("best of each example", dict(zip(names, each.unbind(1), strict=True))),
    ):
        yield {"network": network, "density": density, "epoch": epoch, **_means(metrics)}


def _means(metrics: Metrics) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in metrics.items()}
