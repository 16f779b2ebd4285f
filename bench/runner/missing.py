"""Missing records: the commands that make them, how long they take here, and which of them to run first.

A gap is a claim that cannot be judged, or a cell of a board that is empty. It may need several commands, and a command may serve
several gaps.
"""

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.config import LOCAL, Setting, is_local
from bench.errors import BenchError, UsageError
from bench.runner.analyses import Analysis
from bench.runner.jobs import Job, jobs_of, same_task
from bench.runner.plan import plan_job
from bench.task import Task
from pruning import PruningError

PATIENCE = 30.0
"""Seconds that the plan of one command may take; its hours are a lower bound from there on."""
UNITS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


@dataclass(frozen=True, eq=False)
class MissingRun:
    """A command that makes missing records, and the gaps that cannot be filled without it."""

    command: str
    setting: Setting
    analysis: Analysis | None
    gaps: frozenset[str]

    @property
    def jobs(self) -> list[Job]:
        """The jobs of the command."""
        return jobs_of([self.setting], self.analysis)


@dataclass
class Estimate:
    """What a command would train here: stage -> seconds; ``impossible``: why it cannot be run here."""

    seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    impossible: str = ""


@dataclass(frozen=True)
class PlannedRun:
    """A missing run in the order of a plan: what it takes after those before it, and the gaps that are then filled."""

    run: MissingRun
    hours: float
    fills: tuple[str, ...]
    impossible: str = ""

    def row(self) -> dict[str, Any]:
        """The run as a row of a table, or JSON."""
        fills = "; ".join(self.fills) or ("" if self.impossible else "(with what follows)")
        return {"hours": self.hours, "fills": fills, "command": self.run.command, "not here": self.impossible}


def local_only(overrides: Iterable[str]) -> list[str]:
    """Refuse overrides that would change what is run: that is known already."""
    for override in overrides:
        if not is_local(override.partition("=")[0]):
            raise UsageError(f"{override}: only where to run is said here ({', '.join(LOCAL)}); what to run is known")
    return list(overrides)


def parse_hours(text: str) -> float:
    """The hours of a text such as ``8h``, ``90m`` or ``2d``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if match is None:
        raise UsageError(f"--within {text}: give a number of hours, minutes or days, such as 8h, 90m or 2d")
    return float(match[1]) * UNITS[match[2]]


def estimate(wanted: Sequence[MissingRun]) -> dict[MissingRun, Estimate]:
    """What every command would train that is not stored, timed on this machine. One seed is planned; the others take as long."""
    estimates: dict[MissingRun, Estimate] = {}
    opened: dict[str, Task] = {}
    pace: dict[str, float] = {}
    for run in wanted:
        estimates[run] = estimated = Estimate()
        try:
            for number, job in enumerate(run.jobs):
                planned: dict[tuple[str, int], int] = {}
                lab = plan_job(job, opened, planned=planned, deadline=time.monotonic() + PATIENCE / (1 + number))
                key = same_task(job.setting)
                if key not in pace and planned:
                    pace[key] = lab.seconds_per_step()
                estimated.seconds |= {stage: steps * pace[key] for stage, steps in planned.items()}
        except Exception as error:  # of other kinds where the configuration is wrong for a task or method
            known = isinstance(error, (BenchError, PruningError, OSError))
            estimated.impossible = str(error) if known else f"{type(error).__name__}: {error}"
    return estimates


def order(wanted: Sequence[MissingRun], estimates: Mapping[MissingRun, Estimate], limit: float = math.inf) -> list[PlannedRun]:
    """The commands in the order in which an hour fills most gaps, as many as fit into ``limit`` hours; those that cannot be run
    here come last. A training that several commands share is counted once."""
    broken = {run for run in wanted if estimates[run].impossible}
    left = {gap: frozenset(run for run in wanted if gap in run.gaps) for run in wanted for gap in run.gaps}
    left = {gap: group for gap, group in left.items() if not group & broken}
    trained: set[tuple[str, int]] = set()
    steps: list[PlannedRun] = []

    def new_hours(group: Iterable[MissingRun]) -> float:
        stages = {stage: seconds for run in group for stage, seconds in estimates[run].seconds.items()}
        return sum(seconds for stage, seconds in stages.items() if stage not in trained) / 3600

    while left:
        took = {group: new_hours(group) for group in left.values()}
        fitting = {group: hours for group, hours in took.items() if hours <= limit - sum(step.hours for step in steps)}
        if not fitting:
            break
        gaps_per_hour = {
            group: sum(other <= group for other in left.values()) / max(hours, 1e-6) for group, hours in fitting.items()
        }
        best = max(fitting, key=lambda group: (gaps_per_hour[group], _commands(group)))
        filled = sorted(gap for gap, group in left.items() if group <= best)
        for run in (ordered := sorted(best, key=lambda run: run.command)):
            steps.append(PlannedRun(run, new_hours([run]), tuple(filled) if run is ordered[-1] else ()))
            trained |= estimates[run].seconds.keys()
        left = {gap: group - best for gap, group in left.items() if gap not in filled}
    return steps + [PlannedRun(run, 0.0, (), estimates[run].impossible) for run in wanted if run in broken]


def _commands(group: Iterable[MissingRun]) -> list[str]:
    return sorted(run.command for run in group)


def workers(wanted: Sequence[MissingRun]) -> int:
    """Over how many workers the commands are spread, where that is known."""
    found = [job.setting.config["jobs"] for run in wanted for job in run.jobs]
    return max((count for count in found if isinstance(count, int)), default=1)


def jobs(steps: Iterable[PlannedRun]) -> list[Job]:
    """The jobs of a plan, in its order."""
    made = [job for step in steps if not step.impossible for job in step.run.jobs]
    counts = [job.setting.config["jobs"] for job in made]
    spread = "auto" if "auto" in counts else max(counts, default=1)
    return [replace(job, setting=replace(job.setting, config={**job.setting.config, "jobs": spread})) for job in made]
