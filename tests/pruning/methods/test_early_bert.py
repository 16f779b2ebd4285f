"""Heads and neurons: gates, surgery, costs, early birds within an epoch, and the whole path through the command line."""

import copy

import pytest
import torch
from torch import nn

from bench.config import settings
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.seeds import seed_for
from bench.storage.stages import Store
from bench.task.capabilities import CanShrink
from pruning import Masks, NotApplicable, PruningError, attach
from pruning.allocation import allocate
from pruning.callbacks.base import below
from pruning.methods.early_bird import EarlyBird, early_bert
from tasks.bert import checkpoint
from tests.conftest import toy_lab

pytestmark = pytest.mark.usefixtures("alone")

HALF = {"heads": 0.5, "neurons": 0.6}
HEADS = [f"bert.encoder.layer.{i}.attention.self.gate" for i in range(2)]
NEURONS = [f"bert.encoder.layer.{i}.intermediate.gate" for i in range(2)]


def task_with(scope: str, *words: str, task: str = "bert_glue"):
    return open_task(settings(f"tasks/{task}", ["protocol=smoke", f"model.scope={scope}", *words])[0])


def bert_lab(store, *words: str) -> Lab:
    return Lab(task_with("units", *words), "bert_glue", 1, 0, Store(store))


@pytest.fixture
def task():
    return task_with("units")


def drawn(task, model, seed: int, **densities: float) -> Masks:
    maskables = task.maskables(model)
    generator = torch.Generator().manual_seed(seed)
    scores = {m.name: torch.rand(m.shape, generator=generator) for m in maskables}
    return allocate(scores, Masks.ones(maskables), densities, maskables)


def test_units_are_gates_in_two_budgets(task):
    found = {m.name: (m.shape, m.kind, m.budget) for m in task.maskables(task.build(0))}
    assert found == {
        **dict.fromkeys(HEADS, ((2,), "attention_head", "heads")),
        **dict.fromkeys(NEURONS, ((64,), "neuron", "neurons")),
    }
    assert task.capability(CanShrink) is task
    assert task_with("all").capability(CanShrink) is None


@pytest.mark.parametrize("name", ["bert_glue", "bert_mlm", "bert_squad"])
def test_open_gates_change_nothing(name):
    gated, plain = task_with("units", task=name), task_with("encoder", task=name)
    model, other = gated.build(0), plain.build(0)
    assert {n for n, _ in model.named_parameters()} - {n for n, _ in other.named_parameters()} == {*HEADS, *NEURONS}
    batch = next(iter(gated.batches("val", 0, 0)))
    assert gated.loss(model.eval(), batch).item() == plain.loss(other.eval(), batch).item()


def test_a_closed_gate_silences_its_unit(task):
    model = task.build(0).eval()
    batch = next(iter(task.batches("val", 0, 0)))
    gated, plain = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        gated.bert.encoder.layer[1].attention.self.gate[0] = 0  # its 16 entries come first
        gated.bert.encoder.layer[0].intermediate.gate[5] = 0
        plain.bert.encoder.layer[1].attention.output.dense.weight[:, :16] = 0
        plain.bert.encoder.layer[0].output.dense.weight[:, 5] = 0
        silent, cut, whole = (outputs(task, network, batch) for network in (gated, plain, model))
    assert (silent - cut).abs().max() < 1e-6
    assert (silent - whole).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["bert_glue", "bert_mlm", "bert_squad"])
@pytest.mark.parametrize("heads", [0.5, 0.75, 1.0])
def test_the_slim_network_computes_what_the_masked_one_does(name, heads):
    task = task_with("units", task=name)
    model = task.build(0)
    batch = next(iter(task.batches("val", 0, 0)))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and gates that are not 0 and 1
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        for seed, neurons in enumerate((0.05, 0.5, 0.9)):
            masks, masked = drawn(task, model, seed, heads=heads, neurons=neurons), copy.deepcopy(model)
            attach(masks, masked)
            slim = task.slim(masked, dict(masks))
            assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in masked.parameters())
            one, other = (outputs(task, network.eval(), batch) for network in (masked, slim))
            assert (one - other).abs().max() < 1e-5
            # inference MACs are those of the matrices that are left
            assert task.macs(model, masks.densities()) == pytest.approx(counted(task, slim))


def outputs(task, model, batch) -> torch.Tensor:
    logits = task._logits(model, batch)
    every = torch.cat([part.reshape(-1).float() for part in logits]) if isinstance(logits, tuple) else logits
    return every[every.isfinite()]  # no answer lies in a question


def counted(task, slim: nn.Module) -> float:
    """MACs of a slim network, from its own shapes."""
    lengths = task.splits["test"].lengths.astype(float)
    total = task.macs(slim, dict.fromkeys((*HEADS, *NEURONS), 0.0))  # pooler and head
    for layer in slim.bert.encoder.layer:
        total += lengths.mean() * sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear))
        total += 2 * (lengths**2).mean() * layer.attention.self.all_head_size
    return total


