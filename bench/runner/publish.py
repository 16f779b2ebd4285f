"""Publish records: validate them and copy them to the leaderboards."""

from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.storage.analysis_records import AnalysisRecord, read_any
from bench.storage.records import Record, read_records, read_sealed, write_record


def publish(run: Path, root: Path) -> list[Path]:
    """Validate the records of ``run`` (a folder or one file) and store them below ``root``, all or none.

    Refused are a ticket without its dense baseline of the same seed, a record of changed code, and a failed job.
    """
    sealed = [read_any(path) for path in ([run] if run.suffix == ".json" else sorted(run.rglob("*.json")))]
    if not sealed:
        raise BenchError(f"no records below {run}: give the runs=DIR of a bench run")
    for record in sealed:
        if record.environment.get("git_dirty"):
            raise BenchError(
                f"record {record.id} was made by code with uncommitted changes: commit them, delete {run} and run again"
            )
    records = [record for record in sealed if isinstance(record, Record)]
    for record in records:
        if record.status == "failed":
            raise BenchError(f"record {record.id} failed ({record.reason}): run its command again")
    baselines = {setting_and_seed(r) for r in [*records, *read_records(root)] if r.identity.method == "dense"}
    for record in records:
        if setting_and_seed(record) not in baselines:
            raise BenchError(
                f"record {record.id} has no dense baseline of seed {record.identity.seed} beside it: publish the whole run"
            )
    for record in sealed:
        _refuse_other_precision(record, record.path(root))
    return [write_record(record, root) for record in sealed]


def _refuse_other_precision(record: Record | AnalysisRecord, published: Path) -> None:
    """Refuse to replace a published record by one of another precision, which has the same id (``train.precision: auto``)."""
    if published.exists() and (other := read_sealed(published, type(record)).precision) != record.precision:
        raise BenchError(
            f"record {record.id} was made in {record.precision} and would replace the one made in {other} that is published: "
            "to publish both, run the command of the fp32 one again with train.precision=fp32, which is a setting of its own"
        )


def setting_and_seed(record: Record) -> tuple[Any, ...]:
    """Return what a record shares with its dense network: what decides the numbers of that, and last the seed."""
    identity = record.identity
    return identity.task, identity.task_version, identity.fingerprint, identity.protocol, str(identity.config), identity.seed
