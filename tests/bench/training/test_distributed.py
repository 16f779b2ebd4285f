"""One training over two processes: the numbers of one process to rounding, one voice, one line for what goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.config import settings
from bench.errors import BenchError, UsageError
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.storage.records import read_records
from bench.storage.stages import Store
from bench.training import distributed
from tests.conftest import TOY

SHARES = str(Path(__file__).parents[2] / "shares")


def launch(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """``bench run tests/shares`` by two processes."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
        "-m",
        "bench.cli",
        "run",
        SHARES,
        "threads=1",
        "device=cpu",
        f"store={folder / 'store'}",
        f"runs={folder / 'runs'}",
        *words,
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_give_the_numbers_of_one(bench, tmp_path):
    words = ["method=[imp,rigl,movement]", "densities=[0.5]", "controls=[random]"]
    assert bench.run(*words, task=SHARES) == 0, bench.err
    two = tmp_path / "two"
    task = open_task(settings(SHARES, words)[0])
    lab = Lab(task, "shares", 1, 0, Store(two / "store"))
    lab.train(lab.start("init"), lab.ones(), until=5)  # they go on from here
    done = launch(two, *words, "checkpoint_seconds=0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("under") == 1
    assert done.stderr.count("done shares") == 3
    one, other = {r.id: r for r in bench.records()}, {r.id: r for r in read_records(two / "runs")}
    assert one.keys() == other.keys()
    assert len(one) == 7
    for name, record in one.items():
        again = other[name]
        assert again.environment["processes"] == 2
        assert "processes" not in record.environment
        assert again.ticket.masks == record.ticket.masks
        assert again.budgets == record.budgets
        assert (again.cost.train_steps, again.cost.search_steps) == (record.cost.train_steps, record.cost.search_steps)
        for split in ("val", "test"):
            assert getattr(again.result, split) == pytest.approx(getattr(record.result, split), rel=1e-9)
    stages = {p.parent.relative_to(tmp_path / "store"): p for p in (tmp_path / "store").glob("stages/*/*/done")}
    for place in stages:
        mine, theirs = (Store(root / "store").get(place.parts[1], int(place.parts[2])) for root in (tmp_path, two))
        pairs = zip(mine.info["progress"]["curve"], theirs.info["progress"]["curve"], strict=True)
        assert all(a == pytest.approx(b, rel=1e-9) for a, b in pairs)
        tensors = theirs.tensors()
        for key, tensor in mine.tensors().items():
            assert torch.allclose(tensor, tensors[key], rtol=1e-7, atol=1e-9), key


def test_what_one_process_alone_comes_upon_ends_all_in_one_line(tmp_path):
    done = launch(tmp_path, "method=dense", "task.adapter=task:Fails")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("bench: ")] == [
        "bench: shares noise dense seed 0: image 5 is broken"
    ]


def test_alone_nothing_is_wrapped():
    model = nn.Sequential(nn.BatchNorm2d(2))
    assert distributed.parallel(model) is model
    assert type(model[0]) is nn.BatchNorm2d
    assert distributed.share() == {}
    assert distributed.all_reduce_sum(3, 0.5) == [3, 0.5]
    assert distributed.broadcast("here") == "here"
    value = torch.tensor(2.0)
    assert distributed.all_reduce_mean(value) is value


def test_shared_norm_of_one_process_is_batch_norm():
    torch.manual_seed(0)
    plain, shared = nn.BatchNorm2d(3), distributed.SharedNorm(3)
    ends = []
    for norm in (plain, shared):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        (norm(x) ** 3).sum().backward()
        ends.append([x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers(), norm.eval()(x)])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*ends, strict=True))


def test_masks_that_differ_are_one_line(monkeypatch):
    monkeypatch.setattr(distributed, "_gathered", lambda value: [value, "b" * 64])
    with pytest.raises(BenchError, match="differ in their masks: aaaaaaaaaaaa, bbbbbbbbbbbb; they must see the same data"):
        distributed.agree("their masks", "a" * 64)
    distributed.agree("their masks", "b" * 64)


def test_a_task_without_shares_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(UsageError, match="task toy cannot be trained by several processes"):
        open_task(settings(TOY, [])[0])


def test_processes_of_a_grid_and_of_a_launcher_do_not_mix(bench, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "jobs=2 spreads a grid over processes of its own" in bench.refuses("jobs=2", task=SHARES)
