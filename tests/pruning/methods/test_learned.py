"""Edge-popup and Gem-Miner: gradients, freezes and timetables by hand, then whole searches on the toy task."""

import pytest
import torch
from torch import nn

from bench.lab.dry_run import PlanLab
from pruning import Maskable, Masks, NotApplicable, PruningError
from pruning.callbacks.base import TrainingContext
from pruning.methods.learned import EdgePopup, GemMiner, after_freeze, edge_popup, freeze_share, gem_miner
from pruning.methods.magnitude import imp
from tests.conftest import toy_lab

ONE_FREEZE = 9
"""Epochs between freezes that leave one to a search of ten."""


def begun(rule, scores, total=10, steps_per_epoch=1, masks=None):
    """A training of y = w x with w = (2, -1) that ``rule`` has begun, its scores set."""
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[2.0, -1.0]])
    maskables = [Maskable("weight", (1, 2), "linear")]
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    run = TrainingContext(
        model,
        optimizer,
        maskables,
        0,
        total,
        steps_per_epoch,
        Masks.ones(maskables),
        set_masks=lambda masks: None,
        generator=lambda purpose: torch.Generator().manual_seed(0),
        validate=lambda: 0.0,
    )
    run.set_masks = lambda masks: setattr(run, "masks", masks)
    rule.on_start(run)
    rule.scores["weight"].copy_(torch.tensor([scores]))
    if masks:
        run.masks = run.masks.replace({"weight": torch.tensor([masks])})
    return run


def step(rule, run):
    """One step on x = (1, 3) with the output as the loss; returns the weights it was made with."""
    rule.before_forward(run)
    used = run.model.weight.tolist()[0]
    run.model(torch.tensor([[1.0, 3.0]])).sum().backward()
    rule.after_backward(run)
    run.optimizer.step()
    run.step += 1
    rule.after_step(run)
    return used


def test_edge_popup_by_hand():
    rule = EdgePopup({"weights": 0.5}, 0.1, "sgd", 0.0, "uniform")
    run = begun(rule, [0.5, -0.25])
    assert step(rule, run) == [2.0, 0.0]
    # through the mask: x * w = (2, -3), times the sign of the score (2, 3); the rate is 0.1
    assert rule.scores["weight"].tolist()[0] == pytest.approx([0.3, -0.55])
    assert step(rule, run) == [0.0, -1.0]  # the other has popped up, with the weight it was drawn with
    # momentum 0.9 adds to the same gradient, at a rate of 0.1 (1 + cos(pi / 10)) / 2
    rate = 0.1 * 0.9755282581475768
    assert rule.scores["weight"].tolist()[0] == pytest.approx([0.3 - rate * 3.8, -0.55 - rate * 5.7])


def test_gem_miner_by_hand():
    rule = GemMiner({"weights": 0.5}, 0.1, "sgd", 0.5, ONE_FREEZE)
    run = begun(rule, [0.7, 0.2])
    assert step(rule, run) == [2.0, 0.0]
    # (2, -3) + 2 * 0.5 * score
    assert rule.scores["weight"].tolist()[0] == pytest.approx([0.7 - 0.27, 0.2 + 0.28])
    assert step(rule, run) == [0.0, 0.0]  # neither is above 0.5


def test_gem_miner_projects():
    rule = GemMiner({"weights": 0.5}, 1.0, "sgd", 0.0, ONE_FREEZE)
    run = begun(rule, [0.7, 0.2])
    step(rule, run)
    assert rule.scores["weight"].tolist() == [[0.0, 1.0]]


def test_what_is_frozen_feels_the_penalty_alone():
    rule = GemMiner({"weights": 0.5}, 0.1, "sgd", 0.5, ONE_FREEZE)
    run = begun(rule, [0.7, 0.9], masks=[True, False])
    assert step(rule, run) == [2.0, 0.0]
    assert rule.scores["weight"].tolist()[0] == pytest.approx([0.7 - 0.27, 0.9 - 0.09])


def test_one_half_rounds_down():
    rule = GemMiner({"weights": 0.5}, 0.1, "sgd", 0.0, ONE_FREEZE)
    assert step(rule, begun(rule, [0.5, 0.50001])) == [0.0, -1.0]


