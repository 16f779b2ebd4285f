"""Plans: what a run would train, and whether a method can start at all, without a training."""

from contextlib import suppress
from itertools import islice

from bench.lab.dry_run import NotPlanned, PlanLab
from bench.runner.jobs import Job, open_lab
from bench.runner.network_loop import NetworkLoop
from bench.storage.records import Identity
from bench.task import Task
from pruning import Ticket
from pruning.ticket import SearchCost


class Planner(NetworkLoop[None]):
    """Goes through the trainings of a job without running one."""

    def of_network(self, identity: Identity, ticket: Ticket, ledger: SearchCost) -> None:
        """Count the training of a ticket."""
        if not ticket.trained:
            self.lab.train(ticket.start, ticket.masks, ticket.schedule, slim=ticket.slim)

    def without_numbers(self, identity: Identity, error: Exception) -> None:
        """Count nothing."""


def validate_method(job: Job, task: Task) -> None:
    """Dry-run a method up to its first ticket, so that wrong options fail before the dense network is trained."""
    lab = open_lab(job, task, PlanLab, planned={})
    with suppress(NotPlanned):
        for _ in islice(Planner(job, task, lab).run(), 2):  # the dense network is the first
            pass
