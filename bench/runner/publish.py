"""Publish records: validate them and copy them to the leaderboards."""

from pathlib import Path
from typing import Any

from bench.errors import BenchError
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
    baselines = {
        setting_of(r) for r in [*records, *(read_records(root) if root.exists() else [])] if r.identity.method == "dense"
    }
    for record in records:
        if setting_of(record) not in baselines:
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


def setting_of(record: Record) -> tuple[Any, ...]:
    """Return what a record shares with the dense network beside it; its seed is last."""
    who = record.identity
    return who.task, who.task_version, who.fingerprint, who.protocol, str(who.config), who.seed
