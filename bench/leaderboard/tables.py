"""Records sorted into what may be compared: a board for every setting, a section for every set of budgets, rows and cells."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bench import registry
from bench.errors import BenchError
from bench.leaderboard.statistics import MIN_SEEDS, Estimate, better, estimate, matches, separable
from bench.storage.records import Record, Sealed, canonical, safe_name

PROTOCOLS = ("paper", "desk", "smoke")

Column = tuple[tuple[str, float], ...]
"""(budget, density asked) of every budget; empty for the whole network."""


@dataclass(frozen=True)
class Cell:
    """The seeds of one row at one column."""

    records: tuple[Record, ...]

    @cached_property
    def done(self) -> list[Record]:
        """Those that have numbers."""
        return [r for r in self.records if r.status == "ok"]

    @cached_property
    def values(self) -> dict[int, float]:
        """Seed -> test metric."""
        return {r.identity.seed: r.result.test[r.result.metric] for r in self.done}

    @cached_property
    def dense(self) -> dict[int, float]:
        """Seed -> test metric of the dense network, from the same records."""
        return {r.identity.seed: r.result.dense_test[r.result.metric] for r in self.done}

    @property
    def ranked(self) -> bool:
        """Enough seeds, and none that went wrong."""
        return len(self.done) == len(self.records) >= MIN_SEEDS

    @property
    def matching(self) -> bool:
        """Whether it matches dense."""
        return self.ranked and matches(self.values, self.dense, self.done[0].result.higher_is_better)

    def cost(self, name: str) -> float:
        """Mean of one field of ``Cost`` over the seeds."""
        return estimate(getattr(r.cost, name) for r in self.done).mean


@dataclass(frozen=True, order=True)
class Row:
    """A method or, with ``control``, one of its controls. ``variant`` tells apart methods of one label whose options
    differ all the same (a label names what differs from the defaults, and defaults may change). ``rounds``: the densities
    its tickets went through, where the method was sent through several such chains."""

    label: str
    variant: str
    rounds: tuple[Column, ...] = ()
    control: str = ""

    @property
    def ticket(self) -> Row:
        """The row whose control this is."""
        return Row(self.label, self.variant, self.rounds)


@dataclass(frozen=True)
class Section:
    """The table of one set of budgets."""

    budgets: tuple[str, ...]
    columns: list[Column]
    rows: dict[Row, dict[Column, Cell]]
    higher_is_better: bool

    @property
    def title(self) -> str:
        """For headings."""
        return f"Density of {' and '.join(self.budgets)}" if self.budgets else "Whole network"

    def label(self, row: Row) -> str:
        """A method's label, with a hash where methods of that label differ in their options, and its rounds where they do."""
        several = len({other.variant for other in self.rows if other.label == row.label}) > 1
        label = f"{row.label} #{hashlib.sha256(row.variant.encode()).hexdigest()[:6]}" if several else row.label
        return f"{label}, rounds {' > '.join(map(column_text, row.rounds))}" if row.rounds else label

    def ranking(self, column: Column) -> dict[Row, Cell]:
        """What may be ranked in a column, best first."""
        cells = {row: cells[column] for row, cells in self.rows.items() if not row.control and column in cells}
        sign = -1 if self.higher_is_better else 1
        return dict(sorted(((row, cell) for row, cell in cells.items() if cell.ranked),
                           key=lambda pair: (sign * estimate(pair[1].values.values()).mean, pair[0])))

    def best(self, column: Column) -> set[Row]:
        """The best row and those not separable from it; empty unless two can be compared."""
        ranking = self.ranking(column)
        first = next(iter(ranking.values()), None)
        if all(cell == first for cell in ranking.values()):  # rows may share a cell that lies before they part
            return set()
        return {row for row, cell in ranking.items() if not separable(first.values, cell.values)}


