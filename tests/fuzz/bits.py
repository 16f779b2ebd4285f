"""Run the same commands three times in fresh stores and compare records and stored weights, bit for bit.

    python -m tests.fuzz.bits [--tasks cnn_cifar gcn_planetoid ...]

One smoke run of every task with every control. For another instruction set, set ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

from bench import registry
from bench.cli import main as bench
from bench.storage.files import file_sum
from bench.storage.records import read_records
from pruning import CONTROLS

SETTINGS = {
    "cnn_cifar": [["densities=[0.2]"], ["model.scope=channels", "densities={channels: 0.5}"]],
    "cnn_imagenet": [["densities=[0.5]"], ["model.scope=channels", "densities={channels: 0.5}"]],
    "gcn_planetoid": [["densities={weights: 0.5, edges: 0.5}"]],
    "gcn_ogb": [["densities={weights: 0.5, edges: 0.5}"]],
}
"""What is asked of a task beside its smoke protocol; else half of the weights."""


def outcome(task: str, words: list[str]) -> dict[str, object]:
    """Everything of one run that must be the same the next time: contents of records, checksums of stored states."""
    silent = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        status = bench(
            [
                "run",
                f"tasks/{task}",
                "protocol=smoke",
                "method=one_shot",
                "threads=1",
                "jobs=1",
                "train.epochs=1",
                f"controls=[{','.join(CONTROLS)}]",
                f"store={folder}/store",
                f"runs={folder}/runs",
                *words,
            ]
        )
        made: dict[str, object] = {"exit status": status}
        made |= {record.id: record.content() for record in read_records(Path(folder) / "runs")}
        return made | {
            str(path.relative_to(folder)): file_sum(path)
            for path in sorted(Path(folder).glob("store/stages/*/*/state.safetensors"))
        }


def main() -> int:
    """Return 1 if any run differs from the first of its kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="*", default=registry.names("tasks"))
    wrong = 0
    for task in parser.parse_args().tasks:
        for words in SETTINGS.get(task, [["densities=[0.5]"]]):
            first, *others = (outcome(task, words) for _ in range(3))
            keys = {key for one in (first, *others) for key in one}
            differing = sorted(key for key in keys if any(other.get(key) != first.get(key) for other in others))
            wrong += bool(differing) or first["exit status"] != 0
            print(
                f"{task} {' '.join(words)}: exit status {first['exit status']}, {len(first) - 1} records and stages, "
                f"{len(differing)} differ{': ' + ', '.join(differing[:5]) if differing else ''}",
                flush=True,
            )
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
