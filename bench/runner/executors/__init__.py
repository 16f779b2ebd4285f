"""Executors: how the jobs of a grid are spread. One file for each, over one protocol.

An executor's module has a dataclass ``Options``, whose fields are the keys ``executor.*`` of the command line, and a function
``run``. Nothing heavy is imported before ``run`` needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from bench.runner.executors import processes, serial, slurm

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.watch import Watch


class Executor(Protocol):
    """Runs jobs and yields their outcomes in order of completion."""

    def __call__(self, jobs: list[Job], watch: Watch) -> Iterator[Outcome]:
        """Run all jobs; a failure costs its own job only. ``watch`` is told how far they are."""


EXECUTORS: dict[str, Any] = {"serial": serial, "processes": processes, "slurm": slurm}
"""Name on the command line -> module."""


def defaults(name: str) -> dict[str, Any]:
    """The config node of an executor: its name and its options."""
    return {"name": name, **asdict(EXECUTORS[name].Options())}


def hints(name: str) -> dict[str, Any]:
    """The types of an executor's options."""
    return get_type_hints(EXECUTORS[name].Options)


def choose(options: dict[str, Any], workers: int) -> Executor:
    """Return the executor that a configuration names. For a single worker on this machine that is this process."""
    module = EXECUTORS["serial" if options["name"] == "processes" and workers <= 1 else options["name"]]
    said = {key: value for key, value in options.items() if key != "name"} if module.__name__.endswith(options["name"]) else {}
    return partial(module.run, workers=workers, options=module.Options(**said))
