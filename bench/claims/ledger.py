"""The ledger: what papers claim, judged by our records. A claim is data (``leaderboards/claims/*.yaml``), never code."""

from __future__ import annotations

import difflib
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from bench import config, registry
from bench.errors import UsageError, unknown
from bench.leaderboard import statistics
from bench.leaderboard.pages import difference, escape, interval, markdown
from bench.leaderboard.statistics import MIN_SEEDS, Estimate, estimate, paired
from bench.leaderboard.tables import Board, Cell, Column, as_column, boards, column_text
from bench.runner.analyses import AnalysisRecord, measurement, read_analyses
from bench.runner.jobs import open_task
from bench.runner.precision import as_asked
from bench.storage.records import Record, Sealed, Strict, canonical, read_records
from pruning import CONTROLS

LEDGER = "claims.md"
DENSE = "dense"
"""A name every claim may compare with: the dense network of the same seed, as the other side's records have it."""
REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


# Predicates: (what is compared at every density, highest first; margin) -> a truth for every comparison.


@dataclass(frozen=True)
class Pair:
    """Two sides at one density, seed -> metric, over the seeds both have."""

    a: dict[int, float]
    b: dict[int, float]
    higher_is_better: bool = True

    @classmethod
    def of(cls, a: Mapping[int, float], b: Mapping[int, float], higher_is_better: bool = True) -> Pair:
        """Two sides without the seeds that only one has."""
        common = sorted(a.keys() & b.keys())
        return cls({seed: a[seed] for seed in common}, {seed: b[seed] for seed in common}, higher_is_better)

    @cached_property
    def lead(self) -> Estimate:
        """By how much a is better than b, paired by seed."""
        return estimate(self.leads.values())

    @property
    def leads(self) -> dict[int, float]:
        """The same for every seed."""
        sign = 1 if self.higher_is_better else -1
        return {seed: sign * (self.a[seed] - self.b[seed]) for seed in self.a}


