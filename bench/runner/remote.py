"""A job on another machine, as the plain values that are sent to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.config import settings
from bench.errors import BenchError
from bench.runner.analyses import Analysis
from bench.runner.executors.worker_check import WorkerCheck
from bench.runner.jobs import Job
from bench.runner.status import WorkerStatus


@dataclass(frozen=True)
class RemoteJob:
    """One job. The machine that runs it composes its configuration again, and refuses if it is not like the grid's.

    overrides  of the command line
    analysis   name and options, or None
    check      the fields of the ``WorkerCheck`` that the machine must pass
    status     the file in which the worker says how far it is
    """

    folder: str
    overrides: tuple[str, ...]
    seed: int
    analysis: tuple[str, dict[str, Any]] | None
    only: str | None
    precision: str | None
    check: dict[str, Any]
    status: str

    @classmethod
    def of(cls, job: Job, check: WorkerCheck, status: Path) -> RemoteJob:
        """Return a job as plain values."""
        setting, analysis = job.setting, tuple(job.analysis) if job.analysis else None
        return cls(
            str(setting.folder.absolute()),
            setting.overrides,
            job.seed,
            analysis,  # type: ignore[arg-type]
            job.only,
            setting.precision,
            vars(check),
            str(status.absolute()),
        )

    def run(self) -> str:
        """Run the job here as far as it goes; returns its outcome as JSON, see ``Outcome``."""
        from bench.runner.run_job import run_job

        try:
            if refusal := WorkerCheck(**self.check).refusal():
                raise BenchError(refusal)
            (setting,) = settings(self.folder, self.overrides)
        except BenchError as error:
            return json.dumps({"error": str(error), "held": [], "records": []})
        setting = replace(setting, config={**setting.config, "jobs": 1}, precision=self.precision)
        job = Job(setting, self.seed, Analysis(*self.analysis) if self.analysis else None, self.only)
        with WorkerStatus(Path(self.status)) as worker:
            return run_job(job, worker).to_json()
