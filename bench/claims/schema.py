"""Claims as data: what a file ``leaderboards/claims/<paper>.yaml`` may hold. docs/claims.md explains it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from bench import config
from bench.claims.predicates import PREDICATES
from bench.errors import UsageError, unknown
from bench.leaderboard import format
from bench.leaderboard.boards import as_column
from bench.leaderboard.cells import Column
from bench.leaderboard.statistics import MIN_SEEDS
from bench.storage.records import Record, Strict
from pruning import CONTROLS

DENSE = "dense"
"""A name every claim may compare with: the dense network of the same seed, as the records of the other side have it."""
METRIC, UNTRAINED = "metric", "untrained"
QUANTITIES: dict[str, Callable[[Record], float | None]] = {
    METRIC: lambda r: r.result.test[r.result.metric],
    UNTRAINED: lambda r: r.result.untrained_test and r.result.untrained_test[r.result.metric],
    "training": lambda r: r.cost.search_dense_trainings + r.cost.train_dense_trainings,
    "training_at_sparse_rate": lambda r: r.cost.search_at_sparse_rate + r.cost.train_at_sparse_rate,
    "search_steps": lambda r: r.cost.search_steps,
    "seconds": lambda r: r.cost.search_seconds + r.cost.train_seconds,
    "inference": lambda r: r.cost.inference_macs / r.cost.inference_macs_dense,
    "speedup": lambda r: r.cost.measured_speedup,
    "training_speedup": lambda r: r.cost.measured_training_speedup,
}
"""untrained: the metric of a ticket before its weights were trained, where it was found by learning which of them to keep;
training: search and training, in trainings of the dense network, and if masked entries cost nothing; seconds: of both, as
measured; inference: share of the multiply-adds of dense; speedup: measured, over dense, of inference and of a training step."""


# Entries


class Selection(Strict):
    """Records by how they were made (a method, the options that differ from the task's own, a control), and what of them is
    compared."""

    method: str
    options: dict[str, Any] = Field({}, description="method.KEY=VALUE")
    control: str | None = None
    value: str = METRIC

    @field_validator("value")
    @classmethod
    def known_value(cls, name: str) -> str:
        """Refuses what no record holds."""
        if name not in QUANTITIES:
            raise ValueError(str(unknown("value of a record", name, QUANTITIES)))  # it may be a reading of that name instead
        return name

    @field_validator("control")
    @classmethod
    def known_control(cls, name: str | None) -> str | None:
        """Refuses a control there is not."""
        if name not in (None, *CONTROLS):
            raise unknown("control", name, CONTROLS)
        return name


class Reading(Strict):
    """A number that an analysis measured: one column of one row."""

    analysis: str
    options: dict[str, Any] = Field({}, description="analysis.KEY=VALUE")
    row: dict[str, Any] = Field(description="key of the analysis -> value, all keys")
    value: str = Field(description="the column")


class Number(Strict):
    """A number that a claim itself names."""

    number: float


Side = Selection | Reading | Number


class Place(Strict):
    """Where a claim can be judged: a setting as the command line says it, and the densities that are compared."""

    task: str = Field(description="as in `bench run`")
    data: str
    model: str | None = Field(None, description="None: the protocol's own")
    protocol: str
    overrides: list[str] = Field([], description="the rest of the command line: train.lr=0.04, densities.weights=null")
    densities: list[float] | dict[str, list[float]] = Field([], description="that are compared: of the budget weights, or of "
                                                                            "each budget; none where readings are")
    needs: dict[str, Side] = Field({}, description="what has to be selected otherwise here")

    @property
    def columns(self) -> list[Column]:
        """The densities compared, highest first."""
        asked = self.densities if isinstance(self.densities, dict) else {"weights": self.densities}
        return [as_column(densities) for densities in config.densities(asked, list(asked))]

    @property
    def words(self) -> list[str]:
        """Its part of a command."""
        model = [] if self.model is None else [f"model={self.model}"]
        return ["bench", "run", self.task, f"data={self.data}", *model, f"protocol={self.protocol}", *self.overrides]

    def setting(self, method: str | None = None) -> config.Setting:
        """The configuration its commands run ``method``, or an analysis, in."""
        return _composed(self.task, (*self.words[3:], *([f"method={method}"] if method else [])))


class Claim(Strict):
    """One statement that records can support or contradict."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    source: str = Field(description="section, table or figure of the paper")
    statement: str
    needs: dict[str, Side]
    expect: str = Field(description="a predicate")
    of: tuple[str, str] = Field(description="the two sides: names in `needs`, or dense")
    margin: float = Field(0.0, ge=0, description="the predicate's tolerance, in the metric's unit (points)")
    over: str = Field("all", pattern="^(all|any)$", description="whether it must hold at all densities or at any")
    min_seeds: int = Field(MIN_SEEDS, ge=MIN_SEEDS)
    places: list[Place] = Field(min_length=1)

    @model_validator(mode="after")
    def check(self) -> Claim:
        """Names are known, and the predicate gets what it can use."""
        if self.expect not in PREDICATES:
            raise unknown("predicate", self.expect, PREDICATES)
        for name in self.of:
            if name not in (DENSE, *self.needs):
                raise unknown("selection", name, (DENSE, *self.needs))
        if DENSE in self.needs or self.of[0] == self.of[1]:
            raise ValueError("`of` must name two sides, and `needs` must not redefine dense")
        if unused := {name for needs in (self.needs, *(p.needs for p in self.places)) for name in needs} - set(self.of):
            raise ValueError(f"selection {min(unused)} is not compared: `of` does not name it")
        if self.expect == "matches" and self.margin:
            raise ValueError("matches takes no margin")
        for place in self.places:
            sides = list({**self.needs, **place.needs}.values())
            kinds = {type(side) for side in sides}
            if Reading in kinds and (Selection in kinds or DENSE in self.of or place.densities):
                raise ValueError("a reading is compared with another or with a number, at no densities")
            values = {side.value for side in sides if isinstance(side, Selection)}
            if len(values) > 1 or (DENSE in self.of and values != {METRIC}):
                raise ValueError("a cost is compared with the same cost of other records, or with a number")
            if kinds == {Number}:
                raise ValueError("one number with another says nothing")
            if Reading not in kinds and not place.densities:
                raise ValueError("a place names the densities that are compared")
        if self.expect == "gap_grows" and any(len(place.columns) < 2 for place in self.places):
            raise ValueError("gap_grows needs two densities")
        return self

    @property
    def test(self) -> str:
        """The predicate in short."""
        margin = f", {self.margin:g}" if self.margin else ""
        return f"{self.expect}({', '.join(self.of)}{margin})" + (" at any density" if self.over == "any" else "")


class Paper(Strict):
    """A file of claims."""

    paper: str
    claims: list[Claim] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Paper:
        """Any flaw is one line that names the file."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            raise UsageError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "claims"
            raise UsageError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}; docs/claims.md says what a "
                             "claim may hold") from None


def read(cls, path: Path) -> Paper:
        """Any flaw is one line that names the file."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            raise UsageError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "claims"
            raise UsageError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}; docs/claims.md says what a "
                             "claim may hold") from None


