"""What `bench speed` measured, as columns of boards and as the table of docs/speed.md."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.leaderboard import format
from bench.leaderboard.analysis_tables import groups
from bench.leaderboard.statistics import mean
from bench.leaderboard.table_types import Table
from bench.storage.analysis_records import AnalysisRecord, Value

NAME = "speed"
"""Of the analysis whose records these are."""
SPEEDUP, FEWER = "speed-up", "fewer MACs"
"""Columns of its rows: over the dense network in the same runtime, measured; of multiply-adds, in theory."""
RUNTIMES = ("eager", "compiled", "ONNX Runtime", "eager fp16")
WHOLE = ("dense", "masked")
"""Networks that skip nothing."""


class Fastest(NamedTuple):
    """The largest speed-up that was measured of a ticket, and of which form."""

    speedup: float
    form: str


def fastest(analyses: Iterable[AnalysisRecord]) -> dict[str, Fastest]:
    """Stage of a trained ticket -> its fastest form that skips what is pruned."""
    found: dict[str, Fastest] = {}
    for record in analyses:
        if record.identity.analysis == NAME:
            for row in record.rows:
                speedup = row[SPEEDUP]
                if row["network"] not in WHOLE and isinstance(speedup, int | float):
                    form = Fastest(float(speedup), f"{row['network']}, {row['runtime']}, batch {row['batch']}, {_on(record)}")
                    found[record.stages[-1]] = max(found.get(record.stages[-1], form), form)
    return found


def speed_table(analyses: Iterable[AnalysisRecord]) -> Table:
    """A row for each ticket, form and batch, and a column for each runtime: the measured speed-ups, means over seeds."""
    rows = []
    used: set[str] = set()
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for group in groups(record for record in analyses if record.identity.analysis == NAME).get(NAME, []):
        first = group.records[0]
        identity, by_row = first.identity, defaultdict[tuple[Value, Value], dict[str, Mapping[str, float]]](dict)
        kept = ", ".join(f"{budget} {format.number(share)}" for of in identity.densities for budget, share in of.items())
        for (network, runtime, batch), measured in group.table().items():
            by_row[network, batch][str(runtime)] = {name: value.mean for name, value in measured.items()}
        for (network, batch), of in by_row.items():
            if network != WHOLE[0]:
                about = next(iter(of.values()))
                key = (
                    f"{identity.model}, {identity.data}: {kept or 'nothing pruned'}",
                    str(network),
                    str(batch),
                    _on(first),
                    format.ratio(about[FEWER]),
                )
                cells[key] = {runtime: format.ratio(measured[SPEEDUP]) for runtime, measured in of.items()}
                used |= of.keys()
    shown = [runtime for runtime in RUNTIMES if runtime in used]
    rows = [[*key, *(of.get(runtime, "") for runtime in shown)] for key, of in cells.items()]
    return Table(["Ticket: density", "Form", "Batch", "On", "Fewer MACs (theoretical)", *shown], rows)


def instructions(environment: Mapping[str, Any]) -> str:
    """The widest instructions of the CPU that were used, of the environment of a record."""
    return str(environment.get("onednn_limit") or environment["instruction_set"])


def _on(record: AnalysisRecord) -> str:
    """The device, and the widest instructions of the CPU that were used."""
    return f"{record.environment['device']}, {instructions(record.environment)}"


def mean_speedup(stages: Iterable[str], known: Mapping[str, Fastest]) -> tuple[str, ...]:
    """The cell of tickets that ended in ``stages``, one a seed: the mean of what was measured, and the form of the first."""
    measured = [known[stage] for stage in stages if stage in known]
    return (f"{format.ratio(mean(one.speedup for one in measured))} x", measured[0].form) if measured else ()
