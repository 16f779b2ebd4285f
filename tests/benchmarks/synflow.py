"""What a hundred rounds of SynFlow cost beside a hundred bare passes of the same network: a ratio, interleaved in one process.

    python tests/benchmarks/synflow.py [REPETITIONS]

VGG-16 for 100 classes, from density 1 to 0.01. Prints the seconds of each repetition and the median ratio; the aim is 1.5.
"""

import copy
import statistics
import sys
import time

from bench.config import settings
from bench.lab.scoring import ScoreView
from bench.runner.environment import keep_freed_memory
from bench.runner.jobs import open_task
from pruning.methods.at_init import cut
from pruning.schedules import density_schedule
from pruning.scores import synflow


def bare(task, model, rounds: int) -> float:
    """Seconds of forward and backward passes on an input of ones, and nothing else."""
    model = copy.deepcopy(model).eval()
    began = time.perf_counter()
    for _ in range(rounds):
        task.probe(model).sum().backward()
        model.zero_grad()
    return time.perf_counter() - began


def rounds_of_synflow(task, model, rounds: int) -> float:
    """Seconds of scoring and cutting to density 0.01."""
    model, maskables = copy.deepcopy(model), task.maskables(model)
    data = ScoreView(task, 0, "synflow", {})
    began = time.perf_counter()
    cut(synflow, model, maskables, data, density_schedule({"weights": 0.01}, rounds, "exponential"))
    return time.perf_counter() - began


def main(repetitions: int = 5, rounds: int = 100) -> None:
    """Interleaved repetitions, after one short one to warm up; memory is kept as the command line keeps it."""
    keep_freed_memory()
    task = open_task(settings("tasks/cnn_cifar", ["model=vgg16", "data=cifar100", "data.size=32"])[0])
    model = task.build(0)
    bare(task, model, 3)
    rounds_of_synflow(task, model, 3)
    ratios = []
    for _ in range(repetitions):
        plain, found = bare(task, model, rounds), rounds_of_synflow(task, model, rounds)
        ratios.append(found / plain)
        print(f"{rounds} bare passes {plain:.2f} s, {rounds} rounds of SynFlow {found:.2f} s: {ratios[-1]:.2f} x", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
