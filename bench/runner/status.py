"""The status of grids: a grid and each of its workers say how far they are in small files below the store.

    <store>/grids/<grid>/grid.json         jobs done, running, waiting and failed; networks and hours left
                         <worker>.json     a worker's job, and how far its training is
                         <worker>.log      what it printed

``bench status`` reads them, whatever machines the workers are on.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench import launcher
from bench.storage.files import canonical, parsed, text_sum, write_atomic
from bench.storage.unfinished_files import host

if TYPE_CHECKING:
    from bench.runner.executors.queue import Queue
    from bench.runner.jobs import Job

INTERVAL = 1.0
"""Seconds between two writes of a file, at least."""
HEARTBEAT, SILENCE = 20.0, 120.0
"""Seconds between two writes at most, and seconds after which a grid or a worker that wrote nothing is taken for gone."""
Show = Callable[[str, int, int], None]
"""Shows how far a training is: what it trains, its step, its last step."""
_numbers = itertools.count(1)
"""Of the grids and labs of this process."""


@dataclass
class _StatusFile:
    """A small file that is written again and again, but not too often. Its content is the fields of a subclass."""

    path: Path
    host: str = field(default_factory=host)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    seen: float = 0.0
    ended: bool = False

    def write(self, now: bool = False) -> None:
        """Write the file, unless that was done a moment ago. A full disk is for the trainings to report."""
        if launcher.first() and (now or (time.time() - self.seen >= INTERVAL and not self.ended)):
            self.seen = time.time()
            content = {key: value for key, value in vars(self).items() if key not in ("path", "show", "changed", "tell")}
            with suppress(OSError):
                write_status(self.path, content)

    def __enter__(self) -> Self:
        """Write the file from now on until the end."""
        self.write(now=True)
        self.beat()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def beat(self) -> None:
        """Write the file again and again from a thread, as a training may have nothing to say for long."""

        def beat() -> None:
            while not self.ended:
                time.sleep(HEARTBEAT)
                self.write()

        threading.Thread(target=beat, daemon=True).start()

    def end(self) -> None:
        """Say that there is no more to come."""
        self.ended = True
        self.write(now=True)


@dataclass
class WorkerStatus(_StatusFile):
    """What one worker says of itself, and where its output goes. It is made by the grid and sent to the worker."""

    job: str = ""
    training: str = ""
    step: int = 0
    last: int = 0
    records: int = 0
    """How many its job has by now."""
    made: int = 0
    """How many records it made, of all its jobs."""
    show: Show | None = None
    """Shows the training on the terminal, where the worker is the grid's own process."""

    def begin(self, job: str) -> None:
        """Note that a job begins; an empty one is a pause."""
        self.host, self.pid = host(), os.getpid()
        self.job, self.training, self.step, self.last, self.records = job, "", 0, 0, 0
        self.write(now=True)

    def __call__(self, training: str, step: int, last: int) -> None:
        """Note that a training has come to a step."""
        self.training, self.step, self.last = training, step, last
        self.write()
        if self.show:
            self.show(training, step, last)

    def record(self, new: bool) -> None:
        """Note that the job has one more record; ``new``: it was made just now."""
        self.records += 1
        self.made += new
        self.write()

    def take_output(self) -> None:
        """Send all that this process prints to the worker's log, and say that it lives."""
        self.beat()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".log").open("a") as log:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(log.fileno(), stream.fileno())


@dataclass
class GridStatus(_StatusFile):
    """What a grid says of itself: how many jobs are done, running and waiting."""

    command: str = ""
    tasks: list[str] = field(default_factory=list)
    jobs: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    networks_left: int = 0
    hours_left: float | None = None
    show: Show | None = None
    changed: Callable[[GridStatus], None] = lambda status: None
    """Told whenever the numbers are new."""
    tell: Callable[[str], None] = lambda line: None
    """Says a line to whoever started the grid."""

    @classmethod
    def begin(cls, store: Path, jobs: list[Job], command: str) -> GridStatus:
        """Open the folder of a grid that begins."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{host()}-{os.getpid()}-{next(_numbers)}"
        tasks = sorted({job.setting.name for job in jobs})
        networks = sum(job.networks for job in jobs)
        place = store / "grids" / name / "grid.json"
        return cls(place, tasks=tasks, jobs=len(jobs), waiting=len(jobs), networks_left=networks, command=command)

    def worker(self, name: str, here: bool = False) -> WorkerStatus:
        """Return what the worker of that name is to say; ``here``: it is this process."""
        return WorkerStatus(self.path.with_name(f"{name}.json"), show=self.show if here else None)

    def update(self, queue: Queue) -> None:
        """Count what is done and what is left, unless that was done a moment ago."""
        if time.time() - self.seen < INTERVAL:
            return
        workers = [found for path in self.path.parent.glob("*.json") if path != self.path and (found := _read(path))]
        made, known = sum(worker["made"] for worker in workers), dict[str, int]()
        for worker in workers:
            known[worker["job"]] = max(known.get(worker["job"], 0), worker["records"])
        self.running, self.waiting = queue.running, len(queue) - queue.running
        self.networks_left = sum(max(0, job.networks - known.get(str(job), 0)) for job in queue.jobs())
        hours = (time.time() - self.started) / 3600
        self.hours_left = self.networks_left * hours / made if made else None
        self.write(now=True)
        self.changed(self)

    def end(self) -> None:
        """Say that there is no more to come, and how much was not done."""
        self.running, self.waiting = 0, self.jobs - self.done - self.failed
        if not self.waiting:
            self.networks_left, self.hours_left = 0, 0.0
        super().end()

    @property
    def line(self) -> str:
        """The numbers in a few words."""
        left = "" if self.hours_left is None else f", about {self.hours_left:.2g} h"
        return f"{self.running} running, {self.waiting} waiting, {self.networks_left} networks left{left}"


def write_status(path: Path, content: dict[str, Any]) -> None:
    """Write a file with a checksum of its content."""
    write_atomic(path, json.dumps({**content, "sum": text_sum(canonical(content))}) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a file as it was written, or None. Its writer, if it lives, writes it again in a moment."""
    try:
        found: dict[str, Any] = parsed(path.read_bytes())
        return found if found.pop("sum") == text_sum(canonical(found)) else None
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return None


def unreadable(store: Path) -> list[Path]:
    """Return the files of grids that may run, but whose content is not what was written."""
    files = (store / "grids").glob("*/grid.json")
    return [path for path in files if time.time() - path.stat().st_mtime <= SILENCE and _read(path) is None]


def read_grids(store: Path) -> list[dict[str, Any]]:
    """Read what the grids of a store and their workers say, the latest first; ``state`` is running, ended or gone."""
    grids = []
    for path in sorted((store / "grids").glob("*/grid.json"), reverse=True):
        if grid := _read(path):
            workers = [
                {"worker": other.stem, **found, "state": "ended" if grid.get("ended") else _state(found)}
                for other in sorted(path.parent.glob("*.json"))
                if other != path and (found := _read(other))
            ]
            grids.append({"grid": path.parent.name, **grid, "state": _state(grid), "workers": workers})
    return grids


def _state(found: dict[str, Any]) -> str:
    if found.get("ended"):
        return "ended"
    return "gone" if time.time() - found.get("seen", 0) > SILENCE else "running"
