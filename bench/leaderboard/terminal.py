"""Plain text of tables, for a terminal."""

from collections.abc import Iterable

from tabulate import tabulate

from bench.leaderboard import format, tables
from bench.leaderboard.analysis_tables import groups, table_of
from bench.leaderboard.boards import boards, precisions
from bench.leaderboard.sections import row_name
from bench.leaderboard.table_types import Table
from bench.storage.analysis_records import AnalysisRecord
from bench.storage.records import Record


def table(table: Table) -> str:
    """A table with one line for each row."""
    return str(
        tabulate([[format.brief(cell) for cell in row] for row in table.rows], table.headers, "simple", disable_numparse=True)
    )


def summary(records: Iterable[Record]) -> str:
    """Methods by densities, mean ± half-width (seeds), for every board; then why records have no numbers."""
    parts = []
    for board in boards(records):
        dense = format.interval(board.dense_estimate) if board.dense_estimate else "no result"
        parts.append(f"{board.records[0].identity.task} · {board.title}\ntest {board.metric[0]}; dense {dense}")
        parts += [table(tables.metric_table(section, section.title)) for section in board.sections]
        parts += [made] if (made := precisions(board.records)) else []
        parts += sorted({f"{row_name(r.label, r.identity.control)}: {r.reason}" for r in board.records if r.reason})
    return "\n\n".join(parts)


def analysis_summary(records: Iterable[AnalysisRecord]) -> str:
    """The rows of every analysis."""
    return "\n\n".join(f"{group.title}\n{table(table_of(group))}" for of_name in groups(records).values() for group in of_name)
