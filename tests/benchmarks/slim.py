"""What cutting channels out for real buys, against dense, and what watching for early birds costs; each interleaved in one run.

    python tests/benchmarks/slim.py tasks/cnn_cifar model=vgg11 data.root=...

Prints for each share of channels cut at random: multiply-adds of dense over those left, and the measured speed-ups of inference
and of a training step; then seconds of watching three ratios at an epoch's end over those of the epoch.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

import torch

from bench.config import settings, threads
from bench.lab import Lab
from bench.run import open_task
from bench.store import Store
from pruning import Masks
from pruning.early_bird import EarlyBird
from pruning.rule import Run

CUT = (0.3, 0.5, 0.7)


def main(name: str, *options: str) -> None:
    """Both tables."""
    setting = settings(name, ["model.scope=channels", *options])[0]
    torch.set_num_threads(threads(setting.config))
    task = open_task(setting)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(task, "benchmark", 1, 0, Store(folder))
        drawn, start = lab.score("random", lab.start("init"), lab.ones()), lab.start("init")
        for cut in CUT:
            masks = lab.allocate(drawn, lab.ones(), {"channels": 1 - cut})
            saved = lab.macs(lab.ones()) / lab.macs(masks)
            inference, training = lab.speedups(start, masks)
            print(f"cut {cut:.0%}: {saved:.2f} x fewer MACs, inference {inference:.2f} x, training {training:.2f} x faster "
                  f"({inference / saved:.0%} and {training / saved:.0%} of it)", flush=True)
        watch(lab)


def watch(lab: Lab) -> None:
    """The observer's share of an epoch: its time from the sixth epoch on, when it compares as many masks as it ever will."""
    task, model = lab.task, lab.model
    rule = EarlyBird([{"channels": 1 - cut} for cut in CUT], 4, 0.1, False)
    run = Run(model, None, lab.maskables, 0, lab.steps, task.steps_per_epoch, Masks.ones(lab.maskables), lambda masks: None,
              lambda purpose: torch.Generator().manual_seed(0), lambda: 0.0)
    rule.begin(run)
    optimizer, _ = task.optimizer(model, lab.steps)
    watching, steps = [], []
    for batch, _ in zip(task.batches("train", 0, 0), range(12), strict=False):
        began = time.perf_counter()
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        stepped = time.perf_counter()
        rule.after_epoch(run)
        steps.append(stepped - began)
        watching.append(time.perf_counter() - stepped)
    share = statistics.median(watching[5:]) / (statistics.median(steps[5:]) * task.steps_per_epoch)
    print(f"watching {len(CUT)} ratios: {share:.2%} of an epoch")


if __name__ == "__main__":
    main(*sys.argv[1:])
