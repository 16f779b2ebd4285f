"""Kill a run or its workers at random moments until it is done, and compare its records with those of an undisturbed run.

python -m tests.fuzz.kills [--kills 20] [--seed 0] [key=value ...]            the run itself, started again each time
python -m tests.fuzz.kills --workers jobs=2 [key=value ...]                   its workers, under a run that goes on
tests/cluster/slurm.sh python -m tests.fuzz.kills --workers executor=slurm    likewise, on a SLURM of one node

The words are of the run: ``executor=ray``, or ``seeds=[0,1,2,3]`` for a grid that takes more kills of its workers, as a job fails
when its workers have died three times. The undisturbed run is one of one process.
"""

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

from tests.bench.runner.test_resume import GRID, contents, stages, start

TOY = (*GRID, "train.pause=0.02", "controls=[random]")
LONGEST, AT_REST = 1.0, 0.1
"""Seconds between two looks at the workers, at most, and the share of looks at which one is killed though none trains."""


def main() -> int:
    """Return 1 if the records or the stored stages differ from those of an undisturbed run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", metavar="key=value")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", action="store_true")
    given = parser.parse_args()
    moments, grid = random.Random(given.seed), (*TOY, *given.words)
    alone = [word for word in grid if not word.startswith(("jobs=", "executor"))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        status, _ = run(folder / "whole", *alone, "jobs=1")
        assert status == 0, status
        takes = 0.0
        if not given.workers:
            status, takes = run(folder / "timed", *grid)
            assert status == 0, status
        kills, training, rounds = 0, 0, 0
        while kills < given.kills:
            rounds += 1
            killed = folder / f"killed{rounds}"
            killed.mkdir()
            if given.workers:
                hit, busy = kill_workers(killed, start(killed, *grid), moments)
                kills, training = kills + hit, training + busy
            else:
                for _ in range(10):
                    process = start(killed, *grid)
                    process.join(moments.uniform(0, takes))
                    process.kill()
                    process.join()
                    kills += process.exitcode == -signal.SIGKILL
            while status := run(killed, *grid)[0]:  # a job fails whose workers were killed again and again
                assert status == 1, status
            if contents(killed) != contents(folder / "whole") or stages(killed) != stages(folder / "whole"):
                print(f"after {kills} kills the run {killed.name} differs from an undisturbed one (seed {given.seed})")
                return 1
            print(f"{kills} kills", flush=True)
    hits = f", {training} of which hit a training," if given.workers else ""
    print(f"{kills} kills{hits} in {rounds} runs: records and stages are those of an undisturbed run")
    return 0


def run(folder: Path, *words: str) -> tuple[int | None, float]:
    """The exit status of an undisturbed run, and its seconds."""
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    process = start(folder, *words)
    process.join()
    return process.exitcode, time.monotonic() - began


def kill_workers(folder: Path, process: BaseProcess, moments: random.Random) -> tuple[int, int]:
    """Kill a worker now and then as long as the run goes on; returns how many were hit, and how many of them in a training."""
    hit: set[int] = set()
    training = 0
    while process.is_alive():
        time.sleep(moments.uniform(0, LONGEST))
        said = [json.loads(path.read_text()) for path in folder.glob("store/grids/*/*.json") if path.name != "grid.json"]
        alive = [worker for worker in said if worker["job"] and not worker["ended"] and worker["pid"] not in hit]
        busy = [worker for worker in alive if worker["step"] < worker["last"]]
        if (victims := busy or (alive if moments.random() < AT_REST else [])) and process.is_alive():
            with suppress(ProcessLookupError):
                os.kill((victim := moments.choice(victims))["pid"], signal.SIGKILL)
                hit.add(victim["pid"])
                training += victim["step"] < victim["last"]
    return len(hit), training


if __name__ == "__main__":
    raise SystemExit(main())
