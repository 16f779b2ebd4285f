"""Maskables: named tensors that may be pruned, described by the task so that no method looks at names or module types."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from pruning.errors import NotApplicable, PruningError


@dataclass(frozen=True)
class Maskable:
    """A named tensor whose entries may be masked.

    name        key in ``model.named_parameters()`` (a tied parameter is listed once)
    shape       its shape
    kind        conv, linear, query, key, value, out, ffn, pooler, embedding, edge, ...: for methods that treat kinds differently
    budget      the set of entries that share a density: weights, edges, channels, heads
    floor       the fewest entries that an allocation may leave in it
    groups      int64 tensor of ``shape``: entries with the same number are kept or pruned together, in all tensors of the
                budget; None: every entry is decided alone
    follows     its entries do not count in the decision on their groups: their score is always 0
    network     the number of the network that it is part of, where independent ones are trained side by side, such as those of
                a cross-validation: tensors of different networks are never ranked together
    input_axis  the axis of the inputs: 1 for weights (out, in, ...), as torch's layers have them, 0 for weights (in, out, ...)
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    budget: str = "weights"
    floor: int = 1
    groups: Tensor | None = field(default=None, compare=False, repr=False)
    follows: bool = False
    input_axis: int = 1
    network: int = 0

    def __post_init__(self) -> None:
        if self.input_axis not in (0, 1):
            raise PruningError(f"the input axis of {self.name} is {self.input_axis}; it must be 0 or 1")

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Number of entries that each output reads: inputs times kernel size. 1 for a vector."""
        return math.prod(n for axis, n in enumerate(self.shape) if axis != 1 - self.input_axis)


def budgets(maskables: list[Maskable]) -> list[str]:
    """Return the budgets of ``maskables``, in order of first appearance."""
    return list(dict.fromkeys(m.budget for m in maskables))


def ungrouped(maskables: list[Maskable], method: str) -> list[Maskable]:
    """Return ``maskables`` unless they have groups: NotApplicable then says that ``method`` does not support them."""
    for m in maskables:
        if m.groups is not None:
            raise NotApplicable(f"{method} decides entry by entry, but those of {m.name} are kept or pruned in groups")
    return maskables
