"""Jobs: one setting and one seed each, and how their task and lab are opened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from bench import registry
from bench.config import Setting
from bench.errors import BenchError, UsageError, first_problem
from bench.lab.lab import Lab
from bench.machine import workers
from bench.runner import precision
from bench.runner.analyses import Analysis, with_options
from bench.runner.environment import device, environment, now
from bench.storage.analysis_records import AnalysisRecord
from bench.storage.records import Record
from bench.storage.stages import Store
from bench.task import Task, number
from bench.training import distributed
from pruning import Densities, Masks, Ticket
from pruning.ticket import State

AnyLab = TypeVar("AnyLab", bound=Lab)


@dataclass(frozen=True, eq=False)
class Job:
    """One setting and one seed: the smallest unit that is run, resumed or reported as failed."""

    setting: Setting
    seed: int
    analysis: Analysis | None = None
    """The analysis to run instead of the setting's method."""
    only: str | None = None
    """The id of the one record that is needed. None: all records."""

    def __str__(self) -> str:
        config = self.setting.config
        what = self.analysis.label if self.analysis else label(config["method"])
        return f"{config['task']['name']} {config['data']['name']} {what} seed {self.seed}"

    @property
    def group(self) -> str:
        """Equal for jobs that train the same dense network."""
        return f"{same_task(self.setting)} {self.seed}"

    @property
    def columns(self) -> int:
        """How many densities are asked."""
        asked = self.setting.config["densities"]
        return max(
            (len(v) if isinstance(v, list) else 1 for v in (asked.values() if isinstance(asked, Mapping) else [asked])), default=1
        )

    @property
    def width(self) -> int:
        """How many of its trainings can run at a time: where a ticket needs the one before it, a ticket and its controls."""
        if self.analysis:
            return 1
        config = self.setting.config
        chain = registry.sequential(registry.method(config["method"]["name"]), own_options(config["method"]))
        return (1 + len(config["controls"])) * (1 if chain else self.columns)

    @property
    def networks(self) -> int:
        """How many are measured: the dense one, every ticket and every control."""
        return 1 if self.analysis or self.only else 1 + self.columns * (1 + len(self.setting.config["controls"]))

    def failed(self, error: str) -> Outcome:
        """The outcome of a job that failed."""
        return Outcome(self, [], error)


@dataclass
class Outcome:
    """The result of a job: its records, and the error if it failed."""

    job: Job
    records: list[Record] | list[AnalysisRecord]
    error: str | None = None
    held: frozenset[str] = frozenset()
    """Where it is not finished: the stages that it needs and other processes were training."""

    def to_json(self) -> str:
        """Return all but the job, as a worker sends it: no class of a task or method need be known where it arrives."""
        records = [record.model_dump() for record in self.records]
        return json.dumps({"error": self.error, "held": sorted(self.held), "records": records})

    @classmethod
    def from_json(cls, job: Job, text: str) -> Outcome:
        """Return the outcome of a job from what its worker sent."""
        told, kind = json.loads(text), AnalysisRecord if job.analysis else Record
        try:
            records: list[Any] = [kind.model_validate(record) for record in told["records"]]
        except ValidationError as error:
            return job.failed(f"what its worker sent is no record: {first_problem(error)}")
        return cls(job, records, told["error"], frozenset(told["held"]))


def jobs_of(settings: list[Setting], analysis: Analysis | None = None, only: str | None = None) -> list[Job]:
    """Return every setting with every one of its seeds, seed by seed, so that early seeds finish first. The number of workers is
    decided here."""
    spread = workers(settings[0].config, sum(Job(s, 0, analysis).width * len(s.config["seeds"]) for s in settings))
    settings = [replace(s, config={**s.config, "jobs": spread}) for s in settings]
    longest = max(len(s.config["seeds"]) for s in settings)
    return [Job(s, s.config["seeds"][i], analysis, only) for i in range(longest) for s in settings if i < len(s.config["seeds"])]


