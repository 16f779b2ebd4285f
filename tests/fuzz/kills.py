"""Kill a run at random moments, start it again until it is done, and compare its records with those of an undisturbed run.

python -m tests.fuzz.kills [--kills 20] [--jobs 1] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.bench.runner.test_resume import GRID, contents, finish, stages, start


def main() -> int:
    """Return 1 if the records or the stored stages differ from those of an undisturbed run."""
    parser = argparse.ArgumentParser()
    for name, default in (("kills", 20), ("jobs", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    moments, grid = random.Random(given.seed), (*GRID, "train.pause=0.02", f"jobs={given.jobs}")
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        whole.mkdir()
        finish(start(whole, *grid, "--dry-run"))  # the fork server is warm now
        began = time.monotonic()
        assert finish(start(whole, *grid)) == 0
        takes, kills, rounds = time.monotonic() - began, 0, 0
        while kills < given.kills:
            rounds += 1
            killed = Path(folder) / f"killed{rounds}"
            killed.mkdir()
            for _ in range(10):
                process = start(killed, *grid)
                time.sleep(moments.uniform(0, 0.6 * takes))
                process.kill()
                kills += finish(process) < 0
            if finish(start(killed, *grid)) or contents(killed) != contents(whole) or stages(killed) != stages(whole):
                print(f"after {kills} kills the run {killed.name} differs from an undisturbed one (seed {given.seed})")
                return 1
    print(f"{kills} kills in {rounds} runs: records and stages are those of an undisturbed run")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
