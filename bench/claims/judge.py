"""Verdicts on claims: what is compared is looked up among records by their identities."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench import registry
from bench.claims.config_cache import Made, Setting, analysis_options, is_sequential, keep, made, method_options, recipe
from bench.claims.predicates import PREDICATES, Pair
from bench.claims.schema import (
    DENSE,
    METRIC,
    QUANTITIES,
    UNTRAINED,
    AnalysisValue,
    Claim,
    Constant,
    Paper,
    Place,
    Selection,
    Side,
)
from bench.errors import UsageError, one_of
from bench.leaderboard import format
from bench.leaderboard.boards import Board
from bench.leaderboard.sections import Cell, as_column
from bench.leaderboard.statistics import estimate, paired
from bench.leaderboard.table_types import Column
from bench.storage.analysis_records import AnalysisRecord
from bench.storage.files import canonical
from bench.storage.records import ChecksummedRecord, Record
from bench.values import text

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


@dataclass(frozen=True)
class Command:
    """The command that makes the records of one method at one place."""

    words: tuple[str, ...]
    controls: frozenset[str]
    seeds: int
    lacking: frozenset[int] = field(default=frozenset(), compare=False)
    """Those of the seeds for which a compared record is missing."""

    def __str__(self) -> str:
        seeds, controls = ",".join(map(str, range(self.seeds))), ",".join(c for c in registry.controls() if c in self.controls)
        controls_word = [f"controls=[{controls}]"] if self.words[1] == "run" else []
        return shlex.join([*self.words, *controls_word, f"seeds=[{seeds}]"])


@dataclass(frozen=True)
class Verdict:
    """A claim judged at a place.

    where    the setting, as the command line names it
    note     what the records say about their data
    seeds    number of seeds that every compared number has
    numbers  one line for every density; empty if nothing was run
    run      commands that make all records that are compared
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
    def has_numbers(self) -> bool:
        """Whether anything was measured."""
        return self.verdict != NOT_RUN or bool(self.numbers)

    def row(self) -> dict[str, Any]:
        """The verdict as JSON."""
        shown = self.claim.model_dump(include={"id", "source", "statement", "margin", "min_seeds"})
        return {
            "paper": self.paper,
            **shown,
            "test": self.claim.test,
            "where": self.where,
            "note": self.note,
            "verdict": self.verdict,
            "seeds": self.seeds,
            "numbers": self.numbers,
            "run": [str(c) for c in self.run],
        }


class Evidence:
    """Records by the setting in which they were made, so that each is compared with the claims of its own setting only."""

    def __init__(self, boards: Iterable[Board], analyses: Iterable[AnalysisRecord]):
        self._boards: dict[Setting, list[Board]] = defaultdict(list)
        self._analyses: dict[Setting, list[AnalysisRecord]] = defaultdict(list)
        self._cells: dict[tuple[str, ...], dict[str, list[Record]]] = {}
        for board in boards:
            self._boards[setting_of(board.records[0])].append(board)
        for record in analyses:
            self._analyses[setting_of(record)].append(record)

    def boards(self, place: Place) -> list[Board]:
        """The boards of a place: several if its data exists in several copies (other fingerprints)."""
        return self._boards.get(_made(place).setting, [])

    def analyses(self, place: Place) -> list[AnalysisRecord]:
        """The records of analyses at a place."""
        return self._analyses.get(_made(place).setting, [])

    def cell(self, board: Board, wanted: Mapping[str, Any]) -> Cell:
        """The records of a board whose identities have these fields."""
        key = (board.slug, board.records[0].id)
        if key not in self._cells:
            self._cells[key] = defaultdict(list)
            for record in board.records:
                self._cells[key][canonical({name: getattr(record.identity, name) for name in COMPARED})].append(record)
        return Cell(tuple(self._cells[key].get(canonical(wanted), [])))


COMPARED = ("method", "method_config", "densities", "rounds", "control")
"""Fields of an identity that say which record of a setting it is, without its seed."""


def judge(papers: Iterable[Paper], boards: Iterable[Board], analyses: Iterable[AnalysisRecord] = ()) -> list[Verdict]:
    """Return a verdict for every claim and place, in the order of the entries; several if the data of the place exists in
    several copies (other fingerprints)."""
    evidence = Evidence(boards, analyses)
    verdicts = [
        verdict
        for paper in papers
        for claim in paper.claims
        for place in claim.places
        for verdict in _verdicts(paper.paper, claim, place, evidence)
    ]
    keep()
    return verdicts


def setting_of(record: ChecksummedRecord) -> Setting:
    """The setting in which a record was made."""
    identity = record.identity
    return identity.task, identity.task_version, identity.protocol, recipe(identity.config)


def _made(place: Place) -> Made:
    """What the commands of a place make, whatever their method or analysis."""
    return made(place.task, tuple(place.words[3:]))


