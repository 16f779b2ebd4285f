"""Pages of many records: ``python tests/benchmarks/records.py [COUNT] [FOLDER]``.

Makes a collection of COUNT records (100,000 unless told) out of the repository's own: each again under other names of its model,
so that there are more boards, and with another option of its method, so that boards have more rows. Suites, claims and re-runs
are the repository's. Prints the CPU and wall seconds of the verbs that make pages, first without and then with the copies of
the records that they keep. FOLDER is kept, and used if it is there.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import count, islice
from pathlib import Path

from bench.storage.record_cache import NAME
from bench.storage.records import Record, read_records, write_record

OWN = Path(__file__).parents[2] / "leaderboards"
METHODS = 4
"""So many times as many methods has a board."""
VERBS = (
    ("leaderboard",),
    ("leaderboard", "--check"),
    ("suite", "show"),
    ("claims", "--json"),
    ("site", "--to", "{folder}/site"),
    ("records", "{folder}/leaderboards", "--csv", "{folder}/all.csv"),
)


def again(record: Record, number: int) -> Record:
    """A record under other names, and valid."""
    who = record.identity
    config = {**who.config, "model": {**who.config["model"], "copy": number // METHODS}}
    other = {"model": f"{who.model}-{number // METHODS}", "config": config} if number >= METHODS else {}
    if number % METHODS:
        other["method_config"] = {**who.method_config, "copy": number % METHODS}
    label = f"{record.label} copy {number % METHODS}" if number % METHODS else record.label
    kept = {name: getattr(record, name) for name in Record.model_fields if name not in ("id", "digest", "identity", "label")}
    return Record.make(who.model_copy(update=other), label=label, **kept)


def make(number: int, root: Path) -> None:
    """A leaderboards folder of so many records."""
    for folder in ("suites", "claims", "reruns"):
        if (OWN / folder).is_dir():
            shutil.copytree(OWN / folder, root / folder)
    own = list(read_records(OWN / "records"))
    copies = (again(record, k) if k else record for k in count() for record in own)
    for record in islice(copies, number):
        write_record(record, root / "records")


def measure(what: str, words: tuple[str, ...], folder: Path) -> None:
    """Run a verb; print its seconds."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = [sys.executable, "-m", "bench.cli", *(word.format(folder=folder) for word in words)]
    root = [] if words[0] == "records" else ["--root", str(folder / "leaderboards")]
    done = subprocess.run([*said, *root], capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = (done.stderr or "").strip().splitlines()[-1:] if done.returncode else []
    print(f"{what} bench {' '.join(words)}: {cpu:.1f} s of CPU time, {time.perf_counter() - wall:.1f} s {last or ''}", flush=True)


def main(number: int, folder: Path) -> None:
    """Measure in a folder."""
    root = folder / "leaderboards"
    if not root.is_dir():
        make(number, root)
    (root / "records" / NAME).unlink(missing_ok=True)
    for what in ("first", "again"):
        for words in VERBS:
            measure(what, words, folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_folder:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, Path(sys.argv[2] if len(sys.argv) > 2 else made_folder))
