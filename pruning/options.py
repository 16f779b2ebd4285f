"""Options that several methods share: their meaning and their choices, said once.

A method's own docstring comes first: a line "name  meaning" there replaces the meaning here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from pruning.allocation.allocate import SCHEMES

MEANINGS = {
    "score": "what ranks the entries (bench list scores)",
    "rewind": "the state that a ticket starts from: init, a step such as 2ep, 500it or 10%, pretrained, reinit, or end for the "
              "trained weights",
    "schedule": "how a ticket is trained: replay (the rest of the schedule from the rewind step), whole, or constant (low rate)",
    "scheme": "how the density is distributed over layers: " + ", ".join(SCHEMES),
    "layers": "how the density is distributed over layers: " + ", ".join(SCHEMES),
    "rate": "largest share of the remaining entries pruned in one round; null prunes once for each density asked for",
    "rounds": "number of times the network is scored and pruned, for each density from the whole network",
    "path": "densities after the rounds: exponential or linear",
    "floors": "whether every tensor keeps a least number of entries; the papers let a tensor lose all of them",
    "per_class": "training examples of each class, not augmented",
    "balanced": "whether every class has equally many examples; false draws as many whatever their class",
    "mode": "eval or train: batch norm by running or by batch statistics; train also turns dropout on",
    "temperature": "number that logits are divided by",
    "optimizer": "optimizer of the scores: sgd (momentum 0.9) or adam",
    "lr": "peak learning rate of the scores",
    "weight_decay": "weight decay of the scores",
    "window": "number of earlier masks that the newest is compared with",
    "eps": "distance below which masks count as settled",
    "normalised": "whether distances are divided by the first one that is not 0; false takes the share of entries that differ",
    "stop": "the budgets that must settle: each, joint for their mean, or the name of one budget",
    "after": "epochs before which no ticket emerges",
    "every": "epochs between two masks",
    "l1": "strength of the L1 penalty on the ranked scales while searching",
    "bits": "bits of block floating point in which the search trains; null trains in the task's precision",
    "weights": "weights that the ticket is trained from: inherit (where it emerged), reset (initial) or reinit (new)",
    "rho": "strength of the penalty that draws values towards a sparse copy",
    "penalty": "strength of the penalty on the scores",
    "interval": "steps between two updates of the masks; null takes 100, or a twentieth of a training under 2,000 steps",
    "drop": "share of the remaining entries dropped at the first update; it falls along a cosine",
    "begin": "share of the training before masks move",
    "until": "share of the training after which masks rest",
    "period": "epochs between two reductions; null takes the method's own pace",
    "maker": "method whose masks are taken: one_shot, imp or admm",
}


def meanings(function: Callable[..., Any]) -> dict[str, str]:
    """Return the meaning of every option of a method, from its docstring or from ``MEANINGS``, else empty text."""
    lines, name, own = (inspect.getdoc(function) or "").splitlines(), "", dict[str, str]()
    for line in lines:
        if match := re.fullmatch(r"(\w+(?:, \w+)*)  +(\S.*)", line):
            for name in match[1].split(", "):
                own[name] = match[2]
        elif name and line.startswith("   "):
            own[name] += f" {line.strip()}"
        else:
            name = ""
    parameters = list(inspect.signature(function).parameters)[2:]
    return {option: own.get(option, MEANINGS.get(option, "")) for option in parameters}
