"""Layer collapse and conservation, and what becomes of a collapsed ticket."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench.config import settings
from bench.errors import BenchError
from bench.lab.lab import Lab
from bench.lab.scoring import ScoreView
from bench.runner.jobs import open_task
from bench.storage.stages import Store
from bench.task.capabilities import HasProbe
from pruning import Maskable, Masks, PruningError
from pruning.analyses.collapse import (
    collapse,
    critical_exponent,
    layer_densities,
    lost_score,
    max_exponent,
    one_shot_exponent,
    prune_size,
)
from pruning.analyses.conservation import conservation, layer_totals, size_slope, spread, unit_totals
from pruning.methods.at_init import cut
from pruning.schedules import density_schedule
from pruning.scores import evaluate, magnitude, synflow
from tasks.cnn_cifar.models import VGG, VGGS, build
from tests.conftest import toy_lab


@pytest.fixture(scope="module")
def vgg16():
    """VGG-16 for CIFAR-100, untrained."""
    task = open_task(settings("tasks/cnn_cifar", ["model=vgg16", "data=cifar100_shapes", "data.size=32"])[0])
    model = task.build(0)
    return task, model, task.maskables(model)


@pytest.fixture(scope="module")
def lab(vgg16, tmp_path_factory):
    return Lab(vgg16[0], "cnn_cifar", 1, 0, Store(tmp_path_factory.mktemp("store")))


def test_by_hand():
    scores = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([[4.0, 6.0]])}
    assert layer_totals(scores) == {"a": 10, "b": 10}
    assert spread({"a": 8.0, "b": 10.0}) == pytest.approx(0.2)
    ((into, out),) = unit_totals(scores)
    assert (into.tolist(), out.tolist()) == ([3, 7], [4, 6])
    assert size_slope(scores) == pytest.approx(1)  # means 10 / 4 and 10 / 2
    pixels = {"conv": torch.ones(2, 1, 3, 3), "flat": torch.arange(8.0).reshape(1, 8)}
    ((into, out),) = unit_totals(pixels)
    assert (into.tolist(), out.tolist()) == ([9, 9], [0 + 1 + 2 + 3, 4 + 5 + 6 + 7])


def test_no_plain_chain_is_named():
    with pytest.raises(PruningError, match=r"b reads 3 units but the layer before it has 2: this is no plain chain"):
        unit_totals({"a": torch.ones(2, 4), "b": torch.ones(1, 3)})


def test_critical_exponent_is_the_last_on_the_grid_without_collapse():
    asked = []

    def ticket(density: float) -> Masks:
        asked.append(density)
        return Masks({"a": torch.tensor([density > 0.15])}, {"a": "weights"})

    assert critical_exponent(ticket, 2.1) == 0.75
    assert asked == pytest.approx([10**-2.0, 10**-1.0, 10**-0.5, 10**-0.75])
    assert critical_exponent(lambda density: Masks({}, {}), 2.1) == 2.0
    assert critical_exponent(lambda density: Masks({"a": torch.tensor([False])}, {"a": "weights"}), 2.0) == 0


def test_one_shot_exponent_is_where_the_weakest_tensor_loses_its_best():
    """Ranks 9, 8, 7 | 6 | 5, ...: b is alive while 4 of 10 are kept, and not with 3."""
    scores = {"a": torch.tensor([[9.0, 8.0, 7.0], [5.0, 4.0, 3.0]]), "b": torch.tensor([6.0, 2.0, 1.0, 0.0])}
    assert one_shot_exponent(scores) == pytest.approx(0.39794)  # log10(10 / 4)


def test_lost_score_is_of_what_was_cut_just_now():
    before = Masks({"a": torch.tensor([True, True, False])}, {"a": "weights"})
    after = Masks({"a": torch.tensor([True, False, False])}, {"a": "weights"})
    assert lost_score({"a": torch.tensor([1.0, 2.0, 4.0])}, before, after) == 2


def test_many_rounds_on_an_exponential_path_cut_little_at_a_time(tmp_path):
    """What the toy network loses in one cut is what all rounds lose at most; a tenth of the weights in twenty rounds."""
    mine, tenth = toy_lab(tmp_path), [{"weights": 0.1}]
    (once,), (often,), (linear,) = (
        list(prune_size(mine, tenth, rounds=rounds, path=path))
        for rounds, path in ((1, "exponential"), (20, "exponential"), (20, "linear"))
    )
    whole = mine.score("synflow", mine.start("init"), mine.ones())
    left = mine.cut("synflow", mine.start("init"), tenth, floors=False)[0]
    expected = lost_score(whole, mine.ones(), left) / float(whole["last.weight"].sum())
    assert once["ratio"] == pytest.approx(expected)
    assert often["ratio"] < linear["ratio"] < once["ratio"]
    assert often["ratio"] < 1
    assert often["collapsed"] == 0


def test_analyses_of_one_budget_leave_the_others_out(tmp_path):
    """Edges come after the weights, and SynFlow's of them are not its flow R."""
    mine = toy_lab(tmp_path)
    flow = float(mine.score("synflow", mine.start("init"), mine.ones())["last.weight"].sum())
    (row,) = conservation(mine, [], scores=["synflow"])
    assert row["total"] == pytest.approx(flow)
    with pytest.raises(PruningError, match=r"choose another budget"):
        next(conservation(mine, [], budget="heads"))
    (random,) = prune_size(mine, [{"weights": 0.1}], scores=["random"], rounds=20)
    assert random["ratio"] > 1  # what was cut before counts no more in what the last layer scores


