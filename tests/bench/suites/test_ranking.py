"""Rankings of suites from made-up records."""

import json
import random

import numpy as np
import pytest

from bench.errors import BenchError
from bench.leaderboard import plot_styles
from bench.leaderboard.boards import boards
from bench.storage.records import write_record
from bench.suites import page
from bench.suites.ranking import SHARES, ranking
from tests.bench.leaderboard.records import record
from tests.bench.suites.suites import DENSITIES, grouped, row, suite


def test_one_event_by_hand(tmp_path):
    """Ten lines of numpy on the records' files give the scores of three methods."""
    rows = [row("imp", [88.0, 70.0], [80, 80]), row("snip", [75.0, 40.0], [70, 70]), row("set", [60.0, 61.0], [10, 10])]
    for r in (r for records in rows for r in records):
        write_record(r, tmp_path)
    by_hand = {}
    for method in ("imp", "snip", "set"):
        table = np.zeros((3, 2))
        for path in tmp_path.rglob("*.json"):
            r = json.loads(path.read_text())
            who, result = r["identity"], r["result"]
            if (who["method"], who["control"], who["config"]["train"]["epochs"]) == (method, None, 2):
                kept = (result["test"]["accuracy"] - 10) / (result["dense_test"]["accuracy"] - 10)
                table[who["seed"], DENSITIES.index(who["densities"]["weights"])] = kept
        by_hand[method] = table.mean()  # two densities: the trapezoid's height is their mean
    made = {r.label: r.entry.curves["one"].score for r in ranking(suite(), grouped(*rows)).ranked}
    assert made == pytest.approx(by_hand)


def test_ranked_and_what_stands_beside_the_score():
    made = ranking(
        suite(), grouped(row("imp", [92, 91], [90, 60]), row("snip", [70, 20], [50, 50]), row("set", [92, 91], [90, 60]))
    )
    assert [(r.rank, r.label) for r in made.ranked] == [(1, "imp"), (1, "set"), (3, "snip")]
    best, _, last = made.ranked
    assert best.low <= best.score <= best.high
    assert best.entry.curves["one"].matching == 0.01
    assert best.entry.curves["two"].matching == 0.1
    assert last.entry.curves["one"].matching is None
    assert best.mean_rank == 1.5
    assert (best.beats, last.beats) == ((2, 2), (2, 2))
    assert best.profile[0] == 1.0
    assert last.profile[0] == 0.0
    assert best.cost == 2.0


def test_a_ticket_no_better_than_random_masks_does_not_beat_them():
    (only,) = ranking(suite(), grouped(row("snip", [70, 20], [50, 50], random=60.0))).ranked
    assert only.beats == (0, 2)


def test_who_lacks_something_is_not_ranked_and_told_why():
    whole, snip, synflow = row("imp", [88, 70], [80, 80]), row("snip", [75, 40], [70, 70]), row("synflow", [75, 40], [70, 70])
    no_seed = [r for r in snip if (r.identity.seed, r.identity.config["train"]["epochs"]) != (2, 4)]
    no_control = [r for r in row("set", [60, 61], [10, 20]) if not r.identity.control or r.identity.densities["weights"] == 0.1]
    elsewhere = [r for r in synflow if r.identity.config["train"]["epochs"] == 2] + [
        record(s, method="synflow", densities={"weights": d}, epochs=4, status="not_applicable", reason="needs a probe")
        for s in range(3)
        for d in DENSITIES
    ]
    alone = [r for r in row("admm", [60, 61], [10, 20]) if r.identity.config["train"]["epochs"] == 2]
    made = ranking(suite(), grouped(whole, no_seed, no_control, elsewhere, alone))
    assert [r.label for r in made.ranked] == ["imp"]
    assert {e.label: e.missing for e in made.unranked} == {
        "admm": {"two": "not run"},
        "set": {"one": "control random: 0 of 3 seeds at 0.01", "two": "control random: 0 of 3 seeds at 0.01"},
        "snip": {"two": "tickets: 2 of 3 seeds at 0.1, 0.01"},
        "synflow": {"two": "not applicable"},
    }


def test_a_seed_that_diverged_is_worth_chance():
    records = row("imp", [90, 90], [90, 90])
    lost = [r for r in records if (r.identity.seed, r.identity.control) == (0, None)]
    diverged = [
        record(
            0,
            method="imp",
            densities=dict(r.identity.densities),
            epochs=r.identity.config["train"]["epochs"],
            status="diverged",
            reason="nan",
            rounds=r.identity.rounds,
        )
        for r in lost
    ]
    (only,) = ranking(suite(), grouped([r for r in records if r not in lost], diverged)).ranked
    assert only.score == pytest.approx((0 + 79.9 / 81 + 79.8 / 82) / 3)
    assert only.entry.curves["one"].matching is None


