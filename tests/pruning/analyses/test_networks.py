"""Analyses of networks and masks: correlation, barriers, distances, overlaps; by hand and on the toy task."""

import json
import math

import pytest
import torch

from bench.leaderboard import pages as board
from bench.leaderboard import svg
from bench.leaderboard.analysis_tables import groups
from bench.leaderboard.plots import HeatMap
from bench.storage.analysis_records import read_analyses
from pruning import Maskable, Masks, PruningError
from pruning.analyses.connectivity import barrier
from pruning.analyses.correlation import correlation, indicator
from pruning.analyses.distances import mask_distance, overlap
from pruning.analyses.learning import learning
from pruning.analyses.travel import moved, travel
from tests.conftest import TOY, toy_lab

DENSITIES = [{"weights": 0.5}, {"weights": 0.25}]


@pytest.fixture
def lab(tmp_path):
    return toy_lab(tmp_path)


# correlation


def test_the_indicator_by_hand():
    maskables = [Maskable("a", (4,), "linear"), Maskable("b", (6,), "linear")]
    one = {"a": torch.tensor([4.0, 3, 2, 1]), "b": torch.tensor([6.0, 5, 4, 3, 2, 1])}
    other = {"a": torch.tensor([4.0, 1, 2, 3]), "b": torch.tensor([1.0, 2, 3, 4, 5, 6])}
    # of the two largest of a one is common, of the three largest of b none: 1 of 5
    assert indicator(one, other, 0.5, maskables) == 0.2
    mask = Masks.ones(maskables).replace({"a": torch.tensor([True, False, True, False]), "b": torch.zeros(6, dtype=torch.bool)})
    assert indicator(one, other, 0.5, maskables, mask) == 1  # the larger of the two survivors is the same


def test_independent_networks_have_p_in_common_and_a_network_everything_with_itself():
    maskables = [Maskable("a", (200, 200), "linear"), Maskable("b", (100, 100), "linear")]
    draw = torch.Generator().manual_seed(0)
    one, other = ({m.name: torch.rand(m.shape, generator=draw) for m in maskables} for _ in range(2))
    for p in (0.1, 0.3, 0.5):
        assert indicator(one, one, p, maskables) == 1
        error = 3 * (p * (1 - p) / (p * 50_000)) ** 0.5
        assert indicator(one, other, p, maskables) == pytest.approx(p, abs=error)


def test_correlation_of_trained_networks(lab):
    rows = list(correlation(lab, DENSITIES, shares=[0.2, 1.0]))
    assert [(r["pair"], r["density"], r["p"]) for r in rows] == [
        ("dense", None, 0.2),
        ("dense", None, 1.0),
        *((pair, 0.5, 0.2) for pair in ("ticket", "reinit", "to-initial", "to-trained")),
        *((pair, 0.25, 0.2) for pair in ("ticket", "reinit", "to-initial", "to-trained")),
    ]
    assert rows[1]["r"] == 1
    assert all(0 <= r["r"] <= 1 for r in rows)
    found = {(r["pair"], r["density"]): r["r"] for r in rows}
    assert found["to-trained", 0.5] > found["reinit", 0.5]  # it was trained on from there


def test_distances_travelled_by_hand():
    assert moved(torch.tensor([1.0, -2.0, 0.0, 3.0]), torch.tensor([2.0, 1.0, -4.0, 3.0])) == (2.0, 0.5)  # 1, 3, 4, 0


def test_nothing_travels_where_nothing_is_cut(lab):
    (row,) = travel(lab, [{"weights": 1.0}])
    assert (row["cut"], row["outward_cut"]) == (None, None)


def test_what_one_cut_keeps_has_grown_more_often_than_what_it_cuts(lab):
    half, quarter = travel(lab, DENSITIES)
    assert (half["density"], quarter["density"]) == (0.5, 0.25)
    initial, trained = (lab.score("magnitude", lab.start(name), lab.ones()) for name in ("init", "end"))
    grown = [trained[m.name] > initial[m.name] for m in lab.maskables if m.budget == "weights"]
    expected = sum(int(g.sum()) for g in grown) / sum(g.numel() for g in grown)
    assert (half["outward_kept"] + half["outward_cut"]) / 2 == pytest.approx(expected)
    assert quarter["outward_kept"] > quarter["outward_cut"]


@pytest.mark.parametrize("p", [0, 1.5])
def test_a_share_out_of_range_is_refused(p):
    with pytest.raises(PruningError, match=f"p is {p}"):
        indicator({}, {}, p, [])


