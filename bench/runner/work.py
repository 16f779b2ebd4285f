"""The work of one job: from its setting and seed to records."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import ValidationError

from bench.config import densities, threads
from bench.errors import BenchError, told
from bench.lab.lab import Lab
from bench.runner.analyses import Analysis, made
from bench.runner.environment import keep_freed_memory
from bench.runner.jobs import Job, Outcome, asked_of, circumstances, open_lab, open_once, why
from bench.runner.recorder import Recorder
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord, analysis_path
from bench.storage.records import read_sealed, write_sealed
from bench.task import Task
from bench.training import distributed
from pruning import PruningError


def run_job(
    job: Job, report: Callable[[str, int, int], None] = lambda what, step, last: None, opened: dict[str, Task] | None = None
) -> Outcome:
    """Run one job to its records. Whatever goes wrong comes back as the outcome's error, and costs this job only."""
    config = job.setting.config
    torch.set_num_threads(threads(config))
    keep_freed_memory()
    try:
        task = open_once(job.setting, {} if opened is None else opened)
        lab: Lab = open_lab(job, task, report=report)
        return Outcome(job, [analyse(job, job.analysis, task, lab)] if job.analysis else list(Recorder(job, task, lab).records()))
    except (BenchError, PruningError, OSError) as error:
        return Outcome(job, [], str(error))
    except Exception as error:  # a slip in a task, a method or here: whoever mends it wants to know where
        traceback.print_exc()
        return Outcome(job, [], str(BenchError(told(error))))


def analyse(job: Job, analysis: Analysis, task: Task, lab: Lab) -> AnalysisRecord:
    """The record of a job's analysis: an earlier run's, or made now."""
    runs, columns = Path(job.setting.config["runs"]), densities(job.setting.config["densities"], lab.budgets)
    identity = AnalysisIdentity(**asked_of(job, task), analysis=analysis.name, options=analysis.options, densities=columns)
    path = analysis_path(runs, identity, analysis.label)
    if distributed.from_first(path.exists()):
        return read_sealed(path, AnalysisRecord)
    try:
        record = AnalysisRecord.make(identity, label=analysis.label, **circumstances(job, task), **made(lab, analysis, columns))
    except ValidationError as error:
        raise BenchError(f"analysis {analysis.label}: {why(error)}") from None
    if distributed.first():
        write_sealed(record, path)
    return record
