"""The tables of the leaderboards as plain data, computed from boards and transfer matrices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bench.errors import unknown
from bench.leaderboard import format, method_metadata
from bench.leaderboard.boards import Board
from bench.leaderboard.sections import Cell, Row, Section, beats
from bench.leaderboard.speed import Fastest, mean_speedup
from bench.leaderboard.statistics import mean, paired
from bench.leaderboard.table_types import (
    Column,
    DenseTrainings,
    Label,
    Percent,
    SanityCell,
    Seconds,
    Speedups,
    Table,
    TransferCell,
)
from bench.leaderboard.transfer_matrix import TransferMatrix


def metric_table(section: Section, first: str = "Method") -> Table:
    """The test metric: a row for every method and, below it, for each of its controls; a column for every density."""
    rows = [
        [_label(row, section, section.rows[row]), *(cells.get(column, "") for column in section.columns)]
        for row, cells in section.metrics.items()
    ]
    return Table([first, *map(format.densities, section.columns)], rows)


def sanity_table(section: Section) -> Table:
    """The lead of every ticket over those of its controls that it must beat; without rows if there is no such control."""
    rows = []
    for row, others in section.controls.items():
        if controls := [r for r in others if method_metadata.control_info(r.control).sanity]:
            rows.append([section.label(row), *(SanityCell(tuple(_checks(controls, section, c))) for c in section.columns)])
    return Table(["Method", *map(format.densities, section.columns)], rows)


def cost_table(board: Board, speeds: Mapping[str, Fastest] = MappingProxyType({})) -> Table:
    """Costs of every method at every density, means over seeds; the dense network first. ``speeds``: what `bench speed` measured,
    by the stage of the ticket; the table has a column for it where there is something."""
    cells = [("dense", "", board.dense)] if board.dense and board.dense.done else []
    for section in board.sections:
        cells += [
            (section.name(row), format.densities(c, named=True), by_column[c])
            for row, by_column in section.rows.items()
            if not row.control or method_metadata.control_info(row.control).changes_cost
            for c in section.columns
            if c in by_column and by_column[c].done
        ]
    rows = []
    timed = [mean_speedup((r.ticket.stages[-1] for r in cell.done if r.ticket), speeds) for _, _, cell in cells]
    for (label, density, cell), measured in zip(cells, timed, strict=True):
        speedups = [cell.costs(name) for name in ("measured_speedup", "measured_training_speedup")]
        rows.append(
            [
                label,
                density,
                _trainings(cell, "search"),
                _trainings(cell, "train"),
                Percent(cell.cost("inference_macs") / cell.cost("inference_macs_dense")),
                Speedups(tuple(mean(values) for values in speedups if values), cell is not board.dense),
                Seconds(cell.cost("search_seconds")),
                Seconds(cell.cost("train_seconds")),
                *([measured] if any(timed) else []),
            ]
        )
    return Table(
        [
            "Method",
            "Density",
            "Search (dense trainings)",
            "Training (dense trainings)",
            "Inference MACs of dense (theoretical)",
            "Measured speed-up",
            "Search (s)",
            "Training (s)",
            *(["Fastest form (`bench speed`)"] if any(timed) else []),
        ],
        rows,
    )


def transfer_table(matrix: TransferMatrix) -> Table:
    """A transfer matrix: rows are data sets that masks were found on, columns those that they were trained on."""
    rows = [
        [source, *(_transferred(matrix.cells.get((source, target))) for target in matrix.targets), str(matrix.matching(source))]
        for source in matrix.sources
    ]
    return Table(["Masks of", *matrix.targets, "✓ on others"], rows)


def overview(boards: Iterable[tuple[Board, str]]) -> Table:
    """One row for every section of every board (each with the path of its page): the dense network, the best tickets at the
    lowest density where several can be compared, and the smallest ticket that matches dense."""
    rows = []
    for board, page in boards:
        name = Label(f"{board.records[0].identity.task} · {board.title}", page)
        dense = format.interval(board.dense_estimate) if board.dense_estimate else format.MISSING
        for section in board.sections or [Section((), [], {}, True)]:
            best = smallest = format.MISSING
            for column in section.columns:  # the highest density first: the lowest one is set last
                ranking = section.rankings[column]
                if leaders := section.best[column]:
                    row, cell = next(iter(ranking.items()))
                    share = f", {len(leaders)} of {len(ranking)} not separable" if len(leaders) > 1 else f" of {len(ranking)}"
                    best = f"{section.label(row)} {format.interval(cell.mean)} at {format.densities(column)}{share}"
                matching = [section.label(row) for row, cell in ranking.items() if cell.matching]
                if matching:
                    smallest = f"{'; '.join(matching)} at {format.densities(column)}"
            rows.append([name, section.title, board.metric[0], dense, best, smallest])
    return Table(
        [
            "Table",
            "Pruned",
            "Test metric",
            "Dense",
            "Best at the lowest density where several are ranked",
            "Smallest ticket that matches dense",
        ],
        rows,
    )


def selected(section: Section, rows: Mapping[str, str], columns: Sequence[str], first: str) -> Table:
    """Some rows (name as in ``boards.row_name`` -> how to call it) and columns (texts of densities) of a section, means and
    intervals alone; BenchError for one that it has not."""
    by_name = {section.name(row): cells for row, cells in section.metrics.items()}
    by_text = {format.densities(column): column for column in section.columns}
    for kind, wanted, known in (("row", rows, by_name), ("density", columns, by_text)):
        if missing := [name for name in wanted if name not in known]:
            raise unknown(f"{kind} of {section.title!r}", missing[0], known)
    return Table(
        [first, *columns],
        [
            [
                title,
                *(
                    format.brief(by_name[name][column]) if column in by_name[name] else ""
                    for column in (by_text[text] for text in columns)
                ),
            ]
            for name, title in rows.items()
        ],
    )


def dense_result(board: Board) -> str:
    """The dense network of a board in a few words: its interval and problems."""
    dense = format.interval(board.dense_estimate) if board.dense_estimate else "no result"
    return ", ".join([dense, *(format.problems(board.dense.problems) if board.dense else [])])


def _label(row: Row, section: Section, cells: dict[Column, Cell]) -> Label:
    """A method's name with a link to the folder of its records, or a control's."""
    if row.control:
        return Label(row.control, control=True)
    records = next(iter(cells.values())).records if cells else ()
    return Label(section.label(row), f"records/{records[0].folder}" if records else "")


def _checks(controls: list[Row], section: Section, column: Column) -> Iterable[tuple[str, Any, bool | None]]:
    for control in controls:
        ticket, other = (section.rows[row].get(column) for row in (control.ticket, control))
        lead = paired(ticket.values, other.values) if ticket and other else None
        if ticket and other and lead:
            yield control.control, lead if section.higher_is_better else replace(lead, mean=-lead.mean), beats(ticket, other)


def _transferred(cell: Cell | None) -> TransferCell | str:
    return TransferCell(paired(cell.values, cell.dense), cell.matching, cell.problems) if cell else ""


def _trainings(cell: Cell, part: str) -> DenseTrainings:
    """``part``: search or train. At the rate of sparse hardware only if every record says it."""
    sparse = cell.costs(f"{part}_at_sparse_rate")
    return DenseTrainings(cell.cost(f"{part}_dense_trainings"), mean(sparse) if len(sparse) == len(cell.done) else None)
