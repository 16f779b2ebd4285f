"""Tickets taken out and loaded again: every task, every form, and whatever may be wrong with a folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bench as package
from bench.errors import BenchError
from bench.export import formats
from bench.export.formats import onnx
from bench.export.layout import CONFIG, MASKS, MODEL, RECORD, SECTION, write_config
from bench.export.parity import compare
from bench.export.push import push
from bench.export.runtimes import module_runner
from bench.export.ticket import tensors_of, trained_ticket
from bench.runner.jobs import open_task
from pruning import Masks
from pruning.checksummed import read_tensors, write_tensors
from tests.conftest import TOY

from_pretrained = package.from_pretrained
TASKS = {
    "cnn_cifar": (),
    "cnn_imagenet": ("model.name=mobilenet_v2", "data.size=32"),
    "bert_glue": (),
    "bert_squad": (),
    "bert_mlm": (),
    "gcn_planetoid": ("densities={weights: 0.5, edges: 0.8}",),
    "gcn_ogb": ("densities={weights: 0.5, edges: 0.8}",),
    "tour_flickr": ("train.pretrain_epochs=0",),
}


def needs_onnx():
    """Skip a test where the extra is not installed."""
    for extra in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(extra)


def exported(bench, method="one_shot", control=None, *words):
    """Export the one ticket that was run; returns its record and folder."""
    (record,) = (r for r in bench.records() if (r.identity.method, r.identity.control) == (method, control))
    to = bench.folder / "ticket"
    said = ["export", str(bench.path(record)), "--to", str(to), f"store={bench.folder / 'store'}", "--trust", *words]
    assert bench(*said) == 0, bench.err
    return record, to


def opened(record, bench):
    """The record's ticket, from the store."""
    return trained_ticket(bench.path(record), [f"store={bench.folder / 'store'}", "device=cpu"], lambda what: True)


@pytest.mark.parametrize("name", TASKS)
def test_what_comes_back_gives_the_metrics_of_the_record(bench, name):
    """To the last digit, for every task."""
    words = ["protocol=smoke", "method=random_ticket", "densities=[0.5]", "controls=[]", "train.epochs=1", "seeds=[0]"]
    assert bench.run(*words, *TASKS[name], task=f"tasks/{name}") == 0, bench.err
    record, to = exported(bench, "random_ticket")
    assert "answers equal on validation" in bench.out
    task = opened(record, bench).task
    model = from_pretrained(to)
    assert {split: task.evaluate(model, split) for split in ("val", "test")} == {
        "val": record.result.val,
        "test": record.result.test,
    }
    masks = Masks.load(to / MASKS, record.ticket.masks)
    assert masks.digest() == record.ticket.masks
    for key, t in tensors_of(model).items():
        if key in masks and masks[key].shape == t.shape:
            assert not t[~masks[key]].any()
    assert (to / "tokenizer.json").exists() == name.startswith("bert")
    if name.startswith("gcn"):
        edges, _ = read_tensors(to / "edges.safetensors")
        (kept,) = (int(m.sum()) for n, m in masks.items() if n.endswith("edge_weight"))
        assert edges["edges"].shape == (2, kept)
        assert kept == record.budgets["edges"].kept
        assert {n: t for n, t in tensors_of(model).items() if n.endswith("edge_weight")}.popitem()[1].shape == (kept,)


@pytest.mark.parametrize("form", formats.OTHERS)
@pytest.mark.parametrize("name", ["cnn_cifar", "bert_glue", "gcn_planetoid", "tour_flickr"])
def test_other_runtimes_say_the_same(name, form, tmp_path):
    """Of any batch size and length where they are free."""
    if form == "onnx":
        needs_onnx()
    from bench.config import settings

    task = open_task(settings(f"tasks/{name}", ["protocol=smoke"])[0])
    model = task.build(0).eval()
    batch = next(iter(task.batches("val", 0, 0)))
    call, path = task.call(model, batch), tmp_path / "model"
    formats.named(form).write(call, path)
    run = formats.named(form).runner(path)
    whole = tuple(call.inputs.values())
    batches = [whole]
    if call.free:
        axes = [next(axis for axis, size in call.free[name].items() if size == "batch") for name in call.inputs]
        batches += [tuple(t.narrow(axis, 0, n) for t, axis in zip(whole, axes, strict=True)) for n in (1, 3)]
    if name == "bert_glue":
        batches.append(tuple(t[:2, :5] for t in whole))
    parity = compare(form, module_runner(call.module), run, batches)
    parity.check()
    assert parity.difference < 1e-4
    assert parity.equal == parity.answers >= len(whole[0])


