"""Suites as data: a YAML file for each, in ``leaderboards/suites/``."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

from pydantic import Field, model_validator

from bench import registry
from bench.errors import BenchError, UsageError, one_of, unknown
from bench.leaderboard.sections import as_column
from bench.leaderboard.statistics import MIN_SEEDS
from bench.leaderboard.table_types import Column
from bench.storage.strict_model import Strict
from bench.storage.yaml_files import read_yaml

STEPS = 10
"""Densities of the common grid in a decade: 10 ** (-k / STEPS) for whole k, rounded to at most ``DIGITS`` significant digits."""
DIGITS = 3


class Event(Strict):
    """One setting in which every method of a suite is run at the same densities."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    domain: str = Field(description="events of one domain are averaged first, so that every domain counts the same")
    task: str = Field(description="as in `bench run`: tasks/NAME, or a folder of that name")
    data: str
    model: str = Field(description="as records name it")
    protocol: str
    overrides: list[str] = Field([], description="further words of the command, such as model.scope=units")
    config: str = Field(
        pattern=r"^[0-9a-f]{8}$",
        description="the configuration and data that records must have been made with, as boards name it",
    )
    budgets: list[str] = Field(["weights"], min_length=1, description="each is pruned to the densities; all others stay whole")
    densities: list[float] = Field(min_length=1, description="falling, of the common grid")
    seeds: int = Field(ge=MIN_SEEDS, description="seeds 0, 1, ... that count")
    chance: float = Field(description="the test metric of the best constant answer")

    @model_validator(mode="after")
    def check(self) -> Event:
        """Refuse densities that are not on the grid or not falling."""
        for density in self.densities:
            if not on_grid(density):
                raise ValueError(
                    f"density {density:g} is not on the grid 10 ** (-k / {STEPS}); the nearest that is: {nearest(density):g}"
                )
        if any(one <= other for one, other in pairwise(self.densities)):
            raise ValueError(f"densities {self.densities} must fall")
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError("a budget stands twice")
        return self

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Task, data, model and protocol as in records."""
        return Path(self.task).name, self.data, self.model, self.protocol

    @property
    def columns(self) -> list[Column]:
        """The densities as columns of a board."""
        return [as_column(dict.fromkeys(self.budgets, density)) for density in self.densities]

    @property
    def words(self) -> list[str]:
        """The words of `bench run` in this setting, without a method and seeds."""
        from bench.values import text  # loads Hydra, which pages do not need

        densities = f"densities={text({budget: self.densities for budget in self.budgets})}"
        return [self.task, f"data={self.data}", f"protocol={self.protocol}", *self.overrides, densities]


class Suite(Strict):
    """A list of events. Its version rises whenever a score could change without a new record."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    version: int = Field(ge=1)
    about: str
    controls: list[str] = Field(["random"], description="trained with every ticket; a row is whole with them alone")
    events: list[Event] = Field(min_length=1)

    @model_validator(mode="after")
    def check(self) -> Suite:
        """Refuse names that stand twice, and a suite without the control that every score is compared with."""
        counted = Counter(event.name for event in self.events)
        if twice := [name for name, count in counted.items() if count > 1]:
            raise ValueError(f"two events have the name {twice[0]}")
        if "random" not in self.controls:
            raise ValueError("controls must hold random: every row is compared with it")
        return self

    @property
    def domains(self) -> dict[str, list[Event]]:
        """The events of every domain, in the order of the file."""
        found: dict[str, list[Event]] = {}
        for event in self.events:
            found.setdefault(event.domain, []).append(event)
        return found

    def event(self, name: str) -> Event:
        """The event of a name; UsageError if there is none."""
        named = {event.name: event for event in self.events}
        return named[one_of(f"event of suite {self.name}", name, named)]


def nearest(density: float) -> float:
    """The density of the grid that is nearest on the logarithmic axis, to ``DIGITS`` significant digits."""
    step = max(0, round(-STEPS * math.log10(density))) if density > 0 else 0
    return float(f"{10 ** (-step / STEPS):.{DIGITS}g}")


def on_grid(density: float) -> bool:
    """Whether a density is 10 ** (-k / STEPS), rounded to one, two or three significant digits."""
    if not 0 < density <= 1:
        return False
    exact = 10 ** (-round(-STEPS * math.log10(density)) / STEPS)
    return any(density == float(f"{exact:.{digits}g}") for digits in range(1, DIGITS + 1))


def read(path: Path) -> Suite:
    """Read a suite; UsageError of one line that names the file for any flaw."""
    suite = read_yaml(Suite, path, "docs/suites.md says what a suite may hold")
    try:
        if suite.name != path.stem:
            raise UsageError(f"its name is {suite.name!r}: name the file {suite.name}.yaml")
        for control in suite.controls:
            one_of("control", control, registry.controls())
        for event in suite.events:
            _check_names(event)
    except BenchError as error:
        raise UsageError(f"{path}: {error}") from None
    return suite


def read_all(root: Path) -> list[Suite]:
    """All suites of a leaderboards folder: those of many domains first, then by name."""
    suites = [read(path) for path in (root / "suites").glob("*.yaml")]
    return sorted(suites, key=lambda suite: (-len({event.domain for event in suite.events}), suite.name))


def named(root: Path, name: str) -> Suite:
    """The suite of a name; UsageError if there is none."""
    path = root / "suites" / f"{name}.yaml"
    if not path.is_file():
        raise unknown("suite", name, (p.stem for p in (root / "suites").glob("*.yaml")))
    return read(path)


def _check_names(event: Event) -> None:
    """Refuse a task, data set or protocol that does not exist; no data set is opened."""
    try:
        folder = registry.task_folder(event.task)
        for group, name in (("data", event.data), ("protocol", event.protocol)):
            one_of(group, name, [path.stem for path in (folder / group).glob("*.yaml")])
    except UsageError as error:
        raise UsageError(f"event {event.name}: {error}") from None