def better(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean is better than b's by more than the margin, and the 95 % interval of the paired difference leaves 0 out."""
    return [pair.lead.mean > margin and pair.lead.mean > pair.lead.half for pair in pairs]


def not_worse(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean is worse than b's by at most the margin."""
    return [pair.lead.mean >= -margin for pair in pairs]


def equal_within(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean and b's differ by at most the margin."""
    return [abs(pair.lead.mean) <= margin for pair in pairs]


def matches(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's mean is worse than b's by at most the larger of their standard deviations over seeds (no margin)."""
    return [statistics.matches(pair.a, pair.b, pair.higher_is_better) for pair in pairs]


def gap_grows(pairs: Sequence[Pair], margin: float) -> list[bool]:
    """a's lead over b is larger than at the highest density: `better`, of the leads."""
    return better([Pair.of(pair.leads, pairs[0].leads) for pair in pairs[1:]], margin)


PREDICATES = {f.__name__: f for f in (better, not_worse, equal_within, matches, gap_grows)}


# What a record holds that can be compared. Costs are compared by plain size: `better` is larger.

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


def judge(papers: Iterable[Paper], records: Iterable[Record], analyses: Iterable[AnalysisRecord] = ()) -> list[Verdict]:
    """A verdict for every claim and place, in the order of the entries; several where the place's data has come in
    several copies (other fingerprints)."""
    every, measured = boards(records), list(analyses)
    return [verdict for paper in papers for claim in paper.claims for place in claim.places
            for verdict in _verdicts(paper.paper, claim, place, every, measured)]


def _verdicts(paper: str, claim: Claim, place: Place, every: list[Board], measured: list[AnalysisRecord]) -> list[Verdict]:
    """Of one claim at one place: all that could be judged, else the one that is nearest to it."""
    needs = {**claim.needs, **place.needs}
    if any(isinstance(side, Reading) for side in needs.values()):
        return [_verdict_of_readings(paper, claim, place, needs, measured)]
    try:
        asked = {name: _asked(place, side) for name, side in needs.items() if isinstance(side, Selection)}
    except UsageError as error:
        raise UsageError(f"claim {claim.id}: {error}") from None
    selections = [needs[name] for name in asked]
    setting = place.setting(selections[0].method)
    run = _commands(place, selections, claim.min_seeds)
    where = _where(place, setting)
    found = [Verdict(paper, claim, where, NOT_RUN, "", 0, [], run)]
    for board in every:
        if _fits(board.records[0], place):
            cells = {name: {column: _cell(board, wanted) for column, wanted in columns.items()}
                     for name, columns in asked.items()}
            verdict, seeds, numbers = _judged(claim, place.columns, cells, needs)
            note = " ".join(sorted({r.note for r in board.records if r.note}))
            found.append(Verdict(paper, claim, where, verdict, note, seeds, numbers, run))
    return [v for v in found if v.verdict != NOT_RUN] or [max(found, key=lambda v: v.seeds)]


def _where(place: Place, setting: config.Setting) -> str:
    named = [setting.name, setting.config["data"]["name"], setting.config["model"]["name"], setting.protocol]
    return ", ".join([" · ".join(named), *place.overrides])


def _verdict_of_readings(paper: str, claim: Claim, place: Place, needs: Mapping[str, Side],
                         measured: list[AnalysisRecord]) -> Verdict:
    """A claim about what analyses measured; a number has every seed that the reading beside it has."""
    setting, readings = place.setting(), {name: side for name, side in needs.items() if isinstance(side, Reading)}
    records = {name: [r for r in measured if _fits(r, place) and _is_of(r, side, setting)] for name, side in readings.items()}
    values = {name: {r.identity.seed: value for r in records[name] if (value := _read_off(r, side, claim)) is not None}
              for name, side in readings.items()}
    seeds = set.intersection(*map(set, values.values()))
    values |= {name: dict.fromkeys(seeds, side.number) for name, side in needs.items() if isinstance(side, Number)}
    a, b = (values[name] for name in claim.of)
    pair = Pair.of(a, b)
    numbers = [f"{measurement(estimate(pair.a.values()))} vs {measurement(estimate(pair.b.values()))}, "
               f"Δ {measurement(paired(pair.a, pair.b), '+')}"] if pair.a else []
    verdict = NOT_RUN
    if len(seeds) >= claim.min_seeds:
        (holds,) = PREDICATES[claim.expect]([pair], claim.margin)
        verdict = REPRODUCED if holds else NOT_REPRODUCED
        numbers[0] += " ✓" if holds else " ✗"
    note = " ".join(sorted({r.note for found in records.values() for r in found if r.note}))
    asked = {(side.analysis, *(f"analysis.{key}={config.text(value)}" for key, value in side.options.items()))
             for side in readings.values()}
    run = [Command(("bench", "analyse", name, *place.words[2:], *options), frozenset(), claim.min_seeds)
           for name, *options in sorted(asked)]
    return Verdict(paper, claim, _where(place, setting), verdict, note, len(seeds), numbers, run)


def _is_of(record: AnalysisRecord, side: Reading, setting: config.Setting) -> bool:
    """Whether the record is of the analysis that a reading is taken from, asked with these options."""
    who = record.identity
    defaults = registry.options(registry.analysis(side.analysis))
    for name in side.options:
        if name not in defaults:
            raise unknown(f"option of analysis {side.analysis}", name, defaults)
    asked = setting.config["densities"]
    columns = config.densities(asked, list(asked) if isinstance(asked, dict) else ["weights"])
    return (who.analysis, canonical(who.options), who.densities) == (side.analysis, canonical({**defaults, **side.options}),
                                                                     columns)


def _read_off(record: AnalysisRecord, side: Reading, claim: Claim) -> float | None:
    """The reading; None where the analysis had none."""
    if side.row.keys() != set(record.keys) or side.value not in record.rows[0]:
        raise UsageError(f"claim {claim.id}: analysis {side.analysis} has the keys {', '.join(record.keys)} and the columns "
                         f"{', '.join(record.rows[0])}")
    found = [row[side.value] for row in record.rows if all(row[key] == value for key, value in side.row.items())]
    if not found:
        raise UsageError(f"claim {claim.id}: analysis {side.analysis} has no row {canonical(side.row)}")
    return found[0]


@cache
def _composed(task: str, overrides: tuple[str, ...]) -> config.Setting:
    """Once for all claims: it takes a while."""
    return config.settings(task, overrides)[0]


def _asked(place: Place, selection: Selection) -> dict[Column, dict[str, Any]]:
    """Density compared -> what its command makes of the selection, as fields of an ``Identity``."""
    setting = place.setting(selection.method)
    options = {key: value for key, value in setting.config["method"].items() if key != "name"}
    for name in selection.options:
        if name not in options:
            raise unknown(f"option of {selection.method}", name, options)
    densities = setting.config["densities"]
    asked = densities if isinstance(densities, dict) else {"weights": densities}
    columns = config.densities(asked, list(asked))
    run = [as_column(d) for d in columns]
    for column in place.columns:
        if column not in run:
            raise UsageError(f"density {column_text(column)} is not among those that `{shlex.join(place.words)}` asks for: "
                             f"{'; '.join(map(column_text, run))}")
    sequential = registry.sequential(registry.method(selection.method), {**options, **selection.options})
    return {column: {"method": selection.method, "method_config": {**options, **selection.options}, "densities": columns[i],
                     "rounds": columns[:i] if sequential else [], "control": selection.control}
            for i, column in enumerate(run) if column in place.columns}


def _fits(record: Sealed, place: Place) -> bool:
    """Whether the record was made in this setting."""
    who, setting = record.identity, place.setting()
    return (who.task, who.task_version, who.protocol) == (setting.name, setting.config["task"]["version"], setting.protocol) \
        and _recipe(who.config) == _recipe_of(place.task, tuple(place.words[3:]))


@cache
def _recipe_of(task: str, overrides: tuple[str, ...]) -> str:
    """What records of a setting say of it; once, as every record is held against it."""
    setting = _composed(task, overrides)
    return _recipe(as_asked(open_task(setting).identity(), setting.config["train"]))


def _recipe(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """The parts of a config that can change numbers. A model may be a folder: only the last part of its name counts."""
    return canonical({section: {key: Path(str(value)).name if key == "name" else value for key, value in values.items()}
                      for section, values in sections.items()})


def _cell(board: Board, wanted: dict[str, Any]) -> Cell:
    """The records of these fields."""
    text = canonical(wanted)
    return Cell(tuple(r for r in board.records if canonical({key: getattr(r.identity, key) for key in wanted}) == text))


def _judged(claim: Claim, columns: list[Column], cells: dict[str, dict[Column, Cell]],
            needs: Mapping[str, Side]) -> tuple[str, int, list[str]]:
    """Verdict, seeds that every number has, and the numbers. A seed that diverged was run and speaks against the claim."""
    compared = [cell for by_column in cells.values() for cell in by_column.values()]
    seeds = len(set.intersection(*({r.identity.seed for r in cell.records if r.status in ("ok", "diverged")}
                                   for cell in compared)))
    diverged = {column: sum(r.status == "diverged" for by_column in cells.values() for r in by_column[column].records)
                for column in columns}
    pairs = [_pair(claim.of, {name: by_column[column] for name, by_column in cells.items()}, needs) for column in columns]
    numbers = [_numbers(column, pair, diverged[column]) for column, pair in zip(columns, pairs, strict=True)]
    if seeds < claim.min_seeds:
        return NOT_RUN, seeds, [n for n in numbers if n]
    if any(diverged.values()):
        return NOT_REPRODUCED, seeds, numbers
    if any(len(pair.a) < claim.min_seeds for pair in pairs):  # a cost that was not measured
        return NOT_RUN, min(len(pair.a) for pair in pairs), [n for n in numbers if n]
    truths = PREDICATES[claim.expect](pairs, claim.margin)
    first = len(columns) - len(truths)  # gap_grows says nothing of the highest density
    for i, truth in enumerate(truths):
        numbers[first + i] += " ✓" if truth else " ✗"
    holds = all(truths) if claim.over == "all" else any(truths)
    return REPRODUCED if holds else NOT_REPRODUCED, seeds, numbers


def _pair(of: tuple[str, str], cells: dict[str, Cell], needs: Mapping[str, Side]) -> Pair:
    """The two sides at one density. A number has every seed that the other side has."""
    value = next(needs[name].value for name in cells)
    sides = {name: {r.identity.seed: v for r in cell.done if (v := QUANTITIES[value](r)) is not None}
             for name, cell in cells.items()}
    seeds = set().union(*sides.values())
    sides |= {name: dict.fromkeys(seeds, side.number) for name, side in needs.items() if isinstance(side, Number)}
    sides[DENSE] = next(iter(cells.values())).dense
    higher = value not in (METRIC, UNTRAINED) or all(r.result.higher_is_better for cell in cells.values() for r in cell.done)
    return Pair.of(*(sides[name] for name in of), higher)


def _numbers(column: Column, pair: Pair, diverged: int) -> str:
    """``0.1: 75.80 ± 0.40 (3) vs 72.90 ± 0.50 (3), Δ +2.90 ± 0.30``; empty if there is nothing to show."""
    parts = []
    if pair.a:
        a, b = (interval(estimate(side.values())) for side in (pair.a, pair.b))
        parts.append(f"{a} vs {b}, Δ {difference(paired(pair.a, pair.b))}")
    if diverged:
        parts.append(f"{diverged} diverged")
    return f"{column_text(column)}: {', '.join(parts)}" if parts else ""


def _commands(place: Place, selections: Iterable[Selection], seeds: int) -> list[Command]:
    """One command for every method and its options; their controls together."""
    controls: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for selection in selections:
        options = [f"method.{key}={config.text(value)}" for key, value in selection.options.items()]
        controls[(*place.words, f"method={selection.method}", *options)] |= {selection.control} - {None}
    return [Command(words, frozenset(names), seeds) for words, names in controls.items()]


# The page


def render(verdicts: Sequence[Verdict]) -> str:
    """The ledger as Markdown: counts, a table for every paper, and what to run."""
    count = Counter(v.verdict for v in verdicts)
    counts = ", ".join(f"**{count[verdict]} {verdict}**" for verdict in (REPRODUCED, NOT_REPRODUCED, NOT_RUN))
    papers = [(paper, list(mine)) for paper, mine in groupby(verdicts, lambda v: v.paper)]
    parts = ["<!-- generated by `bench claims`, do not edit -->", "# Claims", _intro(),
             f"{len({v.claim.id for v in verdicts})} claims, {len(verdicts)} verdicts: {counts}.", _overview(papers)]
    for paper, mine in papers:
        parts += [f"## {escape(paper)}", *_section(mine)]
    missing = _missing(verdicts)
    if missing:
        parts += ["## To run what was not", "Then `bench publish runs && bench leaderboard && bench claims`. "
                  "A command may serve several claims; it takes the task's other settings from its protocol.",
                  "\n".join(f"- `{command}`  \n  for {', '.join(claims)}" for command, claims in missing.items())]
    return "\n\n".join(parts) + "\n"


def _intro() -> str:
    vocabulary = "\n".join(f"- `{name}`: {function.__doc__}" for name, function in PREDICATES.items())
    return f"""\
What papers claim, in our words, and what the records under `records/` say. Judged at our protocols, not the papers': the
column *judged at* says which, and each task's README how it departs from its papers. The tolerances are ours. A claim is
*not run* until every number it compares has its seeds; a seed that diverged speaks against the claim. Numbers: density, mean
± half-width of the 95 % interval (seeds) of both sides, then Δ, their paired difference; ✓ where the test holds. How to add a
claim: `docs/claims.md`. The tests, unless said otherwise at all densities shown, with the margin in points of the metric:

{vocabulary}"""


def _overview(papers: Iterable[tuple[str, list[Verdict]]]) -> str:
    """How the claims of every paper fared."""
    rows = [[escape(paper), len({v.claim.id for v in mine}), *(sum(v.verdict == verdict for v in mine)
                                                               for verdict in (REPRODUCED, NOT_REPRODUCED, NOT_RUN))]
            for paper, mine in papers]
    return markdown(["Paper", "Claims", REPRODUCED.capitalize(), NOT_REPRODUCED.capitalize(), NOT_RUN.capitalize()], rows)


def _section(verdicts: list[Verdict]) -> list[str]:
    """A paper's claims, its verdicts, and where nothing was measured yet."""
    claims = {v.claim.id: v.claim for v in verdicts}.values()
    parts = ["\n".join(f"- **{c.id}**: {escape(c.statement)} *({escape(c.source)}.)* `{c.test}`" for c in claims)]
    rows = [[v.claim.id, escape(f"{v.where}. {v.note}".rstrip(". ")), _verdict(v), "<br>".join(map(escape, v.numbers))]
            for v in verdicts if v.begun]
    if rows:
        parts.append(markdown(["Claim", "Judged at", "Verdict", "Numbers"], rows))
    nowhere: dict[str, dict[str, None]] = defaultdict(dict)
    for v in verdicts:
        if not v.begun:
            nowhere[v.claim.id][v.where] = None  # once, though judged at several densities
    if nowhere:
        parts += ["Not run at:", "\n".join(f"- {name}: {escape('; '.join(places))}" for name, places in nowhere.items())]
    return parts


def _verdict(v: Verdict) -> str:
    return f"{NOT_RUN}: {v.seeds} of {v.claim.min_seeds} seeds" if v.verdict == NOT_RUN else f"**{v.verdict}**"


def _missing(verdicts: Iterable[Verdict]) -> dict[Command, list[str]]:
    """Commands for all that was not run, those that differ in controls and seeds alone joined, and the claims they serve."""
    wanted: dict[tuple[str, ...], list[tuple[Command, str]]] = defaultdict(list)
    for v in verdicts:
        for command in v.run if v.verdict == NOT_RUN else []:
            wanted[command.words].append((command, v.claim.id))
    return {Command(words, frozenset().union(*(c.controls for c, _ in asked)), max(c.seeds for c, _ in asked)):
            list(dict.fromkeys(claim for _, claim in asked)) for words, asked in wanted.items()}


def verdicts(root: Path) -> list[Verdict]:
    """The claims of ``root``/claims judged by ``root``/records."""
    return judge(read(root / "claims"), read_records(root / "records"), read_analyses(root / "records"))


def write(root: Path, judged: Sequence[Verdict]) -> Path:
    """Write the ledger."""
    (root / LEDGER).write_text(render(judged), encoding="utf-8", newline="\n")
    return root / LEDGER


def check(root: Path, judged: Sequence[Verdict]) -> list[str]:
    """What differs between the ledger in ``root`` and the verdicts, as lines to print; empty if nothing does."""
    path = root / LEDGER
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    diff = difflib.unified_diff(text.splitlines(keepends=True), render(judged).splitlines(keepends=True), LEDGER,
                                f"{LEDGER} from records")
    return [line.rstrip() for line in diff]
