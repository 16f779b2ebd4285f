"""What the tests share: the toy task, a lab on it, and the command line run in this process."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.cli import main
from bench.config import settings
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.storage.records import Record, read_records
from bench.storage.stages import Store
from bench.task import Task
from bench.training.loop import Progress

TOY = str(Path(__file__).parent / "toy")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: tests of kills, leases and clusters spend most of their time waiting."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def mirror() -> Path:
    """The offline data mirror; a test that needs it is skipped where there is none."""
    root = Path(os.environ.get("BENCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no data mirror: set BENCH_DATA")
    return root


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No user's data, models or cache, and a hub that refuses at once."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.delenv("BENCH_MODELS", raising=False)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A tiny "pre-trained" encoder in a folder, its weights in half precision, without a head."""
    from transformers import BertModel, BertTokenizer

    from tasks.bert.checkpoint import Tiny

    folder = tmp_path / "models" / "tiny-bert"
    tiny = Tiny()
    torch.manual_seed(3)
    BertModel(tiny.config).half().save_pretrained(folder)
    BertTokenizer(vocab=tiny.tokenizer.get_vocab()).save_pretrained(folder)
    return folder


def toy_lab(store: Path, *overrides: str, seed: int = 0, kind: type[Lab] = Lab, **options) -> Lab:
    """A lab on the toy task."""
    return kind(open_task(settings(TOY, overrides)[0]), "toy", 1, seed, Store(store), **options)


@dataclass
class Bench:
    """The command line, its store and its runs in a folder of the test's own."""

    folder: Path
    capsys: pytest.CaptureFixture
    out: str = ""
    err: str = ""

    def __call__(self, *words: str) -> int:
        """Run a verb; keeps what it printed."""
        self.capsys.readouterr()
        status = main(list(words))
        self.out, self.err = self.capsys.readouterr()
        return status

    def run(self, *words: str, task: str = TOY) -> int:
        """``bench run`` of the toy task."""
        return self("run", task, "threads=1", "jobs=1", f"store={self.folder / 'store'}", f"runs={self.folder / 'runs'}", *words)

    def refuses(self, *words: str, **options) -> str:
        """What a run that cannot be understood says: one line, exit status 2, nothing written."""
        assert self.run(*words, **options) == 2
        assert self.err.startswith("bench: ")
        assert self.err.count("\n") == 1, self.err
        assert not (self.folder / "store").exists()
        return self.err

    def fails(self, *words: str, **options) -> str:
        """What a run with a failed job says: a line for the job and one for the grid, exit status 1."""
        assert self.run(*words, **options) == 1
        first, last = self.err.splitlines()
        assert first.startswith("failed ")
        assert last.startswith("bench: ")
        return first

    def records(self) -> list[Record]:
        """The records there are."""
        return list(read_records(self.folder / "runs"))

    def record(self, method: str, density: float | None = None, control: str | None = None, seed: int = 0) -> Record:
        """The one record that fits."""
        asked = {} if density is None else {"weights": density}
        found = [
            r
            for r in self.records()
            if (r.identity.method, r.identity.densities, r.identity.control, r.identity.seed) == (method, asked, control, seed)
        ]
        assert len(found) == 1
        return found[0]

    def path(self, record: Record) -> Path:
        """Its file."""
        return record.path(self.folder / "runs")

    def stages(self) -> list[Path]:
        """Every stored stage."""
        return sorted(p.parent for p in (self.folder / "store" / "stages").glob("*/*/done"))


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture) -> Bench:
    """The command line in a fresh folder."""
    return Bench(tmp_path, capsys)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First and last step of every call of the training loop."""
    import bench.lab.training

    calls: list[tuple[int, int]] = []
    loop: Callable = bench.lab.training.train

    def counted(*arguments):
        at = next(i for i, value in enumerate(arguments) if isinstance(value, Progress))
        calls.append((arguments[at].step, arguments[at + 1]))
        return loop(*arguments)

    monkeypatch.setattr(bench.lab.training, "train", counted)
    return calls


def trained(task: Task, epochs: int) -> nn.Module:
    """A network after a bare loop of ``epochs``, without lab or store; dropout drawn by epoch."""
    model = task.build(0)
    optimizer, schedule = task.optimizer(model, epochs)
    for epoch in range(epochs):
        for batch in task.batches("train", epoch, 0):
            torch.manual_seed(epoch)
            task.loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model
