"""Kill a run or its workers at random moments until it is done, and compare its records with those of an undisturbed run.

python -m tests.fuzz.kills [--kills 20] [--jobs 1] [--seed 0]                       the run itself, started again each time
python -m tests.fuzz.kills --workers --jobs 2 [--executor processes] [--kills 20]   its workers, under a run that goes on
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.bench.runner.test_resume import GRID, contents, finish, stages, start


def main() -> int:
    """Return 1 if the records or the stored stages differ from those of an undisturbed run."""
    parser = argparse.ArgumentParser()
    for name, default in (("kills", 20), ("jobs", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--executor", default="processes")
    parser.add_argument("--workers", action="store_true")
    given = parser.parse_args()
    moments, alone = random.Random(given.seed), (*GRID, "train.pause=0.02", "controls=[random]")
    grid = (*alone, f"jobs={given.jobs}", f"executor={given.executor}")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        finish(start(whole, *grid, "--dry-run"))  # the fork server is warm now
        began = time.monotonic()
        assert finish(start(whole, *alone)) == 0
        takes, kills, rounds = time.monotonic() - began, 0, 0
        while kills < given.kills:
            rounds += 1
            killed = Path(folder) / f"killed{rounds}"
            killed.mkdir()
            if given.workers:
                kills += kill_workers(killed, start(killed, *grid), moments, takes / 4)
            else:
                for _ in range(10):
                    process = start(killed, *grid)
                    time.sleep(moments.uniform(0, 0.6 * takes))
                    process.kill()
                    kills += finish(process) < 0
            while status := finish(start(killed, *grid)):  # a job fails whose workers were killed again and again
                assert status == 1, status
            if contents(killed) != contents(whole) or stages(killed) != stages(whole):
                print(f"after {kills} kills the run {killed.name} differs from an undisturbed one (seed {given.seed})")
                return 1
            print(f"{kills} kills", flush=True)
    print(f"{kills} kills in {rounds} runs: records and stages are those of an undisturbed run")
    return 0


def kill_workers(folder: Path, process: BaseProcess, moments: random.Random, longest: float) -> int:
    """Kill a worker now and then as long as the run goes on; returns how many were hit."""
    hit: set[int] = set()
    while process.is_alive():
        time.sleep(moments.uniform(0, longest))
        said = [json.loads(path.read_text()) for path in folder.glob("store/grids/*/*.json") if path.name != "grid.json"]
        alive = [worker["pid"] for worker in said if worker["job"] and worker["pid"] not in hit]
        if alive and process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(victim := moments.choice(alive), signal.SIGKILL)
                hit.add(victim)
    return len(hit)


if __name__ == "__main__":
    raise SystemExit(main())
