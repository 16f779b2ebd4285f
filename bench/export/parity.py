"""Parity: whether two forms of a network say the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.export.runtimes import Runner

TOLERANCE = 1e-4
"""Of outputs, relative to the largest of them where that is above 1: forms that differ more do not compute the same."""


@dataclass(frozen=True)
class Parity:
    """What was compared.

    form        the form of the network that was compared with the trained one
    difference  the largest of two outputs
    scale       the largest output, 1 at least
    equal       answers that are equal, of ``answers``
    """

    form: str
    difference: float
    scale: float
    equal: int
    answers: int

    def __str__(self) -> str:
        answers = f"{self.equal:,} of {self.answers:,} answers equal"
        return f"{self.form}: largest difference {self.difference:.1e}, {answers} on validation"

    def check(self) -> None:
        """BenchError where the two do not compute the same."""
        if not self.difference <= TOLERANCE * self.scale:
            raise BenchError(f"{self}: more than rounding ({TOLERANCE:g} of {self.scale:.3g}), so nothing was written")


def compare(form: str, trained: Runner, other: Runner, batches: Iterable[Sequence[Tensor]]) -> Parity:
    """Run both on the same inputs. An answer is the place of the largest output; where there is but one output an example, two
    within the tolerance are the same answer."""
    difference, scale, equal, answers = 0.0, 1.0, 0, 0
    for inputs in batches:
        for one, two in zip(trained(inputs), other(inputs), strict=True):
            apart = (one - two).abs()
            difference, scale = max(difference, _largest(apart)), max(scale, _largest(one.abs()))
            single = one.ndim == 1 or one.shape[-1] == 1
            same = apart <= TOLERANCE * scale if single else one.argmax(-1) == two.argmax(-1)
            equal, answers = equal + int(same.sum()), answers + same.numel()
    return Parity(form, difference, scale, equal, answers)


def _largest(values: Tensor) -> float:
    """The largest, infinite where one is no number."""
    return float(torch.nan_to_num(values, nan=torch.inf).max()) if values.numel() else 0.0
