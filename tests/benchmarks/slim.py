"""What cutting channels out for real buys, against dense, and what watching for early birds costs; each interleaved in one run.

    python tests/benchmarks/slim.py tasks/cnn_cifar model=vgg11 data.root=...

Prints for each share of channels cut at random: multiply-adds of dense over those left, and the measured speed-ups of inference
and of a training step; then seconds of watching three ratios at an epoch's end over those of the epoch. With whole=true also
CPU seconds of finding an early bird of half the channels and training it slim, over those of a whole training: try it with
data.validation=47400, for example, of twenty steps an epoch.
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
from bench.storage.stages import Store
from pruning import Masks
from pruning.callbacks.base import TrainingContext
from pruning.methods.early_bird import EarlyBird, early_bird

CUT = (0.3, 0.5, 0.7)
WHOLE = "whole=true"


def main(name: str = "tasks/cnn_cifar", *options: str) -> None:
    """All of it."""
    options = [option for option in options or ("protocol=smoke",) if option != WHOLE]
    setting = settings(name, ["jobs=1", "model.scope=channels", *options])[0]
    torch.set_num_threads(threads(setting.config))
    task = open_task(setting)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(task, "benchmark", 1, 0, Store(folder))
        drawn, start = lab.score("random", lab.start("init"), lab.ones()), lab.start("init")
        for cut in CUT:
            masks = lab.allocate(drawn, lab.ones(), {"channels": 1 - cut})
            saved = lab.macs(lab.ones()) / lab.macs(masks)
            inference, training = lab.speedups(start, masks)
            print(
                f"cut {cut:.0%}: {saved:.2f} x fewer MACs, inference {inference:.2f} x, training {training:.2f} x faster "
                f"({inference / saved:.0%} and {training / saved:.0%} of it)",
                flush=True,
            )
        watch(lab)
        if WHOLE in sys.argv:
            early(lab)


def watch(lab: Lab) -> None:
    """The observer's share of an epoch: its time from the sixth epoch on, when it compares as many masks as it ever will."""
    task, model = lab.task, lab.model
    rule = EarlyBird([{"channels": 1 - cut} for cut in CUT], 4, 0.1, False)
    run = TrainingContext(
        model,
        None,
        lab.maskables,
        0,
        lab.steps,
        task.steps_per_epoch,
        Masks.ones(lab.maskables),
        lambda masks: None,
        lambda purpose: torch.Generator().manual_seed(0),
        lambda: 0.0,
    )
    rule.on_start(run)
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


def early(lab: Lab) -> None:
    """Search and slim training against dense trainings before and after it, which see what the machine does meanwhile. CPU time:
    wall time would mostly tell of other processes."""
    lab.train(lab.start("init"), lab.ones(), until=2)  # warm up
    began = time.process_time()
    lab.train(lab.start("init"), lab.ones(), order=1)
    trained = time.process_time()
    ticket = next(early_bird(lab, [{"channels": 0.5}], l1=1e-4))
    found = time.process_time()
    lab.train(ticket.start, ticket.masks, ticket.schedule, slim=True)
    done = time.process_time()
    lab.train(lab.start("init"), lab.ones(), order=2)
    before, search, after, last = trained - began, found - trained, done - found, time.process_time() - done
    emerged = ticket.notes["emerged_step"]
    print(
        f"early bird at step {emerged} of {lab.steps}: search {search:.1f} s and slim training {after:.1f} s are "
        f"{2 * (search + after) / (before + last):.0%} of a dense training ({before:.1f} and {last:.1f} s)"
    )
    print("distances", *(f"{d:.3f}" for d in ticket.notes["raw_distance"]["channels"] if d is not None))


if __name__ == "__main__":
    main(*sys.argv[1:])
