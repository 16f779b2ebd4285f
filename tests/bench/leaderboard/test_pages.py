"""Leaderboards from records made by hand: golden pages, statistics computed by hand, and what ``check`` notices.

After an intended change: ``python -m tests.bench.leaderboard.test_pages`` writes the golden pages again; read their diff.
"""

import math
import random
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.leaderboard import pages as board
from bench.leaderboard import plots, statistics
from bench.leaderboard.tables import boards, column_text
from bench.storage.records import Cost, Identity, Kept, Record, Result, Ticket, write_record

GOLDEN = Path(__file__).parents[2] / "golden"
DENSE = {0: 90.0, 1: 91.0, 2: 92.0}
WEIGHTS = {"weights": 0.5}


def record(seed=0, test=None, method="imp", densities=None, control=None, status="ok", reason=None, task="toy", version=1,
           epochs=2, collapsed=(), speedup=None, search=1.0, dense=None, metric="accuracy", higher=True, label=None,
           rounds=(), untrained=None, notes=None, **options):
    """A record of a toy task. ``test``: its test metric; ``dense``: that of the dense network of its seed."""
    identity = Identity(task=task, task_version=version, data="digits", model="mlp", protocol="desk",
                        config={"data": {"name": "digits", "train_size": 100}, "model": {"name": "mlp"},
                                "train": {"epochs": epochs}},
                        fingerprint="f" * 8, method=method, method_config=options, densities=densities or {},
                        rounds=list(rounds), seed=seed, control=control)
    dense = DENSE.get(seed, 90.0) if dense is None else dense
    share = math.prod((densities or {}).values())
    numbers = {} if status != "ok" else {
        "result": Result(metric=metric, higher_is_better=higher, val={metric: test}, test={metric: test},
                         dense_val={metric: dense}, dense_test={metric: dense}, step=20,
                         **({} if untrained is None else {"untrained_val": {metric: untrained},
                                                          "untrained_test": {metric: untrained}})),
        "budgets": {b: Kept(asked=d, kept=round(d * 100), total=100) for b, d in (densities or {}).items()},
        "ticket": Ticket(masks="m", start="s", schedule="replay", stages=["a/0-20"], notes=notes or {}),
        "cost": Cost(search_steps=20, train_steps=20, search_dense_trainings=search, train_dense_trainings=1.0,
                     search_seconds=30.4, train_seconds=31.6, inference_macs=1000 * share, inference_macs_dense=1000,
                     measured_speedup=speedup)}
    return Record.make(identity, status=status, reason=reason, label=label or method, note="digits, downsampled | to 8x8",
                       collapsed=list(collapsed), command="bench run tasks/toy", environment={},
                       created="2026-01-01T00:00:00Z", **numbers)


def several(values, **fields):
    """One record a seed."""
    return [record(seed, value, **fields) for seed, value in enumerate(values)]


def golden_records():
    """Every case a board must show."""
    low, joint, even = {"weights": 0.1}, {"weights": 0.5, "edges": 0.8}, {"weights": 0.5, "edges": 0.5}
    joints = {"weights": 0.25, "edges": 0.64}
    return [
        *several(DENSE.values(), method="dense", search=0.0),
        *several([89.8, 90.9, 92.1], densities=WEIGHTS, speedup=1.25),                    # matches dense
        *several([84.0, 86.0, 85.0], densities=low, rounds=[WEIGHTS], search=3.0, collapsed=["a", "b"]),  # two tensors emptied
        *several([89.9, 90.8, 92.0], densities=WEIGHTS, control="shuffle"),               # explains the ticket
        *several([70.0, 71.0, 74.0], densities=WEIGHTS, control="random"),
        *several([88.0, 89.5, 90.0], method="one_shot", densities=WEIGHTS),
        *several([83.0, 85.0], method="one_shot", densities=low),
        record(2, method="one_shot", densities=low, status="diverged", reason="the loss became nan at step 7"),
        *several([80.0, 82.0], method="snip", densities=WEIGHTS),                         # provisional
        record(3, method="snip", densities=WEIGHTS, status="failed", reason="out of memory"),
        *several([79.0], method="snip", densities=low),                                   # one seed: no interval
        *[record(seed, method="synflow", densities=WEIGHTS, status="not_applicable", reason="needs a probe, this task "
                 "offers none") for seed in range(3)],
        *several([88.0, 89.0, 90.0], densities=joint),                                    # the start of two series:
        *several([86.0, 87.0, 88.0], densities=even, rounds=[joint]),
        *several([82.0, 83.0, 84.0], densities=joints, rounds=[joint]),
        *several([70.0, 72.0, 73.0], densities=joints, rounds=[joint], control="random"),
        *several([85.0, 86.0, 87.0], densities={"edges": 0.5}),
        *several([60.0, 61.0, 62.0], densities=WEIGHTS, version=0),                       # an old version of the task
        *several([89.0, 90.0, 91.0], densities=WEIGHTS, task="toy_loss", higher=False, metric="loss"),
        *several([91.0, 91.5, 92.5], densities=WEIGHTS, task="toy_loss", higher=False, metric="loss", epochs=4),
    ]