# Judging


@dataclass(frozen=True)
class Command:
    """What would make the records of one method at one place."""

    words: tuple[str, ...]
    controls: frozenset[str]
    seeds: int

    def __str__(self) -> str:
        seeds, controls = ",".join(map(str, range(self.seeds))), ",".join(c for c in CONTROLS if c in self.controls)
        asked = [f"controls=[{controls}]"] if self.words[1] == "run" else []
        return shlex.join([*self.words, *asked, f"seeds=[{seeds}]"])


@dataclass(frozen=True)
class Verdict:
    """A claim at a place.

    where    the setting, as the command line names it
    note     what the records say of their data
    seeds    that every compared number has
    numbers  one line for every density; empty if nothing was run
    run      commands that make all that is compared
    """

    paper: str
    claim: Claim = field(repr=False)
    where: str
    verdict: str
    note: str
    seeds: int
    numbers: list[str]
    run: list[Command]

    @property
    def begun(self) -> bool:
        """Whether there is something to show."""
        return self.verdict != NOT_RUN or bool(self.numbers)

    def row(self) -> dict[str, Any]:
        """For JSON."""
        shown = self.claim.model_dump(include={"id", "source", "statement", "margin", "min_seeds"})
        return {"paper": self.paper, **shown, "test": self.claim.test, "where": self.where, "note": self.note,
                "verdict": self.verdict, "seeds": self.seeds, "numbers": self.numbers, "run": [str(c) for c in self.run]}


def read(folder: Path) -> list[Paper]:
    """All claims below ``folder``, by file name."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise UsageError(f"no claims: {folder} holds no *.yaml; docs/claims.md says how to write one")
    papers = [Paper.read(path) for path in paths]
    counted = Counter(claim.id for paper in papers for claim in paper.claims)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise UsageError(f"two claims below {folder} have id {twice[0]}")
    return papers


