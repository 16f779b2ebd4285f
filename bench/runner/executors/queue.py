"""The queue of a grid: which job a free worker takes next, so that nobody waits while something can be trained.

A worker takes a job as far as it goes and leaves out what other workers are training (``bench.errors.Held``). So several
workers may be at one job, each at another ticket or control, and a job is finished by whoever comes last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.status import GridStatus

RETRIES = 2
"""How often a job is taken up again after the worker that ran it has died."""
SHORTEST_PAUSE, LONGEST_PAUSE, LONGER = 0.02, 0.5, 1.2
"""Seconds between two looks at stages that others train, and the factor by which they grow while nothing happens."""


class Pool(Protocol):
    """Workers, wherever they are, each of which runs one job at a time."""

    def free(self) -> bool:
        """Whether a worker is ready for a job."""

    def start(self, job: Job) -> None:
        """Give a job to a free worker."""

    def finished(self, seconds: float) -> list[tuple[Job, Outcome | None]]:
        """Wait so long for workers to end their jobs, and return those that did; None is the outcome of a worker that died."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class _Entry:
    """How far a job is."""

    place: int
    group: str
    width: int
    workers: int = 0
    deaths: int = 0
    held: frozenset[str] = frozenset()


class Queue:
    """The jobs that are not finished. ``is_held`` says whether anybody trains a stage at this moment."""

    def __init__(self, jobs: list[Job], is_held: Callable[[str], bool]):
        self._entries = {job: _Entry(place, job.group, job.width) for place, job in enumerate(jobs)}
        self._is_held = is_held

    def __len__(self) -> int:
        return len(self._entries)

    def jobs(self) -> Iterator[Job]:
        """The jobs that are left."""
        return iter(self._entries)

    @property
    def running(self) -> int:
        """How many of them a worker is at."""
        return sum(entry.workers > 0 for entry in self._entries.values())

    def next(self) -> Job | None:
        """The job that a free worker takes up, None where all that is left rests on what others train.

        Jobs that nobody is at come first, and of those the ones whose dense network nobody trains; then the order of the grid.
        """
        groups = Counter[str]()
        for entry in self._entries.values():
            groups[entry.group] += entry.workers
        held = {key for key in {key for entry in self._entries.values() for key in entry.held} if self._is_held(key)}
        ready = [
            job for job, entry in self._entries.items() if entry.workers < entry.width and not (entry.held and entry.held <= held)
        ]

        def rank(job: Job) -> tuple[int, int, int]:
            entry = self._entries[job]
            return entry.workers, groups[entry.group], entry.place

        job = min(ready, key=rank, default=None)
        if job:
            self._entries[job].workers += 1
        return job

    def ended(self, job: Job, outcome: Outcome | None) -> Outcome | None:
        """Note what came of a worker's job; returns the outcome if the job is over."""
        entry = self._entries.get(job)
        if entry is None:  # another worker finished or failed it
            return None
        entry.workers, entry.held = entry.workers - 1, frozenset()
        if outcome is None:
            entry.deaths += 1
            if entry.deaths <= RETRIES:
                return None
            outcome = job.failed("its process was killed, perhaps for memory: run the same command again to go on")
        elif outcome.held and not outcome.error:
            entry.held = outcome.held
            return None
        del self._entries[job]
        return outcome


def spread(jobs: list[Job], pool: Pool, status: GridStatus) -> Iterator[Outcome]:
    """Run all jobs on a pool; yields their outcomes in order of completion. The pool is closed at the end, however it comes."""
    from bench.storage.stages import Store

    queue, pause = Queue(jobs, Store(jobs[0].setting.config["store"]).held), SHORTEST_PAUSE
    try:
        while queue:
            while pool.free() and (job := queue.next()):
                pool.start(job)
                pause = SHORTEST_PAUSE
            status.update(queue)
            for job, outcome in pool.finished(pause):
                pause = SHORTEST_PAUSE
                if whole := queue.ended(job, outcome):
                    yield whole
            pause = min(LONGEST_PAUSE, LONGER * pause)
    finally:
        pool.close()
