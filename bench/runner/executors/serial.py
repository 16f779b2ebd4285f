"""One job after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.runner.jobs import Job, Outcome
from bench.runner.work import run_job
from bench.task import Task


def run(jobs: list[Job], show: Callable[[str, int, int], None]) -> Iterator[Outcome]:
    """Run the jobs in order; those of one setting share a task."""
    opened: dict[str, Task] = {}
    for job in jobs:
        yield run_job(job, show, opened)