# learning


def test_early_stopping_is_the_least_loss_of_the_very_training(lab, trainings):
    rows = list(learning(lab, DENSITIES, controls=["reinit", "random"], looks=6))
    assert [(r["network"], r["density"]) for r in rows] == [
        ("dense", 1.0),
        *((name, density) for density in (0.5, 0.25) for name in ("ticket", "reinit", "random")),
    ]
    # dense and the ticket of each density and control, in six stretches; imp's own first round is the half's ticket
    assert len(trainings) == 7 * 6
    steps = [math.ceil(lab.steps * k / 6) for k in range(1, 7)]
    states = [lab.train(lab.start("init"), lab.ones(), until=step) for step in steps]
    losses = [lab.loss(lab.network(state), "val") for state in states]
    best = losses.index(min(losses))
    then, last = (lab.signed_metric(lab.network(state), "test") for state in (states[best], lab.start("end")))
    assert rows[0] == {
        "network": "dense",
        "density": 1.0,
        "early_stop": pytest.approx(100 * steps[best] / lab.steps),
        "then": then,
        "last": last,
    }


def test_a_single_look_is_at_the_end(lab):
    dense, ticket = learning(lab, DENSITIES[:1], method="lottery", controls=[], looks=1)
    assert (dense["early_stop"], ticket["early_stop"]) == (100, 100)
    assert ticket["then"] == ticket["last"]


def test_looking_is_no_part_of_a_search(lab):
    rows = list(learning(lab, DENSITIES, method="one_shot", controls=["dense_as_long"], looks=1))
    assert [r["early_stop"] for r in rows if r["network"] == "dense_as_long"] == [200, 200]  # dense and the ticket's own


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"looks": 0}, "looks is 0"),
        ({"controls": ["rnadom"]}, "unknown control 'rnadom'"),
        ({"method": "gmp"}, "method gmp finds its masks while it trains"),
    ],
)
def test_learning_refuses_what_it_cannot_look_at(lab, options, said):
    with pytest.raises(PruningError, match=said):
        list(learning(lab, DENSITIES, **options))


def test_the_loss_of_a_split_is_the_mean_over_its_batches(lab):
    model = lab.network(lab.start("init"))
    losses = [lab.task.loss(model.eval(), batch).item() for batch in lab.task.batches("val", 0, 0)]
    assert lab.loss(model.train(), "val") == pytest.approx(sum(losses) / len(losses))


# connectivity


def test_between_is_a_straight_line(lab):
    one, other = lab.start("init"), lab.start("end")
    first, last = ({n: t.clone() for n, t in lab.load(s).state_dict().items()} for s in (one, other))
    middle = lab.interpolate(one, other, 0.25).state_dict()
    assert torch.allclose(middle["first.weight"], 0.75 * first["first.weight"] + 0.25 * last["first.weight"])
    assert torch.allclose(middle["norm.running_mean"], 0.25 * last["norm.running_mean"])
    assert all(torch.equal(t, last[n]) for n, t in lab.interpolate(other, one, 0.0).state_dict().items())


def test_refreshed_statistics_are_those_of_the_training_data(lab):
    state = lab.start("end")
    model = lab.interpolate(state, state, 0.5, refresh=True)
    x = torch.cat([batch[0] for batch in lab.task.batches("train", 0, lab.seed)])
    inside = torch.stack([model.first(part * model.gate).mean(0) for part in x.split(8)])
    assert torch.allclose(model.norm.running_mean, inside.mean(0), atol=1e-6)


def test_barriers_compare_two_orders_from_every_start(lab, trainings):
    rows, epochs = list(barrier(lab, DENSITIES[:1], starts=["init", "2ep"], points=5, tickets=True)), lab.start("2ep").step
    assert [(r["step"], r["density"]) for r in rows] == [(0, 1.0), (0, 0.5), (epochs, 1.0), (epochs, 0.5)]
    assert all(r["barrier"] >= 0 for r in rows)  # the ends are points of the line
    assert [r["stable"] for r in rows] == [int(r["barrier"] < 2) for r in rows]
    # dense, its second epoch, and two orders of four networks
    assert len(trainings) == 2 + 8
    one, other = (lab.train(lab.start("2ep"), lab.ones(), order=k) for k in (1, 2))
    line = [lab.signed_metric(lab.interpolate(one, other, k / 4), "test") for k in range(5)]
    assert rows[2]["barrier"] == pytest.approx((line[0] + line[4]) / 2 - min(line))
    assert rows[2]["ends"] == pytest.approx((line[0] + line[4]) / 2)
    (whole, *_) = barrier(lab, DENSITIES[:1], starts=["2ep"], points=2, split="train")
    assert len(trainings) == 2 + 8  # other data, the same networks
    ends = [lab.signed_metric(lab.load(state), "train") for state in (one, other)]
    assert whole["ends"] == pytest.approx(sum(ends) / 2)