# The published fractions and the counts of the authors' masks


@pytest.mark.parametrize(
    ("density", "epochs", "period", "share"),
    [
        (0.0059, 150, 5, 0.1622),
        (0.0144, 150, 5, 0.1360),
        (0.0372, 150, 5, 0.1073),
        (0.2, 150, 5, 0.0540),
        (0.014, 300, 5, 0.0698),
        (0.005, 200, 5, 0.1270),
    ],
)
def test_freeze_shares(density, epochs, period, share):
    assert freeze_share(density, epochs, period) == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize(
    ("density", "period", "left"), [(0.5, 8, 134_161), (0.0372, 5, 9_977), (0.0144, 5, 3_861), (0.0059, 5, 1_580)]
)
def test_freezes_of_resnet20(density, period, left):
    living, share = 268_336, freeze_share(density, 150, period)
    for _ in range(149 // period):
        living = after_freeze(living, share)
    assert living == left


@pytest.mark.parametrize("period", [0, 6, 7, 2.5, "two"])
def test_a_search_that_never_freezes_is_refused(period):
    with pytest.raises(PruningError, match=r"the search has only 6: period must be a whole number in \[1, 5\]"):
        freeze_share(0.5, 6, period)


class Watched(GemMiner):
    """Notes what is left after every epoch."""

    def after_epoch(self, run):
        before = run.masks
        super().after_epoch(run)
        self.left.append((run.step // run.steps_per_epoch, run.masks.kept("weights")))
        assert all(not (run.masks[n] & ~before[n]).any() for n in before)  # for ever
        cut = [self.scores[n][before[n] & ~run.masks[n]] for n in self.scores]
        kept = [self.scores[n][run.masks[n]] for n in self.scores]
        assert torch.cat(cut).max() <= torch.cat(kept).min() if torch.cat(cut).numel() else True


@pytest.mark.parametrize(("period", "epochs"), [(1, [2, 3, 4, 5, 6]), (2, [3, 5]), (3, [4]), (5, [6])])
def test_freezes_come_after_the_first_period_and_one(tmp_path, period, epochs):
    rule = Watched({"weights": 0.25}, 0.1, "sgd", 1e-4, period)
    rule.left = []
    lab = toy_lab(tmp_path, "train.epochs=6")
    found = lab.train(lab.start("init"), lab.ones(), callback=rule)
    share, living, expected = freeze_share(0.25, 6, period), 416, []
    for epoch in range(1, 7):
        living = after_freeze(living, share) if epoch in epochs else living
        expected.append((epoch, living))
    assert rule.left == expected
    assert 0 <= 104 - living < len(epochs)  # a bound, short of it by the rounding alone
    assert lab.masks(found).kept("weights") == living
    assert lab.masks(found).density("edges") == 1.0  # nobody asked


# Whole searches


@pytest.mark.parametrize(
    "rule",
    [
        EdgePopup({"weights": 0.3}, 0.1, "sgd", 1e-4, "uniform"),
        EdgePopup({"weights": 0.3, "edges": 0.5}, 0.1, "adam", 0.0, "global"),
        EdgePopup({"weights": 0.3}, 0.1, "sgd", 1e-4, "global", period=1),
        GemMiner({"weights": 0.3}, 0.1, "adam", 1e-4, 1),
        GemMiner({"weights": 0.3, "edges": 0.5}, 0.1, "sgd", 1e-4, 1),
    ],
    ids=["edge_popup", "global", "gradual", "gem_miner", "budgets"],
)
def test_weights_stay_and_pieces_are_one(tmp_path, rule):
    lab = toy_lab(tmp_path / "whole")
    init = {n: t.clone() for n, t in lab.load(lab.start("init")).state_dict().items()}
    whole = lab.stage(lab.train(lab.start("init"), lab.ones(), callback=rule)).tensors()
    other = toy_lab(tmp_path / "pieces")
    for until in (3, 8, 17, None):
        state = other.train(other.start("init"), other.ones(), until=until, callback=rule)
    pieces = other.stage(state).tensors()
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[n], pieces[n]) for n in whole)
    scores, masks = lab.learned_scores(state), lab.masks(state)
    for name, p in lab.model.named_parameters():
        if name in scores:
            assert torch.equal(whole[f"rule/weights/{name}"], init[name])
            flagged = scores[name] > 0.5 if isinstance(rule, GemMiner) else torch.ones_like(masks[name])
            assert torch.equal(whole[f"model/{name}"], init[name] * (masks[name] & flagged)), name
        else:
            assert torch.equal(whole[f"model/{name}"], init[name]), name
        assert p.grad is None


def test_edge_popup_keeps_k_in_every_layer(tmp_path):
    lab = toy_lab(tmp_path)
    tickets = list(edge_popup(lab, [{"weights": 0.25}]))
    masks = tickets[0].masks
    assert {n: int(masks[n].sum()) for n in masks.names("weights")} == {"first.weight": 32, "middle.weight": 64, "last.weight": 8}
    for name in masks.names("weights"):
        score = tickets[0].scores[name]
        assert score[masks[name]].min() >= score[~masks[name]].max()
    wide = next(edge_popup(toy_lab(tmp_path), [{"weights": 0.25}], scheme="global")).masks
    assert wide.kept("weights") == 104
    assert {int(wide[n].sum()) for n in wide.names("weights")} != {32, 64, 8}


def test_edge_popup_keeps_fewer_and_fewer():
    """Of 100 entries to 0.25 over 4 epochs: 0.5 from the end of the first period of two epochs, 0.25 in the last."""
    rule = EdgePopup({"weights": 0.25}, 0.1, "sgd", 0.0, "global", period=2)
    maskables = [Maskable("weight", (1, 100), "linear")]
    model = torch.nn.Linear(100, 1, bias=False)
    run = TrainingContext(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        maskables,
        0,
        20,
        5,
        Masks.ones(maskables),
        set_masks=lambda masks: None,
        generator=lambda purpose: torch.Generator().manual_seed(0),
        validate=lambda: 0.0,
    )
    rule.on_start(run)
    kept = [int(rule.chosen(run)["weight"].sum())]
    for run.step in (5, 10, 15):
        rule.after_epoch(run)
        kept.append(int(rule.chosen(run)["weight"].sum()))
    assert kept == [100, 50, 50, 25]
    again = EdgePopup({"weights": 0.25}, 0.1, "sgd", 0.0, "global", period=2)
    run.step = 12
    again.on_start(run)  # of a training that goes on from there
    assert int(again.chosen(run)["weight"].sum()) == 50
    with pytest.raises(PruningError, match=r"has only 4: period must be a whole number in \[1, 4\]"):
        EdgePopup({"weights": 0.25}, 0.1, "sgd", 0.0, "global", period=5).on_start(run)
    with pytest.raises(PruningError, match="scheme qk_uniform is neither"):
        EdgePopup({"weights": 0.25}, 0.1, "sgd", 0.0, "qk_uniform").on_start(run)


def test_edge_popup_scores_begin_as_layers_do():
    rule = EdgePopup({"weights": 0.5}, 0.1, "sgd", 0.0, "uniform")
    score = rule.draw(Maskable("a", (50, 4, 2, 2), "conv"), torch.Generator().manual_seed(0))
    assert 0.24 < score.max() <= 0.25
    assert -0.25 <= score.min() < -0.24
    graph = Maskable("w", (100, 4), "linear", input_axis=0)  # a layer with 100 inputs and 4 outputs: within 1 / sqrt(100)
    score = rule.draw(graph, torch.Generator().manual_seed(0))
    assert 0.09 < score.abs().max() <= 0.1


def test_gem_miner_with_and_without_unflagging(tmp_path, trainings):
    lab = toy_lab(tmp_path)
    flagged, unflagged = (next(gem_miner(lab, [{"weights": 0.8}], unflag=u)) for u in (False, True))
    assert len(trainings) == 1  # one search
    scores = lab.learned_scores(flagged.untrained)
    for name in scores:
        assert torch.equal(flagged.masks[name], unflagged.masks[name] & (scores[name] > 0.5))
    assert flagged.masks.kept("weights") < unflagged.masks.kept("weights") <= 333
    inverted = lab.allocate({n: -s for n, s in unflagged.scores.items()}, unflagged.before, {"weights": 0.4})
    assert not any((~unflagged.masks[n] & ~inverted[n]).any() for n in scores)  # all that was frozen is in it


def test_records_of_a_learned_mask(bench):
    assert bench.run("method=[gem_miner,edge_popup]", "densities=[0.5,0.25]", "controls=[random,shuffle,invert]") == 0
    for method in ("gem_miner", "edge_popup"):
        for density in (0.5, 0.25):
            record = bench.record(method, density)
            assert record.budgets["weights"].kept <= density * 416
            assert record.result.untrained_val.keys() == record.result.untrained_test.keys() == {"accuracy", "loss"}
            assert record.result.untrained_test != record.result.test
            cost = record.cost
            assert (cost.search_dense_trainings, cost.train_dense_trainings) == (1.0, 1.0)  # a search each
            assert cost.train_at_sparse_rate == pytest.approx(cost.inference_macs / cost.inference_macs_dense)
            for control in ("random", "shuffle", "invert"):
                control = bench.record(method, density, control)
                assert control.result.untrained_val is None
    assert bench.record("edge_popup", 0.5).cost.search_at_sparse_rate == pytest.approx(1.0, abs=0.03)  # masked at the end only
    assert bench.record("gem_miner", 0.5).cost.search_at_sparse_rate < 0.95


@pytest.mark.parametrize("method", [edge_popup, gem_miner])
def test_a_plan_counts_every_search_and_training(tmp_path, method):
    lab = toy_lab(tmp_path, kind=PlanLab, planned={})
    for ticket in method(lab, [{"weights": 0.5}, {"weights": 0.25}]):
        lab.train(ticket.start, ticket.masks, ticket.schedule)
    assert list(lab.planned.values()) == [lab.steps] * 4


def test_nineteen_times_fewer_epochs_counted_as_the_paper_does(tmp_path):
    """To 1.44 %: 19 rounds of a fifth each are 19 trainings of search (2,850 epochs of ResNet-20), Gem-Miner's search is one
    (150). With the ticket's own training it is 20 : 2."""
    densities = [{"weights": 0.8**n} for n in range(1, 20)]
    assert densities[-1]["weights"] == pytest.approx(0.0144, abs=5e-5)
    trainings, whole = {}, {}
    for method in (imp, gem_miner):
        lab = toy_lab(tmp_path, kind=PlanLab, planned={})
        for ticket in method(lab, densities if method is imp else densities[-1:]):
            trainings[method] = (ticket.search or lab.spent()).dense_steps / lab.steps
            whole[method] = trainings[method] + lab.training_steps(ticket) / lab.steps
    assert trainings == {imp: 19, gem_miner: 1}
    assert whole == {imp: 20, gem_miner: 2}


def test_bad_input_is_named(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(PruningError, match="optimizer 'lion' of the scores is not one of sgd, adam"):
        next(edge_popup(lab, [{"weights": 0.5}], optimizer="lion"))
    for method in (edge_popup, gem_miner):
        with pytest.raises(PruningError, match="the floors of its 3 tensors need 3"):
            next(method(lab, [{"weights": 0.005}]))
        with pytest.raises(PruningError, match="lr of the scores is -1; it must be above 0"):
            next(method(lab, [{"weights": 0.5}], lr=-1))
    with pytest.raises(PruningError, match="keeps 2 of 416 entries, but the floors of its 3 tensors need 3"):
        next(gem_miner(lab, [{"weights": 3 / 416}], period=1))  # freezes round up, so they would end below what was asked
    with pytest.raises(PruningError, match="the search has only one: train for more epochs"):
        freeze_share(0.5, 1, 1)
    grouped = [Maskable("weight", (1, 2), "linear", groups=torch.tensor([[0, 0]]))]
    run = begun(EdgePopup({"weights": 0.5}, 0.1, "sgd", 0.0, "uniform"), [0.1, 0.2])
    run.maskables = grouped
    with pytest.raises(NotApplicable, match="those of weight are kept or pruned in groups"):
        GemMiner({"weights": 0.5}, 0.1, "sgd", 0.0, None).on_start(run)
