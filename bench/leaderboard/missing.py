"""What the leaderboards lack: cells without a record whose method has other densities or seeds on that board."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench import registry
from bench.claims.config_cache import made
from bench.claims.judge import setting_of
from bench.config import Setting, settings
from bench.errors import BenchError
from bench.leaderboard.boards import Board
from bench.leaderboard.sections import Row, Section
from bench.leaderboard.table_types import Column
from bench.runner.jobs import own_options, same_task
from bench.runner.missing import MissingRun
from bench.storage.files import canonical
from bench.storage.records import Record
from bench.values import text
from pruning import CONTROLS
from pruning.metadata import MethodInfo, info_of


def missing_runs(boards: Iterable[Board], local: Sequence[str]) -> list[MissingRun]:
    """The commands that fill the empty cells of all boards of the newest task versions. ``local``: what the command line says of
    where and how to run. Rows are left out whose command would not make their records any more, or that run code from outside."""
    found = []
    for board in boards:
        for section in board.sections if not board.old else ():
            for row, columns, controls, seeds, gaps in _empty_cells(section):
                record = next(r for cell in section.rows[row].values() for r in cell.records)
                if run := _missing_run(record, columns, controls, seeds, local, {f"{board.slug}: {gap}" for gap in gaps}):
                    found.append(run)
    return sorted(found, key=lambda run: same_task(run.setting))


def _empty_cells(section: Section) -> Iterator[tuple[Row, list[Column], list[str], list[int], set[str]]]:
    """Per method with empty cells: its row, its densities and controls, the seeds that lack something, names of the cells."""
    for ticket, others in section.controls.items():
        rows = [ticket, *others]
        present = {
            (row.control, column): {r.identity.seed for r in cell.records}
            for row in rows
            for column, cell in section.rows[row].items()
        }
        columns = sorted({column for _, column in present}, reverse=True)
        seeds = set().union(*present.values())
        lacking = {
            (row.control, column, seed)
            for row in rows
            for column in columns
            for seed in seeds - present.get((row.control, column), set())
        }
        if lacking and section.rows[ticket]:
            controls = [c for c in CONTROLS if c in {row.control for row in rows}]
            names = {f"{section.label(ticket)} {control} {dict(column)} seed {seed}" for control, column, seed in lacking}
            yield ticket, columns, controls, sorted({seed for _, _, seed in lacking}), names


def _missing_run(
    record: Record, columns: list[Column], controls: list[str], seeds: list[int], local: Sequence[str], gaps: set[str]
) -> MissingRun | None:
    """The command of a record, for other densities, controls and seeds; None if it does not make such records here."""
    words = shlex.split(record.command)
    kept = [word for word in words[3:] if word.partition("=")[0].partition(".")[0] not in ("densities", "controls", "seeds")]
    if words[:2] != ["bench", "run"] or registry.foreign([words[2], *kept]):
        return None
    lists: dict[str, list[float]] = {budget: [dict(column)[budget] for column in columns] for budget in dict(columns[0])}
    complete = [*words[:3], *kept, f"densities={text(lists)}", f"controls={text(controls)}", f"seeds={text(seeds)}"]
    try:
        (setting,) = settings(complete[2], [*complete[3:], *local])
        same = made(complete[2], tuple(complete[3:])).setting == setting_of(record) and _method(setting) == _asked(record)
    except BenchError:
        return None
    return MissingRun(shlex.join([*complete, *local]), setting, None, frozenset(gaps)) if same else None


def _method(setting: Setting) -> str:
    """The method of a setting as its records have it."""
    method: Mapping[str, Any] = setting.config["method"]
    return canonical([method["name"], info_of(registry.method(method["name"]), MethodInfo).recorded(own_options(method))])


def _asked(record: Record) -> str:
    return canonical([record.identity.method, record.identity.method_config])
