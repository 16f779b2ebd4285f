"""bench run: expand the grid, run its jobs over local processes, write a record for every ticket and control."""

from __future__ import annotations

import multiprocessing
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from bench import registry
from bench.config import Setting, densities, threads
from bench.errors import BenchError, Diverged, UsageError
from bench.lab.lab import Lab, NotPlanned, PlanLab
from bench.runner.analyses import Analysis, made
from bench.runner.environment import environment, keep_freed_memory
from bench.runner.trackers import tracker
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord, analysis_path
from bench.storage.records import (
    Cost,
    Identity,
    Kept,
    Record,
    Result,
    TensorKept,
    identity_id,
    read_record,
    read_sealed,
    record_path,
    write_record,
    write_sealed,
)
from bench.storage.records import Ticket as TicketOrigin
from bench.storage.stages import Store
from bench.task import Task, number
from bench.training import distributed
from pruning import CONTROLS, Densities, Masks, NotApplicable, PruningError, Ticket
from pruning.metadata import ControlInfo, MethodInfo, info_of
from pruning.ticket import SearchCost, State

DENSE = {"name": "dense"}


@dataclass(frozen=True)
class Job:
    """One setting and one seed: the smallest thing that is run, resumed or reported as failed."""

    setting: Setting
    seed: int
    analysis: Analysis | None = None
    """Asked instead of the setting's method."""
    only: str | None = None
    """The id of the one record that is wanted; None: all."""

    def __str__(self) -> str:
        config = self.setting.config
        what = self.analysis.label if self.analysis else label(config["method"])
        return f"{config['task']['name']} {config['data']['name']} {what} seed {self.seed}"


@dataclass
class Outcome:
    """What became of a job."""

    job: Job
    records: list[Record] | list[AnalysisRecord]
    error: str | None = None


def jobs_of(settings: list[Setting], analysis: Analysis | None = None, only: str | None = None) -> list[Job]:
    """Every setting with every one of its seeds; seed by seed, so that early seeds finish whole."""
    longest = max(len(s.config["seeds"]) for s in settings)
    return [Job(s, s.config["seeds"][i], analysis, only) for i in range(longest) for s in settings if i < len(s.config["seeds"])]


def label(method: Mapping[str, Any]) -> str:
    """A method's name and the options that differ from its own defaults."""
    defaults = registry.options(registry.method(method["name"]))
    said = [f"{k}={v}" for k, v in method.items() if k != "name" and v != defaults.get(k)]
    name = method["name"].rpartition(":")[2]
    return f"{name}({', '.join(said)})" if said else name