def pages(records):
    """The Markdown files alone."""
    return {path: text for path, text in board.render(records).items() if path.endswith(".md")}


def test_golden_pages():
    made = pages(golden_records())
    assert sorted(made) == sorted(path.name for path in GOLDEN.glob("*.md"))
    for path, text in made.items():
        assert text == (GOLDEN / path).read_text(encoding="utf-8"), path


def test_a_ticket_found_without_training_its_weights_shows_what_it_did_before():
    records = [*several(DENSE.values(), method="dense"),
               *(record(seed, 88.0, method="gem", densities=WEIGHTS, untrained=v) for seed, v in enumerate([44.0, 45.0, 46.0]))]
    assert "<br>untrained 45.00 ± 2.48 (3)" in pages(records)["toy.md"]


def test_tickets_without_a_path_through_them_are_said_to_be_cut_through():
    records = [*several(DENSE.values(), method="dense"), record(0, 50.0, densities=WEIGHTS),
               *(record(seed, 10.0, densities=WEIGHTS, notes={"collapsed": "no path"}) for seed in (1, 2))]
    assert "<br>2 cut through" in pages(records)["toy.md"]


def test_sanity_checks_say_which_controls_a_ticket_beats_and_by_how_much():
    losses = {"metric": "loss", "higher": False, "densities": WEIGHTS}
    records = [*several([2.0, 3.0, 4.0], **losses), *several([3.0, 4.5, 5.0], control="random", **losses),
               *several([2.5, 2.5, 4.0], control="reinit", **losses), *several([9.0, 9.0], control="shuffle", **losses),
               *several([9.0, 9.0, 9.0], control="slim", **losses)]
    line = next(text for text in pages(records)["toy.md"].split("Sanity checks")[1].splitlines() if text.startswith("| imp "))
    checks = [check.strip() for check in line.split("|")[2].split("<br>")]
    # differences 1, 1.5, 1: 1.17 ± 4.303 * 0.289 / root 3; 0.5, -0.5, 0: 0 ± 1.24; 7, 6 of two seeds: 6.5 ± 12.706 / 2
    assert checks == ["random +1.17 ± 0.72 (3) passes", "reinit +0.00 ± 1.24 (3) **fails**", "shuffle +6.50 ± 6.35 (2)"]


def test_order_of_records_changes_nothing_and_plots_repeat_to_the_byte():
    records = golden_records()
    first = board.render(records)
    random.Random(0).shuffle(records)
    assert board.render(records) == first
    assert any(path.endswith(".svg") for path in first)


def test_every_interval_is_the_t_interval_computed_by_hand():
    # t quantiles at 97.5 %: 12.706 (1 degree of freedom), 4.303 (2), 2.776 (4), as printed in any table
    assert [round(statistics.t_quantile(k), 3) for k in (1, 2, 4)] == [12.706, 4.303, 2.776]
    three = statistics.estimate([1.0, 2.0, 3.0])
    assert (three.n, three.mean, three.std) == (3, 2.0, 1.0)
    assert three.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert statistics.estimate([5.0]) == statistics.Estimate(1, 5.0, None, None)


def test_differences_are_paired_by_seed():
    a, b = {0: 1.0, 1: 12.0, 2: 23.0, 9: 5.0}, {0: 0.0, 1: 10.0, 2: 20.0, 8: 5.0}
    difference = statistics.paired(a, b)
    assert (difference.n, difference.mean, difference.std) == (3, 2.0, 1.0)  # 1, 2, 3: seeds 8 and 9 have no pair
    assert not statistics.separable(a, b)  # 2 < 2.484
    assert statistics.separable({s: v + 1 for s, v in a.items()}, b)  # 3 > 2.484
    assert not statistics.separable({0: 1.0, 1: 1.0}, {0: 99.0, 1: 99.0})  # two seeds separate nothing
    assert statistics.paired({0: 1.0}, {1: 1.0}) is None
    higher = {s: v + 1 for s, v in a.items()}
    assert [statistics.better(higher, b, True), statistics.better(higher, b, False)] == [True, False]
    assert [statistics.better(b, higher, True), statistics.better(b, higher, False)] == [False, True]


