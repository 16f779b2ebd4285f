"""Plans: what jobs would train, and whether a method can start at all, without a training."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import torch

from bench import launcher
from bench.config import densities
from bench.errors import BenchError, described
from bench.lab.dry_run import NotPlanned, PlanLab
from bench.machine import threads
from bench.runner.analyses import measure
from bench.runner.job_networks import JobNetworks
from bench.runner.jobs import Job, open_lab, open_once
from bench.storage.records import Identity
from bench.storage.stages import Store
from bench.task import Task
from pruning import PruningError, Ticket
from pruning.ticket import SearchCost

PATIENCE = 10.0
"""Seconds that a grid may plan before it starts."""


class Planner(JobNetworks[None]):
    """Goes through the trainings of a job without running one."""

    def on_network(self, identity: Identity, ticket: Ticket, ledger: SearchCost) -> None:
        """Count the training of a ticket."""
        if not ticket.trained:
            self.lab.train(ticket.start, ticket.masks, ticket.schedule, slim=ticket.slim)

    def on_failure(self, identity: Identity, error: Exception) -> None:
        """Count nothing."""


def validate_method(job: Job, task: Task) -> None:
    """Dry-run a method up to its first ticket, so that wrong options fail before the dense network is trained."""
    lab = open_lab(job, task, PlanLab, planned={})
    with suppress(NotPlanned):
        for _ in islice(Planner(job, task, lab).run(), 2):  # the dense network is the first
            pass


def disk(jobs: list[Job]) -> tuple[float, int]:
    """About how many bytes jobs will store, and how many are free there. Planned is each setting's first seed, as far as that
    takes ``PATIENCE`` seconds; what cannot be planned counts as nothing."""
    first = jobs[: len({id(job.setting) for job in jobs})]  # they are in order of their seeds
    rows: list[dict[str, Any]] = []
    if launcher.launched() > 1:  # the processes have not met yet
        return 0.0, 0
    with suppress(Exception):  # the job itself says what is wrong
        rows.extend(plan(first, time.monotonic() + PATIENCE))
    place = Store(jobs[0].setting.config["store"]).root.absolute()
    while not place.exists():
        place = place.parent
    return len(jobs) / len(first) * 1e6 * sum(row["disk_mb"] for row in rows), shutil.disk_usage(place).free


def plan(jobs: list[Job], deadline: float = math.inf) -> Iterator[dict[str, Any]]:
    """What jobs would train: for each of them the trainings stored and missing, their steps, MACs, seconds and size on disk. With
    a deadline no time is measured, and the counts are lower bounds once it has passed."""
    planned: dict[tuple[str, int], int] = {}
    stored: dict[tuple[str, int], int] = {}
    opened: dict[str, Task] = {}
    pace: dict[Task, float] = {}
    for job in jobs:
        try:
            before = set(planned)
            lab = plan_job(job, opened, planned=planned, stored=stored, deadline=deadline)
            new, steps = planned.keys() - before, sum(planned[stage] for stage in planned.keys() - before)
            if lab.task not in pace:
                pace = {lab.task: lab.seconds_per_step() if math.isinf(deadline) else math.nan}
            yield {
                "job": str(job),
                "stored": len(lab.met - {training for training, _ in planned}),
                "to_train": len(new),
                "steps": steps,
                "training_macs": 3 * lab.macs(lab.ones()) * lab.task.batch_size * steps,
                "seconds": steps * pace[lab.task],
                "disk_mb": sum(stored[stage] for stage in new) / 1e6,
            }
        except (BenchError, PruningError, OSError):
            raise
        except Exception as error:  # the configuration does not fit the task or method
            raise BenchError(f"{job} cannot be planned: {described(error)}") from error


def plan_job(job: Job, opened: dict[str, Task], **options: Any) -> PlanLab:
    """Plan a job, unless its records are there; return the lab that counted its trainings. Where it cannot be planned to its end,
    the count is a lower bound. ``opened``: see ``open_once``; ``options``: of ``PlanLab``."""
    torch.set_num_threads(threads(job.setting.config))
    task = open_once(job.setting, opened)
    lab = open_lab(job, task, PlanLab, **options)
    with suppress(NotPlanned):
        if job.analysis:
            measure(lab, job.analysis, densities(job.setting.config["densities"], lab.budgets))
        elif not all((planner := Planner(job, task, lab)).known()):
            for _ in planner.run():
                pass
    return lab