def open_task(setting: Setting) -> Task:
    """The task of a setting, its data loaded."""
    config = setting.config
    device = config["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):
        raise UsageError(f"device={device} is not to be had here: use auto, cpu or cuda") from None
    adapter = registry.adapter(setting.folder, config["task"]["adapter"])
    if distributed.processes() > 1 and "shares" not in adapter.offers:
        raise UsageError(f"task {setting.name} cannot be trained by several processes: run it without a launcher")
    return adapter({section: config[section] for section in ("data", "model", "train")}, place)


def open_lab(job: Job, task: Task, kind: type[Lab] = Lab, **options: Any) -> Lab:
    """The lab of a job."""
    config = job.setting.config

    def open_sibling(name: str | None, data: str | None, seed: int) -> Lab:
        setting = job.setting.sibling(name, data) if name or data else job.setting
        return open_lab(Job(setting, seed), open_task(setting) if name or data else task, kind, **options)

    return kind(task, job.setting.name, config["task"]["version"], job.seed, Store(config["store"]),
                config["checkpoint_seconds"], open_sibling=open_sibling, **options)


def tickets(lab: Lab, method: Mapping[str, Any], columns: list[Densities]) -> Iterator[Ticket]:
    """The method at work."""
    options = {key: value for key, value in method.items() if key != "name"}
    for ticket in islice(registry.method(method["name"])(lab, columns, **options), len(columns)):  # imp would train its last one
        who = f"method {method['name']}"
        if not isinstance(ticket, Ticket) or not isinstance(ticket.masks, Masks) or not isinstance(ticket.start, State):
            raise BenchError(f"{who} gave {ticket!r:.60}: it must yield pruning.Ticket, with Masks and a state of the lab to "
                             "start from")
        lab.ones().check_like(ticket.masks)
        yield replace(ticket, densities={budget: number(share, f"the density of {budget} that {who} gave")
                                         for budget, share in ticket.densities.items()},
                      notes=registry.plain(dict(ticket.notes), f"the notes of {who} hold"))


def run_job(job: Job, report=lambda what, step, last: None, opened: dict | None = None) -> Outcome:
    """Run one job to its records. Whatever goes wrong comes back as the outcome's error, and costs this job only."""
    config = job.setting.config
    torch.set_num_threads(threads(config))
    keep_freed_memory()
    try:
        task = _open_once(job.setting, {} if opened is None else opened)
        lab = open_lab(job, task, report=report)
        return Outcome(job, [analyse(job, task, lab)] if job.analysis else list(_Recorder(job, task, lab).records()))
    except (BenchError, PruningError, OSError) as error:
        return Outcome(job, [], str(error))
    except Exception as error:  # a slip in a task, a method or here: whoever mends it wants to know where
        traceback.print_exc()
        return Outcome(job, [], f"{type(error).__name__}: {error}".splitlines()[0])


def analyse(job: Job, task: Task, lab: Lab) -> AnalysisRecord:
    """The record of a job's analysis: an earlier run's, or made now."""
    runs, columns = Path(job.setting.config["runs"]), densities(job.setting.config["densities"], lab.budgets)
    identity = AnalysisIdentity(**_asked(job, task), analysis=job.analysis.name, options=job.analysis.options, densities=columns)
    path = analysis_path(runs, identity, job.analysis.label)
    if distributed.from_first(path.exists()):
        return read_sealed(path, AnalysisRecord)
    try:
        record = AnalysisRecord.make(identity, label=job.analysis.label, **_circumstances(job, task),
                                     **made(lab, job.analysis, columns))
    except ValidationError as error:
        raise BenchError(f"analysis {job.analysis.label}: {_why(error)}") from None
    if distributed.first():
        write_sealed(record, path)
    return record


def _why(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _asked(job: Job, task: Task) -> dict[str, Any]:
    """The fields of ``Asked``."""
    parts = task.identity()
    return {"task": job.setting.name, "task_version": job.setting.config["task"]["version"], "data": parts["data"]["name"],
            "model": parts["model"]["name"], "protocol": job.setting.protocol, "config": parts,
            "fingerprint": task.fingerprint, "seed": job.seed}


def _circumstances(job: Job, task: Task) -> dict[str, Any]:
    """What is said of every record of a job."""
    return {"note": task.note, "command": job.setting.command(job.seed, job.analysis), "environment": environment(),
            "created": datetime.now(UTC).isoformat(timespec="seconds")}


def _open_once(setting: Setting, opened: dict) -> Task:
    """Jobs that differ in method and seed alone share one task: its data is read, tokenised and decoded once a process."""
    config = setting.config
    key = repr([config[section] for section in ("task", "data", "model", "train", "device")])
    if key not in opened:
        opened.clear()  # the grid is ordered; holding one task in memory is enough
        opened[key] = open_task(setting)
    return opened[key]


class _Recorder:
    """Turns a job's tickets into records."""

    def __init__(self, job: Job, task: Task, lab: Lab):
        self.job, self.task, self.lab = job, task, lab
        self.config = job.setting.config
        self.runs = Path(self.config["runs"])
        self.columns = [] if self.config["method"]["name"] == "dense" else densities(self.config["densities"], lab.budgets)

    def records(self) -> Iterator[Record]:
        """The dense baseline, then every ticket and its controls."""
        known = distributed.from_first(self.known())
        if all(known):
            yield from known
            return
        if not known[0]:
            rehearse(self.job, self.task)
        with tracker(self.config, str(self.job)) as track:
            for record in self.run():
                if distributed.first():
                    write_record(record, self.runs)
                    track(record)
                yield record

    def known(self) -> list[Record | None]:
        """The records of an earlier run; None where one is still to be made."""
        wanted = [self.identity(c, control) for c in self.columns for control in (None, *self.config["controls"])]
        paths = [record_path(self.runs, i, _label(i)) for i in (self.identity({}, None, DENSE), *wanted)]
        return [read_record(path) if path.exists() else None for path in paths]

    def run(self) -> Iterator[Record]:
        """Every training of the job, in order."""
        dense = self.identity({}, None, DENSE)
        if self.wanted(dense):
            yield self.measured(dense, Ticket({}, self.lab.ones(), self.lab.start("init"), search=SearchCost()))
        if not self.columns or identity_id(dense) == self.job.only:
            return
        left = list(self.columns)
        try:
            for ticket in tickets(self.lab, self.config["method"], self.columns):
                if dict(ticket.densities) not in left:
                    raise BenchError(f"method {self.config['method']['name']} gave a ticket of {ticket.densities}, not asked "
                                     f"for or given before; one for each of {self.columns} is due")
                left.remove(dict(ticket.densities))
                charged = replace(ticket, search=ticket.search or self.lab.spent())
                asked = {control: self.identity(ticket.densities, control) for control in (None, *self.config["controls"])}
                for control, identity in asked.items():
                    if self.wanted(identity):
                        yield self.controlled(control, charged) if control else self.measured(identity, charged)
                if self.job.only in map(identity_id, asked.values()):
                    return
            if left:
                raise BenchError(f"method {self.config['method']['name']} gave no ticket for {left}")
        except (Diverged, NotApplicable) as error:
            for column in left:
                for control in (None, *self.config["controls"]):
                    if self.wanted(asked := self.identity(column, control)):
                        yield self.without_numbers(asked, error)

    def wanted(self, identity: Identity) -> bool:
        """Whether the job asks for this record."""
        return self.job.only in (None, identity_id(identity))

    def controlled(self, name: str, ticket: Ticket) -> Record:
        """The same for what a control makes of the ticket."""
        identity, function = self.identity(ticket.densities, name), CONTROLS[name]
        try:
            with self.lab.search(ticket.search) as search:
                made = replace(function(ticket, self.lab), trained=None, untrained=None)
        except NotApplicable as error:
            return self.without_numbers(identity, error)
        searched = info_of(function, ControlInfo).searched
        return self.measured(identity, replace(made, search=search if searched else SearchCost()))

    def measured(self, identity: Identity, ticket: Ticket) -> Record:
        """Train a ticket and write down how it did and what its search cost."""
        with self.lab.search(ticket.search) as ledger:
            return self._measured(identity, ticket, ledger)

    def _measured(self, identity: Identity, ticket: Ticket, ledger: SearchCost) -> Record:
        lab = self.lab
        search = ticket.search.without(ticket.trained) if ticket.trained else ticket.search
        try:
            until = None
            if not ticket.trained and lab.is_disconnected(ticket.start, ticket.masks):
                until = ticket.start.step if ticket.schedule == "replay" else 0
                ticket = replace(ticket, notes={**ticket.notes, "collapsed": "no path from input to output: not trained"})
            end = ticket.trained or lab.train(ticket.start, ticket.masks, ticket.schedule, until, slim=ticket.slim)
            training = ledger.trainings[end.training]
            states = {"": end, "dense_": self.dense(), "untrained_": ticket.untrained}
            numbers = {f"{of}{split}": lab.evaluate(state, split)
                       for of, state in states.items() if state for split in ("val", "test")}
        except (Diverged, NotApplicable) as error:
            return self.without_numbers(identity, error)
        masks, metric = ticket.masks, self.task.metric
        sparse = training.sparse_steps / lab.steps
        faster = lab.speedups(ticket.start, masks) if ticket.slim else (None, None)
        return self.record(
            identity, status="ok",
            result=Result(metric=metric.name, higher_is_better=metric.higher_is_better, step=end.step, **numbers),
            budgets=_kept(masks, ticket.densities),
            tensors={n: TensorKept(kept=int(m.sum()), total=m.numel()) for n, m in masks.items()},
            collapsed=masks.collapsed(),
            ticket=TicketOrigin(masks=masks.digest(), start=ticket.start.key, schedule=ticket.schedule,
                                stages=[state.key for state in (*search.states(), end)], notes=ticket.notes),
            cost=Cost(search_steps=search.steps, train_steps=training.steps,
                      search_dense_trainings=search.dense_steps / lab.steps,
                      train_dense_trainings=sparse if ticket.slim else training.steps / lab.steps,
                      search_at_sparse_rate=search.sparse_steps / lab.steps,
                      train_at_sparse_rate=sparse,
                      search_seconds=sum(lab.stage(state).info["progress"]["seconds"] for state in search.states())
                      + search.scoring_seconds,
                      train_seconds=lab.stage(end).info["progress"]["seconds"], inference_macs=lab.macs(masks),
                      inference_macs_dense=lab.macs(lab.ones()), measured_speedup=faster[0],
                      measured_training_speedup=faster[1]),
            masks=masks)

    def dense(self) -> State:
        """What every ticket is compared with."""
        try:
            return self.lab.train(self.lab.start("init"), self.lab.ones())
        except Diverged as error:
            raise Diverged(f"the dense network: {error}") from None

    def without_numbers(self, identity: Identity, error: Exception) -> Record:
        status = "not_applicable" if isinstance(error, NotApplicable) else "diverged"
        return self.record(identity, status=status, reason=str(error))

    def identity(self, asked: Densities, control: str | None, method: Mapping[str, Any] | None = None) -> Identity:
        method = self.config["method"] if method is None else method
        function, chosen = registry.method(method["name"]), {k: v for k, v in method.items() if k != "name"}
        before = self.columns[:self.columns.index(asked)] if registry.sequential(function, chosen) else []
        recorded = info_of(function, MethodInfo).recorded(chosen)
        return Identity(**_asked(self.job, self.task), method=method["name"], method_config=recorded,
                        densities=dict(asked), rounds=before, control=control)

    def record(self, identity: Identity, masks: Masks | None = None, **fields: Any) -> Record:
        try:
            record = Record.make(identity, label=_label(identity), **_circumstances(self.job, self.task), **fields)
        except ValidationError as error:
            raise BenchError(f"method {identity.method}: {_why(error)}") from None
        if masks is not None and distributed.first():
            path = record.path(self.runs).with_suffix(".masks.safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            masks.save(path)
        return record


class _Planner(_Recorder):
    """Walks through a job's trainings without running one."""

    def _measured(self, identity: Identity, ticket: Ticket, ledger: SearchCost) -> None:
        if not ticket.trained:
            self.lab.train(ticket.start, ticket.masks, ticket.schedule, slim=ticket.slim)

    def without_numbers(self, identity: Identity, error: Exception) -> None:
        pass


def rehearse(job: Job, task: Task) -> None:
    """The way to a method's first ticket without a training: what is wrong with its options is told before the dense network is
    trained, not after."""
    lab = open_lab(job, task, PlanLab, planned={})
    with suppress(NotPlanned):
        for _ in islice(_Planner(job, task, lab).run(), 2):  # the dense network is the first
            pass


def _label(identity: Identity) -> str:
    return label({"name": identity.method, **identity.method_config})


def _kept(masks: Masks, asked: Densities) -> dict[str, Kept]:
    return {b: Kept(asked=asked.get(b), kept=masks.kept(b), total=masks.total(b))
            for b in dict.fromkeys(masks.budgets.values())}


def run_grid(settings: list[Setting], console: Console, analysis: Analysis | None = None, only: str | None = None
             ) -> list[Outcome]:
    """Run every job, in this process or over ``jobs`` local ones; a failure costs its own job only. ``only``: the id of the one
    record that is wanted."""
    jobs, workers = jobs_of(settings, analysis, only), int(settings[0].config["jobs"])
    if distributed.launched() > 1:
        if workers > 1:
            raise UsageError(f"jobs={workers} spreads a grid over processes of its own: leave it out under a launcher of several")
        distributed.join(settings[0].config["device"])
    with Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
              disable=not console.is_terminal, transient=True) as bars:
        grid = bars.add_task("jobs", total=len(jobs))
        outcomes = []
        for outcome in _here(jobs, bars) if workers <= 1 else _spread(jobs, workers):
            if outcome.error and distributed.processes() > 1:
                distributed.fail(f"{outcome.job}: {outcome.error}")
            outcomes.append(outcome)
            bars.advance(grid)
            console.print(f"failed {outcome.job}: {outcome.error}" if outcome.error else
                          f"done {outcome.job}: {len(outcome.records)} records", style="red" if outcome.error else None,
                          soft_wrap=True, highlight=False, markup=False)
    return outcomes


def _here(jobs: list[Job], bars: Bars) -> Iterator[Outcome]:
    stage, opened = bars.add_task("stage", total=None), {}
    for job in jobs:
        yield run_job(job, lambda what, step, last: bars.update(stage, description=what, completed=step, total=last), opened)


def _spread(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    """A worker that dies takes the pool with it; the jobs it left are tried once more, one pool each."""
    left = list(jobs)
    with _pool(workers) as pool:
        futures = {pool.submit(_run_in_worker, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                    left.remove(futures[future])
                except BrokenProcessPool:
                    pass
        except BaseException:  # Ctrl-C: nobody waits for the rest, and what the workers have is stored
            for worker in multiprocessing.active_children():
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    for job in left:
        with _pool(1) as pool:
            try:
                yield pool.submit(_run_in_worker, job).result()
            except BrokenProcessPool:
                yield Outcome(job, [], "its process was killed, perhaps for memory: run the same command again to go on")


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_quiet)


def _quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


_opened: dict = {}


def _run_in_worker(job: Job) -> Outcome:
    return run_job(job, opened=_opened)


def plan(settings: list[Setting], analysis: Analysis | None = None) -> list[dict[str, Any]]:
    """What a run would train: for every job the trainings stored and missing, their steps, MACs and seconds."""
    rows, planned, opened, pace = [], {}, {}, {}
    for job in jobs_of(settings, analysis):
        torch.set_num_threads(threads(job.setting.config))
        task, before = _open_once(job.setting, opened), set(planned)
        lab = open_lab(job, task, PlanLab, planned=planned)
        with suppress(NotPlanned):  # from there on the count is a lower bound
            if analysis:
                made(lab, analysis, densities(job.setting.config["densities"], lab.budgets))
            elif not all((planner := _Planner(job, task, lab)).known()):
                for _ in planner.run():
                    pass
        new, steps = planned.keys() - before, sum(planned[stage] for stage in planned.keys() - before)
        if task not in pace:
            pace = {task: lab.seconds_per_step()}
        rows.append({"job": str(job), "stored": len(lab.met - {training for training, _ in planned}),
                     "to_train": len(new), "steps": steps,
                     "training_macs": 3 * lab.macs(lab.ones()) * task.batch_size * steps, "seconds": steps * pace[task]})
    return rows


def command_line() -> str:
    """This process's command, for messages that say how to go on."""
    return shlex.join(["bench", *sys.argv[1:]])