def test_matching_allows_the_larger_standard_deviation():
    dense = {0: 9.0, 1: 10.0, 2: 11.0}  # std 1
    assert statistics.matches({0: 9.0, 1: 9.0, 2: 9.0}, dense, True)
    assert not statistics.matches({0: 8.9, 1: 8.9, 2: 8.9}, dense, True)
    assert statistics.matches({0: 6.0, 1: 8.0, 2: 10.0}, dense, True)  # its own std is 2
    assert statistics.matches({0: 1.0, 1: 1.0, 2: 1.0}, dense, False)
    assert not statistics.matches({0: 12.0, 1: 12.0, 2: 12.0}, dense, False)
    assert not statistics.matches({0: 20.0, 1: 20.0}, dense, True)  # two seeds are provisional


def test_ranking_leaves_out_provisional_diverged_and_controls():
    section = boards([*several([80.0, 81.0, 82.0], densities=WEIGHTS),
                      *several([70.0, 71.1, 71.9], method="one_shot", densities=WEIGHTS),
                      *several([99.0, 99.0], method="snip", densities=WEIGHTS),
                      *several([99.0, 99.0, 99.0], densities=WEIGHTS, control="random"),
                      *several([98.0, 98.0, 98.0], method="grasp", densities=WEIGHTS),
                      record(3, method="grasp", densities=WEIGHTS, status="diverged", reason="nan")])[0].sections[0]
    column = section.columns[0]
    assert [row.label for row in section.ranking(column)] == ["imp", "one_shot"]
    assert [row.label for row in section.best(column)] == ["imp"]


def test_columns_fall_and_name_their_budgets():
    section = boards([record(densities={"edges": e, "weights": w}, test=1.0) for w, e in [(0.2, 0.9), (0.5, 0.5), (0.5, 0.8)]]
                     )[0].sections[0]
    assert [column_text(c) for c in section.columns] == ["weights 0.5, edges 0.8", "weights+edges 0.5",
                                                         "weights 0.2, edges 0.9"]


def test_configurations_and_versions_are_never_mixed():
    found = boards([record(0, 1.0, densities=WEIGHTS), record(1, 1.0, densities=WEIGHTS, epochs=9),
                    record(2, 1.0, densities=WEIGHTS, version=0)])
    assert [b.old for b in found] == [False, False, True]
    assert sorted(b.differs["train.epochs"] for b in found[:2]) == ["2", "9"]
    assert all(len(b.config) == 8 for b in found[:2])
    assert not found[2].config
    assert not found[2].differs
    assert len({b.slug for b in found}) == 3


def test_one_label_with_two_option_sets_makes_two_rows():
    text = pages([record(0, 80.0, densities=WEIGHTS, rate=0.2), record(0, 81.0, densities=WEIGHTS, rate=0.3)])["toy.md"]
    assert text.count("[imp #") == 2


def rows(records):
    """Label, control and the densities shown of every row of the one section."""
    section = boards(records)[0].sections[0]
    return [(section.label(row), row.control, [column_text(c) for c in section.columns if c in cells])
            for row, cells in section.rows.items()]


def test_a_row_is_a_chain_of_rounds():
    low, lowest = {"weights": 0.2}, {"weights": 0.1}
    chain = [record(densities=WEIGHTS, test=1.0), record(1, densities=low, test=1.0, rounds=[WEIGHTS]),
             record(densities=lowest, test=1.0, rounds=[WEIGHTS, low])]
    assert rows(chain) == [("imp", "", ["0.5", "0.2", "0.1"])]
    forked = [*chain, record(densities=lowest, test=2.0, rounds=[WEIGHTS]),
              record(densities=lowest, test=2.0, rounds=[WEIGHTS], control="random")]
    assert rows(forked) == [("imp, rounds 0.5 > 0.1", "", ["0.5", "0.1"]), ("imp, rounds 0.5 > 0.1", "random", ["0.1"]),
                            ("imp, rounds 0.5 > 0.2 > 0.1", "", ["0.5", "0.2", "0.1"])]
    joint, even = {"weights": 0.5, "edges": 0.8}, {"weights": 0.2, "edges": 0.2}
    assert rows([record(densities=even, test=1.0, rounds=[joint]), record(densities=even, test=1.0)]) == [
        ("imp, rounds weights+edges 0.2", "", ["weights+edges 0.2"]),
        ("imp, rounds weights 0.5, edges 0.8 > weights+edges 0.2", "", ["weights+edges 0.2"])]


def test_only_a_sequential_method_that_was_asked_for_one_density_at_a_time_has_a_row_for_each():
    def alone(method):
        return rows([record(densities={"weights": d}, test=1.0, method=method) for d in (0.5, 0.2)])

    assert alone("imp") == [("imp, rounds 0.2", "", ["0.2"]), ("imp, rounds 0.5", "", ["0.5"])]
    assert alone("one_shot") == [("one_shot", "", ["0.5", "0.2"])]
    assert alone("/nowhere/mine.py:method") == [("/nowhere/mine.py:method", "", ["0.5", "0.2"])]  # not imported


