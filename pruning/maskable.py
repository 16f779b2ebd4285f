"""What may be masked: a named tensor, described by the task so that a method never looks at names or module types."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from pruning.errors import NotApplicable


@dataclass(frozen=True)
class Maskable:
    """A named tensor whose entries may be masked.

    name    key in ``model.named_parameters()`` (a tied parameter is listed once)
    shape   its shape
    kind    conv, linear, query, key, value, out, ffn, pooler, embedding, edge, ...: for methods that treat kinds apart
    budget  the set of entries it shares a density with: weights, edges, channels, heads
    floor   the fewest entries an allocation may leave in it
    groups  int64 tensor of ``shape``: entries with one group number share one decision, in whatever
            tensors of the budget they are; None: each decides alone
    follows its entries have no say in their groups' decisions: whatever scores them, it is 0
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    budget: str = "weights"
    floor: int = 1
    groups: Tensor | None = field(default=None, compare=False, repr=False)
    follows: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def budgets(maskables: list[Maskable]) -> list[str]:
    """The budgets of ``maskables``, in order of first appearance."""
    return list(dict.fromkeys(m.budget for m in maskables))


def ungrouped(maskables: list[Maskable], who: str) -> list[Maskable]:
    """``maskables``, if every entry of them decides alone; else ``who`` cannot serve the task."""
    for m in maskables:
        if m.groups is not None:
            raise NotApplicable(f"{who} decides entry by entry, but those of {m.name} stand and fall in groups")
    return maskables