def test_what_an_analysis_cannot_score_is_one_line(tmp_path):
    mine = toy_lab(tmp_path, "data=broken")
    with pytest.raises(PruningError, match="has non-finite entries"):
        next(collapse(mine, [], scores=["snip"], options={"snip": {"per_class": 32, "balanced": False}}))
    with pytest.raises(PruningError, match="unknown score in the options 'snipp': one of snip"):
        next(collapse(mine, [], scores=["snip"], options={"snipp": {"mode": "train"}}))
    for score in ("snip", "grasp_magnitude"):
        with pytest.raises(BenchError, match=f"unknown option of score {score} 'mod'; did you mean mode"):
            next(collapse(mine, [], scores=[score], options={score: {"mod": "train"}}))
    for options in (["snip"], {"snip": 5}):
        with pytest.raises(PruningError, match="it maps a score to its options"):
            next(collapse(mine, [], scores=["snip"], options=options))


def test_scores_that_are_nothing_have_no_slope_and_no_spread():
    scores = {"a": torch.zeros(4), "b": torch.ones(9)}
    assert not math.isfinite(size_slope(scores))
    assert spread({"a": 0.0, "b": 0.0}) == 0


def test_max_exponents_of_the_papers_networks():
    def exponent(name: str, size: int, classes: int, hidden: int = 0) -> float:
        with torch.device("meta"):
            model = VGG(VGGS[name], 3, size, classes, hidden)
        weights = [p for p in model.parameters() if p.ndim > 1]
        return max_exponent([Maskable(str(i), tuple(p.shape), "conv") for i, p in enumerate(weights)])

    assert exponent("vgg16", 32, 100) == pytest.approx(6.0230073)  # log10(14,761,664 / 14)
    assert exponent("vgg16", 32, 10) == pytest.approx(6.0216494)  # 14,715,584 / 14
    assert exponent("vgg11", 32, 10) == pytest.approx(6.0106224)  # 9,222,848 / 9
    assert exponent("vgg19", 224, 1000, 4096) == pytest.approx(6.8785597)  # 143,652,544 / 19: between 2^22 and 2^23


def test_analyses_of_the_toy_task(tmp_path):
    """First, middle and last: 128, 256 and 32 weights."""
    mine = toy_lab(tmp_path)
    weights = {m.name: mine.model.get_parameter(m.name).detach().abs() for m in mine.maskables if m.budget == "weights"}
    (row,) = collapse(mine, [], scores=["magnitude"])
    assert row["critical_exponent"] == pytest.approx(one_shot_exponent(weights))
    assert row["max_exponent"] == pytest.approx(2.14197, abs=1e-4)  # log10(416 / 3)
    (once,) = collapse(mine, [], scores=["synflow"])
    (often,) = collapse(mine, [], scores=["synflow"], rounds=20)
    assert often["critical_exponent"] > once["critical_exponent"]
    rows = list(layer_densities(mine, [{"weights": 0.5}, {"edges": 0.5}], scores=["random"]))
    assert [(r["layer"], r["density"]) for r in rows] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert sum(r["kept"] for r in rows) == 208
    assert [r["share"] for r in rows] == [r["kept"] / n for r, n in zip(rows, (128, 256, 32), strict=True)]
    assert [r["effective"] for r in rows] == [r["share"] for r in rows]  # no unit has lost all it had
    few = list(layer_densities(mine, [{"weights": 0.03}], scores=["random"]))
    assert all(r["effective"] <= r["share"] for r in few)
    assert sum(r["effective"] for r in few) < sum(r["share"] for r in few)
    mine.task.lacks = frozenset({HasProbe})
    assert all(r["effective"] is None for r in layer_densities(mine, [{"weights": 0.5}], scores=["random"]))
    (row,) = conservation(mine, [], scores=["magnitude"])
    assert row["total"] == pytest.approx(float(weights["last.weight"].sum()))
    assert row["unit_error"] is None


