"""Tickets of pre-trained encoders, end to end on tiny ones: rounds, rewinding, controls, transfer between tasks."""

import json
from types import SimpleNamespace

import pytest
import torch

import bench.lab.training
from bench.config import settings
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.storage.stages import Store
from pruning.methods.magnitude import imp
from pruning.schedules import geometric
from tests.conftest import TOY, Bench, toy_lab

pytestmark = pytest.mark.usefixtures("alone")

GLUE = "tasks/bert_glue"


@pytest.fixture
def lab(tmp_path, bert) -> Lab:
    """A lab on generated sentences and an encoder with "pre-trained" weights, four short epochs."""
    words = ["protocol=smoke", f"model.name='{bert}'", "model.start=pretrained", "data.examples=128", "train.epochs=4"]
    return Lab(open_task(settings(GLUE, words)[0]), "bert_glue", 1, 0, Store(tmp_path / "store"))


def test_ten_per_cent_of_the_original_or_of_what_is_left(tmp_path):
    lab, tenths = toy_lab(tmp_path), [{"weights": d} for d in (0.9, 0.8, 0.7)]
    kept = [ticket.masks.kept("weights") for ticket in imp(lab, tenths)]
    assert kept == [374, 333, 291]  # of 416: one round a density, a tenth of the original each
    # of what is left, by rate=0.1: every round cuts the same share, and none a larger one
    of_the_rest = [step["weights"] for step in geometric({"weights": 1.0}, {"weights": 0.729}, 0.1)]
    assert of_the_rest == pytest.approx([0.9, 0.81, 0.729])
    assert len(geometric({"weights": 1.0}, {"weights": 0.1}, 0.1)) == 22  # as the paper's algorithm takes to a tenth


def test_every_round_starts_from_the_pre_trained_bytes_with_everything_fresh(lab, monkeypatch):
    begun, loop = [], bench.lab.training.train

    def spied(task, run, *rest):
        state = {name: t.clone() for name, t in run.model.state_dict().items()}
        begun.append(
            SimpleNamespace(
                state=state,
                masks=run.masks,
                optimizer=len(run.optimizer.state),
                rate=run.optimizer.param_groups[0]["lr"],
                step=run.step,
            )
        )
        return loop(task, run, *rest)

    monkeypatch.setattr(bench.lab.training, "train", spied)
    tickets = list(imp(lab, [{"weights": 0.9}, {"weights": 0.8}], rewind="pretrained"))
    pre_trained = lab.task.build(0).state_dict()  # of another seed: all but the head is the file's
    initial = {name: t.clone() for name, t in lab.load(lab.start("init")).state_dict().items()}
    assert [len(begun), len(tickets)] == [3, 2]
    for one in begun:
        assert (one.optimizer, one.rate, one.step) == (0, 3e-3, 0)
        for name, tensor in initial.items():
            assert one.state[name].numpy().tobytes() == tensor.numpy().tobytes(), name  # masks come on top of it
            if not name.startswith("classifier"):
                assert torch.equal(tensor, pre_trained[name]), name
    assert {
        "classifier.weight",
        "classifier.bias",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "bert.embeddings.word_embeddings.weight",
    } <= initial.keys()
    assert [one.masks.density() for one in begun] == pytest.approx([1.0, 0.9, 0.8], abs=1e-4)
    assert not any((tickets[1].masks[name] & ~tickets[0].masks[name]).any() for name in tickets[1].masks)  # nested


def test_one_cut_of_the_pre_trained_weights_looks_at_nothing_else(lab):
    ticket = next(lab.tickets("magnitude_at_init", [{"weights": 0.4}]))
    weights = lab.load(lab.start("pretrained")).state_dict()
    ranked = torch.cat([weights[name].abs().flatten() for name in ticket.masks])
    kept = torch.cat([ticket.masks[name].flatten() for name in ticket.masks])
    assert int(kept.sum()) == round(0.4 * kept.numel())
    assert ranked[kept].min() >= ranked[~kept].max()
    assert "bert.pooler.dense.weight" in ticket.masks
    assert (ticket.start, round(lab.spent().dense_steps)) == (lab.start("pretrained"), 0)


def test_shuffled_encoders(lab):
    weights = {name: t.clone() for name, t in lab.load(lab.start("pretrained")).state_dict().items()}
    layers = {name: t.clone() for name, t in lab.load(lab.start("shuffled_layers")).state_dict().items()}
    for name, tensor in weights.items():  # of two layers, each has the other's six matrices
        matrix = name in lab.ones() and "pooler" not in name
        other = name.replace("layer.0", "layer.x").replace("layer.1", "layer.0").replace("layer.x", "layer.1")
        assert torch.equal(layers[name], weights[other] if matrix else tensor), name
    within = lab.load(lab.start("shuffled_weights")).state_dict()
    assert {name for name in weights if not torch.equal(within[name], weights[name])} == set(lab.ones())


def run(bench: Bench, bert, *words: str) -> int:
    return bench.run("protocol=smoke", f"model.name='{bert}'", "model.start=pretrained", "train.epochs=2", *words, task=GLUE)


def test_controls_by_the_command_line(bench, bert):
    assert (
        run(
            bench,
            bert,
            "method=magnitude_at_init",
            "densities=[0.5]",
            "controls=[shuffle_layers,shuffle_weights,reinit]",
            "data.examples=128",
        )
        == 0
    )
    tickets = {r.identity.control: r.ticket for r in bench.records() if r.identity.densities}
    assert {control: ticket.start for control, ticket in tickets.items()} == {
        None: "init/0",
        "shuffle_layers": "shuffled_layers/0",
        "shuffle_weights": "shuffled_weights/0",
        "reinit": "reinit/0",
    }
    assert len({ticket.masks for ticket in tickets.values()}) == 1
    assert bench.run("method=magnitude_at_init", "densities=[0.5]", "controls=[shuffle_weights]", task=TOY) == 0
    (drawn,) = [r for r in bench.records() if r.identity.task == "toy" and r.identity.control]
    assert drawn.status == "not_applicable"


def test_transfer_from_language_modelling(bench, bert):
    assert (
        run(
            bench,
            bert,
            "method=transfer",
            "method.source=bert_mlm:sentences",
            "method.options={rewind: pretrained}",
            "densities=[0.7]",
            "data.examples=128",
        )
        == 0
    )
    (made,) = [r for r in bench.records() if r.identity.method == "transfer" and r.identity.control is None]
    assert made.cost.search_steps > 0
    assert made.budgets["weights"].kept == round(0.7 * made.budgets["weights"].total)
    assert "bert.pooler.dense.weight" in made.tensors  # language modelling keeps the pooler for this
    searched = [json.loads((stage / "stage.json").read_text())["ingredients"] for stage in bench.stages()]
    assert {i["config"]["model"]["start"] for i in searched if i["task"] == "bert_mlm"} == {"pretrained"}
