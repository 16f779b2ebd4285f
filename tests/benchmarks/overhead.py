"""What the suite adds to a bare PyTorch loop, and a mask to a step: ratios, interleaved in one run.

    python tests/benchmarks/overhead.py tasks/cnn_cifar epochs=1 data.root=...
    python tests/benchmarks/overhead.py tasks/gcn_planetoid epochs=200 data.root=...

Prints, for each repetition, seconds of: a bare loop; the same training through the lab, storing included; the same, masked.
"""

import statistics
import sys
import tempfile
import time

import torch

from bench.config import settings
from bench.lab.lab import Lab
from bench.machine import threads
from bench.runner.jobs import open_task
from bench.seeds import seed_for
from bench.storage.stages import Store


def bare(task, epochs: int) -> float:
    """Seconds of a hand-written loop."""
    model = task.build(seed_for(0, "init"))
    began = time.perf_counter()
    optimizer, schedule = task.optimizer(model, task.epochs * task.steps_per_epoch)
    model.train()
    for epoch in range(epochs):
        for batch in task.batches("train", epoch, 0):
            loss = task.loss(model, batch)
            loss.backward()
            if task.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return time.perf_counter() - began


def through_the_lab(task, epochs: int, density: float) -> float:
    """Seconds of the same training, asked of a lab with an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(task, "benchmark", 1, 0, Store(folder))
        masks = lab.ones()
        if density < 1:
            masks = lab.allocate(lab.score("random", lab.start("init"), masks), masks, dict.fromkeys(lab.budgets, density))
        began = time.perf_counter()
        lab.train(lab.start("init"), masks, until=epochs * task.steps_per_epoch)
        return time.perf_counter() - began


def main(name: str = "tasks/cnn_cifar", *options: str) -> None:
    """Five interleaved repetitions; medians and their ratios."""
    options = options or ("protocol=smoke",)
    epochs = next((int(o.removeprefix("epochs=")) for o in options if o.startswith("epochs=")), 1)
    setting = settings(name, ["jobs=1", *(o for o in options if not o.startswith("epochs="))])[0]
    torch.set_num_threads(threads(setting.config))
    task = open_task(setting)
    bare(task, 1)
    rows = []
    for _ in range(5):
        rows.append((bare(task, epochs), through_the_lab(task, epochs, 1.0), through_the_lab(task, epochs, 0.2)))
        print("bare {:.3f} s, lab {:.3f} s, lab at density 0.2 {:.3f} s".format(*rows[-1]), flush=True)
    plain, lab, masked = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"median: lab / bare {lab / plain:.3f}, masked / dense {masked / lab:.3f}")
    paired = [(r[1] / r[0], r[2] / r[1]) for r in rows]
    lab, masked = (statistics.median(column) for column in zip(*paired, strict=True))
    print(f"median of paired ratios: lab / bare {lab:.3f}, masked / dense {masked:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