def test_synflow_is_conserved_on_vgg16(vgg16):
    task, model, maskables = vgg16
    scores = evaluate(synflow, copy.deepcopy(model).double(), maskables, ScoreView(task, 0, "synflow", {}))
    totals = layer_totals(scores)
    assert spread(totals) < 1e-6
    assert all(((into - out).abs() / out).max() < 1e-6 for into, out in unit_totals(scores))
    assert 2.5e23 < totals["head.weight"] < 3.5e23  # 2.99e23, 3.09e23, 3.01e23 for three seeds of the authors'
    assert size_slope(scores) == pytest.approx(1, abs=1e-6)


def test_what_the_analyses_say_of_vgg16(lab):
    """Beside what the authors' code gave for VGG-16 and CIFAR-100 on a grid of 0.25: random 2.75 to 3.75, magnitude 2.75."""
    rows = {row["score"]: row for row in collapse(lab, [], scores=["random", "magnitude", "synflow"])}
    assert 2.75 <= rows["random"]["critical_exponent"] < 4
    assert 2.75 <= rows["magnitude"]["critical_exponent"] < 3
    assert rows["synflow"]["critical_exponent"] < 2  # one cut is not SynFlow
    assert {row["max_exponent"] for row in rows.values()} == {max_exponent(lab.maskables)}
    random, flow = conservation(lab, [], scores=["random", "synflow"], chain=True)
    assert 2.5e23 < flow["total"] < 3.5e23  # R_SF: 2.99e23, 3.09e23, 3.01e23
    assert flow["size_slope"] == pytest.approx(1, abs=1e-6)
    assert flow["unit_correlation"] == pytest.approx(1, abs=1e-6)
    assert flow["unit_error"] < 1e-5  # in float32; the authors' 1.5e-6
    assert random["size_slope"] == pytest.approx(0, abs=0.01)


def test_magnitude_collapses_on_vgg16_where_the_papers_does(vgg16):
    task, model, maskables = vgg16
    data = ScoreView(task, 0, "magnitude", {})

    def ticket(density: float) -> Masks:
        return cut(magnitude, copy.deepcopy(model), maskables, data, [{"weights": density}])[0]

    assert not ticket(10**-2.75).collapsed()
    assert ticket(10**-3).collapsed()
    percent = [100 * d for d in ticket(0.1).densities().values()]
    assert percent == pytest.approx([89, 52, 52, 36, 36, 19, 19, 19, *[6.6] * 5, 54], abs=3)


@pytest.mark.parametrize(
    ("density", "kept", "percent"),
    [
        (0.1, 1_476_166, [100, 90, 81, 64, 44, 25, 24, 12, 6, 6, 5.6, 5.4, 6, 86]),
        (0.001, 14_762, [44, 3.3, 1.4, 0.76, 0.37, 0.19, 0.18, 0.09, 0.046, 0.046, 0.042, 0.042, 0.042, 2.3]),
    ],
)
def test_synflow_cuts_vgg16_as_the_authors_code_did(vgg16, density, kept, percent):
    """A hundred rounds for CIFAR-100: densities of the layers in percent, to a fiftieth of a point or a tenth of each."""
    task, model, maskables = vgg16
    masks, _ = cut(
        synflow,
        copy.deepcopy(model),
        maskables,
        ScoreView(task, 0, "synflow", {}),
        density_schedule({"weights": density}, 100, "exponential"),
    )
    assert masks.kept() == kept
    assert not masks.collapsed()
    assert [100 * d for d in masks.densities().values()] == pytest.approx(percent, abs=0.02, rel=0.1)


def test_synflow_cuts_resnet20_as_the_papers_code_does(vgg16):
    """A hundred rounds, CIFAR-10: shortcuts all but go, stages thin out by their width. At a thousandth two blocks are empty
    but for a weight or two, and the network goes on through their identities."""
    task, *_ = vgg16
    model = build("resnet20", "projection", (3, 32, 32), 10, seed=0)
    maskables, data = task.maskables(model), ScoreView(task, 0, "synflow", {})

    def percent(density: float) -> dict[str, float]:
        masks, _ = cut(synflow, copy.deepcopy(model), maskables, data, density_schedule({"weights": density}, 100, "exponential"))
        return {name.removeprefix("stages.").removesuffix(".weight"): 100 * d for name, d in masks.densities().items()}

    tenth, thousandth = percent(0.1), percent(0.001)
    assert list(tenth.values()) == pytest.approx(
        [90, 54, 54, 55, 55.5, 56, 55, 32, 17, 1.2, 17, 17, 16, 17, 8.5, 4.3, 0.1, 4.3, 4.4, 3.7, 4.7, 76], abs=3
    )
    assert [tenth[f"{stage}.0.shortcut.0"] for stage in (1, 2)] == pytest.approx([1.2, 0.1], abs=0.3)
    assert [thousandth[f"2.{block}.conv{i}"] for block in (1, 2) for i in (1, 2)] == pytest.approx([0] * 4, abs=0.01)
    assert thousandth["head"] > 0


