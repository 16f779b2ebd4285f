"""How full is one GPU? Images per second of ResNet-20 for a bare loop, for the lab, and for the lab in several processes.

python -m tests.benchmarks.gpu [--steps 300] [--workers 1,2,4,8] [--precision bf16]

CIFAR-sized random images, batch 128, SGD with momentum, augmentation as in ``cnn_cifar``. Without a GPU the same is measured of
ResNet-8 on the bundled digits with few steps, to show that the script works: those numbers say nothing of a GPU.
"""

import argparse
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from torch import nn

from bench.config import settings
from bench.runner.jobs import open_task
from bench.seeds import seed_for
from bench.task import Task
from bench.training.loop import Progress, train
from pruning import Masks
from pruning.callbacks.base import TrainingContext

WARM = 10
"""Steps before the clock starts."""


def opened(gpu: bool, precision: str) -> Task:
    """The task whose loop is measured: CIFAR-10 at its own size on a GPU, digits on a CPU."""
    words = [f"train.precision={precision}", "train.epochs=100000", f"device={'cuda' if gpu else 'cpu'}"]
    words += ["protocol=paper"] if gpu else ["protocol=smoke"]
    return open_task(settings(str(Path(__file__).parents[2] / "tasks" / "cnn_cifar"), words)[0])


def wait_for(gpu: bool) -> None:
    """Let the GPU finish what it was given."""
    if gpu:
        torch.cuda.synchronize()


def bare(task: Task, steps: int, gpu: bool) -> float:
    """Images per second of the shortest loop that trains the same network on a batch that lies on the device."""
    model = task.build(seed_for(0, "init"))
    batch = next(iter(task.batches("train", 0, 0)))
    optimizer, _ = task.optimizer(model, steps + WARM)
    model.train()
    for step in range(steps + WARM):
        if step == WARM:
            wait_for(gpu)
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        task.loss(model, batch).backward()
        optimizer.step()
    wait_for(gpu)
    return steps * task.batch_size / (time.perf_counter() - began)


def in_lab(task: Task, steps: int, gpu: bool, ready: Barrier | None = None) -> float:
    """Images per second of the lab's own training loop: its data, masks, schedule and checks."""
    model: nn.Module = task.build(seed_for(0, "init"))
    maskables = task.maskables(model)
    optimizer, schedule = task.optimizer(model, steps + WARM)
    context = TrainingContext(
        model,
        optimizer,
        maskables,
        0,
        steps + WARM,
        task.steps_per_epoch,
        Masks.ones(maskables),
        set_masks=lambda masks: None,
        generator=lambda purpose: torch.Generator(),
        validate=lambda: 0.0,
    )
    progress = Progress(0)

    def go_to(last: int) -> None:
        train(task, context, 0, progress, last, schedule, lambda **_: None, 10**9)
        wait_for(gpu)

    go_to(WARM)
    if ready:
        ready.wait()
    began = time.perf_counter()
    go_to(WARM + steps)
    return steps * task.batch_size / (time.perf_counter() - began)


def _worker(given: tuple[int, bool, str], ready: Barrier, results: multiprocessing.Queue) -> None:
    steps, gpu, precision = given
    torch.set_num_threads(1)
    results.put(in_lab(opened(gpu, precision), steps, gpu, ready))


def together(count: int, given: tuple[int, bool, str]) -> float:
    """Images per second of several workers on one GPU, which start together."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(count), context.Queue()
    workers = [context.Process(target=_worker, args=(given, ready, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    total = sum(results.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join()
    return total


def main() -> None:
    """Print one line for each way to train."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300 if gpu else 10)
    parser.add_argument("--workers", default="1,2,4,8" if gpu else "1,2")
    parser.add_argument("--precision", default="bf16" if gpu else "fp32")
    given = parser.parse_args()
    if not gpu:
        print("no GPU here: ResNet-8 on digits by the CPU, a few steps; these numbers say nothing of a GPU")
    torch.set_num_threads(1)
    task, ways = opened(gpu, given.precision), {}
    print(f"{torch.cuda.get_device_name(0) if gpu else 'CPU'}, batch {task.batch_size}, {given.precision}, images per second")
    ways["bare loop"] = bare(task, given.steps, gpu)
    ways["lab"] = in_lab(task, given.steps, gpu)
    for way, rate in ways.items():
        print(f"{way:<16}{rate:10,.0f}", flush=True)
    for count in map(int, given.workers.split(",")):
        print(f"lab, {count} worker(s){together(count, (given.steps, gpu, given.precision)):10,.0f}", flush=True)


if __name__ == "__main__":
    main()
