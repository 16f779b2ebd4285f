"""How fast networks learn: the step at which each is at its best (Frankle & Carbin 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pruning.controls import CONTROLS
from pruning.errors import NotApplicable, PruningError, one_of
from pruning.lab import Lab
from pruning.metadata import analysis
from pruning.ticket import Densities, Ticket


@analysis(keys=("network", "density"), plots=("early_stop", "then"))
def learning(lab: Lab, densities: list[Densities], method: str = "imp", options: Mapping[str, Any] | None = None,
             controls: Sequence[str] = ("reinit",), looks: int = 20, split: str = "test") -> Iterator[dict]:
    """When to have stopped: the step of a training at which the loss on validation data was least, of the dense network, of a
    method's tickets and of what controls make of them. Found afterwards: every training goes to its end (Frankle & Carbin 2019).

    method    whose tickets
    options   of that method, where they are not its defaults
    controls  beside them
    looks     at the loss, evenly spread over every training; the last is at its end. Each is stored like any stage; the paper
              looks 500 times
    split     test, val or train: the data of the metric

    early_stop  the step of that least loss, counted from where the training starts, in percent of a dense training
    then, last  the metric at that step and at the end; with its sign changed where lower is better
    """
    if looks < 1:
        raise PruningError(f"looks is {looks}; at least one is needed, at the end")
    makers = {name: CONTROLS[one_of("control", name, CONTROLS)] for name in controls}
    yield {"network": "dense", "density": 1.0, **_course(lab, Ticket({}, lab.ones(), lab.start("init")), looks, split)}
    networks = []  # all are made before any is looked at: what is trained for a look is no part of a search
    for ticket in lab.tickets(method, densities, **(options or {})):
        if ticket.trained:
            raise NotApplicable(f"method {method} finds its masks while it trains: there is no training of a ticket to look at")
        density = next(iter(ticket.densities.values()))
        networks += [("ticket", density, ticket), *((name, density, make(ticket, lab)) for name, make in makers.items())]
    for name, density, network in networks:
        yield {"network": name, "density": density, **_course(lab, network, looks, split)}


def _course(lab: Lab, network: Ticket, looks: int, split: str) -> dict[str, float]:
    """One training, looked at on its way. Of equal losses the earliest is the least."""
    first, last = lab.span(network.start, network.schedule)
    seen = []
    for step in dict.fromkeys(first + math.ceil((last - first) * look / looks) for look in range(1, looks + 1)):
        # every stretch goes on from the one before
        state = lab.train(network.start, network.masks, network.schedule, step, slim=network.slim)
        seen.append((lab.loss(lab.network(state), "val"), step, state))
    _, step, best = min(seen)
    then, last = (lab.signed_metric(lab.network(seen_at), split) for seen_at in (best, state))
    return {"early_stop": 100 * (step - first) / lab.steps, "then": then, "last": last}
