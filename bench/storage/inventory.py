"""What a store holds: sizes by task, method and age, and what nobody needs any more. No file is hashed and no tensor is read."""

import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, Held
from bench.storage.records import ANALYSIS
from bench.storage.unfinished_files import abandoned

AGES = (("a day", 86400.0), ("a week", 7 * 86400.0), ("a month", 30 * 86400.0), ("a year", 365 * 86400.0))
"""Classes of age, youngest first: a stage is younger than the first of these lengths, in seconds, that is above its age."""


@dataclass(frozen=True)
class Entry:
    """A stored stage, or a folder that a killed process left half written.

    task     the task it is of; empty where that cannot be read
    method   the methods whose records name it; empty where none does
    size     bytes
    age      seconds since it was stored
    """

    folder: Path
    task: str
    method: str
    size: int
    age: float

    @property
    def key(self) -> str:
        """The key of the training."""
        return self.folder.parent.name

    @property
    def is_over(self) -> bool:
        """Whether nobody writes it any more."""
        return self.folder.name.isdigit() or abandoned(self.folder)


def entries(store: Path, records: Iterable[Path]) -> list[Entry]:
    """Everything below ``store``/stages. ``records``: folders whose records and analyses say which methods need a stage."""
    if not store.is_dir():
        raise BenchError(f"no store at {store}: give the store=DIR of a bench run")
    needed, now = needs(records), time.time()
    return [_entry(folder, needed, now) for folder in _folders(store / "stages")]


def needs(folders: Iterable[Path]) -> dict[str, set[str]]:
    """Stage (``key/step``) -> the methods and analyses whose records name it, of all records below the folders."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (path for folder in folders for path in folder.rglob("*.json")):
        try:
            record = json.loads(path.read_bytes())
            identity, ticket = record["identity"], record if path.name.endswith(ANALYSIS) else record.get("ticket") or {}
            name = identity["analysis" if path.name.endswith(ANALYSIS) else "method"]
            for stage in (*ticket.get("stages", ()), ticket.get("start", "")):
                training, _, step = stage.rpartition("/")
                found[f"{training.partition(' ')[0]}/{step}"].add(name)  # a derived state is named after what it is made of
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise BenchError(f"{path} is not a readable record: delete it, or run its command again") from None
    return found


def unneeded(found: Iterable[Entry], grids: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Those that no record names, and that no running grid can need: a grid keeps what is of its tasks, and what was stored
    since it started. ``grids``: what they say of themselves, see ``bench.runner.status``."""
    tasks = {task for grid in grids for task in grid["tasks"]}
    started = min((float(grid["started"]) for grid in grids), default=math.inf)
    return [e for e in found if not e.method and e.task not in tasks and time.time() - e.age < started and e.is_over]


def remove(store: Path, found: Iterable[Entry]) -> list[Entry]:
    """Remove stages, but for those of trainings that a process is at; returns what was removed."""
    from bench.storage.stages import Store  # loads PyTorch, which a list does not need

    opened, removed = Store(store), []
    for entry in found:
        with suppress(Held), opened.lock(entry.key, wait=False):
            if entry.folder.name.isdigit():
                opened.drop(entry.key, int(entry.folder.name))
            else:
                shutil.rmtree(entry.folder, ignore_errors=True)
            removed.append(entry)
        with suppress(OSError):  # it holds another step
            entry.folder.parent.rmdir()
    return removed


def sums(found: Iterable[Entry]) -> list[dict[str, Any]]:
    """Stages and bytes by task, method and age, largest first."""
    sizes: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for entry in found:
        age = next((name for name, length in AGES if entry.age < length), "")
        sizes[entry.task, entry.method, f"under {age}" if age else "a year or more"].append(entry.size)
    rows = [
        {"task": task or "(unknown)", "method": method or "(no record)", "age": age, "stages": len(each), "bytes": sum(each)}
        for (task, method, age), each in sizes.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def _folders(stages: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(stages) as keys:
        for key in keys:
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(key.path) as steps:
                yield from (Path(step.path) for step in steps if step.is_dir())


def _entry(folder: Path, needed: dict[str, set[str]], now: float) -> Entry:
    size, newest = 0, 0.0
    with suppress(FileNotFoundError), os.scandir(folder) as files:
        for file in files:
            status = file.stat()
            size, newest = size + status.st_size, max(newest, status.st_mtime)
    try:
        task = str(json.loads((folder / "stage.json").read_bytes())["ingredients"]["task"])
    except (OSError, ValueError, KeyError, TypeError):
        task = ""
    method = "" if not folder.name.isdigit() else ", ".join(sorted(needed.get(f"{folder.parent.name}/{folder.name}", ())))
    return Entry(folder, task, "dense" if "dense" in method.split(", ") else method, size, max(0.0, now - newest))
