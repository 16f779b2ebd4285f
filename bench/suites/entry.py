"""A method's entry in a suite: the settings of all its events, what they would train, and the run."""

from collections.abc import Sequence
from typing import Any

from bench import config
from bench.config import Setting
from bench.errors import UsageError
from bench.leaderboard.boards import digest
from bench.runner.grid import run_jobs
from bench.runner.jobs import Job, Outcome, identity_fields, jobs_of, open_task
from bench.runner.plan import plan as plan_jobs
from bench.storage.records import ExperimentIdentity
from bench.suites.schema import Event, Suite
from bench.values import text


def settings(suite: Suite, event: Event, overrides: Sequence[str]) -> list[Setting]:
    """The settings of an event: its own words, then ``overrides`` such as method=imp and runs=DIR. UsageError if they change what
    the event fixes."""
    task, *words = event.words
    fixed = [f"controls={text(suite.controls)}", f"seeds={text(list(range(event.seeds)))}"]
    fixed_keys = {word.split("=")[0] for word in (*words, *fixed)}
    for word in overrides:
        key = word.lstrip("+~").split("=")[0]
        if not config.is_local(key) and (key in fixed_keys or key.partition(".")[0] in ("data", "model", "train", "densities")):
            raise UsageError(f"{word}: suite {suite.name} fixes {key}; `bench run` takes other settings")
    return config.settings(task, [*words, *fixed, *overrides])


def configuration(setting: Setting) -> str:
    """The short hash of a setting's configuration and data, as an event names it; opens the task."""
    return digest(ExperimentIdentity(**identity_fields(Job(setting, 0), open_task(setting))))


def check(suite: Suite, event: Event, setting: Setting) -> None:
    """UsageError if a setting gives records that do not count at its event: the task or its data have changed."""
    if (now := configuration(setting)) != event.config:
        raise UsageError(
            f"event {event.name}: `bench run {event.words[0]}` now has configuration {now}, but version {suite.version} of suite "
            f"{suite.name} counts {event.config}: its data or the task's settings have changed"
        )


def plan(suite: Suite, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """What a method's whole row would train: for every event the trainings stored and missing, MACs and hours."""
    rows = []
    for event in suite.events:
        rows_of_jobs = list(plan_jobs(_jobs(suite, event, overrides)))
        sums = {key: sum(row[key] for row in rows_of_jobs) for key in ("stored", "to_train", "training_macs", "seconds")}
        rows.append({"event": event.name, **sums, "hours": sums["seconds"] / 3600})
    return rows


def run(suite: Suite, overrides: Sequence[str]) -> list[Outcome]:
    """Run a method at every event of a suite, one after the other; what is stored is not trained again."""
    grids = [_jobs(suite, event, overrides) for event in suite.events]
    return [outcome for jobs in grids for outcome in run_jobs(jobs)]


def _jobs(suite: Suite, event: Event, overrides: Sequence[str]) -> list[Job]:
    """The jobs of an event, whose settings are checked against its configuration."""
    grid = settings(suite, event, overrides)
    check(suite, event, grid[0])
    return jobs_of(grid)
