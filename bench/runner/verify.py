"""A record's command, run again and compared; what came of it can be kept beside the records."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.leaderboard.sections import Cell, result_of
from bench.runner import precision
from bench.runner.environment import device, now
from bench.runner.grid import run_jobs
from bench.runner.jobs import jobs_of
from bench.runner.record_command import Trust, settings_of
from bench.runner.review import cell_key
from bench.storage.analysis_records import AnalysisRecord, read_any
from bench.storage.records import Record, read_records
from bench.storage.reruns import Rerun

MOST_DIFFERENCES = 20
"""Lines of differences that a kept re-run has."""


def nobody(what: str) -> bool:
    """Trust in no code from outside this repository."""
    return False


def verify(path: Path, tolerance: float, trusted: Trust) -> list[str]:
    """Run a record's command again in an empty store, as far as the record needs it; return the values that differ, one line
    each.

    The command is text that its sender wrote: code from outside this repository is neither imported nor run before ``trusted``
    agrees to it.
    """
    record, again = _both(path, trusted)
    return list(_differences(record.content(), again.content(), tolerance))


def rerun(path: Path, root: Path, by: Literal["CI", "elsewhere"], trusted: Trust = nobody) -> Rerun:
    """Run a record's command again, likewise, and say what came of it: whether every number is equal and, if not, whether the
    test metric lies within the interval of the record's cell in the leaderboards ``root``. BenchError where it cannot be run."""
    record, again = _both(path, trusted)
    differences = list(_differences(record.content(), again.content()))
    outcome: Literal["equal", "inside", "outside"] = "equal"
    if differences:
        outcome = (
            "inside" if isinstance(record, Record) and isinstance(again, Record) and _inside(record, again, root) else "outside"
        )
    return Rerun.make(
        record=record.id,
        record_digest=record.digest,
        by=by,
        outcome=outcome,
        differences=differences[:MOST_DIFFERENCES],
        environment=again.environment,
        created=now(),
    )


def _both(path: Path, trusted: Trust) -> tuple[Record | AnalysisRecord, Record | AnalysisRecord]:
    """A record as it is and as it is made now."""
    record = read_any(path)
    # another number of threads may move the last bit
    threads = [f"threads={record.environment['threads']}"] if "threads" in record.environment else []
    with tempfile.TemporaryDirectory() as folder:
        grid, analysis = settings_of(record, path, trusted, *threads, "jobs=1", f"store={folder}/store", f"runs={folder}/runs")
        if record.precision == precision.BF16 and not precision.native(device(grid[0].config["device"])):
            print(
                "the record was made in bf16, which this machine can only emulate: it takes many times as long, and "
                "the numbers may differ",
                file=sys.stderr,
            )
        outcome = run_jobs(jobs_of(grid, analysis, record.id))[0]
        if outcome.error:
            raise BenchError(f"the record's command fails now: {outcome.error}")
        again = {r.id: r for r in outcome.records}
    if record.id not in again:
        raise BenchError(f"the record's command no longer makes record {record.id}: its task, data or defaults have changed")
    return record, again[record.id]


def _inside(record: Record, again: Record, root: Path) -> bool:
    """Whether a new test metric lies within the 95 % interval of the cell of the record that was run again."""
    folder = record.path(root / "records").parent
    cell = Cell(tuple(r for r in read_records(folder) if cell_key(r) == cell_key(record)))
    if again.status != "ok" or not cell.done or cell.mean.half is None:
        return False
    return abs(result_of(again).test[result_of(again).metric] - cell.mean.mean) <= cell.mean.half


def _differences(one: Any, other: Any, tolerance: float = 0.0, at: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _differences(one.get(key), other.get(key), tolerance, f"{at}.{key}".lstrip("."))
    elif isinstance(one, float) and isinstance(other, float):
        if abs(one - other) > tolerance:
            yield f"{at}: recorded {one}, now {other}"
    elif one != other:
        yield f"{at}: recorded {one}, now {other}"
