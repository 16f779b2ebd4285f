"""The recorder turns every network of a job into a record."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from bench.errors import OF_DENSE, BenchError, Diverged, first_problem
from bench.lab.lab import Lab
from bench.runner.job_networks import DENSE, JobNetworks, label_of
from bench.runner.jobs import Job, common_fields
from bench.runner.plan import validate_method
from bench.runner.status import WorkerStatus
from bench.runner.trackers import tracker
from bench.storage.cost import Cost
from bench.storage.records import BudgetUse, Identity, Record, Result, TensorUse, TicketOrigin, write_record
from bench.task import Task
from bench.training import distributed
from pruning import Densities, Masks, NotApplicable, Ticket, patterns
from pruning.ticket import SearchCost, State


class Recorder(JobNetworks[Record]):
    """Trains what is not stored, measures it and writes records."""

    def __init__(self, job: Job, task: Task, lab: Lab, report: WorkerStatus | None = None):
        super().__init__(job, task, lab)
        self._report = report
        self._track: Callable[[Record], None] = lambda record: None

    def records(self) -> list[Record]:
        """Return the records of the dense baseline, every ticket and its controls; only some of them while other processes train
        the rest, see ``held``."""
        known = distributed.broadcast(self.known())
        if not all(known):
            if not self.read(self.identity({}, None, DENSE)):
                validate_method(self.job, self.task)
            with tracker(self.config, str(self.job)) as self._track:
                made = list(self.run())
            if not self.held:
                return made
            known = self.known()
        if all(known):  # from an earlier run, or the others made the rest meanwhile
            self.held.clear()
        return [record for record in known if record]

    def attempt(self, identity: Identity, make: Callable[[], Record]) -> Iterator[Record]:
        """Read one record, or make and write it where there is none yet."""
        if found := distributed.broadcast(self.read(identity)) if self.wanted(identity) else None:
            self._tell(new=False)
            yield found
            return
        for record in super().attempt(identity, make):
            if distributed.first():
                write_record(record, self.runs)
                self._track(record)
            self._tell(new=True)
            yield record

    def _tell(self, new: bool) -> None:
        if self._report:
            self._report.record(new)

    def on_network(self, identity: Identity, ticket: Ticket, ledger: SearchCost) -> Record:
        lab = self.lab
        search = ticket.search or SearchCost()
        search = search.without(ticket.trained) if ticket.trained else search
        try:
            pruned = [m for m in lab.maskables if m.budget in ticket.densities]
            if name := patterns.broken(ticket.masks, pruned):
                raise NotApplicable(f"the mask of {name} is not of pattern {lab.pattern}, which this method does not keep")
            until = None
            if not ticket.trained and lab.is_disconnected(ticket.start, ticket.masks):
                until = ticket.start.step if ticket.schedule == "replay" else 0
                ticket = replace(ticket, notes={**ticket.notes, "collapsed": "no path from input to output: not trained"})
            end = ticket.trained or lab.train(ticket.start, ticket.masks, ticket.schedule, until, slim=ticket.slim)
            training = ledger.trainings[end.training]
            states = {"": end, "dense_": self.dense(), "untrained_": ticket.untrained}
            numbers = {
                f"{of}{split}": lab.evaluate(state, split) for of, state in states.items() if state for split in ("val", "test")
            }
        except (Diverged, NotApplicable) as error:
            return self.on_failure(identity, error)
        masks, metric = ticket.masks, self.task.metric
        sparse = training.sparse_steps / lab.steps
        faster = lab.speedups(ticket.start, masks) if ticket.slim else (None, None)
        return self.record(
            identity,
            status="ok",
            result=Result(metric=metric.name, higher_is_better=metric.higher_is_better, step=end.step, **numbers),
            budgets=_kept(masks, ticket.densities),
            tensors={n: TensorUse(kept=int(m.sum()), total=m.numel()) for n, m in masks.items()},
            collapsed=masks.collapsed(),
            ticket=TicketOrigin(
                masks=masks.digest(),
                start=ticket.start.key,
                schedule=ticket.schedule,
                stages=[state.key for state in (*search.states(), end)],
                notes=ticket.notes,
            ),
            cost=Cost(
                search_steps=search.steps,
                train_steps=training.steps,
                search_dense_trainings=search.dense_steps / lab.steps,
                train_dense_trainings=sparse if ticket.slim else training.steps / lab.steps,
                search_at_sparse_rate=search.sparse_steps / lab.steps,
                train_at_sparse_rate=sparse,
                search_seconds=sum(lab.stage(state).info["progress"]["seconds"] for state in search.states())
                + search.scoring_seconds,
                train_seconds=lab.stage(end).info["progress"]["seconds"],
                inference_macs=lab.macs(masks),
                inference_macs_dense=lab.macs(lab.ones()),
                measured_speedup=faster[0],
                measured_training_speedup=faster[1],
            ),
            masks=masks,
        )

    def dense(self) -> State:
        """Return the trained dense network, with which every ticket is compared."""
        try:
            return self.lab.train(self.lab.start("init"), self.lab.ones())
        except Diverged as error:
            raise Diverged(f"{OF_DENSE}{error}") from None

    def on_failure(self, identity: Identity, error: Exception) -> Record:
        status = "not_applicable" if isinstance(error, NotApplicable) else "diverged"
        return self.record(identity, status=status, reason=str(error))

    def record(self, identity: Identity, masks: Masks | None = None, **fields: Any) -> Record:
        try:
            record = Record.make(identity, label=label_of(identity), **common_fields(self.job, self.task), **fields)
        except ValidationError as error:
            raise BenchError(f"method {identity.method}: {first_problem(error)}") from None
        if masks is not None and distributed.first():
            path = record.path(self.runs).with_suffix(".masks.safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            masks.save(path)
        return record


def _kept(masks: Masks, asked: Densities) -> dict[str, BudgetUse]:
    return {
        b: BudgetUse(asked=asked.get(b), kept=masks.kept(b), total=masks.total(b)) for b in dict.fromkeys(masks.budgets.values())
    }
