"""What to do with a mask once the network is trained: retrain it as it is, or from its beginnings (Liu et al. 2021).

Learning-rate rewinding, weight rewinding and fine-tuning at a low rate (Renda et al. 2020) are ``one_shot`` and ``imp`` with
rewind and schedule = end and whole, a step and replay, end and constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from pruning.errors import one_of
from pruning.lab import Lab
from pruning.metadata import method
from pruning.methods.admm import admm
from pruning.methods.magnitude import imp, one_shot
from pruning.ticket import Densities, Ticket

MASK_METHODS = {"one_shot": one_shot, "imp": imp, "admm": admm}


def _sequential(options: Mapping[str, Any]) -> bool:
    return options["maker"] == "imp"


@method(sequential=_sequential)
def prune_finetune(lab: Lab, densities: list[Densities], maker: str = "one_shot", scheme: str = "global") -> Iterator[Ticket]:
    """The trained weights under a mask, trained once more by the whole schedule: as many epochs as ``lottery``.

    maker  whose masks: one_shot, imp or admm
    """
    return _of(maker, lab, densities, scheme, "end")


@method(sequential=_sequential)
def lottery(lab: Lab, densities: list[Densities], maker: str = "one_shot", rewind: str = "init",
            scheme: str = "global") -> Iterator[Ticket]:
    """The initial weights, or those of an early step, under the very masks of ``prune_finetune``, by the whole schedule."""
    return _of(maker, lab, densities, scheme, rewind)


def _of(maker: str, lab: Lab, densities: list[Densities], scheme: str, rewind: str) -> Iterator[Ticket]:
    start = lab.start(rewind)
    tickets = MASK_METHODS[one_of("maker", maker, MASK_METHODS)](lab, densities, scheme=scheme)
    for ticket in islice(tickets, len(densities)):  # or imp would train its last one, too
        yield replace(ticket, start=start, schedule="whole")