def test_slim_shapes_by_hand(task):
    model = task.build(0)
    masks = dict(Masks.ones(task.maskables(model)))
    masks[HEADS[0]] = torch.tensor([False, True])
    masks[NEURONS[1]] = torch.arange(64) < 10
    slim = task.slim(model, masks)
    first, second = slim.bert.encoder.layer
    assert [tuple(m.weight.shape) for m in (first.attention.self.query, first.attention.output.dense)] == [(16, 32), (32, 16)]
    assert [tuple(m.weight.shape) for m in (second.intermediate.dense, second.output.dense)] == [(10, 32), (32, 10)]
    assert (first.attention.self.num_attention_heads, len(first.attention.self.gate), len(second.intermediate.gate)) == (1, 1, 10)
    assert torch.equal(first.attention.self.value.weight, model.bert.encoder.layer[0].attention.self.value.weight[16:])
    assert tuple(model.bert.encoder.layer[0].attention.self.query.weight.shape) == (32, 32)  # the other is as it was


def test_schemes_by_budget(task):
    model = task.build(0)
    maskables = task.maskables(model)
    scores = {m.name: torch.full(m.shape, float(i)) for i, m in enumerate(maskables)}
    masks = allocate(
        scores, Masks.ones(maskables), {"heads": 0.5, "neurons": 0.5}, maskables, {"heads": "uniform", "neurons": "global"}
    )
    assert [int(masks[name].sum()) for name in HEADS] == [1, 1]
    assert [int(masks[name].sum()) for name in NEURONS] == [1, 63]  # all but a floor of the first
    with pytest.raises(PruningError, match="unknown scheme 'erl'"):
        allocate(scores, Masks.ones(maskables), {"heads": 0.5}, maskables, {"heads": "erl"})


def test_an_early_bird_may_look_within_an_epoch(tmp_path):
    lab = toy_lab(tmp_path)  # 8 steps an epoch
    bird = EarlyBird([{"weights": 0.5}], 1, 1e-9, False, every=0.25)
    found = below("0", lab.callback_state(lab.train(lab.start("init"), lab.ones(), callback=bird)))
    assert len(found["raw/weights"]) == 3 * 4
    assert "every" not in EarlyBird([{"weights": 0.5}], 1, 0.1, False).options()  # stages of before stay what they are
    early = EarlyBird([{"weights": 0.5}], 1, 2.0, False, after=0.3, every=0.25)
    end = lab.stage(lab.train(lab.start("init"), lab.ones(), callback=early))
    assert end.info["progress"]["step"] == 4  # the first look after step 2.4 that has one before it, and there it stops
    with pytest.raises(PruningError, match="every is 0"):
        EarlyBird([{"weights": 0.5}], 1, 0.1, False, every=0)


def test_early_bert_draws_heads_by_layer_and_starts_again(tmp_path):
    lab = bert_lab(tmp_path)  # 36 steps an epoch
    ticket = next(early_bert(lab, [HALF], window=1, eps=2.0, every=0.1, after=0.1))
    assert ticket.notes["emerged_step"] == 8  # a fifth of the first epoch, at the second look
    assert [int(ticket.masks[name].sum()) for name in HEADS] == [1, 1]
    assert ticket.masks.kept("neurons") == 77
    assert (ticket.start, ticket.schedule) == (lab.start("init"), "replay")
    assert ticket.search.dense_steps == 8
    gates = dict(lab.load(lab.train(lab.start("init"), lab.ones(), until=8, callback=None)).named_parameters())
    assert all((gates[name] != 1).any() for name in (*HEADS, *NEURONS))  # they are trained


def test_a_slim_network_trains_as_the_masked_one_does(tmp_path, monkeypatch):
    for dropout in ("hidden_dropout_prob", "attention_probs_dropout_prob"):  # whose draws depend on shapes
        monkeypatch.setitem(checkpoint.TINY, dropout, 0.0)
    lab = bert_lab(tmp_path)
    masks = drawn(lab.task, lab.model, 0, **HALF)
    masked, slim = (lab.train(lab.start("init"), masks, until=20, slim=slim) for slim in (False, True))
    weights, left = (dict(lab.stage(state).tensors()) for state in (masked, slim))
    heads = masks[HEADS[0]].repeat_interleave(16)
    name = "model/bert.encoder.layer.0.attention.self.value.weight"
    assert (weights[name][heads] - left[name]).abs().max() < 1e-4
    assert (weights[name][heads] - lab.task.build(seed_for(0, "init")).state_dict()[name[6:]][heads]).abs().max() > 1e-2
    losses = [
        next(iter(lab.stage(state).info["progress"]["curve"]), lab.stage(state).info["progress"])["loss_sum"]
        for state in (masked, slim)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_early_bert_needs_heads(tmp_path):
    with pytest.raises(NotApplicable, match="scope of the model that prunes whole units"):
        next(early_bert(toy_lab(tmp_path), [{"weights": 0.5}]))


def test_early_bert_by_the_command_line(bench):
    assert (
        bench.run(
            "protocol=smoke",
            "model.scope=units",
            "method=early_bert",
            "densities={heads: 0.5, neurons: 0.6}",
            "controls=[slim,random]",
            "train.epochs=2",
            task="tasks/bert_glue",
        )
        == 0
    )
    by_control = {r.identity.control: r for r in bench.records() if r.identity.densities}
    ticket, slim = by_control[None], by_control["slim"]
    assert {b: (k.kept, k.total) for b, k in ticket.budgets.items()} == {"heads": (2, 4), "neurons": (77, 128)}
    assert slim.ticket.masks == ticket.ticket.masks
    assert slim.cost.measured_speedup > 0
    assert slim.cost.measured_training_speedup > 0
    assert slim.cost.train_dense_trainings < ticket.cost.train_dense_trainings == 1.0
    assert by_control["random"].ticket.masks != ticket.ticket.masks
