"""Layer collapse and conservation, and what becomes of a collapsed ticket."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.config import settings
from bench.lab import Data
from bench.run import open_task
from pruning import Masks
from pruning.at_init import cut, stops
from pruning.collapse import critical_exponent, layer_totals, max_exponent, size_slope, spread, unit_totals
from pruning.scores import evaluate, magnitude, synflow
from tests.conftest import toy_lab


@pytest.fixture(scope="module")
def vgg16():
    """VGG-16 for CIFAR-100, untrained; no image is read."""
    task = open_task(settings("tasks/cnn_cifar", ["model=vgg16", "data=cifar100", "data.size=32"])[0])
    model = task.build(0)
    return task, model, task.maskables(model)


def test_by_hand():
    scores = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([[4.0, 6.0]])}
    assert layer_totals(scores) == {"a": 10, "b": 10}
    assert spread({"a": 8.0, "b": 10.0}) == pytest.approx(0.2)
    (into, out), = unit_totals(scores)
    assert (into.tolist(), out.tolist()) == ([3, 7], [4, 6])
    assert size_slope(scores) == pytest.approx(1)  # means 10 / 4 and 10 / 2
    pixels = {"conv": torch.ones(2, 1, 3, 3), "flat": torch.arange(8.0).reshape(1, 8)}
    (into, out), = unit_totals(pixels)
    assert (into.tolist(), out.tolist()) == ([9, 9], [0 + 1 + 2 + 3, 4 + 5 + 6 + 7])


def test_critical_exponent_is_the_last_before_the_first_collapse():
    asked = []

    def ticket(density: float) -> Masks:
        asked.append(density)
        return Masks({"a": torch.tensor([density > 0.15])}, {"a": "weights"})

    assert critical_exponent(ticket, 2.0) == 0.75
    assert asked == pytest.approx([10**-0.25, 10**-0.5, 10**-0.75, 0.1])
    assert critical_exponent(lambda density: Masks({}, {}), 2.1) == 2.0


def test_synflow_is_conserved_on_vgg16(vgg16):
    task, model, maskables = vgg16
    scores = evaluate(synflow, copy.deepcopy(model).double(), maskables, Data(task, 0, "synflow", {}))
    totals = layer_totals(scores)
    assert spread(totals) < 1e-6
    assert all(((into - out).abs() / out).max() < 1e-6 for into, out in unit_totals(scores))
    assert 2.5e23 < totals["head.weight"] < 3.5e23  # 2.99e23, 3.09e23, 3.01e23 for three seeds of the authors'
    assert size_slope(scores) == pytest.approx(1, abs=1e-6)
    assert max_exponent(maskables) == pytest.approx(6.02, abs=0.005)


def test_magnitude_collapses_on_vgg16_where_the_papers_does(vgg16):
    task, model, maskables = vgg16
    data = Data(task, 0, "magnitude", {})

    def ticket(density: float) -> Masks:
        return cut(magnitude, copy.deepcopy(model), maskables, data, [{"weights": density}])[0]

    assert not ticket(10**-2.75).collapsed()
    assert ticket(10**-3).collapsed()
    percent = [100 * d for d in ticket(0.1).densities().values()]
    assert percent == pytest.approx([89, 52, 52, 36, 36, 19, 19, 19, *[6.6] * 5, 54], abs=3)


def test_synflow_does_not_collapse_on_vgg16(vgg16):
    """At a thousandth of the weights, in ten rounds instead of a hundred: a hundred keep 44 % of the first layer."""
    task, model, maskables = vgg16
    masks, _ = cut(synflow, copy.deepcopy(model), maskables, Data(task, 0, "synflow", {}),
                   stops({"weights": 1e-3}, 10, "exponential"))
    assert masks.kept() == 14_762
    assert not masks.collapsed()
    assert masks.densities()["features.0.weight"] > 0.2


def test_a_cut_through_network_is_noticed(tmp_path):
    lab = toy_lab(tmp_path)
    start, masks = lab.start("init"), lab.ones()
    assert not lab.collapsed(start, masks)
    through = masks.replace({"first.weight": torch.zeros_like(masks["first.weight"])})
    assert lab.collapsed(start, through)
    one = torch.zeros_like(masks["last.weight"])
    one[0, 3] = True
    assert not lab.collapsed(start, masks.replace({"last.weight": one}))


def test_dead_units_are_no_collapse(tmp_path):
    lab = toy_lab(tmp_path)
    with torch.no_grad():
        lab.model.middle.bias.fill_(-100)
    lab._fresh["init"] = {name: t.clone() for name, t in lab.model.state_dict().items()}
    masks = lab.ones()
    one = masks["last.weight"].clone()
    one[0, 0] = False
    assert not lab.collapsed(lab.start("init"), masks.replace({"last.weight": one}))


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
    record, = (r for r in bench.records() if r.identity.method.endswith("none"))
    assert record.status == "ok"
    assert record.collapsed == ["first.weight"]
    assert record.ticket.notes == {"collapsed": "no path from input to output: not trained"}
    assert record.cost.train_steps == 0
    assert record.result.step == 0
    dense, = (r for r in bench.records() if r.identity.method == "dense")
    assert dense.cost.train_steps > 0