def test_a_cut_through_network_is_noticed(tmp_path):
    lab = toy_lab(tmp_path)
    start, masks = lab.start("init"), lab.ones()
    assert not lab.is_disconnected(start, masks)
    through = masks.replace({"first.weight": torch.zeros_like(masks["first.weight"])})
    assert lab.is_disconnected(start, through)
    one = torch.zeros_like(masks["last.weight"])
    one[0, 3] = True
    assert not lab.is_disconnected(start, masks.replace({"last.weight": one}))


def test_dead_units_are_no_collapse(tmp_path):
    lab = toy_lab(tmp_path)
    with torch.no_grad():
        lab.model.middle.bias.fill_(-100)
    lab._fresh["init"] = {name: t.clone() for name, t in lab.model.state_dict().items()}
    masks = lab.ones()
    one = masks["last.weight"].clone()
    one[0, 0] = False
    assert not lab.is_disconnected(lab.start("init"), masks.replace({"last.weight": one}))


def test_a_cut_through_graph_network_is_noticed(tmp_path):
    """All nodes are one batch; the probe is the same graph with other words."""
    task = open_task(settings("tasks/gcn_planetoid", ["protocol=smoke"])[0])
    lab = Lab(task, "gcn_planetoid", 1, 0, Store(tmp_path))
    start, masks = lab.start("init"), lab.ones()
    name = masks.names("weights")[0]
    one = torch.zeros_like(masks[name])
    assert lab.is_disconnected(start, masks.replace({name: one}))
    assert not lab.is_disconnected(start, masks.replace({name: torch.rand(one.shape) < 0.2}))


def test_a_ticket_of_imp_is_trained_only_where_it_is_evaluated(bench, trainings, tmp_path):
    """The last one has no round after it."""
    assert bench.run("method=imp", "densities=[0.5,0.0073]", "controls=[]", "seeds=[0]") == 0  # 3 of 416
    last = next(r for r in bench.records() if r.identity.densities == {"weights": 0.0073})
    assert last.ticket.notes == {"collapsed": "no path from input to output: not trained"}
    assert trainings == [(0, 24), (0, 24), (0, 0)]  # dense, the first ticket, the last one as it was found


def test_a_collapsed_ticket_is_recorded_and_not_trained(bench, trainings, tmp_path):
    method = tmp_path / "none.py"
    method.write_text("""
import torch
from pruning import Ticket

def none(lab, densities):
    masks = lab.ones()
    masks = masks.replace({n: torch.zeros_like(m) for n, m in masks.items() if n == "first.weight"})
    for density in densities:
        yield Ticket(density, masks, lab.start("init"))
""")
    assert bench.run(f"method={method}:none", f"densities=[{288 / 416}]") == 0
    (record,) = (r for r in bench.records() if r.identity.method.endswith("none"))
    assert record.status == "ok"
    assert record.collapsed == ["first.weight"]
    assert record.ticket.notes == {"collapsed": "no path from input to output: not trained"}
    assert record.cost.train_steps == 0
    assert record.result.step == 0
    (dense,) = (r for r in bench.records() if r.identity.method == "dense")
    assert dense.cost.train_steps > 0


def test_layers_of_either_layout_are_conserved_alike():
    """A chain of 4 inputs, 3 hidden units and 2 outputs, written (out, in) and (in, out)."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(1.0, parameter.numel() + 1).reshape(parameter.shape))
    rows = []
    for axis in (1, 0):
        weights = {n: p.detach() if axis else p.detach().T for n, p in model.named_parameters()}
        layers = [Maskable(n, tuple(w.shape), "linear", input_axis=axis) for n, w in weights.items()]
        lab = SimpleNamespace(
            maskables=layers, start=lambda name: name, ones=lambda: None, score=lambda *what, weights=weights, **options: weights
        )
        rows += conservation(lab, [], scores=["magnitude"], chain=True)
    assert rows[0]["unit_correlation"] is not None
    assert rows[0] == rows[1]
