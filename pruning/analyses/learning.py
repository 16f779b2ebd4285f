"""Speed of learning: the step at which early stopping would have stopped each network (Frankle & Carbin 2019)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pruning.controls import CONTROLS
from pruning.errors import NotApplicable, PruningError, one_of
from pruning.lab import Lab
from pruning.metadata import Row, analysis
from pruning.ticket import Densities, Ticket


@analysis(keys=("network", "density"), plots=("early_stop", "then"))
def learning(
    lab: Lab,
    densities: list[Densities],
    method: str = "imp",
    options: Mapping[str, Any] | None = None,
    controls: Sequence[str] = ("reinit",),
    looks: int = 20,
    split: str = "test",
) -> Iterator[Row]:
    """Find the step with the smallest validation loss in the training of the dense network, of a method's tickets and of their
    controls (Frankle & Carbin 2019). It is found afterwards: every training runs to its end.

    method    the method of the tickets
    options   options of that method
    controls  controls of the tickets to measure as well
    looks     number of evaluations, evenly spread over every training up to its end; each is stored. 500 in the paper
    split     data of the metric: test, val or train

    early_stop  the step of the smallest loss, counted from the start of the training, in percent of a dense training
    then        the metric at that step, with its sign changed where lower is better
    last        the same metric at the end
    """
    if looks < 1:
        raise PruningError(f"looks is {looks}; at least one is needed, at the end")
    controlled = {name: CONTROLS[one_of("control", name, CONTROLS)] for name in controls}
    yield {"network": "dense", "density": 1.0, **_course(lab, Ticket({}, lab.ones(), lab.start("init")), looks, split)}
    networks = []  # all tickets come first, so that trainings for evaluations are not charged to a search
    for ticket in lab.tickets(method, densities, **(options or {})):
        if ticket.trained:
            raise NotApplicable(f"method {method} finds its masks while it trains, so no training of a ticket can be observed")
        density = next(iter(ticket.densities.values()))
        networks += [("ticket", density, ticket), *((name, density, make(ticket, lab)) for name, make in controlled.items())]
    for name, density, network in networks:
        yield {"network": name, "density": density, **_course(lab, network, looks, split)}


def _course(lab: Lab, network: Ticket, looks: int, split: str) -> dict[str, float]:
    """Evaluate one training at regular steps; of equal losses the earliest counts."""
    first, total = lab.span(network.start, network.schedule)
    evaluated = []
    for step in dict.fromkeys(first + math.ceil((total - first) * look / looks) for look in range(1, looks + 1)):
        # each part continues from the one before
        state = lab.train(network.start, network.masks, network.schedule, step, slim=network.slim)
        evaluated.append((lab.loss(lab.network(state), "val"), step, state))
    _, step, best = min(evaluated)
    then, last = (lab.signed_metric(lab.network(state), split) for state in (best, state))
    return {"early_stop": 100 * (step - first) / lab.steps, "then": then, "last": last}
