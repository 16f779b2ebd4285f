"""Patterns: which entries of a weight may be kept together, so that hardware or a smaller layer can use what is pruned.

    2:4          exactly two of every four neighbours along the input axis, in every output and at every kernel position; any n:m
    rows         equally many entries in every row: constant fan-in, as SRigL has it
    block:4x1    whole blocks of outputs x inputs, at every kernel position; any block:RxC
    channels     whole rows: all weights that an output channel reads

A pattern is a value of the maskables (``Maskable.pattern``), so that whatever allocates by them keeps it: every method, score and
control. A *row* is all that one output reads.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.errors import NotApplicable, PruningError
from pruning.maskable import Maskable

TOLERANCE = 1e-9
"""Rounding error that a product of a density and a number of entries may have."""
EXAMPLES = {"2:4": "any n:m", "rows": "", "channels": "", "block:4x4": "any block:RxC"}


@dataclass(frozen=True)
class Cells:
    """Patterns that keep equally many entries of every cell, a part of a row."""

    def of(self, m: Maskable) -> Tensor:
        """Return the number of every entry's cell, int64 in the shape of ``m``; cells are numbered from 0."""
        raise NotImplementedError

    def reached(self, density: float, size: int) -> float:
        """Return the density that ``density`` of ``size`` entries stands for. PruningError if it is below the pattern's own."""
        return density


@dataclass(frozen=True)
class NofM(Cells):
    """Exactly ``n`` of every ``m`` neighbours along the input axis. Where the number of inputs is no multiple of ``m``, the
    neighbours that are left over keep their share, rounded down or up, never more than ``n``."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def of(self, m: Maskable) -> Tensor:
        return _parts(m, 1, self.m)

    def reached(self, density: float, size: int) -> float:
        own = self.n / self.m
        if math.floor(density * size + 0.5) == math.floor(own * size + 0.5):
            return own
        if density < own:
            raise PruningError(f"pattern {self} has density {own!r}, not {density!r}: ask for {own!r}")
        return density


@dataclass(frozen=True)
class Rows(Cells):
    """Equally many entries in every row."""

    def __str__(self) -> str:
        return "rows"

    def of(self, m: Maskable) -> Tensor:
        return _parts(m, 1, None)


@dataclass(frozen=True)
class Blocks:
    """Whole blocks of ``outputs`` x ``inputs`` at every kernel position, those at the far edges perhaps smaller. None: all
    inputs and kernel positions, which makes whole rows."""

    outputs: int
    inputs: int | None

    def __str__(self) -> str:
        return "channels" if self.inputs is None else f"block:{self.outputs}x{self.inputs}"

    def of(self, m: Maskable) -> Tensor:
        """Return the number of every entry's block, int64 in the shape of ``m``; blocks are numbered from 0."""
        return _parts(m, self.outputs, self.inputs)


Pattern = NofM | Rows | Blocks


