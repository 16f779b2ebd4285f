"""Pages and tables in Markdown."""

from bench.leaderboard import markdown
from bench.leaderboard.boards import boards
from bench.leaderboard.cells import Bold, Label, Table
from tests.bench.leaderboard.records import DENSE, WEIGHTS, record, several


def page(records):
    """The page of the toy task."""
    return markdown.task_page(boards(records), {})


def test_a_ticket_found_without_training_its_weights_shows_what_it_did_before():
    records = [
        *several(DENSE.values(), method="dense"),
        *(record(seed, 88.0, method="gem", densities=WEIGHTS, untrained=v) for seed, v in enumerate([44.0, 45.0, 46.0])),
    ]
    assert "<br>untrained 45.00 ± 2.48 (3)" in page(records)


def test_tickets_without_a_path_through_them_are_said_to_be_cut_through():
    records = [
        *several(DENSE.values(), method="dense"),
        record(0, 50.0, densities=WEIGHTS),
        *(record(seed, 10.0, densities=WEIGHTS, notes={"collapsed": "no path"}) for seed in (1, 2)),
    ]
    assert "<br>2 cut through" in page(records)


def test_sanity_checks_say_which_controls_a_ticket_beats_and_by_how_much():
    losses = {"metric": "loss", "higher": False, "densities": WEIGHTS}
    records = [
        *several([2.0, 3.0, 4.0], **losses),
        *several([3.0, 4.5, 5.0], control="random", **losses),
        *several([2.5, 2.5, 4.0], control="reinit", **losses),
        *several([9.0, 9.0], control="shuffle", **losses),
        *several([9.0, 9.0, 9.0], control="slim", **losses),
    ]
    line = next(text for text in page(records).split("Sanity checks")[1].splitlines() if text.startswith("| imp "))
    checks = [check.strip() for check in line.split("|")[2].split("<br>")]
    # differences 1, 1.5, 1: 1.17 ± 4.303 * 0.289 / root 3; 0.5, -0.5, 0: 0 ± 1.24; 7, 6 of two seeds: 6.5 ± 12.706 / 2
    assert checks == ["random +1.17 ± 0.72 (3) passes", "reinit +0.00 ± 1.24 (3) **fails**", "shuffle +6.50 ± 6.35 (2)"]


def test_one_label_with_two_option_sets_makes_two_rows():
    text = page([record(0, 80.0, densities=WEIGHTS, rate=0.2), record(0, 81.0, densities=WEIGHTS, rate=0.3)])
    assert text.count("[imp #") == 2


def test_submitted_text_cannot_format_a_page():
    text = page([record(densities=WEIGHTS, status="diverged", reason="<img src=x>\n# big | [a](b)", label="a|b")])
    assert "<img" not in text
    assert "\n# big" not in text
    assert "a\\|b" in text


def test_no_text_of_a_cell_can_format_the_table():
    table = Table(["a|b"], [["*x*"], [Label("<i>", "records/x")], [Label("r*", control=True)], [("1|", "2")], [Bold("b")]])
    assert [line.strip("| ") for line in markdown.table(table).splitlines() if ":--" not in line] == [
        "a\\|b",
        "\\*x\\*",
        "[&lt;i&gt;](records/x)",
        "↳ *r\\**",
        "1\\|<br>2",
        "**b**",
    ]