# distances


def test_masks_of_epochs_are_those_of_the_dense_run(lab):
    rows = list(mask_distance(lab, DENSITIES))
    assert len(rows) == 2 * 6  # epochs 0 to 3, every pair
    dense = lab.score("magnitude", lab.start("end"), lab.ones())
    first = lab.score("magnitude", lab.start("init"), lab.ones())
    masks = [lab.allocate(scores, lab.ones(), DENSITIES[0]) for scores in (first, dense)]
    found = {(r["density"], r["earlier"], r["epoch"]): r["distance"] for r in rows}
    assert found[0.5, 0, 3] == masks[0].distance(masks[1], "weights")
    assert found[0.5, 0, 3] >= found[0.5, 2, 3]


def test_overlaps_between_methods_and_seeds(bench):
    words = ["analyse", "overlap", TOY, "threads=1", "jobs=1", f"store={bench.folder / 'store'}", f"runs={bench.folder / 'runs'}"]
    assert bench(*words, "densities=[0.5]", "analysis.methods=[one_shot,imp,random_ticket]") == 0
    (record,) = read_analyses(bench.folder / "runs")
    found = {(r["one"], r["other"]): (r["overlap"], r["expected"]) for r in record.rows}
    assert found["imp", "one_shot"][0] == 1  # the first round is the same cut
    assert found["random_ticket", "next seed"][0] == pytest.approx(1 / 3, abs=0.06)
    assert found["one_shot", "next seed"][1] == pytest.approx(1 / 3, abs=0.01)
    assert len(found) == 6


@pytest.mark.parametrize("name", ["correlation", "travel", "barrier", "mask_distance", "overlap", "learning"])
def test_every_analysis_runs_by_its_name_and_is_planned(bench, name):
    words = ["analyse", name, TOY, "threads=1", "jobs=1", f"store={bench.folder / 'store'}", f"runs={bench.folder / 'runs'}"]
    assert bench(*words, "--dry-run", "--json") == 0
    assert json.loads(bench.out)[0]["to_train"] > 0
    assert bench(*words) == 0
    assert next(read_analyses(bench.folder / "runs")).rows
    (bench.folder / "runs").rename(bench.folder / "records")
    board.write(bench.folder)
    assert board.check(bench.folder) == []
    ((group,),) = groups(read_analyses(bench.folder / "records")).values()
    assert all(svg.file(plot).startswith("<svg") for plot in group.figures().values())
    if name == "mask_distance":  # a picture for every density, of all pairs of epochs
        assert [type(plot) for plot in group.figures().values()] == [HeatMap] * len({r["density"] for r in group.records[0].rows})
    if name == "barrier":
        assert [plot.x_label for plot in group.figures().values()] == ["step"]


def test_an_overlap_of_unknown_methods_names_the_nearest(bench):
    assert bench("analyse", "overlap", TOY, f"store={bench.folder}", f"runs={bench.folder}", "analysis.methods=[imq]") == 1
    assert "unknown method 'imq'; did you mean imp" in bench.err


def test_budgets_are_compared_apart(lab):
    both = [{"weights": 0.5, "edges": 0.2}]
    rows = {r["budget"]: r for r in overlap(lab, both, methods=["random_ticket", "one_shot"], seeds=False)}
    assert rows["weights"]["expected"] == pytest.approx(1 / 3, abs=0.01)
    assert rows["edges"]["expected"] == pytest.approx(1 / 7)  # one of four is kept
    assert {r["budget"] for r in mask_distance(lab, both)} == {"weights", "edges"}
    assert {r["budget"] for r in mask_distance(lab, DENSITIES)} == {"weights"}


def test_a_line_has_two_ends(lab):
    with pytest.raises(PruningError, match="points is 1"):
        list(barrier(lab, DENSITIES, points=1))


def test_overlap_without_seeds_compares_methods_alone(lab):
    assert len(list(overlap(lab, DENSITIES, methods=["one_shot", "random_ticket"], seeds=False))) == 2
