"""Texts of numbers. This is the only module of the leaderboards that rounds a number or writes a mark."""

from collections.abc import Mapping
from functools import cache, singledispatch
from typing import Any

from bench.leaderboard.statistics import Estimate
from bench.leaderboard.table_types import (
    Bold,
    Column,
    DenseTrainings,
    Label,
    MeanRank,
    Measurement,
    MetricCell,
    Percent,
    Problems,
    Ratio,
    SanityCell,
    Seconds,
    Share,
    Speedups,
    TransferCell,
)

MATCHES, EXPLAINS, EMPTIED = "✓", "≈", "†"
REPRODUCED, DISPUTED = "↻", "↯"
HOLDS, FAILS = " ✓", " ✗"
MISSING = "—"


def interval(value: Estimate) -> str:
    """``75.80 ± 0.40 (3)``: the mean, the half-width of its 95 % interval, and the number of seeds."""
    half = "" if value.half is None else f" ± {value.half:.2f}"
    return f"{value.mean:z.2f}{half} ({value.n})"


def difference(value: Estimate) -> str:
    """``+2.90 ± 0.30``: a signed mean and the half-width of its 95 % interval."""
    half = "" if value.half is None else f" ± {value.half:.2f}"
    return f"{value.mean:+z.2f}{half}"


def measurement(value: Estimate, sign: str = "") -> str:
    """Like ``interval``, with significant digits instead of decimals; with ``sign`` +, always signed."""
    half = "" if value.half is None else f" ± {value.half:.2g}"
    return f"{value.mean:{sign}.4g}{half} ({value.n})"


def scalar(value: str | int | float | None) -> str:
    """A key of an analysis' row, or a number of one record."""
    return f"{value:.6g}" if isinstance(value, float) else MISSING if value is None else str(value)


def number(value: float) -> str:
    """A number without trailing zeros: a density, a margin, a tick of an axis."""
    return f"{value:g}"


def ratio(value: float) -> str:
    """A measured ratio, in three significant digits."""
    return f"{value:.3g}"


def trainings(value: float) -> str:
    """A cost in trainings of the dense network."""
    return f"{value:.2f}"


@cache
def densities(column: Column, named: bool = False) -> str:
    """``0.5``, ``weights+edges 0.5`` or ``weights 0.5, edges 0.8``; with ``named``, a single budget is named too."""
    if not column:
        return "whole network"
    if len({density for _, density in column}) == 1 and (named or len(column) > 1):
        return f"{'+'.join(budget for budget, _ in column)} {number(column[0][1])}"
    return ", ".join(f"{budget} {number(density)}" if len(column) > 1 else number(density) for budget, density in column)


def significant(value: float) -> float:
    """Round to six significant digits, so that the last bit of a library's t quantile changes no plot."""
    return float(f"{value:.6g}")


def decimals(value: float, places: int = 4) -> float:
    """Round to so many decimal places, for the same reason."""
    return round(value, places)


def problems(of: Problems) -> list[str]:
    """``1 diverged``, ``2 failed``, ``not applicable``."""
    counts: Mapping[str, int] = {"diverged": of.diverged, "failed": of.failed}
    return [*(f"{count} {status}" for status, count in counts.items() if count), *["not applicable"] * of.not_applicable]


@singledispatch
def lines(cell: Any) -> list[list[str]]:
    """The lines of a table's cell, each a list of words to be joined by spaces; words of type ``Bold`` are emphasised."""
    return [[cell]]


@lines.register(tuple)
def _(cell: tuple[str, ...]) -> list[list[str]]:
    return [[text] for text in cell]


@lines.register
def _(cell: Label) -> list[list[str]]:
    return [[*["↳"] * cell.control, cell.text]]


@lines.register
def _(cell: MetricCell) -> list[list[str]]:
    shown: list[list[str]] = []
    if cell.mean and cell.difference:
        mean = interval(cell.mean)
        shown.append([Bold(mean) if cell.best else mean])
        shown += [["provisional"]] * cell.provisional
        marks = [MATCHES] * cell.matches + [EXPLAINS] * cell.explains + [f"{EMPTIED}{cell.emptied}"] * bool(cell.emptied)
        marks += [f"{REPRODUCED}{cell.reproduced}"] * bool(cell.reproduced) + [f"{DISPUTED}{cell.disputed}"] * bool(cell.disputed)
        shown.append([f"Δ {difference(cell.difference)}", *marks])
        shown += [[f"untrained {interval(cell.untrained)}"]] if cell.untrained else []
        shown += [[f"{cell.disconnected} cut through"]] * bool(cell.disconnected)
    return [*shown, *([text] for text in problems(cell.problems))]


@lines.register
def _(cell: SanityCell) -> list[list[str]]:
    verdicts: dict[bool | None, list[str]] = {None: [], True: ["passes"], False: [Bold("fails")]}
    return [[control, difference(lead), f"({lead.n})", *verdicts[passes]] for control, lead, passes in cell.checks]


@lines.register
def _(cell: TransferCell) -> list[list[str]]:
    shown = [f"{difference(cell.difference)} ({cell.difference.n})"] if cell.difference else []
    return [[*shown, *[MATCHES] * cell.matches, *problems(cell.problems)]]


@lines.register
def _(cell: DenseTrainings) -> list[list[str]]:
    return [[" / ".join(trainings(value) for value in (cell.dense, cell.sparse) if value is not None)]]


@lines.register
def _(cell: Speedups) -> list[list[str]]:
    return [[" / ".join(f"{value:.2f} x" for value in cell.measured) or "theoretical only" * cell.theoretical]]


@lines.register
def _(cell: Percent) -> list[list[str]]:
    return [[f"{100 * cell.value:.1f} %"]]


@lines.register
def _(cell: Seconds) -> list[list[str]]:
    return [[f"{cell.value:.0f}" if cell.value >= 10 else f"{cell.value:.2g}"]]


@lines.register
def _(cell: Measurement) -> list[list[str]]:
    return [[measurement(cell.estimate) if cell.estimate else MISSING]]


@lines.register
def _(cell: Share) -> list[list[str]]:
    ends = "" if cell.low is None or cell.high is None else f" [{cell.low:z.3f}, {cell.high:z.3f}]"
    return [[f"{cell.value:z.3f}{ends}"]]


@lines.register
def _(cell: Ratio) -> list[list[str]]:
    return [[f"{cell.count} of {cell.of}"]]


@lines.register
def _(cell: MeanRank) -> list[list[str]]:
    return [[f"{cell.value:.2f}"]]


def brief(cell: Any) -> str:
    """A cell in one line, for a terminal: of a metric its interval and problems alone."""
    if isinstance(cell, MetricCell):
        return ", ".join([*([interval(cell.mean)] if cell.mean else []), *problems(cell.problems)])
    return ", ".join(" ".join(words) for words in lines(cell))
