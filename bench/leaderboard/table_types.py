"""Tables as plain data: rows of typed cells that hold values and what is known of them. ``format`` makes texts of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.leaderboard.statistics import Estimate

Column = tuple[tuple[str, float], ...]
"""The requested density of every budget, (budget, density); empty for the whole network."""


@dataclass(frozen=True)
class Table:
    """A table. A cell is a text, a tuple of texts (one for each line), or one of the types below."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Bold(str):
    """A text that a renderer emphasises."""


@dataclass(frozen=True)
class Label:
    """The name of a row. ``link``: a relative address, or empty; ``control``: the row is a control of the ticket above it."""

    text: str
    link: str = ""
    control: bool = False


@dataclass(frozen=True)
class Problems:
    """Numbers of seeds without a result, and whether the method is not applicable."""

    diverged: int = 0
    failed: int = 0
    not_applicable: bool = False


@dataclass(frozen=True)
class MetricCell:
    """The test metric of one row at one density, over the seeds.

    ``difference`` is paired, to dense; ``best``: not separable from the best of the column; ``explains``: this control is not
    separably worse than its ticket; ``emptied``: the most tensors of which nothing is kept; ``disconnected``: seeds whose
    input and output no path connects; ``untrained``: the metric before the weights were trained; ``reproduced`` and
    ``disputed``: seeds whose re-run agrees with them, and does not.
    """

    mean: Estimate | None = None
    difference: Estimate | None = None
    best: bool = False
    provisional: bool = False
    matches: bool = False
    explains: bool = False
    emptied: int = 0
    disconnected: int = 0
    untrained: Estimate | None = None
    reproduced: int = 0
    disputed: int = 0
    problems: Problems = field(default_factory=Problems)


@dataclass(frozen=True)
class SanityCell:
    """(control, lead of the ticket over it, whether the lead is separable from 0 or None if unknown) for every control."""

    checks: tuple[tuple[str, Estimate, bool | None], ...] = ()


@dataclass(frozen=True)
class TransferCell:
    """Paired difference to dense of masks that were found on other data."""

    difference: Estimate | None = None
    matches: bool = False
    problems: Problems = field(default_factory=Problems)


@dataclass(frozen=True)
class DenseTrainings:
    """A cost in trainings of the dense network, and the same if masked entries cost nothing."""

    dense: float
    sparse: float | None = None


@dataclass(frozen=True)
class Speedups:
    """Measured speed-ups of inference and of a training step over dense; ``theoretical``: pruned, but not measured."""

    measured: tuple[float, ...] = ()
    theoretical: bool = False


@dataclass(frozen=True)
class Percent:
    """A fraction, in percent."""

    value: float


@dataclass(frozen=True)
class Seconds:
    """A duration in seconds."""

    value: float


@dataclass(frozen=True)
class Measurement:
    """A number of an analysis, of any size; None where no seed has it."""

    estimate: Estimate | None


@dataclass(frozen=True)
class Share:
    """A retention, a score made of retentions, or another share near 1, with the ends of its 95 % interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ratio:
    """How many of how many."""

    count: int
    of: int


@dataclass(frozen=True)
class MeanRank:
    """A rank averaged over events."""

    value: float
