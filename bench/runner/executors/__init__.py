"""Executors: how the jobs of a grid are spread. One file for each, over one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from bench.runner.executors import processes, serial
from bench.runner.jobs import Job, Outcome


class Executor(Protocol):
    """Runs jobs and yields their outcomes in order of completion. ``show`` is told how far a training is, where it can be."""

    def __call__(self, jobs: list[Job], show: Callable[[str, int, int], None]) -> Iterator[Outcome]:
        """Run all jobs; a failure costs its own job only."""


def choose(workers: int) -> Executor:
    """Return the executor for so many local processes: this one, or others."""
    return serial.run if workers <= 1 else partial(processes.run, workers=workers)
