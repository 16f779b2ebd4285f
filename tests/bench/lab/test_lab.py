"""The lab: rewinding, schedules, seeds, what is trained and what is looked up."""

from types import SimpleNamespace

import pytest
import torch

from bench.config import settings
from bench.errors import UsageError
from bench.lab.dry_run import PlanLab
from bench.runner.jobs import Job, open_lab, open_task
from bench.seeds import seed_for
from bench.task.capabilities import CanShrink, HasProbe
from pruning import NotApplicable, PruningError, attach
from tests.conftest import TOY, toy_lab


def half(lab):
    """Masks of density 0.5."""
    return lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), {"weights": 0.5, "edges": 0.5})


class FirstStep:
    """State of the model, and the learning rates, as a training begins; the rates of all its steps."""

    def __init__(self, lab, monkeypatch):
        self.state, self.rates, self.optimizer_state = None, [], None
        loss = lab.task.loss
        for name in ("optimizer", "constant_optimizer"):
            monkeypatch.setattr(lab.task, name, self.keep(getattr(lab.task, name)))

        def first(model, batch):
            if self.state is None:
                self.state = {n: t.clone() for n, t in model.state_dict().items()}
                self.optimizer_state = dict(self.optimizer.state)
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            return loss(model, batch)

        monkeypatch.setattr(lab.task, "loss", first)

    def keep(self, make):
        """The optimizer, to look into."""

        def made(*about):
            self.optimizer, schedule = make(*about)
            return self.optimizer, schedule

        return made


@pytest.mark.parametrize(
    ("rewind", "schedule", "steps"),
    [
        ("init", "replay", range(24)),
        ("1ep", "replay", range(8, 24)),
        ("11it", "replay", range(11, 24)),
        ("end", "whole", range(24)),
        ("11it", "whole", range(24)),
        ("end", "constant", None),
        ("reinit", "replay", range(24)),
    ],
)
def test_rewinding_restores_masks_times_state(tmp_path, monkeypatch, rewind, schedule, steps):
    lab = toy_lab(tmp_path)
    start, masks = lab.start(rewind), half(lab)
    stored = {n: t.clone() for n, t in lab.load(start).state_dict().items()}
    begin = FirstStep(lab, monkeypatch)
    lab.train(start, masks, schedule)
    tied = {"again.weight": "middle.weight"}
    for name, tensor in stored.items():
        mask = masks.get(tied.get(name, name))
        assert torch.equal(begin.state[name], tensor if mask is None else tensor * mask), name
    assert begin.optimizer_state == {}
    assert begin.rates == ([0.001] * 24 if steps is None else pytest.approx([0.1 * (1 - s / 25) for s in steps], rel=1e-12))
    if rewind not in ("init", "reinit"):
        assert stored["norm.num_batches_tracked"] == start.step  # buffers are rewound too


def test_rewind_states(tmp_path):
    lab = toy_lab(tmp_path)
    assert lab.start("2ep") == lab.start("16it")
    assert lab.start("10%").step == 2  # of 24
    assert lab.start("0it").step == 0
    init, reinit = ({n: t.clone() for n, t in lab.load(lab.start(kind)).state_dict().items()} for kind in ("init", "reinit"))
    assert not torch.equal(init["first.weight"], reinit["first.weight"])
    again = toy_lab(tmp_path / "other").load(lab.start("reinit")).state_dict()
    assert all(torch.equal(again[n], reinit[n]) for n in reinit)


@pytest.mark.parametrize(
    ("rewind", "message"),
    [
        ("3ep", "rewind=3ep is step 24, but one training has only 24"),
        ("99it", "is step 99"),
        ("later", "is not init, reinit"),
        ("-1it", "is not init, reinit"),
        ("1.5ep", "is not init, reinit"),
        ("100%", "is step 24"),
    ],
)
def test_rewind_nowhere(tmp_path, rewind, message):
    with pytest.raises(PruningError, match=message):
        toy_lab(tmp_path).start(rewind)


def test_rewind_pretrained_needs_a_pretrained_task(tmp_path, monkeypatch):
    lab = toy_lab(tmp_path)
    with pytest.raises(NotApplicable, match="use rewind=init"):
        lab.start("pretrained")
    monkeypatch.setattr(type(lab.task), "pretrained", True)
    assert lab.start("pretrained") == lab.start("init")


