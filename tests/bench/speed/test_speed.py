"""What `bench speed` times, writes and shows. Times themselves are the machine's business."""

import itertools

import pytest
import torch
from torch import nn

import bench.speed.measure
from bench.leaderboard import site
from bench.leaderboard.speed import Fastest, fastest, mean_speedup, speed_table
from bench.speed import forms, timing
from bench.speed.forms import Form
from bench.speed.sparse_linear import Condensed, Csr, is_two_of_four, is_very_sparse, replaced
from bench.storage.analysis_records import read_analyses
from bench.task.capabilities import Call


@pytest.mark.parametrize("kind", [Csr, Condensed])
@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (2, 3, 6)])
def test_sparse_layers_compute_what_the_masked_layer_does(kind, shape):
    linear = nn.Linear(6, 4)
    mask = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0]]).bool()
    x = torch.randn(shape)
    with torch.no_grad():
        expected = nn.functional.linear(x, linear.weight * mask, linear.bias)
        assert torch.allclose(kind(linear, mask)(x), expected, atol=1e-6)


def test_condensed_layers_keep_the_inputs_of_every_output():
    linear = nn.Linear(4, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    layer = Condensed(linear, torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]).bool())
    assert layer.index.tolist() == [[1, 3], [0, 1]]
    assert layer.weight.tolist() == [[2, 4], [5, 0]]


def test_only_layers_of_few_weights_are_replaced():
    network = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 2), nn.Conv2d(1, 1, 3))
    few, many = torch.zeros(10, 20, dtype=torch.bool), torch.ones(2, 10, dtype=torch.bool)
    few[:, 0] = True
    masks = {"0.weight": few, "1.weight": many, "2.weight": torch.ones(1, 1, 3, 3, dtype=torch.bool)}
    made = replaced(network, masks, Condensed, is_very_sparse)
    assert [type(m) for m in made] == [Condensed, nn.Linear, nn.Conv2d]
    assert type(network[0]) is nn.Linear
    assert replaced(network, {"1.weight": many}, Condensed, is_very_sparse) is None
    assert not is_very_sparse(torch.zeros(2, 2, dtype=torch.bool))


def test_two_of_four():
    assert is_two_of_four(torch.tensor([[1, 0, 1, 0, 0, 0, 1, 1]]).bool())
    assert not is_two_of_four(torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1]]).bool())
    assert not is_two_of_four(torch.ones(2, 6, dtype=torch.bool))


def test_runs_are_timed_in_turn(monkeypatch):
    monkeypatch.setattr(timing, "WARM", 1)
    clock = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(timing.time, "process_time", itertools.count(step=2).__next__)
    order = []
    times = timing.timed({key: lambda key=key: order.append(key) for key in "ab"}, 0, torch.device("cpu"))
    assert "".join(order[:6]) == "ab" + "ab" + "ba"
    assert [len(taken) for taken in times.values()] == [timing.FEWEST] * 2
    assert set(times["a"]) == {timing.Taken(1, 2)}


def test_a_batch_is_of_its_size():
    call = Call(nn.Identity(), {"x": torch.arange(3.0)[:, None]}, {"x": {0: "batch"}}, ("y",))
    (x,) = bench.speed.measure._inputs(call, 7)
    assert x.flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert bench.speed.measure.sizes(call, 128) == [1, 128]
    assert bench.speed.measure.sizes(call, 1) == [1]
    assert bench.speed.measure.sizes(Call(nn.Identity(), {"x": x}, {}, ("y",)), 8) == [1]


@pytest.fixture
def quick(monkeypatch):
    """No compiler and no rounds that nobody looks at."""
    monkeypatch.setattr(timing, "WARM", 1)
    monkeypatch.setattr(timing, "FEWEST", 3)

    def refuse(*words, **options):
        raise RuntimeError("no compiler here\nat all")

    monkeypatch.setattr(torch, "compile", refuse)


