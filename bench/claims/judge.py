"""Verdicts on claims: what is compared is looked up among records by their identities."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench import config, registry
from bench.claims.predicates import PREDICATES, Pair
from bench.claims.schema import DENSE, METRIC, QUANTITIES, UNTRAINED, AnalysisValue, Claim, Constant, Paper, Place, Selection, Side
from bench.errors import UsageError, unknown
from bench.leaderboard import format
from bench.leaderboard.boards import Board, Cell, as_column, boards
from bench.leaderboard.cells import Column
from bench.leaderboard.statistics import estimate, paired
from bench.storage.analysis_records import AnalysisRecord
from bench.storage.records import Record, Sealed, canonical
from pruning import CONTROLS

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


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
    return _recipe(open_task(_composed(task, overrides)).identity())


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
