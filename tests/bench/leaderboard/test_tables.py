"""Tables as plain data."""

from bench.leaderboard import tables
from bench.leaderboard.boards import boards
from bench.leaderboard.table_types import Label, Speedups
from tests.bench.leaderboard.records import WEIGHTS, golden_records, several


def test_cells_hold_values_and_no_markdown():
    for board in boards(golden_records()):
        of_sections = [make(section) for make in (tables.metric_table, tables.sanity_table) for section in board.sections]
        for table in (tables.cost_table(board), *of_sections):
            assert all(len(row) == len(table.headers) for row in table.rows)
            assert not any(mark in repr(row) for row in table.rows for mark in ("**", "<br>", "±", "†", "](", "&"))


def test_costs_are_shown_of_tickets_and_of_controls_that_change_them():
    records = [
        *several([90.0, 91.0, 92.0], method="dense"),
        *several([89.0, 90.0, 91.0], densities=WEIGHTS),
        *several([80.0, 81.0, 82.0], densities=WEIGHTS, control="random"),
        *several([89.0, 90.0, 91.0], densities=WEIGHTS, control="slim", speedup=1.5),
    ]
    rows = tables.cost_table(boards(records)[0]).rows
    assert [row[0] for row in rows] == ["dense", "imp", "imp ↳ slim"]
    assert [row[5] for row in rows] == [Speedups(), Speedups((), theoretical=True), Speedups((1.5,), theoretical=True)]


def test_rows_are_linked_to_their_records_and_controls_are_not():
    section = boards([*several([89.0], densities=WEIGHTS), *several([80.0], densities=WEIGHTS, control="random")])[0].sections[0]
    assert [row[0] for row in tables.metric_table(section).rows] == [
        Label("imp", "records/toy/digits-mlp-desk/imp"),
        Label("random", control=True),
    ]
