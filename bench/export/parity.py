"""Parity: whether two forms of a network compute the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.export.runtimes import Runner

TOLERANCE = 1e-4
"""The largest difference of outputs that rounding may make, relative to the largest output where that is above 1."""


@dataclass(frozen=True)
class Parity:
    """The comparison of a form of a network with the trained one.

    form        the name of the form
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
        """Raise BenchError where the two do not compute the same."""
        if not self.difference <= TOLERANCE * self.scale:
            raise BenchError(f"{self}: more than rounding ({TOLERANCE:g} of {self.scale:.3g}), so nothing was written")


def compare(form: str, trained: Runner, other: Runner, batches: Iterable[Sequence[Tensor]]) -> Parity:
    """Run both on the same inputs. An answer is the place of the largest output; where there is but one output an example, two
    within the tolerance are the same answer."""
    difference, scale, equal, answers = 0.0, 1.0, 0, 0
    for inputs in batches:
        for one, two in zip(trained(inputs), other(inputs), strict=True):
            distance = (one - two).abs()
            difference, scale = max(difference, _largest(distance)), max(scale, _largest(one.abs()))
            single = one.ndim == 1 or one.shape[-1] == 1
            same = distance <= TOLERANCE * scale if single else one.argmax(-1) == two.argmax(-1)
            equal, answers = equal + int(same.sum()), answers + same.numel()
    return Parity(form, difference, scale, equal, answers)


def _largest(values: Tensor) -> float:
    """Return the largest value, infinite where one is no number."""
    return float(torch.nan_to_num(values, nan=torch.inf).max()) if values.numel() else 0.0