def parse(text: str) -> Pattern:
    """Return the pattern that ``text`` names; PruningError, with what may have been meant, for anything else."""
    text = str(text)
    if text == "rows":
        return Rows()
    if text == "channels":
        return Blocks(1, None)
    if (found := re.fullmatch(r"(\d+):(\d+)", text)) and 0 < int(found[1]) < int(found[2]):
        return NofM(int(found[1]), int(found[2]))
    if (found := re.fullmatch(r"block:(\d+)x(\d+)", text)) and int(found[1]) and int(found[2]):
        return Blocks(int(found[1]), int(found[2]))
    numbers = re.findall(r"\d+", text)
    meant = [f"{numbers[0]}:{numbers[1]}", f"block:{numbers[0]}x{numbers[1]}"] if len(numbers) == 2 else []
    near = difflib.get_close_matches(text, [*meant, *EXAMPLES], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near and near[0] != text else ";"
    known = ", ".join(f"{name} ({more})" if more else name for name, more in EXAMPLES.items())
    raise PruningError(f"unknown pattern {text!r}{hint} one of: {known}, where n is less than m and both are above 0")


def applied(pattern: Pattern | str, maskables: list[Maskable]) -> list[Maskable]:
    """Return the maskables with the pattern on all weights that have outputs and inputs and whose entries decide alone; others
    stay as they are. NotApplicable where there is no such weight."""
    pattern = parse(pattern) if isinstance(pattern, str) else pattern
    first = 1 + max((int(m.groups.max()) for m in maskables if m.groups is not None and m.groups.numel()), default=-1)
    patterned = []
    for m in maskables:
        if len(m.shape) < 2 or m.groups is not None:
            patterned.append(m)
        elif isinstance(pattern, Blocks):
            groups = pattern.of(m) + first
            first = 1 + int(groups.max())
            patterned.append(replace(m, pattern=pattern, groups=groups))
        else:
            patterned.append(replace(m, pattern=pattern))
    if all(m.pattern is None for m in patterned):
        raise NotApplicable(f"pattern {pattern} is one of weights with outputs and inputs, and none of these may be pruned here")
    return patterned


def check_densities(densities: Mapping[str, float], maskables: list[Maskable]) -> None:
    """Raise PruningError unless tickets of these densities can have the maskables' patterns exactly: n:m has density n / m."""
    for budget, density in densities.items():
        for m in maskables:
            if m.budget == budget and isinstance(m.pattern, NofM):
                own, size = m.pattern.n / m.pattern.m, sum(o.size for o in maskables if o.budget == budget)
                if m.pattern.reached(density, size) != own:
                    raise PruningError(f"pattern {m.pattern} has density {own!r}, not {density!r}: ask for {own!r}")


def broken(masks: Mapping[str, Tensor], maskables: list[Maskable]) -> str | None:
    """Return the name of the first tensor whose mask has not the pattern of its maskable, or None. A row may be empty: its unit
    was ablated."""
    for m in maskables:
        if m.pattern is None:
            continue
        of = m.pattern.of(m).reshape(-1)
        size = torch.bincount(of)
        kept = torch.bincount(of, weights=masks[m.name].reshape(-1).double()).long()
        if isinstance(m.pattern, NofM):
            share = m.pattern.n / m.pattern.m * size.double()
            right = (kept >= (share + TOLERANCE).floor()) & (kept <= (share - TOLERANCE).ceil())
            right &= (size < m.pattern.m) | (kept == m.pattern.n)
        elif isinstance(m.pattern, Rows):
            right = (kept == 0) | (kept == kept.max())
        else:
            right = (kept == 0) | (kept == size)
        if not bool(right.all()):
            return m.name
    return None


def shuffled(mask: Tensor, m: Maskable, generator: torch.Generator) -> Tensor:
    """Return the mask of a tensor permuted as its pattern allows: within every cell, or whole blocks among those of one size."""
    assert m.pattern is not None
    of = m.pattern.of(m).reshape(-1)
    if isinstance(m.pattern, Blocks):
        size = torch.bincount(of)
        kept = torch.zeros(len(size), dtype=torch.bool)
        kept[of] = mask.reshape(-1)
        return _permuted(kept, size, generator)[of].reshape(mask.shape)
    return _permuted(mask.reshape(-1), of, generator).reshape(mask.shape)


def _permuted(values: Tensor, parts: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``values`` permuted among those with the same number in ``parts``."""
    order = torch.randperm(len(values), generator=generator)
    drawn, permuted = order[torch.argsort(parts[order], stable=True)], values.clone()
    permuted[drawn] = values[torch.argsort(parts, stable=True)]
    return permuted


def _parts(m: Maskable, outputs: int, inputs: int | None) -> Tensor:
    """Return the number of every entry's part, int64 in the shape of ``m``, counted from 0: parts are ``outputs`` x ``inputs`` at
    every kernel position, or whole rows of all inputs and kernel positions where ``inputs`` is None."""
    row, column = (
        torch.arange(m.shape[axis]).reshape([-1 if axis == other else 1 for other in range(len(m.shape))])
        for axis in (1 - m.input_axis, m.input_axis)
    )
    part = row // outputs
    if inputs is not None:
        position = torch.arange(math.prod(m.shape[2:])).reshape(m.shape[2:])  # in the kernel
        part = (part * -(-m.shape[m.input_axis] // inputs) + column // inputs) * position.numel() + position
    return part.expand(m.shape).contiguous()
