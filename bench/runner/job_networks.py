"""The loop over the networks of a job: the dense network, every ticket and every control, in order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench import registry
from bench.config import densities
from bench.errors import BenchError, Diverged, Held
from bench.lab.lab import Lab
from bench.runner.jobs import Job, identity_fields, label, own_options, tickets
from bench.storage.records import Identity, Record, identity_id, read_record, record_path
from bench.task import Task
from pruning import CONTROLS, Densities, NotApplicable, Ticket
from pruning.metadata import ControlInfo, MethodInfo, info_of
from pruning.patterns import check_densities
from pruning.ticket import SearchCost

DENSE = {"name": "dense"}
Made = TypeVar("Made")
"""The result for each network: a record, or None for a loop that only plans."""


class JobNetworks(Generic[Made]):
    """Goes through every network of a job. A subclass says what happens to each."""

    def __init__(self, job: Job, task: Task, lab: Lab):
        self.job, self.task, self.lab = job, task, lab
        self.config = job.setting.config
        self.runs = Path(self.config["runs"])
        self.held: set[str] = set()
        """The stages that other processes were training when they were needed: what rests on them was left for later."""
        self.columns: list[Densities] = []
        if self.config["method"]["name"] != DENSE["name"]:
            self.columns += densities(self.config["densities"], lab.budgets)
            if self.config.get("pattern"):
                for column in self.columns:
                    check_densities(column, lab.maskables)

    def on_network(self, identity: Identity, ticket: Ticket, ledger: SearchCost) -> Made:
        """Handle the network of a ticket. ``ledger`` is open and starts from the ticket's search."""
        raise NotImplementedError

    def on_failure(self, identity: Identity, error: Exception) -> Made:
        """Handle a network that diverged or to which the method does not apply."""
        raise NotImplementedError

    def run(self) -> Iterator[Made]:
        """Go through every training of the job, in order."""
        dense = self.identity({}, None, DENSE)
        whole = Ticket({}, self.lab.ones(), self.lab.start("init"), search=SearchCost())
        yield from self.attempt(dense, partial(self.on_ticket, dense, whole))
        if not self.columns or identity_id(dense) == self.job.only:
            return
        left = list(self.columns)
        try:
            for ticket in tickets(self.lab, self.config["method"], self.columns):
                if dict(ticket.densities) not in left:
                    raise BenchError(
                        f"method {self.config['method']['name']} gave a ticket of {ticket.densities}, not asked "
                        f"for or given before; one for each of {self.columns} is due"
                    )
                left.remove(dict(ticket.densities))
                charged = replace(ticket, search=ticket.search or self.lab.spent())
                asked = [self.identity(ticket.densities, control) for control in (None, *self.config["controls"])]
                for identity in asked:
                    yield from self.attempt(identity, partial(self.on_ticket, identity, charged))
                if self.job.only in [identity_id(identity) for identity in asked]:
                    return
            if left:
                raise BenchError(f"method {self.config['method']['name']} gave no ticket for {left}")
        except (Diverged, NotApplicable) as error:
            for column in left:
                for control in (None, *self.config["controls"]):
                    missed = self.identity(column, control)
                    yield from self.attempt(missed, partial(self.on_failure, missed, error))
        except Held as held:  # the method itself cannot go on
            self.held.add(held.key)

    def attempt(self, identity: Identity, make: Callable[[], Made]) -> Iterator[Made]:
        """Make one network's part, unless the job does not ask for it or another process trains what it rests on."""
        if self.wanted(identity):
            try:
                made = make()
            except Held as held:
                self.held.add(held.key)
            else:
                yield made

    def wanted(self, identity: Identity) -> bool:
        """Return whether the job needs this record."""
        return self.job.only in (None, identity_id(identity))

    def known(self) -> list[Record | None]:
        """Return the records of an earlier run, with None where one is still missing."""
        tickets = [self.identity(c, control) for c in self.columns for control in (None, *self.config["controls"])]
        return [self.read(identity) for identity in (self.identity({}, None, DENSE), *tickets) if self.wanted(identity)]

    def read(self, identity: Identity) -> Record | None:
        """Return the record of an earlier run, if there is one."""
        path = record_path(self.runs, identity, label_of(identity))
        return read_record(path) if path.exists() else None

    def on_ticket(self, identity: Identity, ticket: Ticket) -> Made:
        """Handle the network of a ticket, or of what the identity's control makes of the ticket."""
        if identity.control is not None:
            function = CONTROLS[identity.control]
            try:
                with self.lab.search(ticket.search) as search:
                    ticket = replace(function(ticket, self.lab), trained=None, untrained=None)
            except NotApplicable as error:
                return self.on_failure(identity, error)
            searched = info_of(function, ControlInfo).searched
            ticket = replace(ticket, search=search if searched else SearchCost())
        with self.lab.search(ticket.search) as ledger:
            return self.on_network(identity, ticket, ledger)

    def identity(self, asked: Densities, control: str | None, method: Mapping[str, Any] | None = None) -> Identity:
        method = self.config["method"] if method is None else method
        function, chosen = registry.method(method["name"]), own_options(method)
        before = self.columns[: self.columns.index(asked)] if registry.sequential(function, chosen) else []
        recorded = info_of(function, MethodInfo).recorded(chosen)
        if self.config.get("pattern") and method is not DENSE:
            recorded = {**recorded, "pattern": self.config["pattern"]}
        return Identity(
            **identity_fields(self.job, self.task),
            method=method["name"],
            method_config=recorded,
            densities=dict(asked),
            rounds=[dict(column) for column in before],
            control=control,
        )


def label_of(identity: Identity) -> str:
    """Return the label of an identity's record."""
    return label({"name": identity.method, **identity.method_config})