def test_bench_speed(bench, quick):
    """The toy's gate is cut for real; its first layer keeps so few weights that sparse forms are tried."""
    for extra in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(extra)
    words = ["method=random_ticket", "densities={weights: 0.05, edges: 0.5}", "train.epochs=1", "controls=[slim]"]
    assert bench.run(*words) == 0
    record = next(r for r in bench.records() if r.identity.method == "random_ticket" and r.identity.control is None)
    path, store = bench.path(record), f"store={bench.folder / 'store'}"
    assert bench("speed", str(path), store, "--seconds", "0", "--trust", "threads=1") == 0, bench.err
    assert "slim, compiled: left out (no compiler here)" in bench.err
    (made,) = read_analyses(bench.folder / "runs")
    assert (made.identity.analysis, made.identity.densities) == ("speed", [{"weights": 0.05, "edges": 0.5}])
    assert made.identity.options["threads"] == made.environment["threads"] == 1
    assert made.stages == [record.ticket.stages[-1]]
    rows = {(row["network"], row["runtime"], row["batch"]): row for row in made.rows}
    networks = ("dense", "masked", "CSR", "condensed", "slim")
    assert {key for key in rows if key[1] == "eager"} == {(n, "eager", b) for n in networks for b in (1, 8)}
    assert {key[0] for key in rows if key[1] == "ONNX Runtime"} == {"dense", "slim"}
    saved = record.cost.inference_macs_dense / record.cost.inference_macs
    for (network, _, _), row in rows.items():
        assert row["fewer MACs"] == pytest.approx(1 if network in ("dense", "masked") else saved, rel=1e-4)
        assert 0 < row["median ms"] <= row["p95 ms"]
        assert row["first quartile"] <= row["speed-up"] <= row["third quartile"]
    assert rows["dense", "eager", 8]["speed-up"] == 1
    assert "speed-up" in bench.out

    assert bench("publish", str(bench.folder / "runs"), "--root", str(bench.folder / "boards")) in (0, 1)
    best = fastest([made])[record.ticket.stages[-1]]
    assert best.speedup == max(r["speed-up"] for k, r in rows.items() if k[0] not in ("dense", "masked"))
    table = speed_table([made])
    assert table.headers[:5] == ["Ticket: density", "Form", "Batch", "Fewer MACs (theoretical)", "eager"]
    assert len(table.rows) == 2 * len(networks[1:])
    pages = site.render(bench.records(), [made])
    assert "Fastest form" in pages["toy.md"]
    assert f"{best.speedup:g} x" in pages["toy.md"]
    assert "analysis_speed.md" in pages
    assert "Fastest form" not in site.render(bench.records())["toy.md"]

    assert bench("speed", str(path), "store=nowhere", "--trust") == 1
    assert "the trained weights are not in the store" in bench.err
    assert bench("verify", str(made.path(bench.folder / "runs"))) == 1
    assert "is no `bench run TASK`" in bench.err


def test_a_mean_over_seeds():
    known = {"a/1": Fastest(2.0, "slim, eager, batch 1"), "b/1": Fastest(3.0, "slim, compiled, batch 1")}
    assert mean_speedup(["a/1", "b/1", "c/1"], known) == ("2.5 x", "slim, eager, batch 1")
    assert mean_speedup(["c/1"], known) == ()


def test_compiled_forms_compute_the_same():
    call = Call(nn.Linear(4, 2), {"x": torch.randn(3, 4)}, {"x": {0: "batch"}}, ("y",))
    seen = []

    def compile_(module, **options):
        seen.append(options)
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compile_)
        run = forms._runner(Form("dense", "compiled"), call, None)
    assert torch.equal(run([call.inputs["x"]])[0], call.module(call.inputs["x"]))
    assert seen == [{"dynamic": False, "options": {"freezing": True}}]


def test_the_page_is_filled_in(bench, tmp_path):
    (tmp_path / "leaderboards" / "records").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "speed.md"
    page.write_text("Before\n\n<!-- speed: filled in -->\nold\n<!-- /speed -->\nAfter\n")
    assert bench("leaderboard", "--root", str(tmp_path / "leaderboards")) == 0
    text = page.read_text()
    assert text.startswith("Before\n\n<!-- speed: filled in -->\n\n")
    assert "old" not in text
    assert text.endswith("<!-- /speed -->\nAfter\n")
    assert bench("leaderboard", "--check", "--root", str(tmp_path / "leaderboards")) == 0
    page.write_text(text.replace("Form", "Shape"))
    assert bench("leaderboard", "--check", "--root", str(tmp_path / "leaderboards")) == 1
    assert "docs/speed.md" in bench.out
