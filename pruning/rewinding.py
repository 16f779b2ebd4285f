"""Start states of a training by name: untrained or pre-trained weights, the end of the dense training, or a step of it.

init                               the initial weights; for a pre-trained task the pre-trained ones with a fresh head
reinit                             weights drawn from another seed, none of them pre-trained
pretrained                         the same as init, for tasks that have pre-trained weights; where training begins with
                                   pre-training, its end
shuffled_layers, shuffled_weights  pre-trained weights shuffled, see ``SHUFFLES``
end                                the trained dense network
2ep, 500it, 10%                    a step of the dense training: epochs, iterations, or a share of its length

Rewinding to an early step instead of the initial weights is due to Frankle et al. (2020).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.errors import NotApplicable, PruningError
from pruning.maskable import Maskable

Shuffle = Callable[[Mapping[str, Tensor], list[Maskable], torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Rewind:
    """A start state: weights that no training made, or a step of the dense training that starts from them."""

    weights: str
    """One of ``UNTRAINED``."""
    step: int | None = None
    """The step of the dense training; None where it is not trained."""
    needs_pretrained: bool = False
    """Whether the task must have pre-trained weights."""


def parse(text: str, steps_per_epoch: int, steps: int, pretraining_steps: int = 0) -> Rewind:
    """Return the start state that ``text`` names, for a dense training of ``steps`` steps that begins with ``pretraining_steps``
    of pre-training.

    Raises PruningError for an unknown name and for a step that is not before the end of the training.
    """
    if text == "pretrained" and pretraining_steps:
        return Rewind("init", pretraining_steps)
    if text == "pretrained" or text in SHUFFLES:
        return Rewind("init" if text == "pretrained" else text, needs_pretrained=True)
    if text in UNTRAINED:
        return Rewind(text)
    if text == "end":
        return Rewind("init", steps)
    match = re.fullmatch(r"(\d+)(ep|it|%)", str(text))
    if not match:
        raise PruningError(f"rewind={text} is not init, reinit, pretrained, end or a step such as 2ep, 500it or 10%")
    step = math.floor(int(match[1]) * {"ep": steps_per_epoch, "it": 1, "%": steps / 100}[match[2]] + 0.5)
    if step >= steps:
        raise PruningError(f"rewind={text} is step {step}, but one training has only {steps}: choose an earlier one")
    return Rewind("init", step)


def shuffled_layers(weights: Mapping[str, Tensor], maskables: list[Maskable], generator: torch.Generator) -> dict[str, Tensor]:
    """Return the maskable weights with whole layers exchanged (Chen et al. 2020, as their code shuffles pre-trained weights).

    Layer n consists of the n-th tensor of every kind and shape that occurs more than once; each must occur equally often, or
    NotApplicable is raised.
    """
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for m in maskables:
        alike[m.kind, m.shape].append(m.name)
    stacks = [names for names in alike.values() if len(names) > 1]
    counts = sorted({len(names) for names in stacks})
    if len(counts) != 1:
        raise NotApplicable(
            "shuffled layers need layers of one shape, as an encoder's are; here tensors of one kind and shape "
            f"come in numbers of {', '.join(map(str, counts)) or 'one'}"
        )
    order = list(range(counts[0]))
    while order == sorted(order):
        order = torch.randperm(counts[0], generator=generator).tolist()
    return {names[to]: weights[names[of]] for names in stacks for to, of in enumerate(order)}


def shuffled_weights(weights: Mapping[str, Tensor], maskables: list[Maskable], generator: torch.Generator) -> dict[str, Tensor]:
    """Return the maskable weights with the entries of every tensor permuted within it."""

    def permuted(tensor: Tensor) -> Tensor:
        order = torch.randperm(tensor.numel(), generator=generator)
        return tensor.reshape(-1)[order.to(tensor.device)].reshape(tensor.shape)

    return {m.name: permuted(weights[m.name]) for m in maskables}


SHUFFLES: dict[str, Shuffle] = {"shuffled_layers": shuffled_layers, "shuffled_weights": shuffled_weights}
"""Name of a start state -> function that computes its maskable weights from the pre-trained ones."""
UNTRAINED = ("init", "reinit", *SHUFFLES)
"""Start states that are computed and never trained."""
