"""Retraining, rates by kind and continued training: numbers by hand, and what is trained from where."""

from dataclasses import replace

import pytest
import torch

from bench.lab.dry_run import PlanLab
from pruning import Maskable, Masks, PruningError, allocate
from pruning.methods.admm import admm
from pruning.methods.magnitude import imp, imp_by_kind, imp_continued, one_shot
from pruning.methods.retraining import lottery, prune_finetune
from tests.conftest import toy_lab

DENSITIES = [{"weights": 0.5}, {"weights": 0.25}]


@pytest.fixture
def lab(tmp_path):
    return toy_lab(tmp_path)


# Liu et al. 2021


@pytest.mark.parametrize("maker", ["one_shot", "imp", "admm"])
def test_both_retrain_the_same_masks_for_as_long(lab, maker):
    ours, theirs = list(prune_finetune(lab, DENSITIES, maker)), list(lottery(lab, DENSITIES, maker))
    assert [t.masks for t in ours] == [t.masks for t in theirs]
    assert {t.start for t in ours} == {lab.start("end")}
    assert {t.start for t in theirs} == {lab.start("init")}
    assert {lab.training_steps(t) for t in (*ours, *theirs)} == {lab.steps}


def test_prune_finetune_of_one_shot_masks_is_rate_rewinding(lab, trainings):
    (ours, *_), (theirs, *_) = prune_finetune(lab, DENSITIES), one_shot(lab, DENSITIES, rewind="end", schedule="whole")
    one = lab.train(ours.start, ours.masks, ours.schedule)
    assert lab.train(theirs.start, theirs.masks, theirs.schedule) == one
    assert len(trainings) == 2  # the dense one and this


def test_an_early_step_is_trained_as_long_as_from_the_start(lab):
    (ticket, *_) = lottery(lab, DENSITIES, rewind="1ep")
    assert (ticket.start.step, lab.training_steps(ticket)) == (8, 24)


def test_unknown_makers_are_refused(lab):
    with pytest.raises(PruningError, match="unknown maker 'adm': one of one_shot, imp, admm"):
        list(lottery(lab, DENSITIES, "adm"))


# Frankle & Carbin 2019


def test_continued_training_rewinds_only_the_tickets(lab):
    continued, rewound = list(imp_continued(lab, DENSITIES)), list(imp(lab, DENSITIES))
    assert {t.start for t in continued} == {lab.start("init")}
    assert continued[0].masks == rewound[0].masks  # the first cut is of the dense network
    assert continued[1].masks != rewound[1].masks
    kept_on = list(imp(lab, DENSITIES, rewind="end", schedule="whole"))
    assert [t.masks for t in continued] == [t.masks for t in kept_on]


class Shapes:
    """A lab that trains nothing: scores are drawn, and rounds counted."""

    def __init__(self, shapes):
        self.maskables = [Maskable(name, shape, kind) for name, (shape, kind) in shapes.items()]
        self.trained = 0

    def ones(self):
        return Masks.ones(self.maskables)

    def start(self, name):
        return name

    def train(self, *what):
        self.trained += 1
        return "trained"

    def score(self, name, state, masks):
        return {m.name: torch.rand(m.shape, generator=torch.Generator().manual_seed(0)) for m in self.maskables}

    def allocate_each(self, scores, masks, members, densities):
        return allocate(
            scores, masks, densities, [replace(m, budget=members[m.name]) for m in self.maskables if m.name in members]
        )


LENET = {"1": ((300, 784), "linear"), "2": ((100, 300), "linear"), "3": ((10, 100), "head")}
RESNET20 = {
    "stem": ((16, 3, 3, 3), "conv"),
    **{f"1.{i}": ((16, 16, 3, 3), "conv") for i in range(6)},
    "2.0": ((32, 16, 3, 3), "conv"),
    **{f"2.{i}": ((32, 32, 3, 3), "conv") for i in range(1, 6)},
    "3.0": ((64, 32, 3, 3), "conv"),
    **{f"3.{i}": ((64, 64, 3, 3), "conv") for i in range(1, 6)},
    "s2": ((32, 16, 1, 1), "shortcut"),
    "s3": ((64, 32, 1, 1), "shortcut"),
    "fc": ((10, 64), "linear"),
}


def test_rates_of_lenet_give_the_densities_of_the_paper():
    lab = Shapes(LENET)
    tickets = list(imp_by_kind(lab, [{"weights": 0.52}, {"weights": 0.212}], {"linear": 0.2, "head": 0.1}))
    assert [t.notes["rounds"] for t in tickets] == [3, 7]
    assert [round(100 * t.masks.density(), 1) for t in tickets] == [51.3, 21.1]
    assert tickets[0].masks.kept("weights") == round(0.8**3 * 235_200) + round(0.8**3 * 30_000) + 729
    assert lab.trained == 6  # the first cut is of the dense network


def test_rates_of_resnet_20_give_the_densities_of_the_paper_with_what_stays_whole_counted():
    asked = [{"weights": d} for d in (0.417, 0.272, 0.22, 0.119)]
    tickets = list(imp_by_kind(Shapes(RESNET20), asked, {"conv": 0.2}, together=True))
    assert tickets[0].masks.total() == 270_896
    assert [t.notes["rounds"] for t in tickets] == [4, 6, 7, 10]
    assert [round(100 * t.masks.density(), 1) for t in tickets] == [41.7, 27.1, 21.9, 11.8]
    assert all(bool(t.masks[name].all()) for t in tickets for name in ("s2", "s3", "fc"))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({}, "give one or more of the kinds linear, head"),
        ({"linear": 0.2, "haed": 0.1}, "give one or more of the kinds"),
        ({"linear": 1.0}, r"a share in \(0, 1\)"),
        ({"head": 0.05}, "100 rounds .* do not reach density"),
    ],
)
def test_rates_that_lead_nowhere_are_refused(rates, message):
    with pytest.raises(PruningError, match=message):
        list(imp_by_kind(Shapes(LENET), [{"weights": 0.2}], rates))


def test_rates_on_a_real_lab(lab):
    for ticket in imp_by_kind(lab, DENSITIES, {"linear": 0.4}):
        assert ticket.masks.density("weights") <= ticket.densities["weights"]
        assert ticket.masks.density("edges") == 1
    (ticket, *_) = imp_by_kind(lab, DENSITIES)  # a fifth of every kind, but of weights alone
    assert (ticket.masks.density("weights"), ticket.masks.density("edges"), ticket.notes) == (
        pytest.approx(0.4096, abs=0.003),
        1,
        {"rounds": 4},
    )


# all of them


@pytest.mark.parametrize(
    "words",
    [
        ["method=prune_finetune"],
        ["method=lottery", "method.maker=imp"],
        ["method=imp_continued"],
        ["method=admm"],
        ["method=imp_by_kind", "method.rates={linear: 0.3}"],
    ],
)
def test_every_method_runs_and_is_planned(bench, words):
    assert bench.run(*words, "densities=[0.5,0.2]", "controls=[random]", "--dry-run") == 0
    assert bench.run(*words, "densities=[0.5,0.2]", "controls=[random]") == 0
    assert len(bench.records()) == 5


def test_plans_count_what_is_trained(tmp_path):
    planned = {}
    lab = toy_lab(tmp_path, kind=PlanLab, planned=planned)
    list(imp_continued(lab, DENSITIES))
    assert sum(planned.values()) == 2 * 24  # dense, and on from it
    for ticket in admm(lab, DENSITIES):
        lab.train(ticket.start, ticket.masks, ticket.schedule)
    assert sum(planned.values()) == (2 + 4) * 24  # two searches, two tickets
