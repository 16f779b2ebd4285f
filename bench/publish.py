"""Records on their way to the leaderboards: validated, copied, and run again when somebody doubts one."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.errors import BenchError
from bench.records import Record, read_record, read_records, write_record


def publish(run: Path, root: Path) -> list[Path]:
    """Validate the records of ``run`` (a folder or one file) and store them below ``root``. All or none.

    Refused: a ticket without its dense baseline of the same seed, a record of changed code, a failed job.
    """
    records = [read_record(run)] if run.is_file() else list(read_records(run))
    if not records:
        raise BenchError(f"no records below {run}: give the runs=DIR of a bench run")
    for record in records:
        if record.environment.get("git_dirty"):
            raise BenchError(f"record {record.id} was made by code with uncommitted changes: commit them, delete {run} and "
                             "run again")
        if record.status == "failed":
            raise BenchError(f"record {record.id} failed ({record.reason}): run its command again")
    baselines = {_setting(r) for r in [*records, *(read_records(root) if root.exists() else [])]
                 if r.identity.method == "dense"}
    for record in records:
        if _setting(record) not in baselines:
            raise BenchError(f"record {record.id} has no dense baseline of seed {record.identity.seed} beside it: "
                             "publish the whole run")
    return [write_record(record, root) for record in records]


def _setting(record: Record) -> tuple:
    who = record.identity
    return who.task, who.task_version, who.fingerprint, who.protocol, str(who.config), who.seed


def verify(path: Path, tolerance: float = 0.0) -> list[str]:
    """Run the record's command in an empty store; the values that differ, one line each."""
    from bench.config import settings
    from bench.run import run_grid
    record = read_record(path)
    words = shlex.split(record.command)
    if words[:2] != ["bench", "run"] or len(words) < 3:
        raise BenchError(f"the command of {path} is no `bench run TASK`: {record.command}")
    if "threads" in record.environment:  # another number of them may move the last bit
        words.append(f"threads={record.environment['threads']}")
    with tempfile.TemporaryDirectory() as folder:
        grid = settings(words[2], [*words[3:], f"store={folder}/store", f"runs={folder}/runs"])
        outcome = run_grid(grid, Console(stderr=True))[0]
        if outcome.error:
            raise BenchError(f"the record's command fails now: {outcome.error}")
        again = {r.id: r for r in outcome.records}
    if record.id not in again:
        raise BenchError(f"the record's command no longer makes record {record.id}: its task, data or defaults have changed")
    return list(_differences(record.content(), again[record.id].content(), tolerance))


def _differences(one: Any, other: Any, tolerance: float, at: str = ""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _differences(one.get(key), other.get(key), tolerance, f"{at}.{key}".lstrip("."))
    elif isinstance(one, float) and isinstance(other, float):
        if abs(one - other) > tolerance:
            yield f"{at}: recorded {one}, now {other}"
    elif one != other:
        yield f"{at}: recorded {one}, now {other}"
