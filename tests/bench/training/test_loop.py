"""The training loop: any way of cutting a training gives the same bits; what is masked stays zero."""

import gc

import pytest
import torch

from bench.errors import BenchError, Diverged
from bench.training.loop import seek
from pruning import Masks
from tests.conftest import toy_lab

OPTIMIZERS = ("sgd", "adamw")


def half(lab) -> Masks:
    """Masks of density 0.5."""
    return lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), {"weights": 0.5, "edges": 0.5})


def tensors(lab, until: int):
    """Everything stored at a step."""
    return lab.stage(lab.train(lab.start("init"), half(lab), until=until)).tensors()


def same(one, other) -> bool:
    """Equal names, equal bits."""
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("cuts", [(8,), (16,), (3, 11, 12)])  # an epoch is 8 steps
def test_cut_training_equals_uncut(tmp_path, trainings, optimizer, cuts):
    whole = tensors(toy_lab(tmp_path / "whole", f"train.optimizer={optimizer}"), 20)
    assert trainings == [(0, 20)]
    trainings.clear()
    for step in (*cuts, 20):
        cut = tensors(toy_lab(tmp_path / "cut", f"train.optimizer={optimizer}"), step)
    assert trainings == list(zip((0, *cuts), (*cuts, 20), strict=True))
    assert any(n.startswith("optimizer/") for n in whole)
    assert "model/norm.running_var" in whole
    assert same(whole, cut)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_interrupted_training_goes_on_from_its_checkpoint(tmp_path, monkeypatch, trainings, optimizer):
    whole = toy_lab(tmp_path / "whole", f"train.optimizer={optimizer}", "train.validate_every=1")
    end = whole.stage(whole.train(whole.start("init"), whole.ones()))
    lab = toy_lab(tmp_path / "cut", f"train.optimizer={optimizer}", "train.validate_every=1", checkpoint_seconds=0)
    loss, calls = lab.task.loss, []

    def interrupted(model, batch):
        calls.append(1)
        if len(calls) == 14:
            raise KeyboardInterrupt
        return loss(model, batch)

    monkeypatch.setattr(lab.task, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.train(lab.start("init"), lab.ones())
    again = toy_lab(tmp_path / "cut", f"train.optimizer={optimizer}", "train.validate_every=1")
    resumed = again.stage(again.train(again.start("init"), again.ones()))
    assert trainings == [(0, 24), (0, 24), (13, 24)]
    assert same(end.tensors(), resumed.tensors())
    curve = resumed.info["progress"]["curve"]
    assert curve == end.info["progress"]["curve"]
    assert [point["step"] for point in curve] == [8, 16, 24]
    assert all(0 <= point["accuracy"] <= 100 for point in curve)
    assert [p.name for p in resumed.folder.parent.iterdir()] == ["24"]  # checkpoints are gone


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_entries_and_their_optimizer_state_are_zero(tmp_path, optimizer):
    lab = toy_lab(tmp_path, f"train.optimizer={optimizer}")
    masks, stored = half(lab), tensors(lab, 20)
    state = {"sgd": ["momentum_buffer"], "adamw": ["exp_avg", "exp_avg_sq"]}[optimizer]
    for name, mask in masks.items():
        assert 0 < mask.sum() < mask.numel()
        for tensor in [stored[f"model/{name}"], *(stored[f"optimizer/{name}/{key}"] for key in state)]:
            assert not tensor[~mask].any()
            assert tensor[mask].any()
    assert torch.equal(stored["model/middle.weight"], stored["model/again.weight"])  # tied


def test_losses_are_reported_by_epoch(tmp_path):
    seen = []
    lab = toy_lab(tmp_path, report=lambda what, step, last: seen.append((what, step, last)))
    progress = lab.stage(lab.train(lab.start("init"), lab.ones(), until=12)).info["progress"]
    assert seen == [("1 of 424", 8, 12), ("1 of 424", 12, 12)]  # 8 + 16 * 8 + 16 * 16 + 2 * 16 entries
    assert [point["step"] for point in progress["curve"]] == [8]
    assert 0 < progress["curve"][0]["loss"] < 2
    assert progress["loss_count"] == 4


def test_the_random_state_of_the_caller_does_not_matter(tmp_path):
    torch.manual_seed(1)
    one = tensors(toy_lab(tmp_path / "one"), 8)
    torch.manual_seed(2)
    assert same(one, tensors(toy_lab(tmp_path / "two"), 8))


def test_seek_gives_the_rate_of_the_step(tmp_path):
    task = toy_lab(tmp_path).task
    walked, jumped = task.optimizer(task.build(0), 24), task.optimizer(task.build(0), 24)
    for _ in range(10):
        walked[0].step()
        walked[1].step()
    seek(jumped[1], 10)
    for _ in range(3):
        assert jumped[0].param_groups[0]["lr"] == walked[0].param_groups[0]["lr"]
        for optimizer, schedule in (walked, jumped):
            optimizer.step()
            schedule.step()
    assert jumped[0].param_groups[0]["lr"] == 0.1 * (1 - 13 / 25)


def test_divergence_says_the_same_wherever_it_is_noticed(tmp_path):
    said = set()
    for seconds in (60, 0):
        lab = toy_lab(tmp_path / str(seconds), "data=broken", checkpoint_seconds=seconds)
        with pytest.raises(Diverged) as error:
            lab.train(lab.start("init"), lab.ones())
        said.add(str(error.value))
    assert said == {"the training loss is not finite in epoch 1"}
    with pytest.raises(Diverged, match="in epoch 1"):  # one that was to stop there is not gone on with
        lab.train(lab.start("init"), lab.ones(), until=lab.steps // 3, order=1)
    with pytest.raises(Diverged, match="in epoch 1"):
        lab.train(lab.start("init"), lab.ones(), order=1)


def test_a_task_that_runs_out_of_batches_is_told(tmp_path, monkeypatch):
    lab = toy_lab(tmp_path)
    batches = lab.task.batches
    monkeypatch.setattr(lab.task, "batches", lambda *place: list(batches(*place))[: max(0, 5 - place[3])])
    with pytest.raises(BenchError, match="epoch 0 has only 5 training batches, but steps_per_epoch is 8"):
        lab.train(lab.start("init"), lab.ones())


def test_no_training_leaves_its_network_in_memory(tmp_path):
    """Without a garbage collection: networks are few objects and much memory, so that one may be long in coming."""

    def networks() -> int:
        return sum(isinstance(o, torch.optim.Optimizer) for o in gc.get_objects())

    lab = toy_lab(tmp_path)
    lab.train(lab.start("init"), lab.ones())  # PyTorch keeps the first optimizer of a process
    gc.collect()
    before = networks()
    gc.disable()
    try:
        lab.train(lab.start("init"), half(lab))
        assert networks() == before
    finally:
        gc.enable()
