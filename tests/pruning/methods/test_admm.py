"""ADMM: updates by hand, and whole searches."""

import pytest
import torch
from torch import nn

from pruning import Maskable, Masks, PruningError
from pruning.callbacks.base import TrainingContext
from pruning.methods.admm import Admm, admm, residual
from tests.conftest import toy_lab

DENSITIES = [{"weights": 0.5}, {"weights": 0.25}]


@pytest.fixture
def lab(tmp_path):
    return toy_lab(tmp_path)


class Weight(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))


def admm_run(values, **options):
    model, maskables = Weight(values), [Maskable("w", (4,), "linear")]
    rule = Admm({"weights": 0.5}, **{"span": 20, "rho": 0.1, "stages": 2, "growth": 3.0, "interval": 1, **options})
    run = TrainingContext(
        model,
        None,
        maskables,
        0,
        20,
        10,
        Masks.ones(maskables),
        lambda masks: None,
        lambda purpose: torch.Generator(),
        lambda: 0.0,
    )
    rule.on_start(run)
    return model, rule, run


def test_admm_by_hand():
    model, rule, run = admm_run([4.0, -3.0, 2.0, 1.0])
    assert rule.copies["w"].tolist() == [4, -3, 0, 0]
    model.w.grad = torch.ones(4)
    rule.after_backward(run)  # + 0.1 * (W - Z + 0)
    assert model.w.grad.tolist() == pytest.approx([1, 1, 1.2, 1.1])
    model.w.data = torch.tensor([4.0, -1.0, 2.0, 1.0])
    run.step = 10
    rule.after_epoch(run)
    assert rule.residuals == pytest.approx([(9 / 22) ** 0.5])  # |(0, 2, 2, 1)| over |(4, 1, 2, 1)|
    assert rule.copies["w"].tolist() == [4, 0, 2, 0]
    assert rule.duals["w"].tolist() == [0, -1, 0, 1]
    model.w.grad = torch.zeros(4)
    rule.after_backward(run)  # the second of two stages: 0.3 * (W - Z + U) = 0.3 * (0, -2, 0, 2)
    assert model.w.grad.tolist() == pytest.approx([0, -0.6, 0, 0.6])


def test_admm_passes_by_what_the_loss_does_not_reach():
    model, rule, run = admm_run([4.0, -3.0, 2.0, 1.0])
    rule.after_backward(run)
    assert model.w.grad is None


def test_admm_updates_its_copy_every_interval():
    model, rule, run = admm_run([4.0, 3.0, 2.0, 1.0], interval=2)
    model.w.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    run.step = 10
    rule.after_epoch(run)
    assert rule.copies["w"].tolist() == [4, 3, 0, 0]
    run.step = 20
    rule.after_epoch(run)
    assert rule.copies["w"].tolist() == [0, 0, 3, 4]


def test_the_residual_is_relative_to_the_weights():
    weights, copies = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, {"a": torch.tensor([3.0]), "b": torch.zeros(1)}
    assert residual(weights, copies) == 0.8


def test_admm_draws_weights_to_their_copy_and_charges_its_search(tmp_path):
    residuals = {}
    for rho in (1e-6, 1.0):
        lab = toy_lab(tmp_path / str(rho), "train.low_lr=0.05")
        (ticket,) = admm(lab, [{"weights": 0.2}], rho=rho)
        residuals[rho] = ticket.notes["residuals"][-1]
        assert ticket.masks.density("weights") == pytest.approx(0.2, abs=0.002)
    assert residuals[1.0] < 0.6 * residuals[1e-6]
    lab = toy_lab(tmp_path / "charged")
    for ticket in admm(lab, DENSITIES, length=0.5):
        assert ticket.search.dense_steps == 24 + 12  # the dense training and one search, not the other's


def test_admm_resumes_bit_for_bit(tmp_path):
    def drawn(folder, *parts):
        lab = toy_lab(folder)
        rule = Admm({"weights": 0.5}, 24, 0.1, 2, 3.0, 1)
        for until in parts:
            state = lab.train(lab.start("end"), lab.ones(), "constant", until=until, callback=rule)
        return lab.stage(state).tensors()

    one, other = drawn(tmp_path / "one", 24), drawn(tmp_path / "parts", 5, 13, 24)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rho": 0.0}, "rho is 0"), ({"stages": 0}, "each is at least 1"), ({"length": 1.5}, "length is 1.5")],
)
def test_admm_refuses_what_cannot_be(lab, options, message):
    with pytest.raises(PruningError, match=message):
        list(admm(lab, DENSITIES, **options))
