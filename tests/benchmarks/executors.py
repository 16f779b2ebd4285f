"""What spreading a grid brings and costs, on the toy task.

python -m tests.benchmarks.executors spread [--executor processes] [--pause 0.5] [--code FOLDER]
    Two workers beside one on two grids: four methods that share a dense network, and one imp with three controls at five
    densities. A step of the toy task sleeps, so other programs on the machine change little. FOLDER: older code to measure.
python -m tests.benchmarks.executors [overhead] [--executor processes] [--jobs 1000]
    What an executor of two workers adds to a job, and whether memory stays flat. The jobs' records exist, so that a job is
    as short as can be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
GRIDS = {
    "four methods": ("method=[imp,one_shot,snip,synflow]", "seeds=[0]", "densities=[0.5,0.2]"),
    "one imp": ("method=imp", "seeds=[0]", "densities=[0.8,0.6,0.4,0.2,0.1]", "controls=[random,reinit,shuffle]"),
}


def spread(given: argparse.Namespace) -> None:
    """Print seconds of one worker and of two, their ratio, and the share of the workers' time that went into trainings."""
    for name, grid in GRIDS.items():
        if given.grid not in (None, name):
            continue
        took = {}
        for jobs in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                executor = [f"executor={given.executor}"] if jobs > 1 and given.executor else []
                words = [
                    "run",
                    f"{given.code}/tests/toy",
                    *grid,
                    *executor,
                    f"jobs={jobs}",
                    "threads=1",
                    f"train.pause={given.pause}",
                ]
                words += [f"store={folder}/store", f"runs={folder}/runs"]
                began = time.monotonic()
                subprocess.run(
                    [sys.executable, "-m", "bench.cli", *words],
                    cwd=given.code,
                    env={**os.environ, "PYTHONPATH": given.code},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                whole = time.monotonic() - began
                took[jobs], busy, trainings = _span(Path(folder))
                print(
                    f"{name}: {jobs} worker(s) {took[jobs]:.1f} s from first training to last record, {trainings} trainings "
                    f"in {100 * busy / jobs / took[jobs]:.0f} % of it; {whole:.1f} s with all that comes before",
                    flush=True,
                )
        print(f"{name}: two workers take {took[2] / took[1]:.2f} x the time of one", flush=True)


def _span(folder: Path) -> tuple[float, float, int]:
    """Seconds from the beginning of the first training to the last record, seconds of all trainings, and how many they are."""
    stages = list(folder.glob("store/stages/*/*/stage.json"))
    seconds = {path: json.loads(path.read_text())["progress"]["seconds"] for path in stages}
    first = min(path.stat().st_mtime - spent for path, spent in seconds.items())
    last = max(path.stat().st_mtime for path in folder.glob("runs/**/*.json"))
    return last - first, sum(seconds.values()), len(stages)


def overhead(given: argparse.Namespace) -> None:
    """Print milliseconds per job beyond those of a job in this process, and memory after a tenth of the jobs and at the end."""
    import psutil

    from bench.config import settings
    from bench.runner import executors
    from bench.runner.jobs import jobs_of
    from bench.runner.status import GridStatus

    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, workers: int) -> tuple[float, list[int]]:
            words = [f"executor={name}", f"jobs={workers}", "threads=1", "method=dense", "train.epochs=1"]
            words += [f"seeds={list(range(given.jobs))}".replace(" ", ""), f"store={folder}/store", f"runs={folder}/runs"]
            jobs = jobs_of(settings(str(ROOT / "tests" / "toy"), words))
            memory, marks = [], []
            status = GridStatus.begin(Path(folder) / "store", jobs, "")
            for done, outcome in enumerate(executors.choose(jobs[0].setting.config["executor"], workers)(jobs, status), 1):
                assert not outcome.error, outcome.error
                if done in (given.jobs // 10, given.jobs):  # the workers have begun by the first
                    marks.append((time.monotonic(), done, psutil.Process().cpu_times()))
                    memory.append(_memory())
            (began, first, before), (ended, last, after) = marks
            cpu = after.user + after.system - before.user - before.system
            each = (ended - began) / (last - first)
            print(f"{name}: {1000 * each:.1f} ms a job; CPU of this process {1000 * cpu / (last - first):.1f} ms", flush=True)
            return each, memory

        run("serial", 1)
        alone, _ = run("serial", 1)
        each, memory = run(given.executor or "processes", 2)
        print(
            f"{given.executor or 'processes'}: {1000 * (2 * each - alone):.1f} ms a job more than in this process; "
            f"memory {memory[0] / 2**20:.0f} MiB after a tenth of the jobs, {memory[1] / 2**20:.0f} at the end"
        )


def _memory() -> int:
    """Bytes of this process and of all that it started."""
    import psutil

    this = psutil.Process()
    return sum(process.memory_info().rss for process in (this, *this.children(recursive=True)))


def main() -> None:
    """Run what is asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=("spread", "overhead"), default="overhead")
    parser.add_argument("--executor")
    parser.add_argument("--pause", type=float, default=0.5)
    parser.add_argument("--code", default=str(ROOT))
    parser.add_argument("--grid", choices=tuple(GRIDS))
    parser.add_argument("--jobs", type=int, default=1000)
    given = parser.parse_args()
    {"spread": spread, "overhead": overhead}[given.what](given)


if __name__ == "__main__":
    main()
