"""Publish records: validate them, copy them to the leaderboards, and run them again for verification."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.errors import BenchError
from bench.runner.again import Trust, settings_of
from bench.storage.analysis_records import AnalysisRecord, read_analyses
from bench.storage.records import ANALYSIS, Record, read_record, read_records, read_sealed, write_sealed


def publish(run: Path, root: Path) -> list[Path]:
    """Validate the records of ``run`` (a folder or one file) and store them below ``root``, all or none.

    Refused are a ticket without its dense baseline of the same seed, a record of changed code, and a failed job.
    """
    records, analyses = _read(run)
    if not records and not analyses:
        raise BenchError(f"no records below {run}: give the runs=DIR of a bench run")
    for record in (*records, *analyses):
        if record.environment.get("git_dirty"):
            raise BenchError(
                f"record {record.id} was made by code with uncommitted changes: commit them, delete {run} and run again"
            )
    for record in records:
        if record.status == "failed":
            raise BenchError(f"record {record.id} failed ({record.reason}): run its command again")
    baselines = {_setting(r) for r in [*records, *(read_records(root) if root.exists() else [])] if r.identity.method == "dense"}
    for record in records:
        if _setting(record) not in baselines:
            raise BenchError(
                f"record {record.id} has no dense baseline of seed {record.identity.seed} beside it: publish the whole run"
            )
    sealed: list[Record | AnalysisRecord] = [*records, *analyses]
    for record in sealed:
        _refuse_other_precision(record, record.path(root))
    return [write_sealed(record, record.path(root)) for record in sealed]


def _read(run: Path) -> tuple[list[Record], list[AnalysisRecord]]:
    """Return the records below a folder, or the one in a file."""
    if run.name.endswith(ANALYSIS):
        return [], [read_sealed(run, AnalysisRecord)]
    if run.suffix == ".json":
        return [read_record(run)], []
    return list(read_records(run)), list(read_analyses(run))


def _refuse_other_precision(record: Record | AnalysisRecord, published: Path) -> None:
    """Refuse to replace a published record by one of another precision, which has the same id (``train.precision: auto``)."""
    if published.exists() and (other := read_sealed(published, type(record)).precision) != record.precision:
        raise BenchError(
            f"record {record.id} was made in {record.precision} and would replace the one made in {other} that is published: "
            "to publish both, run the command of the fp32 one again with train.precision=fp32, which is a setting of its own"
        )


def _setting(record: Record) -> tuple[Any, ...]:
    who = record.identity
    return who.task, who.task_version, who.fingerprint, who.protocol, str(who.config), who.seed


def verify(path: Path, tolerance: float = 0.0, trusted: Trust = lambda what: False) -> list[str]:
    """Run a record's command again in an empty store, as far as the record needs it; return the values that differ, one line
    each.

    The command is text that its sender wrote: code from outside this repository is neither imported nor run before ``trusted``
    agrees to it.
    """
    from bench.runner.environment import device
    from bench.runner.grid import run_grid
    from bench.runner.precision import BF16, native

    record = next((record for found in _read(path) for record in found), None)
    if record is None:
        raise BenchError(f"no record at {path}: name one of the .json files that `bench run` leaves below runs/")
    # another number of threads may move the last bit
    threads = [f"threads={record.environment['threads']}"] if "threads" in record.environment else []
    with tempfile.TemporaryDirectory() as folder:
        grid, analysis = settings_of(record, path, trusted, *threads, f"store={folder}/store", f"runs={folder}/runs")
        console = Console(stderr=True)
        if record.precision == BF16 and not native(device(grid[0].config["device"])):
            console.print(
                "the record was made in bf16, which this machine can only emulate: it takes many times as long, and "
                "the numbers may differ",
                soft_wrap=True,
            )
        outcome = run_grid(grid, console, analysis, record.id)[0]
        if outcome.error:
            raise BenchError(f"the record's command fails now: {outcome.error}")
        again = {r.id: r for r in outcome.records}
    if record.id not in again:
        raise BenchError(f"the record's command no longer makes record {record.id}: its task, data or defaults have changed")
    return list(_differences(record.content(), again[record.id].content(), tolerance))


def _differences(one: Any, other: Any, tolerance: float, at: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _differences(one.get(key), other.get(key), tolerance, f"{at}.{key}".lstrip("."))
    elif isinstance(one, float) and isinstance(other, float):
        if abs(one - other) > tolerance:
            yield f"{at}: recorded {one}, now {other}"
    elif one != other:
        yield f"{at}: recorded {one}, now {other}"
