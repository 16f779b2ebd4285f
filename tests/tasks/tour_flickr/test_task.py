"""The task: trainings, tickets, costs, commands."""

import numpy as np
import pytest
import torch

from bench.lab.lab import Lab
from bench.storage.analysis_records import read_analyses
from bench.storage.stages import Store
from pruning import NotApplicable

from .city import FOLDER, task


def test_a_sum_over_folds_leaves_each_network_the_gradient_that_it_has_alone():
    mean, total = task("protocol=smoke"), task("protocol=smoke", "train.reduction=sum")
    net, gradients = mean.build(0).eval(), []
    batch = next(iter(mean.batches("val", 0, 0)))
    for t in (mean, total):
        net.zero_grad()
        t.loss(net, batch).backward()
        gradients.append(net.output.weight.each[0].grad.clone())
    answers = torch.where(batch.middle(), batch.pois, -1)[0, :, 1:]
    alone = torch.nn.functional.cross_entropy(net(batch)[0].flatten(0, 1), answers.flatten(), ignore_index=-1)
    (of_alone,) = torch.autograd.grad(alone, net.output.weight.each[0])
    torch.testing.assert_close(gradients[1], of_alone)
    torch.testing.assert_close(gradients[0], of_alone / 3)


def test_pretraining_comes_first_and_is_a_start_state(tmp_path):
    t = task("protocol=smoke")
    assert [batch.pretraining for epoch in range(4) for batch in t.batches("train", epoch, 0)] == [True] * 6 + [False] * 6
    assert t.epochs == 6
    lab = Lab(t, "tour_flickr", 1, 0, Store(tmp_path))
    assert lab.start("pretrained").step == 2 * t.steps_per_epoch
    assert lab.start("pretrained") == lab.start("2ep")
    plain = Lab(task("protocol=smoke", "model=gru"), "tour_flickr", 1, 0, Store(tmp_path))
    with pytest.raises(NotApplicable, match="pre-trained"):
        plain.start("pretrained")


def test_every_fold_is_pruned_to_the_density_asked_for(tmp_path):
    lab = Lab(task("protocol=smoke"), "tour_flickr", 1, 0, Store(tmp_path))
    kinds = {m.kind for m in lab.maskables}
    assert kinds == {"input", "recurrent", "output"}
    scores = {m.name: torch.rand(m.shape) * (1 + m.network) for m in lab.maskables}  # one ranking would empty the first fold
    masks = lab.allocate(scores, lab.ones(), {"weights": 0.3})
    for fold in range(3):
        members = [masks[m.name] for m in lab.maskables if m.network == fold]
        share = sum(int(mask.sum()) for mask in members) / sum(mask.numel() for mask in members)
        assert share == pytest.approx(0.3, abs=1e-3)


def test_multiply_adds_by_hand():
    t = task("protocol=smoke")
    net = t.build(0)
    mean = np.mean([t._tours.lengths[trip] for fold in t._tours.folds for trip in fold["test"]])
    segments, steps = -(-mean // 3), mean - 2
    e = h = 8
    expected = 2 * mean * (e * 3 * 4 + 4 * 3 * 4) + segments * (h * 3 * h + h * 3 * h) + h * h
    expected += steps * ((2 * e + h) * 3 * h + h * 3 * h + h * 12)
    assert t.macs(net, {}) == pytest.approx(expected)


def test_from_command_line_to_leaderboard(bench, tmp_path):
    """Tickets at every start state, methods before and during training, baselines and the oracle, shown on the pages."""
    smoke = ["protocol=smoke", "densities=[0.5]"]
    for words in (
        ["method=imp", "method.rewind=init,pretrained,1ep"],
        ["method=[one_shot,snip,gmp,rigl,random_ticket]"],
        ["method=synflow"],
    ):
        assert bench.run(*smoke, *words, task=FOLDER) == 0, bench.err
    status = {r.label: r.status for r in bench.records()}
    assert status.pop("synflow") == "not_applicable"
    assert set(status.values()) == {"ok"}
    assert {"dense", "imp", "imp(rewind=pretrained)", "imp(rewind=1ep)", "snip(per_class=1, balanced=False)"} <= status.keys()
    where = [f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}", "threads=1", "jobs=1"]
    assert bench("analyse", "baselines", FOLDER, *smoke, *where) == 0, bench.err
    assert bench("analyse", "oracle_epoch", FOLDER, *smoke, *where, "analysis.looks=3", "analysis.method=imp") == 0, bench.err
    rows = {r.identity.analysis: r.rows for r in read_analyses(tmp_path / "runs")}
    assert [row["baseline"] for row in rows["baselines"]] == ["random", "popularity", "nearest", "markov_beam"]
    dense = bench.record("dense").result.test
    last, best, each = (row for row in rows["oracle_epoch"] if row["network"] == "dense")
    assert last["pairs_f1"] == pytest.approx(dense["pairs_f1"])
    assert last["f1"] <= best["f1"] <= each["f1"]
    assert {row["network"] for row in rows["oracle_epoch"]} >= {"ticket", "random (no training)", "markov_beam (no training)"}
    from bench.leaderboard.pages import render
    from bench.storage.records import read_records

    page = render(read_records(tmp_path / "runs"), read_analyses(tmp_path / "runs"))["tour_flickr.md"]
    assert "| markov\\_beam " in page or "| markov_beam " in page


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.pretrain=[guess]", "unknown model.pretrain 'guess'"),
        ("model.name=transformer", "unknown model 'transformer'"),
        ("model.dropout=1.0", "model.dropout is 1.0"),
        ("train.pretrain_epochs=6", "train.pretrain_epochs is 6; it must leave some of the 6 epochs"),
        ("train.temperature=0.0", "train.temperature is 0.0"),
        ("train.reduction=max", "unknown train.reduction 'max'"),
    ],
)
def test_bad_options_are_one_line(bench, option, said):
    assert said in bench.fails("protocol=smoke", option, task=FOLDER)
