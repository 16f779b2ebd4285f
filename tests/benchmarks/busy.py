"""What another program on the cores does to a grid: the time of two masked trainings, quiet and beside busy processes, by how the
grid is spread over processes and by how long threads spin before they sleep when they wait for each other.

    python tests/benchmarks/busy.py [rounds=3] [steps=40] [load=1] [tasks/cnn_cifar key=value ...]

Fair share: a machine of C cores gives each of N threads that want one min(1, C / N) of a core. A grid of W workers with T
threads each, beside L busy processes, is due min(1, C / (W T + L)) of a core a thread, where quiet it had min(1, C / (W T)); its
fair time is its quiet time times the ratio of the two. Every round runs every way quiet and busy; the load is made here. Prints
medians of what is paired in a round: quiet time over that of the first way, busy over quiet time, and busy over fair time, which
is to be at most 1.3.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HALF = max(1, CORES // 2)
WAYS = {  # workers, threads of each, turns that a waiting thread spins (None: libgomp's own 300,000, about 3 ms)
    "one process": (1, CORES, None),
    "one process, no spin": (1, CORES, 0),
    "jobs=auto": (2, HALF, None),
}
TRAININGS = 2
LOAD = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends with this process, however that ends."""


def work(threads: str, steps: str, name: str, *options: str) -> None:
    """Train when told how often, and say when it is done."""
    import torch

    from bench.config import settings
    from bench.lab.lab import Lab
    from bench.runner.environment import keep_freed_memory
    from bench.runner.jobs import open_task
    from bench.storage.stages import Store

    torch.set_num_threads(int(threads))
    keep_freed_memory()
    task = open_task(settings(name, options)[0])
    for line in sys.stdin:
        for _ in range(int(line)):
            with tempfile.TemporaryDirectory() as folder:
                lab = Lab(task, "benchmark", 1, 0, Store(folder))
                start, whole = lab.start("init"), lab.ones()
                masks = lab.allocate(lab.score("random", start, whole), whole, dict.fromkeys(lab.budgets, 0.2))
                lab.train(start, masks, until=int(steps))
        print("done", flush=True)


@contextmanager
def started(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """A process of this Python, ended with the block."""
    process = subprocess.Popen([sys.executable, *command], **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def seconds(workers: list[subprocess.Popen]) -> float:
    """What the workers take for the trainings between them."""
    began = time.perf_counter()
    for worker in workers:
        print(TRAININGS // len(workers), file=worker.stdin, flush=True)
    for worker in workers:
        if worker.stdout.readline() != "done\n":
            raise SystemExit("a worker ended before its trainings did: see above")
    return time.perf_counter() - began


def fair(threads: int, load: int) -> float:
    """How many times as long a grid of so many threads may take beside so many busy processes."""
    return min(1, CORES / threads) / min(1, CORES / (threads + load))


def main(*said: str) -> None:
    """All ways, in turn."""
    given = {"rounds": 3, "steps": 40, "load": 1}
    words = [word for word in said if word.split("=")[0] not in given]
    given |= {key: int(value) for key, _, value in (word.partition("=") for word in said if word not in words)}
    words = words or ["tasks/cnn_cifar", "data=cifar100_shapes", "data.size=16"]
    with ExitStack() as stack:
        ways = {}
        for way, (workers, threads, spin) in WAYS.items():
            environment = os.environ | ({} if spin is None else {"GOMP_SPINCOUNT": str(spin)})
            command = [__file__, "work", str(threads), str(given["steps"]), *words]
            ways[way] = [
                stack.enter_context(started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment))
                for _ in range(workers)
            ]
            seconds(ways[way])  # to warm up
        rows = []
        for _ in range(given["rounds"]):
            quiet = {way: seconds(workers) for way, workers in ways.items()}
            with ExitStack() as load:
                for _ in range(given["load"]):
                    load.enter_context(started(["-c", LOAD]))
                busy = {way: seconds(workers) for way, workers in ways.items()}
            rows.append((quiet, busy))
            print("   ".join(f"{way} {quiet[way]:.1f} and {busy[way]:.1f} s" for way in ways), flush=True)
    first = next(iter(WAYS))
    print(f"{CORES} cores, {given['load']} busy\n{'':24}{'quiet':>8}{'busy / quiet':>14}{'fair':>6}{'busy / fair':>13}")
    for way, (workers, threads, _) in WAYS.items():
        due = fair(workers * threads, given["load"])
        slower = statistics.median(busy[way] / quiet[way] for quiet, busy in rows)
        print(
            f"{way:24}{statistics.median(quiet[way] / quiet[first] for quiet, _ in rows):8.2f}{slower:14.2f}{due:6.2f}"
            f"{slower / due:13.2f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
