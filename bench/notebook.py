"""Records, runs and suites as pandas frames: ``bench.records()``, ``bench.run(...)`` and ``bench.suite(...)``."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.leaderboard.boards import boards, digest
from bench.storage.files import canonical
from bench.storage.record_cache import load_records
from bench.storage.records import Record
from bench.suites import page, schema
from bench.suites.ranking import ranking

if TYPE_CHECKING:
    import pandas

ROOT = "leaderboards"
PathLike = str | os.PathLike[str]


def records(root: PathLike = ROOT) -> pandas.DataFrame:
    """Return all records below a folder, one in a row: what was asked, the test and validation metric of the ticket and of the
    dense network of its seed, the costs, and the command that makes it.

    root  a folder of records, such as ``runs``, or of leaderboards. BenchError if there is none.
    """
    return _frame(rows(read(Path(root))))


def run(task: str, *overrides: str, **options: Any) -> pandas.DataFrame:
    """Run a task as ``bench run`` does, and return the records that it made or found, one in a row as in ``records``.

    task       tasks/NAME, or the folder of a task of your own
    overrides  words of the command line, such as ``"method.rewind=1ep"``
    options    the same as Python values: ``method="imp", densities=[0.5, 0.2], seeds=[0, 1, 2]``

    Finished jobs are kept if others fail; BenchError then says why the first did.
    """
    from bench.config import settings
    from bench.runner.grid import run_jobs
    from bench.runner.jobs import jobs_of
    from bench.values import text

    words = [*overrides, *(f"{key}={text(value)}" for key, value in options.items())]
    outcomes = run_jobs(jobs_of(settings(task, words)))
    if failed := [outcome for outcome in outcomes if outcome.error]:
        raise BenchError(f"{len(failed)} of {len(outcomes)} jobs failed; the others are kept. First: {failed[0].error}")
    made = {r.id: r for outcome in outcomes for r in outcome.records if isinstance(r, Record)}
    return _frame(rows(made.values()))


def suite(name: str, runs: PathLike | None = None, root: PathLike = ROOT) -> pandas.DataFrame:
    """Return the ranking of a suite: a row for every method, best first, then those that are not ranked, with what they lack.

    runs  a folder of records that are not published yet, to be ranked with those of the leaderboards
    root  the leaderboards
    """
    folders = [Path(root), *([Path(runs)] if runs is not None else [])]
    found = {record.id: record for folder in folders for record in read(folder)}
    made = page.rows(ranking(schema.named(Path(root), name), boards(found.values())))
    return _frame([{**row, "events": None, **row["events"]} for row in made]).drop(columns="events")


def read(root: Path) -> list[Record]:
    """Return the records of a folder of records or of leaderboards; BenchError if there is no such folder."""
    folder = root / "records" if (root / "records").is_dir() else root
    if not folder.is_dir():
        raise BenchError(f"no folder {root}: name a folder of records, such as the runs=DIR of a bench run")
    return load_records(folder)


def rows(found: Iterable[Record]) -> list[dict[str, Any]]:
    """Return a flat row for every record; the columns ``density_BUDGET`` are those that any record has."""
    found = list(found)
    budgets = sorted({budget for record in found for budget in record.identity.densities})
    return [_row(record, budgets) for record in found]


def write_csv(found: Iterable[Record], path: Path) -> int:
    """Write the rows of records as a CSV file; return their number. BenchError if there are none."""
    made = rows(found)
    if not made:
        raise BenchError("no records there: nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    return len(made)


def _row(record: Record, budgets: Sequence[str]) -> dict[str, Any]:
    identity, result, cost = record.identity, record.result, record.cost
    metric = result.metric if result else None
    numbers = {name: getattr(result, name).get(metric) if result else None for name in ("test", "val", "dense_test", "dense_val")}
    costs = ("search_dense_trainings", "train_dense_trainings", "search_seconds", "train_seconds", "inference_macs")
    speeds = ("inference_macs_dense", "measured_speedup", "measured_training_speedup")
    return {
        "id": record.id,
        **{name: getattr(identity, name) for name in ("task", "task_version", "data", "model", "protocol")},
        "config": digest(identity),
        "method": identity.method,
        "label": record.label,
        "options": canonical(identity.method_config),
        "control": identity.control,
        **{f"density_{budget}": identity.densities.get(budget) for budget in budgets},
        "rounds": canonical(identity.rounds),
        "seed": identity.seed,
        "status": record.status,
        "reason": record.reason,
        "metric": metric,
        "higher_is_better": result.higher_is_better if result else None,
        **numbers,
        **{name: getattr(cost, name) if cost else None for name in (*costs, *speeds)},
        "precision": record.precision,
        "created": record.created,
        "command": record.command,
    }


def _frame(made: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError:
        raise BenchError(
            "frames need pandas: pip install ticket-bench[notebook]; `bench records --csv FILE` needs none"
        ) from None
    return pandas.DataFrame(made)
