"""Claims as data: what a file ``leaderboards/claims/<paper>.yaml`` may hold. docs/claims.md explains it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from bench import config, registry
from bench.claims.predicates import PREDICATES
from bench.errors import UsageError, unknown
from bench.leaderboard import format
from bench.leaderboard.sections import as_column
from bench.leaderboard.statistics import MIN_SEEDS
from bench.leaderboard.table_types import Column
from bench.storage.cost import Cost
from bench.storage.records import Result
from bench.storage.strict_model import Strict
from bench.storage.yaml_files import read_yaml

DENSE = "dense"
"""A name every claim may compare with: the dense network of the same seed, as the records of the other side have it."""
METRIC, UNTRAINED = "metric", "untrained"
QUANTITIES: dict[str, Callable[[Result, Cost], float | None]] = {
    METRIC: lambda result, cost: result.test[result.metric],
    UNTRAINED: lambda result, cost: result.untrained_test[result.metric] if result.untrained_test else None,
    "training": lambda result, cost: cost.search_dense_trainings + cost.train_dense_trainings,
    "training_at_sparse_rate": lambda result, cost: _sum(cost.search_at_sparse_rate, cost.train_at_sparse_rate),
    "search_steps": lambda result, cost: cost.search_steps,
    "seconds": lambda result, cost: cost.search_seconds + cost.train_seconds,
    "inference": lambda result, cost: cost.inference_macs / cost.inference_macs_dense,
    "speedup": lambda result, cost: cost.measured_speedup,
    "training_speedup": lambda result, cost: cost.measured_training_speedup,
}
"""Numbers of records that can be compared, and None where a record lacks one.

untrained: the metric of a ticket before its weights were trained, if it was found by learning which of them to keep;
training: search and training in trainings of the dense network, or the same if masked entries cost nothing; seconds: measured,
of both; inference: multiply-adds divided by those of dense; speedup: measured over dense, of inference and of a training step.
Costs are compared by plain size: `better` is larger."""


class Selection(Strict):
    """Records that are compared, by method, options that differ from the task's own, and control. ``value``: the number of them
    that is compared."""

    method: str
    options: dict[str, Any] = Field({}, description="method.KEY=VALUE")
    control: str | None = None
    value: str = METRIC

    @field_validator("value")
    @classmethod
    def known_value(cls, name: str) -> str:
        """Refuse a number that no record has."""
        if name not in QUANTITIES:
            # A ValueError, not the UsageError itself: pydantic then tries whether the side is a value of an analysis.
            raise ValueError(str(unknown("value of a record", name, QUANTITIES)))
        return name

    @field_validator("control")
    @classmethod
    def known_control(cls, name: str | None) -> str | None:
        """Refuse an unknown control."""
        if name is not None and name not in (known := registry.controls()):
            raise unknown("control", name, known)
        return name


class AnalysisValue(Strict):
    """A number that an analysis measured: one column of one row."""

    analysis: str
    options: dict[str, Any] = Field({}, description="analysis.KEY=VALUE")
    row: dict[str, Any] = Field(description="key of the analysis -> value, all keys")
    value: str = Field(description="the column")


class Constant(Strict):
    """A number that the claim itself states."""

    number: float


Side = Selection | AnalysisValue | Constant


class Place(Strict):
    """A setting in which a claim can be judged, as words of a command line, and the densities that are compared."""

    task: str = Field(description="as in `bench run`")
    data: str
    model: str | None = Field(None, description="None: the protocol's own")
    protocol: str
    overrides: list[str] = Field([], description="the rest of the command line: train.lr=0.04, densities.weights=null")
    densities: list[float] | dict[str, list[float]] = Field(
        [], description="compared densities, of the budget weights or of each budget; none for values of analyses"
    )
    needs: dict[str, Side] = Field({}, description="sides that are selected in another way here")

    @cached_property
    def columns(self) -> list[Column]:
        """The densities compared, highest first."""
        requested = self.densities if isinstance(self.densities, dict) else {"weights": self.densities}
        return [as_column(densities) for densities in config.densities(requested, list(requested))]

    @cached_property
    def words(self) -> list[str]:
        """The words of `bench run` in this setting."""
        model = [] if self.model is None else [f"model={self.model}"]
        return ["bench", "run", self.task, f"data={self.data}", *model, f"protocol={self.protocol}", *self.overrides]


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
        """Refuse unknown names, and sides that the predicate cannot compare."""
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
            if AnalysisValue in kinds and (Selection in kinds or DENSE in self.of or place.densities):
                raise ValueError("a value of an analysis is compared with another or with a number, at no densities")
            values = {side.value for side in sides if isinstance(side, Selection)}
            if len(values) > 1 or (DENSE in self.of and values != {METRIC}):
                raise ValueError("a cost is compared with the same cost of other records, or with a number")
            if kinds == {Constant}:
                raise ValueError("one number with another says nothing")
            if AnalysisValue not in kinds and not place.densities:
                raise ValueError("a place names the densities that are compared")
        if self.expect == "gap_grows" and any(len(place.columns) < 2 for place in self.places):
            raise ValueError("gap_grows needs two densities")
        return self

    @property
    def test(self) -> str:
        """The predicate with its sides and margin."""
        margin = f", {format.number(self.margin)}" if self.margin else ""
        return f"{self.expect}({', '.join(self.of)}{margin})" + (" at any density" if self.over == "any" else "")


class Paper(Strict):
    """A file of claims: those of one paper."""

    paper: str
    claims: list[Claim] = Field(min_length=1)


def read(folder: Path) -> list[Paper]:
    """Read all claims in ``folder``, by file name. UsageError if there are none or if two have one id."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise UsageError(f"no claims: {folder} holds no *.yaml; docs/claims.md says how to write one")
    papers = [read_yaml(Paper, path, "docs/claims.md says what a claim may hold") for path in paths]
    counted = Counter(claim.id for paper in papers for claim in paper.claims)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise UsageError(f"two claims below {folder} have id {twice[0]}")
    return papers


def _sum(*values: float | None) -> float | None:
    """The sum; None if a value is."""
    return None if None in values else sum(value for value in values if value is not None)