def test_schedules_are_named(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(UsageError, match="unknown schedule 'hole'; did you mean whole"):
        lab.train(lab.start("init"), lab.ones(), "hole")
    with pytest.raises(UsageError, match="leaves no steps: choose schedule=whole or constant"):
        lab.train(lab.start("end"), half(lab), "replay")


def test_a_training_is_run_once(tmp_path, trainings):
    lab = toy_lab(tmp_path)
    end = lab.start("end")
    assert lab.train(lab.start("init"), lab.ones()) == end
    assert toy_lab(tmp_path).start("end") == end
    assert trainings == [(0, 24)]
    toy_lab(tmp_path, seed=1).start("end")
    toy_lab(tmp_path, "train.lr=0.2").start("end")
    toy_lab(tmp_path, "train.validate_every=1").start("end")  # only looks: the same training
    assert trainings == [(0, 24)] * 3


def test_costs_count_a_training_and_its_beginning_once(tmp_path):
    lab = toy_lab(tmp_path)
    lab.start("1ep")
    assert round(lab.spent().dense_steps) == 8
    lab.start("end")
    lab.start("2ep")
    assert round(lab.spent().dense_steps) == 24
    lab.train(lab.start("1ep"), half(lab))
    assert round(lab.spent().dense_steps) == 24 + 16
    assert lab.macs(lab.ones()) == 128 + 512 + 32
    scores = lab.score("magnitude", lab.start("init"), lab.ones())
    assert lab.macs(lab.allocate(scores, lab.ones(), {"weights": 0.25}, "uniform")) == (128 + 512 + 32) / 4


def test_seeds_have_purposes(tmp_path):
    assert [seed_for(0, "init"), seed_for(0, "data", 3), seed_for(1, "init")] == [
        925402481798332886,
        6695283240003818177,
        1664463646515754594,
    ]  # written down: changing them changes every number
    orders = [
        torch.cat([x for x, _ in toy_lab(tmp_path, f"method={m}").task.batches("train", e, s)])
        for m, e, s in (("imp", 0, 0), ("one_shot", 0, 0), ("imp", 1, 0), ("imp", 0, 1))
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[3])


def test_a_score_leaves_nothing_behind(tmp_path, monkeypatch):
    """Neither gradients, modes nor statistics of a score reach the next training; its dropout is seeded."""

    def greedy(model, maskables, data):
        model.train()
        for batch in data.batches():
            data.loss(model, batch).backward()
        parameters = dict(model.named_parameters())
        return {m.name: parameters[m.name].grad.abs() for m in maskables}

    monkeypatch.setattr("bench.registry.score", lambda name: greedy)
    lab = toy_lab(tmp_path / "scored")
    scores = lab.score("greedy", lab.start("init"), lab.ones())
    torch.manual_seed(5)
    again = lab.score("greedy", lab.start("init"), lab.ones())
    assert all(torch.equal(scores[n], again[n]) for n in scores)
    plain = toy_lab(tmp_path / "plain")
    one, other = (x.stage(x.train(x.start("init"), x.ones())).tensors() for x in (lab, plain))
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_a_score_sees_no_test_data_and_declares_its_needs(tmp_path, monkeypatch):
    lab = toy_lab(tmp_path)
    monkeypatch.setattr("bench.registry.score", lambda name: lambda model, maskables, data: data.batches("test"))
    with pytest.raises(UsageError, match="unknown split 'test'"):
        lab.score("peek", lab.start("init"), lab.ones())
    monkeypatch.setattr(type(lab.task), "lacks", frozenset({CanShrink, HasProbe}))
    monkeypatch.setattr("bench.registry.score", lambda name: lambda model, maskables, data: data.probe(model))
    with pytest.raises(NotApplicable, match="data-free probe"):
        lab.score("synflow", lab.start("init"), lab.ones())


def test_a_plan_trains_nothing(tmp_path, trainings):
    planned: dict = {}
    lab = toy_lab(tmp_path, kind=PlanLab, planned=planned)
    lab.start("end")
    lab.start("1ep")
    lab.start("2ep")
    assert sorted((step, steps) for (_, step), steps in planned.items()) == [(8, 8), (16, 8), (24, 24)]
    assert trainings == []
    assert not tmp_path.joinpath("stages").exists()


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 8), (64, 1)])
def test_the_pace_is_that_of_the_fastest_warm_step(tmp_path, monkeypatch, batch_size, steps):
    lab = toy_lab(tmp_path, f"train.batch_size={batch_size}", kind=PlanLab, planned={})
    assert lab.task.steps_per_epoch == steps
    ticks = iter([0, 1, 1, 4, 4, 9, 9, 11, 11, 15, 15, 21, 21, 22, 22, 31])  # 1 second to warm up, then 3, 5, 2, 4, 6
    monkeypatch.setattr("bench.lab.dry_run.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert lab.seconds_per_step(patience=100) == 2
    assert lab.seconds_per_step(patience=9) == 9  # the first pair took 10: no more tries
    assert not list(ticks)


def cut_inputs(lab, density=0.5):
    return lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), {"edges": density})