@dataclass(frozen=True)
class Board:
    """All records that may be compared. ``config``: short hash, where configurations of the same names differ, and
    ``differs`` the settings by which they do. ``old``: records of a newer version of the task exist."""

    records: tuple[Record, ...]
    config: str
    differs: dict[str, str]
    old: bool

    @property
    def title(self) -> str:
        """For headings."""
        who = self.records[0].identity
        parts = [who.data, who.model, who.protocol, *([f"config {self.config}"] if self.config else []),
                 *([f"old task version {who.task_version}"] if self.old else [])]
        return " · ".join(parts)

    @property
    def slug(self) -> str:
        """For file names."""
        who = self.records[0].identity
        parts = [who.task, f"v{who.task_version}", who.data, who.model, who.protocol, self.config]
        return safe_name("-".join(part for part in parts if part))

    @cached_property
    def metric(self) -> tuple[str, bool]:
        """Name and whether higher is better; a board that mixes metrics is refused."""
        found = {(r.result.metric, r.result.higher_is_better): r for r in Cell(self.records).done}
        if len(found) > 1:
            ids = " and ".join(sorted(r.id for r in found.values()))
            raise BenchError(f"records {ids} of {self.slug} report different metrics; a task that changes its metric "
                             "must raise its version")
        return next(iter(found), ("metric", True))

    @cached_property
    def dense(self) -> Cell | None:
        """Records of the dense network."""
        mine = tuple(r for r in self.records if is_dense(r))
        return Cell(mine) if mine else None

    @cached_property
    def dense_values(self) -> dict[int, list[float]]:
        """Seed -> what its records say the dense network reached, dense records first; one value unless machines differ."""
        found: dict[int, list[float]] = defaultdict(list)
        for r in sorted(Cell(self.records).done, key=lambda r: (not is_dense(r), r.id)):
            value = r.result.dense_test[self.metric[0]]
            if value not in found[r.identity.seed]:
                found[r.identity.seed].append(value)
        return dict(sorted(found.items()))

    @cached_property
    def dense_estimate(self) -> Estimate | None:
        """Of the first value of every seed."""
        return estimate(values[0] for values in self.dense_values.values()) if self.dense_values else None

    @cached_property
    def sections(self) -> list[Section]:
        """Its tables, by the budgets asked."""
        by_budgets: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for r in self.records:
            if not is_dense(r):
                by_budgets[tuple(budget for budget, _ in as_column(r.identity.densities))].append(r)
        sections = []
        for budgets, records in sorted(by_budgets.items(), key=lambda item: (len(item[0]), [_weights_first(b) for b in item[0]])):
            columns = sorted({as_column(r.identity.densities) for r in records}, reverse=True)
            sections.append(Section(budgets, columns, _rows(records), self.metric[1]))
        return sections


def beats(ticket: Cell, control: Cell) -> bool | None:
    """Whether a ticket is separably better than its control; None where either may not be ranked."""
    if not (ticket.ranked and control.ranked):
        return None
    return better(ticket.values, control.values, ticket.done[0].result.higher_is_better)


def boards(records: Iterable[Record]) -> list[Board]:
    """Sort records into boards, newest task version first. Two records of one id, or a record without the numbers a table
    needs, are an error."""
    unique: dict[str, Record] = {}
    for record in records:
        if record.id in unique:
            raise BenchError(f"two records have id {record.id} ({record.label}, seed {record.identity.seed}): "
                             "remove the one that is not at its own path")
        unique[record.id] = _checked(record)
    by_names: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    newest: dict[str, int] = defaultdict(int)
    for record in sorted(unique.values(), key=lambda r: r.id):
        who = record.identity
        names = (who.task, who.task_version, who.data, who.model, who.protocol)
        by_names[names][canonical(settings(record))].append(record)
        newest[who.task] = max(newest[who.task], who.task_version)
    found = []
    for (task, version, *_), configs in by_names.items():
        configurations = [settings(records[0]) for records in configs.values()]
        for text, records in configs.items():
            digest = hashlib.sha256(text.encode()).hexdigest()[:8] if len(configs) > 1 else ""
            differs = {key: value for key, value in settings(records[0]).items()
                       if any(other.get(key) != value for other in configurations)}
            found.append(Board(tuple(records), digest, differs, version < newest[task]))
    return sorted(found, key=_board_order)


