"""The work of one job: from its setting and seed to records."""

import traceback
from pathlib import Path

import torch
from pydantic import ValidationError

from bench.config import densities
from bench.errors import BenchError, Held, described, first_problem
from bench.lab.lab import Lab
from bench.machine import threads
from bench.runner.analyses import Analysis, measure
from bench.runner.environment import keep_freed_memory
from bench.runner.jobs import Job, Outcome, common_fields, identity_fields, open_lab, open_once
from bench.runner.recorder import Recorder
from bench.runner.status import WorkerStatus
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord
from bench.storage.records import read_sealed, record_path, write_record
from bench.task import Task
from bench.training import distributed
from pruning import PruningError


def run_job(job: Job, report: WorkerStatus | None = None, opened: dict[str, Task] | None = None) -> Outcome:
    """Take one job as far as it goes now: to its records, or to stages that other processes train. Whatever goes wrong comes back
    as the outcome's error, and costs this job only. ``report`` is told how far it is."""
    config = job.setting.config
    torch.set_num_threads(threads(config))
    keep_freed_memory()
    try:
        task = open_once(job.setting, {} if opened is None else opened)
        if report:
            report.begin(str(job))
        lab: Lab = open_lab(job, task, report=report or (lambda training, step, last: None))
        if job.analysis:
            return Outcome(job, [analyse(job, job.analysis, task, lab)])
        recorder = Recorder(job, task, lab, report)
        return Outcome(job, recorder.records(), held=frozenset(recorder.held))
    except Held as held:
        return Outcome(job, [], held=frozenset({held.key}))
    except (BenchError, PruningError, OSError) as error:
        return Outcome(job, [], str(error))
    except Exception as error:  # a bug in a task, a method or here: its author needs to know where
        traceback.print_exc()
        return Outcome(job, [], str(BenchError(described(error))))


def analyse(job: Job, analysis: Analysis, task: Task, lab: Lab) -> AnalysisRecord:
    """Return the record of a job's analysis, from an earlier run or made now."""
    runs, columns = Path(job.setting.config["runs"]), densities(job.setting.config["densities"], lab.budgets)
    identity = AnalysisIdentity(**identity_fields(job, task), analysis=analysis.name, options=analysis.options, densities=columns)
    path = record_path(runs, identity, analysis.label)
    if distributed.broadcast(path.exists()):
        return read_sealed(path, AnalysisRecord)
    try:
        record = AnalysisRecord.make(
            identity, label=analysis.label, **common_fields(job, task), **measure(lab, analysis, columns)
        )
    except ValidationError as error:
        raise BenchError(f"analysis {analysis.label}: {first_problem(error)}") from None
    if distributed.first():
        write_record(record, runs)
    return record
