"""SET, RigL and gradual magnitude pruning: timetables and exchanges by hand, then whole trainings on the toy task."""

import pytest
import torch

from bench.lab.dry_run import PlanLab
from pruning import Maskable, PruningError
from pruning.methods.dynamic import Gradual, Regrow, exchange, gmp, rigl, set_
from pruning.schedules import drop_share
from tests.conftest import toy_lab


def test_an_exchange_by_hand():
    m = Maskable("w", (2, 4), "linear")
    living = torch.tensor([[True, True, True, True], [False, False, False, False]])
    weight = torch.tensor([[0.1, 0.5, 0.2, 0.9], [0.0, 0.0, 0.0, 0.0]])
    promise = torch.tensor([[0.0, 9.0, 0.3, 9.0], [0.1, 0.4, 0.2, 0.0]])
    # 0.1 and 0.2 go; the greatest promise among the free is 0.4, then 0.3: one that was just dropped stays
    assert exchange(m, living, 2, weight, promise, 0).tolist() == [[False, True, True, True], [False, True, False, False]]
    assert exchange(m, living, 3, weight, promise, 0).sum() == 4
    assert exchange(m, living, 4 - 1, weight, torch.zeros(2, 4), 0).sum() == 4  # ties too


class Watched(Regrow):
    """Checks every step what moved."""

    def after_backward(self, run):
        super().after_backward(run)
        self.dense = {n: p.grad.abs() for n, p in run.parameters.items()}

    def after_step(self, run):
        before, weights = run.masks, {n: p.detach().clone() for n, p in run.parameters.items()}
        super().after_step(run)
        for name, parameter in run.parameters.items():
            old, new = before[name], run.masks[name]
            grown, dropped = new & ~old, old & ~new
            assert new.sum() == old.sum()  # layer densities stay
            count = int(drop_share(self.drop, run.step, self.end) * old.sum()) if self._due(run.step) and not old.all() else 0
            assert grown.sum() == dropped.sum() <= count
            momentum = run.optimizer.state[parameter]["momentum_buffer"]
            assert not parameter[~new | grown].any()  # what grows begins at zero
            assert not momentum[~new | grown].any()
            assert torch.equal(parameter[old & new], weights[name][old & new])
            if count and self.grow == "gradient":
                kept = torch.zeros(old.numel(), dtype=torch.bool)
                ranked = weights[name].abs().masked_fill(~old, -1).reshape(-1)
                kept[ranked.topk(int(old.sum()) - count).indices] = True
                kept = kept.reshape(old.shape)
                free = self.dense[name].masked_fill(kept, -1).reshape(-1)
                assert free[new.reshape(-1) & ~kept.reshape(-1)].min() >= free.topk(count).values.min()
            self.moves += [(run.step, name)] * bool(grown.any())


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_regrowing(tmp_path, grow):
    rule, lab = Watched(grow, 0.5, 4, 0.75), toy_lab(tmp_path, "train.epochs=6")
    rule.moves = []
    masks = lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), {"weights": 0.25}, "erk")
    lab.train(lab.start("init"), masks, callback=rule)
    assert lab.steps == 48
    assert {step for step, _ in rule.moves} == set(range(4, 32, 4))  # at 32 the share is under one entry, from 36 on they rest
    assert {name for _, name in rule.moves} == {"first.weight", "middle.weight", "last.weight"}  # the edges are dense


def test_sparse_from_the_first_step_as_erk_has_it(tmp_path):
    for method in (set_, rigl):
        ticket = next(method(toy_lab(tmp_path), [{"weights": 0.25}]))
        # shapes (16, 8), (16, 16), (2, 16): 104 entries in proportions 24 : 32 : 18
        assert {n: int(ticket.masks[n].sum()) for n in ticket.masks.names("weights")} == {
            "first.weight": 34,
            "middle.weight": 45,
            "last.weight": 25,
        }
        assert ticket.masks.density("edges") == 1.0


class Cuts(Gradual):
    """Notes when how much is left."""

    def after_step(self, run):
        before = run.masks
        super().after_step(run)
        if run.masks is not before:
            assert not any((run.masks[n] & ~before[n]).any() for n in before)
            self.seen.append((run.step, run.masks.kept("weights"), run.masks.kept("edges")))


def test_gradual_pruning_by_hand(tmp_path):
    rule, lab = Cuts({"weights": 0.25, "edges": 0.5}, 0.25, 0.75, 8, "uniform"), toy_lab(tmp_path, "train.epochs=6")
    rule.seen = []
    lab.train(lab.start("init"), lab.ones(), callback=rule)
    # steps 12 to 36: three cuts, after 1/3, 2/3 and all of the way; 416 and 8 entries
    assert rule.seen == [
        (20, round(416 * (0.25 + 0.75 * 8 / 27)), round(8 * (0.5 + 0.5 * 8 / 27))),
        (28, round(416 * (0.25 + 0.75 / 27)), round(8 * (0.5 + 0.5 / 27))),
        (36, 104, 4),
    ]
    assert [kept for _, kept, _ in rule.seen] == [196, 116, 104]


