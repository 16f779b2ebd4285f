"""Executors: how the jobs of a grid are spread. One file for each, over one protocol.

An executor's module has a dataclass ``Options``, whose fields are the keys ``executor.*`` of the command line, and a function
``run``. Where there are options ``cpus``, its workers are elsewhere: they take so many threads, and ``jobs=auto`` is for ``run``
to decide. Nothing heavy is imported before ``run`` needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_type_hints

from bench.runner.executors import processes, ray, serial, slurm

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.status import GridStatus


class Executor(Protocol):
    """Runs jobs and yields their outcomes in order of completion."""

    def __call__(self, jobs: list[Job], status: GridStatus) -> Iterator[Outcome]:
        """Run all jobs; a failure costs its own job only. ``status`` is told how far they are."""


EXECUTORS: dict[str, Any] = {"serial": serial, "processes": processes, "ray": ray, "slurm": slurm}
"""Name on the command line -> module."""


def defaults(name: str) -> dict[str, Any]:
    """The config node of an executor: its name and its options."""
    return {"name": name, **asdict(EXECUTORS[name].Options())}


def hints(name: str) -> dict[str, Any]:
    """The types of an executor's options."""
    return get_type_hints(EXECUTORS[name].Options)


def choose(options: dict[str, Any], workers: int | Literal["auto"]) -> Executor:
    """Return the executor that a configuration names. Of processes a single one is this one."""
    if options["name"] == "processes" and workers == 1:
        options = defaults("serial")
    module = EXECUTORS[options["name"]]
    return partial(module.run, workers=workers, options=module.Options(**{k: v for k, v in options.items() if k != "name"}))
