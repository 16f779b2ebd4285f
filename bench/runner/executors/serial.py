"""One job after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.runner.executors.queue import spread

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.status import GridStatus
    from bench.task import Task


@dataclass(frozen=True)
class Options:
    """There are none."""


def run(jobs: list[Job], status: GridStatus, workers: int, options: Options) -> Iterator[Outcome]:
    """Run the jobs in this process; what another one is training meanwhile comes last."""
    return spread(jobs, _Here(status), status)


class _Here:
    """This process as a pool of one worker."""

    def __init__(self, status: GridStatus):
        self._job: Job | None = None
        self._opened: dict[str, Task] = {}
        self._log = status.worker("1", here=True)
        self._log.beat()

    def free(self) -> bool:
        return self._job is None

    def start(self, job: Job) -> None:
        self._job = job

    def finished(self, seconds: float) -> list[tuple[Job, Outcome | None]]:
        from bench.runner.run_job import run_job

        job, self._job = self._job, None
        if job:
            return [(job, run_job(job, self._log, self._opened))]
        time.sleep(seconds)
        return []

    def close(self) -> None:
        self._log.end()
