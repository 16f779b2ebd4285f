"""Pages, suites and claims of many records: ``python tests/benchmarks/records.py [COUNT] [FOLDER]``.

Makes COUNT records (100,000 unless told) of many settings, methods, densities, controls and seeds. Prints the CPU and wall
seconds of reading them, of reading their columnar copy, and of the boards and pages made of them. FOLDER is kept.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, islice, product
from pathlib import Path
from typing import Any

from bench.leaderboard import markdown
from bench.leaderboard.boards import boards
from bench.storage.record_cache import load_records
from bench.storage.records import BudgetUse, Cost, Identity, Record, Result, TicketOrigin, write_record

SEEDS, DENSITIES, CONTROLS = range(5), (0.5, 0.25, 0.1, 0.05), (None, "random", "reinit")


def records(number: int) -> list[Record]:
    """Records of as many methods and settings as it takes."""
    grid = ((m, d, c, s) for m in count() for d, c, s in product(DENSITIES, CONTROLS, SEEDS))
    return [made(*point) for point in islice(grid, number)]


def made(number: int, density: float, control: str | None, seed: int) -> Record:
    """One record; forty methods to a setting."""
    identity = Identity(
        task="toy",
        task_version=1,
        data=f"data{number // 40}",
        model="mlp",
        protocol="desk",
        config={
            "data": {"name": f"data{number // 40}"},
            "model": {"name": "mlp", "width": 16},
            "train": {"epochs": 3, "lr": 0.1},
        },
        fingerprint="f" * 64,
        method=f"method{number % 40}",
        method_config={"score": "magnitude", "scheme": "global"},
        densities={"weights": density},
        rounds=[],
        seed=seed,
        control=control,
    )
    test = 90 - 10 * (control is not None) - number % 40 / 10 - seed / 7 - 1 / density
    numbers = {
        split: {"accuracy": value} for split, value in (("val", test), ("test", test), ("dense_val", 90.0), ("dense_test", 90.0))
    }
    cost = dict.fromkeys((name for name, field in Cost.model_fields.items() if field.is_required()), 1.0)
    return Record.make(
        identity,
        status="ok",
        label=identity.method,
        command="bench run tests/toy",
        environment={"git_dirty": False, "threads": 1},
        created="2026-01-01T00:00:00+00:00",
        result=Result(metric="accuracy", higher_is_better=True, step=20, **numbers),
        budgets={"weights": BudgetUse(asked=density, kept=int(1000 * density), total=1000)},
        ticket=TicketOrigin(masks="m" * 64, start="init/0", schedule="whole", stages=["a/0-20"]),
        cost=Cost(**{**cost, "search_steps": 20, "train_steps": 20}),
    )


def timed(what: str, function: Callable[[], Any]) -> Any:
    """Print how long something takes; return what it gives."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    print(f"{what}: {time.process_time() - cpu:.1f} s of CPU time, {time.perf_counter() - wall:.1f} s", flush=True)
    return value


def main(number: int, folder: Path) -> None:
    """Measure in a folder."""
    if not folder.is_dir() or not any(folder.iterdir()):
        timed(f"write {number} records", lambda: [write_record(record, folder) for record in records(number)])
    timed("read and check every file that the copy lacks, write the copy", lambda: load_records(folder))
    read = timed("read the copy", lambda: load_records(folder))
    grouped = timed("boards", lambda: boards(read))
    timed("pages", lambda: [markdown.index_page({"toy.md": grouped}, {}), markdown.task_page(grouped, {})])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_folder:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, Path(sys.argv[2] if len(sys.argv) > 2 else made_folder))