def label(method: Mapping[str, Any]) -> str:
    """Return a method's name and the options that differ from its own defaults."""
    defaults = registry.options(registry.method(method["name"]))
    return with_options(method["name"], {k: v for k, v in method.items() if k != "name" and v != defaults.get(k)})


def own_options(method: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method as it is configured."""
    return {key: value for key, value in method.items() if key != "name"}


def open_task(setting: Setting) -> Task:
    """Return the task of a setting with its data loaded and its precision decided."""
    config = setting.config
    place = device(config["device"])
    adapter = registry.adapter(setting.folder, config["task"]["adapter"])
    if distributed.processes() > 1 and not adapter.shardable:
        raise UsageError(f"task {setting.name} cannot be trained by several processes: run it without a launcher")
    auto = setting.precision or distributed.broadcast(precision.BF16 if precision.native(place) else precision.FP32)
    return adapter({"data": config["data"], "model": config["model"], "train": precision.used(config["train"], auto)}, place)


def same_task(setting: Setting) -> str:
    """Equal for settings that differ in method alone."""
    return repr([setting.precision, *(setting.config[section] for section in ("task", "data", "model", "train", "device"))])


def open_once(setting: Setting, opened: dict[str, Task]) -> Task:
    """Return the task of a setting, shared by jobs that differ in method and seed alone: data is read, tokenised and decoded once
    per process."""
    key = same_task(setting)
    if key not in opened:
        opened.clear()  # the grid is ordered; holding one task in memory is enough
        opened[key] = open_task(setting)
    return opened[key]


def open_lab(job: Job, task: Task, kind: type[AnyLab] = Lab, **options: Any) -> AnyLab:  # type: ignore[assignment]
    """Return the lab of a job."""
    config = job.setting.config

    def open_sibling(name: str | None, data: str | None, seed: int) -> AnyLab:
        setting = job.setting.sibling(name, data) if name or data else job.setting
        return open_lab(Job(setting, seed), open_task(setting) if name or data else task, kind, **options)

    return kind(
        task,
        job.setting.name,
        config["task"]["version"],
        job.seed,
        Store(config["store"]),
        config["checkpoint_seconds"],
        open_sibling=open_sibling,
        pattern=config.get("pattern"),
        **options,
    )


def tickets(lab: Lab, method: Mapping[str, Any], columns: list[Densities]) -> Iterator[Ticket]:
    """Yield the tickets of the method."""
    for ticket in islice(
        registry.method(method["name"])(lab, columns, **own_options(method)), len(columns)
    ):  # imp would train its last one
        who = f"method {method['name']}"
        if not isinstance(ticket, Ticket) or not isinstance(ticket.masks, Masks) or not isinstance(ticket.start, State):
            raise BenchError(
                f"{who} gave {ticket!r:.60}: it must yield pruning.Ticket, with Masks and a state of the lab to start from"
            )
        lab.ones().check_like(ticket.masks)
        yield replace(
            ticket,
            densities={
                budget: number(share, f"the density of {budget} that {who} gave") for budget, share in ticket.densities.items()
            },
            notes=registry.plain(dict(ticket.notes), f"the notes of {who} hold"),
        )


def identity_fields(job: Job, task: Task) -> dict[str, Any]:
    """Return the fields of ``ExperimentIdentity``."""
    parts = precision.as_asked(task.identity(), job.setting.config["train"])
    return {
        "task": job.setting.name,
        "task_version": job.setting.config["task"]["version"],
        "data": parts["data"]["name"],
        "model": parts["model"]["name"],
        "protocol": job.setting.protocol,
        "config": parts,
        "fingerprint": task.fingerprint,
        "seed": job.seed,
    }


def common_fields(job: Job, task: Task) -> dict[str, Any]:
    """Return the fields that every record of a job has in common."""
    computed = {key: value for key, value in task.config["train"].items() if key == "precision"}
    return {
        "note": task.note,
        "command": job.setting.command(job.seed, job.analysis),
        "environment": environment() | computed,
        "created": now(),
    }