@pytest.mark.parametrize(
    "rule",
    [
        Regrow("random", 0.3, 2, 0.75),
        Regrow("gradient", 0.3, None, 0.75),
        Gradual({"weights": 0.25, "edges": 0.5}, 0.1, 0.75, 3, "global"),
    ],
    ids=["set", "rigl", "gmp"],
)
def test_pieces_are_one(tmp_path, rule):
    ends = []
    for name, cuts in (("whole", (None,)), ("pieces", (5, 6, 8, 17, None))):
        lab = toy_lab(tmp_path / name)
        masks = lab.ones()
        if isinstance(rule, Regrow):
            masks = lab.allocate(lab.score("random", lab.start("init"), masks), masks, {"weights": 0.3}, "erk")
        for until in cuts:
            state = lab.train(lab.start("init"), masks, until=until, callback=rule)
        ends.append((lab.masks(state), lab.stage(state).tensors(), lab.stage(state).info["progress"]["sparse_steps"]))
    assert ends[0][0] == ends[1][0] != masks
    assert all(torch.equal(ends[0][1][n], ends[1][1][n]) for n in ends[0][1] | ends[1][1])
    assert ends[0][2] == ends[1][2]


def test_records_of_moving_masks(bench):
    assert bench.run("method=[set,rigl,gmp]", "densities=[0.5,0.25]", "controls=[random,dense_as_long]") == 0
    for method in ("set", "rigl", "gmp"):
        for density in (0.5, 0.25):
            record = bench.record(method, density)
            cost, share = record.cost, record.cost.inference_macs / record.cost.inference_macs_dense
            assert record.budgets["weights"].kept == density * 416
            # search and training are one, and every density has its own
            assert (cost.search_dense_trainings, cost.train_dense_trainings, cost.search_at_sparse_rate) == (0, 1.0, 0)
            if method == "gmp":
                assert share < cost.train_at_sparse_rate < 1
            else:  # of 24 steps, rigl takes dense gradients at 17
                dense = (1 - share) * 17 / (3 * 24) if method == "rigl" else 0
                assert cost.train_at_sparse_rate == pytest.approx(share + dense)
            control = bench.record(method, density, "dense_as_long")
            assert control.result.test == control.result.dense_test  # as long as one training
            assert control.result.step == record.result.step
            assert bench.record(method, density, "random").result.test != {}
    # one training each, one for every random control, the dense one; what the random control needs is shared
    by_mask = {r.ticket.masks for r in bench.records() if r.identity.control == "random"}
    assert len(bench.stages()) == 1 + 6 + len(by_mask)


def test_the_sparse_rate_of_gradual_pruning_by_hand(bench):
    assert bench.run("method=gmp", "method.interval=4", "method.until=0.5", "densities=[0.25]", "train.epochs=2") == 0
    # 16 steps, cuts after 4 and 8: four dense steps, four at 0.25 + 0.75 / 8 (143 of 416 entries), eight at 0.25
    cost = bench.record("gmp", 0.25).cost
    assert cost.train_at_sparse_rate == pytest.approx((4 + 4 * (0.25 + 0.75 / 8) + 8 * 0.25) / 16, rel=2e-3)


def test_costs_of_other_methods_at_the_sparse_rate(bench):
    assert bench.run("method=imp", "densities=[0.5,0.25]", "method.scheme=uniform") == 0
    first, second = (bench.record("imp", d).cost for d in (0.5, 0.25))
    assert (first.search_at_sparse_rate, first.train_at_sparse_rate) == (1.0, 0.5)
    assert (second.search_at_sparse_rate, second.train_at_sparse_rate) == (1.5, 0.25)


@pytest.mark.parametrize("method", [set_, rigl, gmp])
def test_a_plan_counts_every_training(tmp_path, method):
    lab = toy_lab(tmp_path, kind=PlanLab, planned={})
    assert len(list(method(lab, [{"weights": 0.5}, {"weights": 0.25}]))) == 2
    assert list(lab.planned.values()) == [lab.steps] * 2


def test_bad_input_is_named(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(PruningError, match="drop is 2"):
        next(rigl(lab, [{"weights": 0.5}], drop=2))
    with pytest.raises(PruningError, match="interval is 30"):
        next(set_(lab, [{"weights": 0.5}], interval=30))
    with pytest.raises(PruningError, match="must rise within"):
        next(gmp(lab, [{"weights": 0.5}], begin=0.9))
    with pytest.raises(PruningError, match="the floors of its 3 tensors need 3"):
        next(gmp(lab, [{"weights": 0.005}]))