def test_an_unstructured_encoder_is_one_of_transformers(bench, bert):
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    words = ["protocol=smoke", "method=random_ticket", "densities=[0.5]", "controls=[]", "train.epochs=1"]
    start = (f"model.name={bert}", "model.start=pretrained")
    assert bench.run(*words, *start, task="tasks/bert_glue") == 0, bench.err
    _, to = exported(bench, "random_ticket")
    model, ours = AutoModelForSequenceClassification.from_pretrained(to, attn_implementation="eager"), from_pretrained(to)
    ids = torch.tensor([[2, 7, 8, 3]])
    assert torch.equal(model.eval()(ids).logits, ours(ids).logits)
    assert model.config.id2label == {0: "bad", 1: "good"}
    encoder, info = AutoModel.from_pretrained(to, output_loading_info=True)
    assert not info["missing_keys"]
    name = "encoder.layer.0.attention.self.query.weight"
    assert not encoder.get_parameter(name)[~Masks.load(to / MASKS)[f"bert.{name}"]].any()
    assert AutoTokenizer.from_pretrained(to)("the").input_ids


def test_heads_and_neurons_leave_no_gate_behind(bench):
    words = ["protocol=smoke", "method=one_shot", "controls=[slim]", "train.epochs=1", "model.scope=units"]
    assert bench.run(*words, "densities={heads: 0.5, neurons: 0.6}", task="tasks/bert_glue") == 0, bench.err
    for control in (None, "slim"):
        record, to = exported(bench, "one_shot", control)
        model = from_pretrained(to)
        config = json.loads((to / CONFIG).read_text())
        assert config["model_type"] == "bert_slim"
        assert not any("gate" in name for name in config[SECTION]["tensors"])
        heads, neurons = record.budgets["heads"], record.budgets["neurons"]
        layers = model.bert.encoder.layer
        assert sum(layer.intermediate.dense.out_features for layer in layers) == neurons.kept == round(0.6 * neurons.total)
        assert sum(layer.attention.self.query.out_features for layer in layers) == 16 * heads.kept
        ticket = opened(record, bench)
        found = ticket.task.evaluate(model, "test")
        assert found == pytest.approx(record.result.test, rel=1e-4)
        assert (to / MODEL).stat().st_size < 1.1 * sum(4 * t.numel() for t in tensors_of(model).values())


def test_gates_are_taken_over_by_the_next_matrix():
    from bench.config import settings

    task = open_task(settings("tasks/bert_glue", ["protocol=smoke", "model.scope=units"])[0])
    model = task.build(0).eval()
    for layer in model.bert.encoder.layer:
        layer.attention.self.gate.data = torch.tensor([0.5, -2.0])
        layer.intermediate.gate.data.uniform_(-1, 1)
    folded, ids = task.folded(model), torch.tensor([[2, 7, 8, 9, 3]])
    before, after = (m.bert.encoder.layer[0].attention.output.dense.weight for m in (model, folded))
    assert torch.equal(after[:, :16], before[:, :16] * 0.5)
    assert torch.equal(after[:, 16:], before[:, 16:] * -2)
    assert torch.allclose(model(ids).logits, folded(ids).logits, atol=1e-6)


def test_whole_channels_are_gone(bench):
    needs_onnx()
    words = ["protocol=smoke", "model.scope=channels", "densities={channels: 0.5}", "controls=[slim]", "train.epochs=1"]
    assert bench.run(*words, "method=one_shot", task="tasks/cnn_cifar") == 0, bench.err
    for control in (None, "slim"):
        record, to = exported(bench, "one_shot", control, "--format", "onnx" if control else "hf")
        model = from_pretrained(to)
        masks, state = Masks.load(to / MASKS), load_file(to / MODEL)
        for name, mask in masks.items():
            assert state[name].numel() == int(mask.sum())
        assert not any(name.endswith("num_batches_tracked") for name in state)
        found = opened(record, bench).task.evaluate(model, "test")
        assert found == record.result.test if control else found == pytest.approx(record.result.test, rel=1e-4)
        with safe_open(to / MODEL, "pt") as file:
            assert file.metadata()["record"] == record.id
    assert bench.out.count("answers equal") == 2


