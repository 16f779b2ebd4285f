"""A grid on the SLURM of this machine against the same grid in one process: the records must be equal.

tests/cluster/slurm.sh python -m tests.cluster.compare

On the way one job is told that its time is over, one is killed and one is put back into the queue; all three must take place.
Refusals must be one line.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.storage.records import read_records

ROOT = Path(__file__).parents[2]
GRID = ("tests/toy", "method=imp", "seeds=[0,1]", "controls=[random]", "train.pause=0.2", "threads=1")
SMOKE = ("tasks/gcn_planetoid", "protocol=smoke", "method=snip", "densities=[0.5]", "controls=[]", "threads=1")
CLUSTER = ("executor=slurm", "executor.array=4", "executor.time=30")
DISTURBANCES = (["scancel", "--signal=USR2"], ["scancel", "--signal=KILL"], ["scontrol", "requeue"])


def bench(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a grid with a store and runs of its own."""
    command = [sys.executable, "-m", "bench.cli", "run", *words, f"store={folder}/{name}/store", f"runs={folder}/{name}/runs"]
    return subprocess.run([*command, "checkpoint_seconds=1"], cwd=ROOT, text=True, capture_output=True, check=False)


def disturb(folder: Path, done: list[str]) -> None:
    """Disturb a running job in each of three ways, once it has stored something."""
    until = time.monotonic() + 240
    for what in DISTURBANCES:
        while time.monotonic() < until:
            time.sleep(2)
            running = subprocess.run(
                ["squeue", "--noheader", "--array", "--states=R", "--format=%i"], capture_output=True, text=True, check=False
            ).stdout.split()
            if (
                running
                and list(folder.rglob("stages/*/*/done"))
                and subprocess.run([*what, running[0]], check=False).returncode == 0
            ):
                done.append(f"{' '.join(what)} {running[0]}")
                break


def contents(folder: Path) -> dict[str, object]:
    """What must be equal of all records."""
    return {record.id: record.content() for record in read_records(folder / "runs")}


def main() -> int:
    """Return 1 if anything differs, or was not tried."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, failed, done = Path(temporary), 0, list[str]()
        for name, grid in (("toy", GRID), ("smoke", SMOKE)):
            alone = bench(folder, f"{name}_serial", *grid, "jobs=1")
            assert alone.returncode == 0, alone.stderr
            if name == "toy":
                threading.Thread(target=disturb, args=(folder / "toy_slurm", done), daemon=True).start()
            began = time.monotonic()
            spread = bench(folder, f"{name}_slurm", *grid, *CLUSTER)
            equal = contents(folder / f"{name}_serial") == contents(folder / f"{name}_slurm")
            failed += not equal or spread.returncode != 0
            print(
                f"{name}: {len(contents(folder / f'{name}_slurm'))} records {'equal' if equal else 'DIFFER'}, exit status "
                f"{spread.returncode}, {time.monotonic() - began:.0f} s"
            )
            if spread.returncode:
                print(spread.stderr)
        failed += len(done) < len(DISTURBANCES)
        print(f"disturbed by: {'; '.join(done) or 'nothing'} ({len(done)} of {len(DISTURBANCES)})")
        for word in ("executor.partition=nowhere", "executor.gpus=8"):
            refused = bench(folder, "refused", *GRID, *CLUSTER, word)
            failed += refused.returncode != 1 or refused.stderr.count("\n") != 1
            print(refused.stderr.strip())
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