def _verdicts(paper: str, claim: Claim, place: Place, evidence: Evidence) -> list[Verdict]:
    """The verdicts on one claim at one place: all that could be judged, else the one with most seeds."""
    needs = {**claim.needs, **place.needs}
    if any(isinstance(side, AnalysisValue) for side in needs.values()):
        return [_verdict_on_analyses(paper, claim, place, needs, evidence.analyses(place))]
    try:
        wanted = {name: _wanted(place, side) for name, side in needs.items() if isinstance(side, Selection)}
    except UsageError as error:
        raise UsageError(f"claim {claim.id}: {error}") from None
    run = _commands(place, needs, claim.min_seeds, {})
    where = _where(place)
    verdicts = [Verdict(paper, claim, where, NOT_RUN, "", 0, [], run)]
    for board in evidence.boards(place):
        cells = {
            name: {column: evidence.cell(board, fields) for column, fields in columns.items()} for name, columns in wanted.items()
        }
        verdict, seeds, numbers = _judged(claim, place.columns, cells, needs)
        note = " ".join(sorted({r.note for r in board.records if r.note}))
        run = _commands(place, needs, claim.min_seeds, {name: _common(of.values()) for name, of in cells.items()})
        verdicts.append(Verdict(paper, claim, where, verdict, note, seeds, numbers, run))
    verdicts[0] = replace(verdicts[0], run=min((v.run for v in verdicts), key=lambda run: sum(len(c.lacking) for c in run)))
    return [v for v in verdicts if v.verdict != NOT_RUN] or [max(verdicts, key=lambda v: v.seeds)]


def _where(place: Place) -> str:
    return ", ".join([" · ".join(_made(place).names), *place.overrides])


def _verdict_on_analyses(
    paper: str, claim: Claim, place: Place, needs: Mapping[str, Side], measured: list[AnalysisRecord]
) -> Verdict:
    """The verdict on a claim about values of analyses. A constant has every seed that the value on the other side has."""
    sides = {name: side for name, side in needs.items() if isinstance(side, AnalysisValue)}
    densities = _made(place).densities
    records = {name: [r for r in measured if _is_of(r, side, densities)] for name, side in sides.items()}
    values = {
        name: {r.identity.seed: value for r in records[name] if (value := _value(r, side, claim)) is not None}
        for name, side in sides.items()
    }
    seeds = set.intersection(*map(set, values.values()))
    values |= {name: dict.fromkeys(seeds, side.number) for name, side in needs.items() if isinstance(side, Constant)}
    a, b = (values[name] for name in claim.of)
    pair = Pair.of(a, b)
    difference = paired(pair.a, pair.b)
    numbers = (
        [
            f"{format.measurement(estimate(pair.a.values()))} vs {format.measurement(estimate(pair.b.values()))}, "
            f"Δ {format.measurement(difference, '+')}"
        ]
        if difference
        else []
    )
    verdict = NOT_RUN
    if len(seeds) >= claim.min_seeds:
        (holds,) = PREDICATES[claim.expect]([pair], claim.margin)
        verdict = REPRODUCED if holds else NOT_REPRODUCED
        numbers[0] += format.HOLDS if holds else format.FAILS
    note = " ".join(sorted({r.note for of_side in records.values() for r in of_side if r.note}))
    present: dict[tuple[str, ...], list[frozenset[int]]] = defaultdict(list)
    for name, side in sides.items():
        options = [f"analysis.{key}={text(value)}" for key, value in side.options.items()]
        present[(side.analysis, *options)].append(frozenset(r.identity.seed for r in records[name]))
    run = [
        Command(
            ("bench", "analyse", name, *place.words[2:], *options),
            frozenset(),
            claim.min_seeds,
            frozenset(range(claim.min_seeds)) - frozenset.intersection(*present[name, *options]),
        )
        for name, *options in sorted(present)
    ]
    return Verdict(paper, claim, _where(place), verdict, note, len(seeds), numbers, run)


def _is_of(record: AnalysisRecord, side: AnalysisValue, densities: list[dict[str, float]]) -> bool:
    """Whether a record is of the analysis, options and densities that a claim names. UsageError for an unknown option."""
    identity = record.identity
    defaults = analysis_options(side.analysis)
    for name in side.options:
        one_of(f"option of analysis {side.analysis}", name, defaults)
    return (identity.analysis, canonical(identity.options), identity.densities) == (
        side.analysis,
        canonical({**defaults, **side.options}),
        densities,
    )