def test_the_folder_of_the_toy_task(bench):
    """A task from outside the repository: its code is run where it is named, and nowhere else."""
    assert bench.run("method=one_shot", "densities={weights: 0.5, edges: 0.5}", "controls=[random]") == 0
    record, to = exported(bench)
    path, store = str(bench.path(record)), f"store={bench.folder / 'store'}"
    assert sorted(p.name for p in to.iterdir()) == sorted([CONFIG, MASKS, MODEL, "README.md", RECORD, "points.txt"])
    assert "model.safetensors: largest difference" in bench.out
    with pytest.raises(BenchError, match=r"task 'toy', which is not installed: .*task=FOLDER"):
        from_pretrained(to)
    model = from_pretrained(to, task=TOY)
    assert len(model.gate) == 4
    assert not model.training
    card = (to / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "ticket-bench"\n')
    for said in ("| edges | 0.5 | 4 of 8 (0.5) |", "*random*", record.command, "provisional", "answers equal"):
        assert said in card
    assert bench("export", path, "--to", str(to), store) == 1
    assert "runs code from outside this repository" in bench.err
    assert bench("export", path, "--to", str(to), store, "--trust") == 0  # again, in its place
    assert not list(bench.folder.glob(".ticket*"))
    bench.path(record).unlink()  # a control is exported without the record of its ticket, too
    assert "*random*" in (exported(bench, control="random")[1] / "README.md").read_text()


def test_what_cannot_be_taken_out_is_one_line(bench):
    assert bench.run("method=one_shot", "densities=[0.5]") == 0
    path = bench.path(bench.record("one_shot", 0.5))
    store, to = f"store={bench.folder / 'store'}", bench.folder / "ticket"

    def refused(*words, status=1):
        assert bench("export", str(path), "--to", str(to), "--trust", *words) == status
        assert bench.err.count("\n") == 1
        assert not to.exists()
        return bench.err

    said = refused(f"store={bench.folder / 'other'}")
    assert "the trained weights are not in the store" in said
    assert f"or run `bench run {TOY}" in said
    assert "opset 11 is too old" in refused(store, "--format", "onnx", "--opset", "11", status=2)
    assert "unknown option of this machine 'train.lr'" in refused(store, "train.lr=1", status=2)
    Masks.ones([]).save(path.with_suffix(".masks.safetensors"))
    assert "does not hold the masks of the record" in refused(store)
    path.with_suffix(".masks.safetensors").unlink()
    assert "the masks of" in refused(store)
    to.mkdir()
    (to / "mine.txt").write_text("kept")
    assert bench("export", str(path), "--to", str(to), "--trust", store) == 1
    assert (to / "mine.txt").read_text() == "kept"


def test_onnx_is_an_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"onnx, onnxscript, onnxruntime is not installed: pip install 'ticket-bench\[onnx\]'"):
        onnx.write(None, tmp_path / "model.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The exported ticket of a tiny run of the toy task."""
    place = tmp_path_factory.mktemp("toy")
    from bench import cli

    where = [f"store={place / 'store'}", f"runs={place / 'runs'}", "threads=1", "jobs=1"]
    words = ["densities={weights: 0.5, edges: 0.5}", "method=one_shot", "model.width=4", "train.epochs=1"]
    assert cli.main(["run", TOY, *words, *where]) == 0
    (path,) = place.glob("runs/toy/*/one_shot/*.json")
    assert cli.main(["export", str(path), "--to", str(place / "ticket"), where[0], "--trust"]) == 0
    return place / "ticket"


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "ticket")


def refused(folder, match):
    """What ``from_pretrained`` says: one line."""
    with pytest.raises(BenchError, match=match) as caught:
        from_pretrained(folder, task=TOY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [MODEL, MASKS, RECORD, CONFIG])
