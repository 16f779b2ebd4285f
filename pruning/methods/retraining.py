"""Retraining under masks found on the trained network: from the trained weights or from early ones (Liu et al. 2021). The
retraining techniques of Renda et al. (2020) are ``one_shot`` and ``imp`` with these options: learning-rate rewinding is
rewind=end, schedule=whole; weight rewinding a step and schedule=replay; fine-tuning rewind=end, schedule=constant."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from pruning.errors import one_of
from pruning.lab import Lab
from pruning.metadata import method
from pruning.methods.admm import admm
from pruning.methods.magnitude import imp, one_shot
from pruning.ticket import Densities, Method, Ticket

MASK_METHODS: dict[str, Method] = {"one_shot": one_shot, "imp": imp, "admm": admm}


@method(sequential={"maker": "imp"})
def prune_finetune(lab: Lab, densities: list[Densities], maker: str = "one_shot", scheme: str = "global") -> Iterator[Ticket]:
    """Train the trained weights under masks once more by the whole schedule, as long as ``lottery`` (Liu et al. 2021).

    maker   the method that finds the masks: one_shot, imp or admm
    scheme  the layerwise distribution of the kept entries
    """
    return _retrained(maker, lab, densities, scheme, "end")


@method(sequential={"maker": "imp"})
def lottery(
    lab: Lab, densities: list[Densities], maker: str = "one_shot", rewind: str = "init", scheme: str = "global"
) -> Iterator[Ticket]:
    """Train the initial weights, or those of an early step, by the whole schedule under the masks of ``prune_finetune``. Other
    options as those of ``prune_finetune``.

    rewind  the start state: init, or a step such as 1ep
    """
    return _retrained(maker, lab, densities, scheme, rewind)


def _retrained(maker: str, lab: Lab, densities: list[Densities], scheme: str, rewind: str) -> Iterator[Ticket]:
    start = lab.start(rewind)
    tickets = MASK_METHODS[one_of("maker", maker, MASK_METHODS)](lab, densities, scheme=scheme)
    for ticket in islice(tickets, len(densities)):  # islice stops imp at its last ticket, which it would otherwise train
        yield replace(ticket, start=start, schedule="whole")
