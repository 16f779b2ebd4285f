"""The grid: every job of a command, run by an executor, with a progress bar."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from bench import launcher
from bench.config import Setting, densities
from bench.errors import BenchError, UsageError, described
from bench.lab.dry_run import NotPlanned, PlanLab
from bench.machine import threads
from bench.runner import executors
from bench.runner.analyses import Analysis, measure
from bench.runner.jobs import Job, Outcome, jobs_of, open_lab, open_once
from bench.runner.plan import Planner
from bench.runner.recorder import Recorder
from bench.runner.status import GridStatus
from bench.storage.stages import Store
from bench.task import Task
from bench.training import distributed
from pruning import PruningError

PATIENCE = 10.0
"""Seconds that a grid may plan before it starts."""


def run_grid(
    settings: list[Setting], console: Console, analysis: Analysis | None = None, only: str | None = None
) -> list[Outcome]:
    """Run a grid, see ``run_jobs``. ``only``: the id of the one record that is wanted."""
    return run_jobs(jobs_of(settings, analysis, only), console)


def run_jobs(jobs: list[Job], console: Console) -> list[Outcome]:
    """Run every job on the executor that the first one's configuration names; a failure costs its own job only."""
    config = jobs[0].setting.config
    if distributed.launched() > 1:
        if config["jobs"] != 1:
            raise UsageError(
                f"executor={config['executor']['name']} jobs={config['jobs']} spreads a grid over processes of its own: leave it "
                "out under a launcher of several"
            )
        distributed.join(config["device"])
    executor = executors.choose(config["executor"], config["jobs"])
    outcomes = []
    with (
        GridStatus.begin(Store(config["store"]).root, jobs, launcher.command_line()) as status,
        Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as bars,
    ):
        grid, stage = bars.add_task("jobs", total=len(jobs)), bars.add_task("stage", total=None)

        status.show = lambda what, step, last: bars.update(stage, description=what, completed=step, total=last)
        status.tell = lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False)
        status.changed = lambda status: bars.update(grid, description=status.line)
        for outcome in executor(jobs, status):
            if outcome.error and distributed.processes() > 1:
                distributed.fail(f"{outcome.job}: {outcome.error}")
            outcomes.append(outcome)
            status.done, status.failed = status.done + (not outcome.error), status.failed + bool(outcome.error)
            bars.advance(grid)
            console.print(
                f"failed {outcome.job}: {outcome.error}"
                if outcome.error
                else f"done {outcome.job}: {len(outcome.records)} records",
                style="red" if outcome.error else None,
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    return outcomes


def plan(settings: list[Setting], analysis: Analysis | None = None) -> list[dict[str, Any]]:
    """What a run would train: for every job the trainings stored and missing, their steps, MACs, seconds and size on disk."""
    return list(_plan(jobs_of(settings, analysis)))


def disk(settings: list[Setting], analysis: Analysis | None = None) -> tuple[float, int]:
    """About how many bytes a run will store, and how many are free there. Planned is each setting's first seed, as far as that
    takes ``PATIENCE`` seconds; what cannot be planned counts as nothing."""
    first = [replace(s, config={**s.config, "seeds": s.config["seeds"][:1]}) for s in settings]
    rows: list[dict[str, Any]] = []
    if launcher.launched() > 1:  # the processes have not met yet
        return 0.0, 0
    with suppress(Exception):  # the job itself says what is wrong
        rows.extend(_plan(jobs_of(first, analysis), time.monotonic() + PATIENCE))
    seeds = sum(len(s.config["seeds"]) for s in settings) / len(settings)
    place = Store(settings[0].config["store"]).root.absolute()
    while not place.exists():
        place = place.parent
    return seeds * 1e6 * sum(row["disk_mb"] for row in rows), shutil.disk_usage(place).free


def _plan(jobs: list[Job], deadline: float = math.inf) -> Iterator[dict[str, Any]]:
    """A row for every job. With a deadline no time is measured, and the counts are lower bounds once it has passed."""
    planned: dict[tuple[str, int], int] = {}
    stored: dict[tuple[str, int], int] = {}
    opened: dict[str, Task] = {}
    pace: dict[Task, float] = {}
    for job in jobs:
        try:
            torch.set_num_threads(threads(job.setting.config))
            task, before = open_once(job.setting, opened), set(planned)
            lab = open_lab(job, task, PlanLab, planned=planned, stored=stored, deadline=deadline)
            plan_job(job, task, lab)
            new, steps = planned.keys() - before, sum(planned[stage] for stage in planned.keys() - before)
            if task not in pace:
                pace = {task: lab.seconds_per_step() if math.isinf(deadline) else math.nan}
            yield {
                "job": str(job),
                "stored": len(lab.met - {training for training, _ in planned}),
                "to_train": len(new),
                "steps": steps,
                "training_macs": 3 * lab.macs(lab.ones()) * task.batch_size * steps,
                "seconds": steps * pace[task],
                "disk_mb": sum(stored[stage] for stage in new) / 1e6,
            }
        except (BenchError, PruningError, OSError):
            raise
        except Exception as error:  # the configuration does not fit the task or method
            raise BenchError(f"{job} cannot be planned: {described(error)}") from error


def plan_job(job: Job, task: Task, lab: PlanLab) -> None:
    """Plan a job, unless its records are there. Where it cannot be planned to its end, the count is a lower bound."""
    with suppress(NotPlanned):
        if job.analysis:
            measure(lab, job.analysis, densities(job.setting.config["densities"], lab.budgets))
        elif not all(Recorder(job, task, lab).known()):
            for _ in Planner(job, task, lab).run():
                pass