def test_a_changed_file_is_refused(copied, name):
    raw = bytearray((copied / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copied / name).write_bytes(raw)
    refused(copied, "ticket")


@pytest.mark.parametrize("name", [MODEL, MASKS, RECORD, CONFIG])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    refused(copied, rf"has no {name}")


def sealed_again(folder, facts=None, **section):
    """As somebody would who knows how the seal is made."""
    config = json.loads((folder / CONFIG).read_text())
    own = {key: value for key, value in config.pop(SECTION).items() if key not in ("files", "layout", "seal")}
    write_config(folder, facts or config, {**own, **section})


def test_weights_of_another_network_are_refused(copied):
    tensors, facts = read_tensors(copied / MODEL)
    for changed, match in (
        ({n: t for n, t in tensors.items() if n != "gate"}, "lacks gate: it is of another network"),
        ({**tensors, "more": torch.ones(1)}, "has, beyond the network's, more"),
        ({**tensors, "gate": torch.ones(8)}, r"has gate as torch.float32 \(8,\), and the network as torch.float32 \(4,\)"),
        ({**tensors, "gate": tensors["gate"].half()}, "has gate as torch.float16"),
    ):
        write_tensors(copied / MODEL, changed, facts)
        refused(copied, "is not the file that config.json was written with")
        sealed_again(copied)
        refused(copied, match)
    save_file(tensors, copied / MODEL)
    sealed_again(copied)
    refused(copied, "it carries no seal")


def test_config_of_another_ticket_is_refused(copied):
    config = json.loads((copied / CONFIG).read_text())
    config["labels"] = ["x"]
    (copied / CONFIG).write_text(json.dumps(config))
    refused(copied, "was changed after it was written")
    (copied / CONFIG).write_text('{"model_type": "bert"}')
    refused(copied, "is not of an exported ticket")
    (copied / CONFIG).write_text("{")
    refused(copied, "is not of an exported ticket")


def test_a_record_of_another_ticket_is_refused(copied):
    sealed_again(copied, record="0" * 16)
    refused(copied, "is of another ticket than config.json")


def test_only_installed_tasks_are_looked_for(folder, monkeypatch, tmp_path):
    """Not even one that lies where the command is given."""
    shutil.copytree(TOY, tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match="is not installed"):
        from_pretrained(folder)
    with pytest.raises(BenchError, match=r"is of task 'toy', version 1, and .*cnn_cifar is cnn_cifar, version"):
        from_pretrained(folder, task="tasks/cnn_cifar")
    with pytest.raises(BenchError, match="no folder nowhere: name one that"):
        from_pretrained("nowhere")


def test_a_name_of_the_hub_is_fetched(folder, monkeypatch, tmp_path):
    from tasks import hub

    asked = []
    monkeypatch.setattr(hub, "snapshot", lambda name, *rest: asked.append(name) or folder)
    monkeypatch.chdir(tmp_path)
    assert len(from_pretrained("user/ticket", task=TOY).gate) == 4
    assert asked == ["user/ticket"]


def test_a_hub_that_refuses_is_one_line(alone, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match="name a folder that `bench export` wrote"):
        from_pretrained("user/ticket")


class Hub:
    """What is asked of ``huggingface_hub.HfApi``."""

    def __init__(self, error=None):
        self.error, self.calls, self.files = error, [], {}

    def create_repo(self, name, **options):
        if self.error:
            raise self.error
        self.calls.append((name, options))
        return f"https://hub/{name}"

    def upload_folder(self, repo_id, folder_path, **options):
        self.calls.append((repo_id, options))
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


def test_push(bench, tmp_path):
    assert bench.run("method=one_shot", "densities={weights: 0.5, edges: 0.5}", "train.epochs=1") == 0
    (record,) = (r for r in bench.records() if r.identity.method == "one_shot")
    ticket, hub = opened(record, bench), Hub()
    address, parities = push(ticket, "user/ticket", private=True, api=hub)
    assert address == "https://hub/user/ticket"
    assert [name for name, _ in hub.calls] == ["user/ticket", "user/ticket"]
    assert hub.calls[0][1]["private"]
    assert parities[0].difference < 1e-4
    for name, raw in hub.files.items():
        (tmp_path / name).write_bytes(raw)
    assert len(from_pretrained(tmp_path, task=TOY).gate) == 4
    card = (tmp_path / "README.md").read_text()
    import yaml

    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["tags"][:2] == ["pruning", "lottery-ticket"]
    value = metadata["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert value == record.result.test["accuracy"]
    with pytest.raises(BenchError, match=r"the hub did not take user/ticket \(401 no login\): log in"):
        push(ticket, "user/ticket", api=Hub(RuntimeError("401 no login\nmore")))
    with pytest.raises(BenchError, match="ticket is no repository of the hub: give user/name"):
        push(ticket, "ticket", api=hub)


def test_the_names_that_are_offered():
    import ticket_bench

    assert ticket_bench.from_pretrained is package.from_pretrained
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    loaded = "import sys, bench, ticket_bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