def test_another_order_is_another_sample_of_the_same_training(tmp_path, trainings):
    lab = toy_lab(tmp_path)
    own, other, third = (lab.train(lab.start("init"), lab.ones(), order=k) for k in range(3))
    weights = [lab.stage(state).tensors()["model/first.weight"] for state in (own, other, third)]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert lab.train(lab.start("init"), lab.ones(), order=0) == own == toy_lab(tmp_path).start("end")
    assert lab.train(lab.start("init"), lab.ones(), order=1) == other
    assert len(trainings) == 3


def test_a_slim_network_computes_what_the_masked_one_does(tmp_path):
    lab = toy_lab(tmp_path)
    masks = cut_inputs(lab)
    small, (x, _) = lab.slim(lab.start("end"), masks).eval(), lab.task.splits["val"]
    assert small.first.weight.shape == (16, 4)
    whole = lab.load(lab.start("end")).eval()
    attach(masks, whole)
    assert torch.allclose(small(x), whole(x), atol=1e-6)


def test_a_slim_training_is_stored_resumed_and_evaluated_as_any(tmp_path, trainings):
    lab = toy_lab(tmp_path)
    masks = cut_inputs(lab)
    end = lab.train(lab.start("init"), masks, slim=True)
    masked = lab.train(lab.start("init"), masks)
    assert end.training != masked.training
    assert lab.load(end).first.weight.shape == (16, 4)
    assert lab.load(masked).first.weight.shape == (16, 8)
    assert lab.evaluate(end, "val")["loss"] == pytest.approx(lab.evaluate(masked, "val")["loss"], abs=1e-4)
    assert lab.masks(end) == masks
    parts = toy_lab(tmp_path / "parts")
    parts.train(parts.start("init"), masks, until=10, slim=True)
    again = parts.train(parts.start("init"), masks, slim=True)
    assert trainings[-1] == (10, 24)
    one, other = lab.stage(end).tensors(), parts.stage(again).tensors()
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_a_task_without_surgery_has_no_slim_tickets(tmp_path, monkeypatch):
    lab = toy_lab(tmp_path)
    monkeypatch.setattr(type(lab.task), "lacks", frozenset({CanShrink, HasProbe}))
    with pytest.raises(NotApplicable, match="cut units out"):
        lab.slim(lab.start("init"), lab.ones())


def test_a_lab_elsewhere_shares_the_store_and_is_charged(tmp_path, trainings):
    setting = settings(TOY, [f"store={tmp_path}", "train.epochs=2"])[0]
    job = Job(setting, 3)
    lab = open_lab(job, open_task(setting))
    other = lab.sibling(data="more")
    assert (other.seed, other.steps, other.store.root) == (3, 2 * 16, lab.store.root)
    other.start("end")
    assert round(lab.spent().dense_steps) == 0
    lab.charge(other.spent(), 1.0)
    assert round(lab.spent().dense_steps) == 32
    lab.sibling(data="more").start("end")
    assert len(trainings) == 1
    with pytest.raises(UsageError, match="unknown data 'mroe'; did you mean more"):
        lab.sibling(data="mroe")


def test_a_stage_is_evaluated_once_and_again_for_a_metric_that_came_later(tmp_path, monkeypatch):
    lab = toy_lab(tmp_path)
    end, evaluate, added = lab.train(lab.start("init"), lab.ones()), lab.task.evaluate, []
    monkeypatch.setattr(lab.task, "evaluate", lambda *about: evaluate(*about) | dict.fromkeys(added, 1.0))
    first = lab.evaluate(end, "test")
    added.append("later")
    assert lab.evaluate(end, "test") == first
    lab.task.metrics = ("accuracy", "later")
    assert lab.evaluate(end, "test") == first | {"later": 1.0}
    assert lab.stage(end).evaluations()["test"]["later"] == 1.0