def test_a_cell_that_two_rows_share_is_not_compared_with_itself():
    low, lowest = {"weights": 0.2}, {"weights": 0.1}
    forked = [*several([80.0, 81.0, 82.0], densities=WEIGHTS), *several([70.0, 71.0, 72.0], densities=low, rounds=[WEIGHTS]),
              *several([60.0, 61.0, 62.0], densities=lowest, rounds=[WEIGHTS])]
    section = boards(forked)[0].sections[0]
    assert [len(section.ranking(c)) for c in section.columns] == [2, 1, 1]
    assert section.best(section.columns[0]) == set()
    other = several([50.0, 51.0, 52.0], method="one_shot", densities=WEIGHTS)
    section = boards([*forked, *other])[0].sections[0]
    assert [row.label for row in section.best(section.columns[0])] == ["imp", "imp"]


def test_submitted_text_cannot_format_a_page():
    text = pages([record(densities=WEIGHTS, status="diverged", reason="<img src=x>\n# big | [a](b)", label="a|b")])["toy.md"]
    assert "<img" not in text
    assert "\n# big" not in text
    assert "a\\|b" in text


@pytest.mark.parametrize(("records", "message"), [
    ([record(0, 1.0), record(0, 2.0)], "two records have id"),
    ([record(0, 1.0, densities=WEIGHTS), record(1, 1.0, densities=WEIGHTS, metric="loss")], "different metrics"),
    ([record(0, 1.0, task="RULES")], "would overwrite RULES.md"),
])
def test_what_cannot_be_a_board_is_one_line(records, message):
    with pytest.raises(BenchError, match=message) as error:
        board.render(records)
    assert "\n" not in str(error.value)


def test_check_notices_every_difference(tmp_path):
    rules = tmp_path / "RULES.md"
    rules.write_text("by hand")
    for r in several([80.0, 81.0, 82.0], densities=WEIGHTS):
        write_record(r, tmp_path / "records")
    board.write(tmp_path)
    assert board.check(tmp_path) == []

    page, plot = tmp_path / "toy.md", next((tmp_path / "plots").rglob("density-weights.svg"))
    page.write_text(page.read_text(encoding="utf-8").replace("81.00", "99.00"), encoding="utf-8")
    assert any(line.startswith("-") and "99.00" in line for line in board.check(tmp_path))
    board.write(tmp_path)
    page.write_text(page.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    assert board.check(tmp_path)
    board.write(tmp_path)
    plot.write_text(plot.read_text(encoding="utf-8").replace("accuracy", "ACCURACY"), encoding="utf-8")
    assert board.check(tmp_path) == [f"not drawn from these records, or edited: {plot.relative_to(tmp_path).as_posix()}"]
    plot.unlink()
    assert board.check(tmp_path) == [f"missing: {plot.relative_to(tmp_path).as_posix()}"]
    board.write(tmp_path)
    (tmp_path / "gone_task.md").write_text("old")
    assert board.check(tmp_path) == ["stale, no record asks for it: gone_task.md"]
    board.write(tmp_path)
    assert board.check(tmp_path) == []

    added = write_record(record(3, 83.0, densities=WEIGHTS), tmp_path / "records")
    report = "\n".join(board.check(tmp_path))
    assert "+++ toy.md" in report
    assert plot.name in report
    added.unlink()
    assert board.check(tmp_path) == []

    for path in (tmp_path / "records").rglob("*.json"):
        path.unlink()
    board.write(tmp_path)
    assert not page.exists()
    assert not list((tmp_path / "plots").iterdir())
    assert rules.read_text() == "by hand"
    assert "No records yet." in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_plot_drawn_by_another_version_keeps_its_seal():
    plot = plots.Plot("t", "x", "y", True, (plots.Series("imp", 0, None, (0.5, 0.1), (1.0, 2.0), (0.0, 0.1)),))
    drawn = plots.draw(plot)
    assert plots.sealed(drawn, plot)
    assert not plots.sealed(drawn.replace("<path", "<Path", 1), plot)
    other = plots.Plot("t", "x", "y", True, (plots.Series("imp", 0, None, (0.5, 0.1), (1.0, 2.5), (0.0, 0.1)),))
    assert not plots.sealed(drawn, other)


def test_summary_is_plain_text():
    text = board.summary(several([80.0, 81.0, 82.0], densities=WEIGHTS)
                         + several([70.0], densities=WEIGHTS, control="random"))
    assert "toy · digits · mlp · desk" in text
    assert "dense 91.00 ± 2.48 (3)" in text
    assert "81.00 ± 2.48 (3)" in text
    assert "↳ random" in text
    why = board.summary([*several([80.0]), record(0, status="not_applicable", reason="it has no edges", method="geb")])
    assert why.splitlines()[-1].endswith(": it has no edges")
    assert "**" not in text


if __name__ == "__main__":
    for name, text in pages(golden_records()).items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
