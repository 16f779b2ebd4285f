"""Movement pruning: first-order scores by hand on a two-layer net, then whole trainings on the toy task."""

import pytest
import torch
from torch import nn

from bench.lab.dry_run import PlanLab
from pruning import Maskable, Masks, PruningError
from pruning.callbacks.base import TrainingContext
from pruning.methods.learned import Learned
from pruning.methods.movement import Movement, SoftMovement, best, movement, soft_movement
from tests.conftest import toy_lab

HALF = {"weights": 0.5}


def begun(rule: Learned, total: int = 10, lr: float = 0.1) -> TrainingContext:
    """A training of y = v (u x), u = (2, -1) and v = 3, both maskable, that ``rule`` has begun; plain SGD."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[0].weight.data, model[1].weight.data = torch.tensor([[2.0, -1.0]]), torch.tensor([[3.0]])
    maskables = [Maskable("0.weight", (1, 2), "linear"), Maskable("1.weight", (1, 1), "linear")]
    optimizer = torch.optim.SGD(model.parameters(), lr)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    run = TrainingContext(
        model,
        optimizer,
        maskables,
        0,
        total,
        5,
        Masks.ones(maskables),
        set_masks=lambda masks: None,
        generator=lambda purpose: torch.Generator().manual_seed(0),
        validate=lambda: 0.0,
    )
    run.set_masks = lambda masks: setattr(run, "masks", masks)
    rule.on_start(run)
    return run


def step(rule: Learned, run: TrainingContext) -> tuple[list[float], list[float]]:
    """One step on x = (1, 3) with y as the loss; returns u as the network used it, and as the step left it."""
    rule.before_forward(run)
    used = run.model[0].weight.tolist()[0]
    run.model(torch.tensor([[1.0, 3.0]])).sum().backward()
    rule.after_backward(run)
    run.optimizer.step()
    run.optimizer.zero_grad()
    left = run.model[0].weight.tolist()[0]
    run.step += 1
    rule.after_step(run)
    return used, left


def scores(rule: Learned) -> list[float]:
    return [*rule.scores["0.weight"].flatten().tolist(), *rule.scores["1.weight"].flatten().tolist()]


def test_scores_are_first_order_and_weights_train_with_them():
    rule = Movement(HALF, 0.01, "sgd", 0.5, 1.0, "uniform")
    run = begun(rule)
    assert step(rule, run)[0] == [2.0, -1.0]  # nothing is cut yet
    # dy/du = v x = (3, 9), times u: (6, -9); dy/dv = u x = -1, times v: -3; the rate is 0.01
    assert scores(rule) == pytest.approx([-0.06, 0.09, 0.03])
    assert run.model[0].weight.tolist()[0] == pytest.approx([1.7, -1.9])  # SGD at 0.1
    assert run.model[1].weight.item() == pytest.approx(3.1)
    # the first weight moves to zero and loses; the second moves away and gains


def test_the_masked_stand_still_and_their_scores_go_on():
    rule = Movement(HALF, 0.01, "sgd", 0.0, 0.1, "uniform")
    run = begun(rule, total=100)
    for score, value in zip(rule.scores.values(), (torch.tensor([[-1.0, 1.0]]), torch.tensor([[0.0]])), strict=True):
        score.copy_(value)
    run.step = 50  # the density stands
    used, left = step(rule, run)
    assert used == [0.0, -1.0]
    # y = 3 * (-1 * 3): du = (3, 9), of which the masked weight takes none; dv = -3
    assert left == pytest.approx([2.0, -1.9])
    assert scores(rule) == pytest.approx([-1 - 0.01 * 3 * 2, 1 + 0.01 * 9, 0.01 * 3 * 3])
    rule.scores["0.weight"].copy_(torch.tensor([[2.0, 1.0]]))
    assert step(rule, run)[0] == [2.0, 0.0]  # back, with the weight it had


def test_scores_follow_the_schedule_of_the_weights():
    rule = Movement(HALF, 0.01, "sgd", 0.5, 1.0, "uniform")
    run = begun(rule)
    run.optimizer.param_groups[0]["lr"] = 0.05  # half its initial rate
    step(rule, run)
    assert scores(rule) == pytest.approx([-0.03, 0.045, 0.015])


@pytest.mark.parametrize(("at", "kept"), [(0, 1000), (100, 1000), (625, 114), (800, 100), (999, 100)])
def test_the_cubic_between_warm_up_and_cool_down(at, kept):
    # of 1000 steps the first 100 keep all, the last 200 keep a tenth; three quarters on 0.1 + 0.9 * (1 / 4) ** 3
    model = nn.Linear(1000, 1, bias=False)
    maskables = [Maskable("weight", (1, 1000), "linear")]
    run = TrainingContext(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        maskables,
        0,
        1000,
        10,
        Masks.ones(maskables),
        lambda masks: None,
        lambda purpose: torch.Generator(),
        lambda: 0.0,
    )
    rule = Movement({"weights": 0.1}, 0.01, "adam", 0.1, 0.8, "uniform")
    rule.on_start(run)
    run.step = at
    assert int(rule.chosen(run)["weight"].sum()) == kept


def test_between_epochs_the_network_is_masked():
    rule = Movement(HALF, 0.01, "sgd", 0.0, 0.1, "uniform")
    run = begun(rule, total=100)
    for i in range(10):
        _, left = step(rule, run)
        seen = run.model[0].weight.tolist()[0]
        assert seen.count(0.0) == (i % 5 == 4)  # an epoch has five steps
        assert 0.0 not in left
        assert rule.weights["0.weight"].tolist()[0] == left


def test_soft_movement_by_hand():
    rule = SoftMovement(HALF, 0.01, "sgd", 0.0, 0.5, 0.4, 8.0)
    run = begun(rule)
    run.step = 2  # of 5: risen to 1 - (3 / 5) ** 3 = 0.784
    rule.scores["0.weight"].copy_(torch.tensor([[-0.8, -0.7]]))  # sigmoids 0.3100 and 0.3318, the threshold is 0.3136
    assert step(rule, run)[0] == [0.0, -1.0]
    # penalty: 8 * 0.784 * s (1 - s), over two tensors and the entries of each; the loss: (3, 9) * u, and -3 * 3
    through = [6 + 8 * 0.784 / 4 * 0.213899, -9 + 8 * 0.784 / 4 * 0.221713, -9 + 8 * 0.784 / 2 * 0.25]
    assert scores(rule) == pytest.approx([-0.8 - 0.01 * through[0], -0.7 - 0.01 * through[1], -0.01 * through[2]], abs=1e-6)


def test_soft_movement_keeps_at_least_a_little_and_at_last_no_more_than_asked():
    rule = SoftMovement({"weights": 0.67}, 0.01, "sgd", 0.0, 0.5, 0.5, 0.0)
    run = begun(rule)
    for score in rule.scores.values():
        score.fill_(-3.0)
    run.step = 4
    assert {n: int(m.sum()) for n, m in rule.chosen(run).items()} == {"0.weight": 1, "1.weight": 1}
    rule.scores["0.weight"].copy_(torch.tensor([[1.0, 2.0]]))
    rule.scores["1.weight"].fill_(3.0)
    assert sum(int(m.sum()) for m in rule.chosen(run).values()) == 3
    run.step = 5
    assert rule.chosen(run)["0.weight"].tolist() == [[False, True]]  # two of three


def test_best_is_exact_where_scores_tie():
    kept = best({"a": torch.tensor([[1.0, 0.0], [2.0, 1.0]]), "b": torch.tensor([1.0, 3.0])}, 3)
    assert kept["a"].tolist() == [[True, False], [True, False]]
    assert kept["b"].tolist() == [False, True]
    assert all(m.all() for m in best({"a": torch.zeros(3)}, 3).values())


def test_hard_movement_keeps_exactly_the_density_of_every_tensor(tmp_path):
    lab = toy_lab(tmp_path)
    ticket = next(movement(lab, [{"weights": 0.25}]))
    masks = ticket.masks
    assert {n: int(masks[n].sum()) for n in masks.names("weights")} == {"first.weight": 32, "middle.weight": 64, "last.weight": 8}
    assert masks.density("edges") == 1.0
    trained = dict(lab.load(ticket.trained).named_parameters())
    for name in masks.names("weights"):
        assert not trained[name][~masks[name]].any()
        assert ticket.scores[name][masks[name]].min() >= ticket.scores[name][~masks[name]].max()
    assert next(movement(lab, [{"weights": 0.25}], scheme="global")).masks.kept("weights") == 104


def test_an_interrupted_movement_is_the_same(tmp_path):
    whole, cut = toy_lab(tmp_path / "a"), toy_lab(tmp_path / "b")
    for rule in (Movement(HALF, 0.01, "adam", 0.1, 0.8, "uniform"), SoftMovement(HALF, 0.05, "adam", 0.1, 0.8, 0.4, 100.0)):
        one = whole.train(whole.start("init"), whole.ones(), callback=rule)
        for until in (3, whole.steps // 2 + 1, None):
            other = cut.train(cut.start("init"), cut.ones(), until=until, callback=rule)
        assert whole.masks(one) == cut.masks(other)
        assert whole.evaluate(one, "test") == cut.evaluate(other, "test")
        a, b = (dict(lab.stage(state).tensors()) for lab, state in ((whole, one), (cut, other)))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_records_of_movement(bench):
    assert bench.run("method=[movement,soft_movement]", "densities=[0.5,0.25]", "controls=[random,invert]") == 0
    for density in (0.5, 0.25):
        hard, soft = bench.record("movement", density), bench.record("soft_movement", density)
        assert hard.budgets["weights"].kept == density * 416
        assert soft.budgets["weights"].kept <= density * 416
        assert (hard.cost.search_dense_trainings, hard.cost.train_dense_trainings) == (0.0, 1.0)  # one training is all there is
        assert bench.record("movement", density, "random").cost.train_dense_trainings == 1.0


@pytest.mark.parametrize("method", [movement, soft_movement])
def test_a_plan_counts_one_training_a_density(tmp_path, method):
    lab = toy_lab(tmp_path, kind=PlanLab, planned={})
    assert len(list(method(lab, [{"weights": 0.5}, {"weights": 0.25}]))) == 2
    assert list(lab.planned.values()) == [lab.steps] * 2


def test_bad_input_is_named(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(PruningError, match="optimizer 'lion' of the scores is not one of sgd, adam"):
        next(movement(lab, [HALF], optimizer="lion"))
    with pytest.raises(PruningError, match="these must rise within"):
        next(movement(lab, [HALF], begin=0.8, until=0.1))
    with pytest.raises(PruningError, match=r"threshold is 1\.5"):
        next(soft_movement(lab, [HALF], threshold=1.5))
    with pytest.raises(PruningError, match="the floors of its 3 tensors need 3"):
        next(movement(lab, [{"weights": 0.005}]))
