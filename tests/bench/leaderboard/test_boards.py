"""Records grouped into boards, sections, rows and cells."""

from bench.leaderboard import format
from bench.leaderboard.boards import boards
from tests.bench.leaderboard.records import WEIGHTS, record, several


def test_ranking_leaves_out_provisional_diverged_and_controls():
    section = boards(
        [
            *several([80.0, 81.0, 82.0], densities=WEIGHTS),
            *several([70.0, 71.1, 71.9], method="one_shot", densities=WEIGHTS),
            *several([99.0, 99.0], method="snip", densities=WEIGHTS),
            *several([99.0, 99.0, 99.0], densities=WEIGHTS, control="random"),
            *several([98.0, 98.0, 98.0], method="grasp", densities=WEIGHTS),
            record(3, method="grasp", densities=WEIGHTS, status="diverged", reason="nan"),
        ]
    )[0].sections[0]
    column = section.columns[0]
    assert [row.label for row in section.rankings[column]] == ["imp", "one_shot"]
    assert [row.label for row in section.best[column]] == ["imp"]


def test_columns_fall_and_name_their_budgets():
    section = boards([record(densities={"edges": e, "weights": w}, test=1.0) for w, e in [(0.2, 0.9), (0.5, 0.5), (0.5, 0.8)]])[
        0
    ].sections[0]
    assert [format.densities(c) for c in section.columns] == [
        "weights 0.5, edges 0.8",
        "weights+edges 0.5",
        "weights 0.2, edges 0.9",
    ]


def test_configurations_and_versions_are_never_mixed():
    found = boards(
        [
            record(0, 1.0, densities=WEIGHTS),
            record(1, 1.0, densities=WEIGHTS, epochs=9),
            record(2, 1.0, densities=WEIGHTS, version=0),
        ]
    )
    assert [b.old for b in found] == [False, False, True]
    assert sorted(b.differs["train.epochs"] for b in found[:2]) == ["2", "9"]
    assert all(len(b.config) == 8 for b in found[:2])
    assert not found[2].config
    assert not found[2].differs
    assert len({b.slug for b in found}) == 3


def rows(records):
    """Label, control and the densities shown of every row of the one section."""
    section = boards(records)[0].sections[0]
    return [
        (section.label(row), row.control, [format.densities(c) for c in section.columns if c in cells])
        for row, cells in section.rows.items()
    ]


def test_a_row_is_a_chain_of_rounds():
    low, lowest = {"weights": 0.2}, {"weights": 0.1}
    chain = [
        record(densities=WEIGHTS, test=1.0),
        record(1, densities=low, test=1.0, rounds=[WEIGHTS]),
        record(densities=lowest, test=1.0, rounds=[WEIGHTS, low]),
    ]
    assert rows(chain) == [("imp", "", ["0.5", "0.2", "0.1"])]
    forked = [
        *chain,
        record(densities=lowest, test=2.0, rounds=[WEIGHTS]),
        record(densities=lowest, test=2.0, rounds=[WEIGHTS], control="random"),
    ]
    assert rows(forked) == [
        ("imp, rounds 0.5 > 0.1", "", ["0.5", "0.1"]),
        ("imp, rounds 0.5 > 0.1", "random", ["0.1"]),
        ("imp, rounds 0.5 > 0.2 > 0.1", "", ["0.5", "0.2", "0.1"]),
    ]
    joint, even = {"weights": 0.5, "edges": 0.8}, {"weights": 0.2, "edges": 0.2}
    assert rows([record(densities=even, test=1.0, rounds=[joint]), record(densities=even, test=1.0)]) == [
        ("imp, rounds weights+edges 0.2", "", ["weights+edges 0.2"]),
        ("imp, rounds weights 0.5, edges 0.8 > weights+edges 0.2", "", ["weights+edges 0.2"]),
    ]


def test_only_a_sequential_method_that_was_asked_for_one_density_at_a_time_has_a_row_for_each():
    def alone(method):
        return rows([record(densities={"weights": d}, test=1.0, method=method) for d in (0.5, 0.2)])

    assert alone("imp") == [("imp, rounds 0.2", "", ["0.2"]), ("imp, rounds 0.5", "", ["0.5"])]
    assert alone("one_shot") == [("one_shot", "", ["0.5", "0.2"])]
    assert alone("/nowhere/mine.py:method") == [("/nowhere/mine.py:method", "", ["0.5", "0.2"])]  # not imported


def test_a_cell_that_two_rows_share_is_not_compared_with_itself():
    low, lowest = {"weights": 0.2}, {"weights": 0.1}
    forked = [
        *several([80.0, 81.0, 82.0], densities=WEIGHTS),
        *several([70.0, 71.0, 72.0], densities=low, rounds=[WEIGHTS]),
        *several([60.0, 61.0, 62.0], densities=lowest, rounds=[WEIGHTS]),
    ]
    section = boards(forked)[0].sections[0]
    assert [len(section.rankings[c]) for c in section.columns] == [2, 1, 1]
    assert section.best[section.columns[0]] == set()
    other = several([50.0, 51.0, 52.0], method="one_shot", densities=WEIGHTS)
    section = boards([*forked, *other])[0].sections[0]
    assert [row.label for row in section.best[section.columns[0]]] == ["imp", "imp"]


def test_longer_protocols_come_first():
    found = boards([record(0, 1.0, densities=WEIGHTS, epochs=epochs) for epochs in (2, 160, 9)])
    assert [b.differs["train.epochs"] for b in found] == ["160", "9", "2"]
    assert len(boards([record(0, 1.0, densities=WEIGHTS, epochs=epochs) for epochs in ("many", None, 2)])) == 3  # submitted