def test_rounds_must_be_the_events_own():
    once, through = row("imp", [88, 20], [80, 20], rounds=False), row("imp", [88, 70], [80, 60])
    both = {r.id: r for r in (*once, *through)}.values()
    (only,) = ranking(suite(), boards(both)).ranked
    assert only.entry.curves["one"].means[1] > 0.7  # that of the rounds, not of one cut
    (unranked,) = ranking(suite(), boards(once)).unranked  # cut once, as one_shot would: no row of imp
    assert unranked.missing["one"] == "tickets: 0 of 3 seeds at 0.01"
    other = [r for r in through if r.identity.densities["weights"] == 0.1] + [
        record(s, 70.0, densities={"weights": 0.01}, rounds=[{"weights": 0.5}], control=c)
        for s in range(3)
        for c in (None, "random")
    ]
    (unranked,) = ranking(suite(), boards(other)).unranked
    assert unranked.missing["one"] == "tickets: 0 of 3 seeds at 0.01"


def test_rounds_of_a_method_from_elsewhere_are_told_by_its_records():
    once, through = row("mine.py:f", [88, 20], [80, 20]), row("mine.py:f", [88, 70], [80, 60], rounds=True)
    assert [r.label for r in ranking(suite(), boards(once)).ranked] == ["mine.py:f"]
    (only,) = ranking(suite(), boards({r.id: r for r in (*once, *through)}.values())).ranked
    assert only.entry.curves["one"].means[1] > 0.7


def test_pretrained_weights_are_the_initial_ones_where_there_are_any():
    records = row("imp", [88, 70], [80, 80], rewind="init")
    text = [r for r in row("imp", [88, 70], [80, 80], rewind="pretrained", label="imp(rewind=pretrained)")]
    mixed = [r for r in records if r.identity.config["train"]["epochs"] == 2] + [
        r for r in text if r.identity.config["train"]["epochs"] == 4
    ]
    assert [r.label for r in ranking(suite(), boards(mixed)).ranked] == ["imp"]


def test_where_an_event_has_both_names_of_the_initial_weights_init_counts():
    init = row("imp", [88, 70], [80, 80], rewind="init")
    other = row("imp", [50, 40], [50, 50], rewind="pretrained", label="imp(rewind=pretrained)")
    assert ranking(suite(), boards([*other, *init])).ranked[0].score == ranking(suite(), boards(init)).ranked[0].score


def test_methods_of_one_label_are_told_apart():
    made = ranking(suite(), grouped(row("imp", [88, 70], [80, 80], rate=0.1), row("imp", [80, 70], [80, 80], rate=0.2)))
    labels = [r.label for r in made.ranked]
    assert all(label.startswith("imp #") for label in labels)
    assert len(set(labels)) == 2


def test_only_the_settings_records_count():
    made = ranking(suite(one={"config": "0" * 8}), grouped(row("imp", [88, 70], [80, 80])))
    assert made.unranked[0].missing == {"one": "not run"}
    assert ranking(suite(), []) == ranking(suite(), boards([record(0, 90.0, method="dense")]))


def test_order_of_records_changes_nothing():
    records = [*row("imp", [88, 70], [80, 80]), *row("snip", [75, 40], [70, 70])]
    first = ranking(suite(), boards(records))
    random.Random(0).shuffle(records)
    assert ranking(suite(), boards(records)) == first


def test_a_dense_network_at_chance_is_one_line():
    with pytest.raises(BenchError, match=r"at event one: the dense network .* is not better") as error:
        ranking(suite(one={"chance": 95.0}), grouped(row("imp", [88, 70], [80, 80])))
    assert "\n" not in str(error.value)


def test_profiles_are_drawn_in_the_styles_of_the_methods():
    made = ranking(suite(), grouped(row("imp", [92, 91], [90, 60]), row("snip", [70, 20], [50, 50])))
    plot = page.profile_plot(made)
    ((imp, snip),) = (panel.series for panel in plot.panels)
    assert (imp.label, imp.style, imp.x, imp.y) == ("imp", plot_styles.method("imp"), SHARES, (100.0,) * len(SHARES))
    assert (snip.style, snip.y[0]) == (plot_styles.method("snip"), 0.0)
    assert page.plots([made, ranking(suite(), [])]).keys() == {"plots/suite_toys/profiles.svg"}
    assert "](plots/suite_toys/profiles.svg)" in page.render(made, [])