def as_column(densities: Mapping[str, float]) -> Column:
    """Densities in the order of budgets that tables use."""
    return tuple(sorted(densities.items(), key=lambda item: _weights_first(item[0])))


def column_text(column: Column) -> str:
    """``0.5``, ``weights+edges 0.5`` or ``weights 0.5, edges 0.8``."""
    if not column:
        return "whole network"
    if len(column) == 1:
        return f"{column[0][1]:g}"
    if len({density for _, density in column}) == 1:
        return f"{'+'.join(budget for budget, _ in column)} {column[0][1]:g}"
    return ", ".join(f"{budget} {density:g}" for budget, density in column)


def is_dense(record: Record) -> bool:
    """Whether the record is of the whole network in its one training."""
    return not record.identity.densities and record.identity.control is None


def precisions(records: Sequence[Sealed]) -> str:
    """A sentence on records of one setting if any was made in another precision than the setting says; else empty."""
    made = Counter(record.precision for record in records)
    if {precision and canonical(precision) for precision in made} == {settings(records[0]).get("train.precision")}:
        return ""
    counted = "; ".join(f"{count} of {len(records)} records in {precision}" for precision, count in sorted(made.items(), key=str))
    return f"Made in the precision that each machine has: {counted}."


def settings(record: Sealed) -> dict[str, str]:
    """The configuration, flat: ``train.epochs`` -> text."""
    def flatten(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key in sorted(value):
                yield from flatten(f"{prefix}.{key}" if prefix else key, value[key])
        else:
            yield prefix, canonical(value)

    return dict(flatten("", {**record.identity.config, "fingerprint": record.identity.fingerprint}))


def _checked(record: Record) -> Record:
    if record.status == "ok":
        result = record.result
        if result.metric not in result.test or result.metric not in result.dense_test:
            raise BenchError(f"record {record.id} has no test value of its metric {result.metric!r} for the ticket or for "
                             "dense; run its command again")
        if record.cost.inference_macs_dense <= 0:
            raise BenchError(f"record {record.id} says a dense inference takes no MACs; run its command again")
    return record


def _rows(records: Iterable[Record]) -> dict[Row, dict[Column, Cell]]:
    """The rows of a section: one for every method and control or, where a method was sent through several chains of
    densities, one for every chain; a record that lies on several stands in each."""
    methods: dict[Row, list[Record]] = defaultdict(list)
    for r in records:
        methods[Row(r.label, canonical([r.identity.method, r.identity.method_config]))].append(r)
    cells: dict[Row, dict[Column, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for method, mine in methods.items():
        paths = _paths(mine)
        chains = {path for path in paths if not any(path == other[:len(path)] and path != other for other in paths)}
        for chain in chains:
            row = replace(method, rounds=chain if len(chains) > 1 else ())
            cells[row]  # a control's ticket has its row, even without records
            for r, path in zip(mine, paths, strict=True):
                if chain[:len(path)] == path:
                    cells[replace(row, control=r.identity.control or "")][as_column(r.identity.densities)].append(r)
    return {row: {column: Cell(tuple(made)) for column, made in cells[row].items()} for row in sorted(cells)}


def _paths(records: list[Record]) -> list[tuple[Column, ...]]:
    """The densities that each record of one method went through, its own the last; empty where that makes no difference.

    Rounds on a record say that it does. Where there are none, every ticket may have been asked alone: the method knows.
    Only this repository's own are looked up, because what a submitted record names must not be imported.
    """
    name, options = records[0].identity.method, records[0].identity.method_config
    known = name in registry.METHODS and registry.sequential(registry.method(name), options)
    if known or any(r.identity.rounds for r in records):
        return [tuple(map(as_column, [*r.identity.rounds, r.identity.densities])) for r in records]
    return [() for _ in records]


def _weights_first(budget: str) -> tuple:
    return budget != "weights", budget


def _board_order(board: Board) -> tuple:
    who = board.records[0].identity
    rank = PROTOCOLS.index(who.protocol) if who.protocol in PROTOCOLS else len(PROTOCOLS)
    return who.task, -who.task_version, who.data, who.model, rank, who.protocol, board.config