def _value(record: AnalysisRecord, side: AnalysisValue, claim: Claim) -> float | None:
    """The value that a claim names; None if the analysis could not measure it. UsageError if there is no such row or column."""
    if side.row.keys() != set(record.keys) or side.value not in record.rows[0]:
        raise UsageError(
            f"claim {claim.id}: analysis {side.analysis} has the keys {', '.join(record.keys)} and the columns "
            f"{', '.join(record.rows[0])}"
        )
    values = [row[side.value] for row in record.rows if all(row[key] == value for key, value in side.row.items())]
    if not values:
        raise UsageError(f"claim {claim.id}: analysis {side.analysis} has no row {canonical(side.row)}")
    value = values[0]
    if isinstance(value, str):
        raise UsageError(f"claim {claim.id}: {side.value} of analysis {side.analysis} is a text, not a number")
    return value


def _wanted(place: Place, selection: Selection) -> dict[Column, dict[str, Any]]:
    """For every compared density the fields of ``Identity`` (``COMPARED``) that the selection's command gives its records."""
    options = method_options(place.task, tuple(place.words[3:]), selection.method)
    for name in selection.options:
        one_of(f"option of {selection.method}", name, options)
    columns = _made(place).densities
    run = [as_column(d) for d in columns]
    for column in place.columns:
        if column not in run:
            raise UsageError(
                f"density {format.densities(column)} is not among those that `{shlex.join(place.words)}` asks for: "
                f"{'; '.join(map(format.densities, run))}"
            )
    sequential = is_sequential(selection.method, {**options, **selection.options})
    return {
        column: {
            "method": selection.method,
            "method_config": {**options, **selection.options},
            "densities": columns[i],
            "rounds": columns[:i] if sequential else [],
            "control": selection.control,
        }
        for i, column in enumerate(run)
        if column in place.columns
    }


def _judged(
    claim: Claim, columns: list[Column], cells: dict[str, dict[Column, Cell]], needs: Mapping[str, Side]
) -> tuple[str, int, list[str]]:
    """The verdict, how many seeds every number has, and the numbers. A seed that diverged contradicts the claim."""
    compared = [cell for by_column in cells.values() for cell in by_column.values()]
    seeds = len(_common(compared))
    diverged = {
        column: sum(r.status == "diverged" for by_column in cells.values() for r in by_column[column].records)
        for column in columns
    }
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
        numbers[first + i] += format.HOLDS if truth else format.FAILS
    holds = all(truths) if claim.over == "all" else any(truths)
    return REPRODUCED if holds else NOT_REPRODUCED, seeds, numbers


def _pair(of: tuple[str, str], cells: dict[str, Cell], needs: Mapping[str, Side]) -> Pair:
    """The two sides at one density. A constant has every seed that the other side has."""
    quantity = next(side.value for side in needs.values() if isinstance(side, Selection))
    sides = {
        name: {
            r.identity.seed: value
            for r in cell.done
            if r.result and r.cost and (value := QUANTITIES[quantity](r.result, r.cost)) is not None
        }
        for name, cell in cells.items()
    }
    seeds = set().union(*sides.values())
    sides |= {name: dict.fromkeys(seeds, side.number) for name, side in needs.items() if isinstance(side, Constant)}
    sides[DENSE] = next(iter(cells.values())).dense
    higher = quantity not in (METRIC, UNTRAINED) or all(
        r.result.higher_is_better for cell in cells.values() for r in cell.done if r.result
    )
    a, b = (sides[name] for name in of)
    return Pair.of(a, b, higher)


def _numbers(column: Column, pair: Pair, diverged: int) -> str:
    """``0.1: 75.80 ± 0.40 (3) vs 72.90 ± 0.50 (3), Δ +2.90 ± 0.30``; empty if there is nothing to show."""
    parts = []
    if difference := paired(pair.a, pair.b):
        a, b = (format.interval(estimate(side.values())) for side in (pair.a, pair.b))
        parts.append(f"{a} vs {b}, Δ {format.difference(difference)}")
    if diverged:
        parts.append(f"{diverged} diverged")
    return f"{format.densities(column)}: {', '.join(parts)}" if parts else ""


def _commands(place: Place, needs: Mapping[str, Side], seeds: int, present: Mapping[str, set[int]]) -> list[Command]:
    """One command for every method and its options, with all controls that are compared. ``present``: side -> its seeds."""
    controls: dict[tuple[str, ...], set[str]] = defaultdict(set)
    lacking: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for name, side in needs.items():
        if isinstance(side, Selection):
            options = [f"method.{key}={text(value)}" for key, value in side.options.items()]
            words = (*place.words, f"method={side.method}", *options)
            controls[words] |= {side.control} if side.control else set()
            lacking[words] |= set(range(seeds)) - present.get(name, set())
    return [Command(words, frozenset(names), seeds, frozenset(lacking[words])) for words, names in controls.items()]


def _common(cells: Iterable[Cell]) -> set[int]:
    """The seeds for which all cells have a record that was trained."""
    return set.intersection(*({r.identity.seed for r in cell.records if r.status in ("ok", "diverged")} for cell in cells))
