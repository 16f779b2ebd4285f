"""Rows and columns of a board: a section for each set of budgets, in it a row for each method and control, and a cell for each
density with the records of all seeds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from bench.leaderboard import format, method_metadata
from bench.leaderboard.statistics import MIN_SEEDS, Estimate, better, estimate, matches, mean, paired, separable
from bench.leaderboard.table_types import Column, MetricCell, Problems
from bench.storage.files import canonical
from bench.storage.records import Record, Result
from bench.storage.reruns import Rerun


@dataclass(frozen=True)
class Cell:
    """The records of one row at one density, one for each seed."""

    records: tuple[Record, ...]

    @cached_property
    def done(self) -> list[Record]:
        """Records that have numbers."""
        return [r for r in self.records if r.status == "ok"]

    @cached_property
    def values(self) -> dict[int, float]:
        """Seed -> test metric."""
        return {r.identity.seed: (result := result_of(r)).test[result.metric] for r in self.done}

    @cached_property
    def dense(self) -> dict[int, float]:
        """Seed -> test metric of the dense network, from the same records."""
        return {r.identity.seed: (result := result_of(r)).dense_test[result.metric] for r in self.done}

    @property
    def ranked(self) -> bool:
        """Whether there are enough seeds and all of them have numbers."""
        return len(self.done) == len(self.records) >= MIN_SEEDS

    def run_again(self, checked: Mapping[str, Rerun], agreed: bool) -> int:
        """The number of its records whose re-run agreed with them, or did not."""
        return sum(r.id in checked and checked[r.id].agrees == agreed for r in self.records)

    @cached_property
    def matching(self) -> bool:
        """Whether the ticket matches the dense network."""
        return self.ranked and matches(self.values, self.dense, result_of(self.done[0]).higher_is_better)

    @cached_property
    def mean(self) -> Estimate:
        """The test metric over the seeds, of which there is at least one."""
        return estimate(self.values.values())

    @property
    def problems(self) -> Problems:
        """What is wrong with the records."""
        count = Counter(r.status for r in self.records)
        return Problems(count["diverged"], count["failed"], bool(count["not_applicable"]))

    def costs(self, name: str) -> list[float]:
        """The values of one field of ``Cost`` in the records that have it."""
        if name not in self._costs:
            self._costs[name] = [value for r in self.done if r.cost and (value := getattr(r.cost, name)) is not None]
        return self._costs[name]

    @cached_property
    def _costs(self) -> dict[str, list[float]]:
        return {}

    def cost(self, name: str) -> float:
        """Mean of one field of ``Cost`` over the seeds."""
        return mean(self.costs(name))


@dataclass(frozen=True, order=True)
class Row:
    """A method or, with ``control``, one of its controls. ``variant``: the method and all its options, because methods of one
    label may differ in them (a label names options that differ from their defaults, and defaults may change). ``rounds``: the
    densities its tickets were pruned to in turn, where the method has tickets of several such sequences."""

    label: str
    variant: str
    rounds: tuple[Column, ...] = ()
    control: str = ""

    @property
    def ticket(self) -> Row:
        """The row of the ticket that this row is a control of, or this row itself if it is no control."""
        return Row(self.label, self.variant, self.rounds)

    @cached_property
    def method(self) -> str:
        """The name of the method, as the command line takes it."""
        return str(json.loads(self.variant)[0])


@dataclass(frozen=True)
class Section:
    """All rows that were pruned in one set of budgets."""

    budgets: tuple[str, ...]
    columns: list[Column]
    rows: dict[Row, dict[Column, Cell]]
    higher_is_better: bool
    checked: Mapping[str, Rerun] = field(default_factory=dict)
    """Record's id -> the re-run of it that counts."""

    @property
    def title(self) -> str:
        """The heading of the section."""
        return f"Density of {' and '.join(self.budgets)}" if self.budgets else "Whole network"

    @cached_property
    def controls(self) -> dict[Row, list[Row]]:
        """The rows of every ticket's controls."""
        found: dict[Row, list[Row]] = {row: [] for row in self.rows if not row.control}
        for row in self.rows:
            if row.control:
                found[row.ticket].append(row)
        return found

    @cached_property
    def places(self) -> dict[Row, int]:
        """The place of every ticket's row among those of its method."""
        counts: Counter[str] = Counter()
        found = {}
        for row in self.controls:
            found[row] = counts[row.method]
            counts[row.method] += 1
        return found

    @cached_property
    def _variants(self) -> dict[str, set[str]]:
        """The methods and options that a label stands for."""
        found: dict[str, set[str]] = defaultdict(set)
        for row in self.rows:
            found[row.label].add(row.variant)
        return found

    def label(self, row: Row) -> str:
        """The label of a row's method, with a hash if methods of that label differ in their options, and the row's rounds."""
        several = len(self._variants[row.label]) > 1
        label = f"{row.label} #{hashlib.sha256(row.variant.encode()).hexdigest()[:6]}" if several else row.label
        return f"{label}, rounds {' > '.join(map(format.densities, row.rounds))}" if row.rounds else label

    def name(self, row: Row) -> str:
        """What a row is called where it stands alone: a control after its method."""
        return row_name(self.label(row), row.control)

    @cached_property
    def rankings(self) -> dict[Column, dict[Row, Cell]]:
        """The rows and cells of every column that may be ranked, best first."""
        sign = -1 if self.higher_is_better else 1
        found: dict[Column, list[tuple[Row, Cell]]] = {column: [] for column in self.columns}
        for row in self.controls:
            for column, cell in self.rows[row].items():
                if cell.ranked:
                    found[column].append((row, cell))
        return {c: dict(sorted(ranked, key=lambda pair: (sign * pair[1].mean.mean, pair[0]))) for c, ranked in found.items()}

    @cached_property
    def best(self) -> dict[Column, set[Row]]:
        """The best row of every column and all that are not separable from it; none unless at least two can be compared."""
        found: dict[Column, set[Row]] = {}
        for column, ranking in self.rankings.items():
            first = next(iter(ranking.values()), None)
            if first is None or all(cell == first for cell in ranking.values()):  # rows of common rounds share their cells
                found[column] = set()
            else:
                found[column] = {row for row, cell in ranking.items() if not separable(first.values, cell.values)}
        return found

    @cached_property
    def metrics(self) -> dict[Row, dict[Column, MetricCell]]:
        """What a table says of every cell: the metric, its difference to dense, and marks."""
        return {row: {column: self._metric(row, column, cell) for column, cell in of.items()} for row, of in self.rows.items()}

    def _metric(self, row: Row, column: Column, cell: Cell) -> MetricCell:
        if not cell.values:
            return MetricCell(problems=cell.problems)
        ticket = self.rows[row.ticket].get(column) if row.control else None
        untrained = [r.result.untrained_test[r.result.metric] for r in cell.done if r.result and r.result.untrained_test]
        return MetricCell(
            cell.mean,
            paired(cell.values, cell.dense),
            row in self.best[column],
            len(cell.values) < MIN_SEEDS,
            cell.matching,
            ticket is not None and beats(ticket, cell) is False,
            max(len(r.collapsed) for r in cell.done),
            sum("collapsed" in r.ticket.notes for r in cell.done if r.ticket),
            estimate(untrained) if untrained else None,
            cell.run_again(self.checked, agreed=True),
            cell.run_again(self.checked, agreed=False),
            cell.problems,
        )


def beats(ticket: Cell, control: Cell) -> bool | None:
    """Whether a ticket is separably better than its control; None if either may not be ranked."""
    if not (ticket.ranked and control.ranked):
        return None
    return better(ticket.values, control.values, result_of(ticket.done[0]).higher_is_better)


def row_name(label: str, control: str | None) -> str:
    """A method's label, and the control after it."""
    return f"{label} ↳ {control}" if control else label


def as_column(densities: Mapping[str, float]) -> Column:
    """The requested densities, weights first and then the other budgets by name."""
    return _in_order(tuple(densities.items()))


@cache  # records share their densities
def _in_order(column: Column) -> Column:
    return tuple(sorted(column, key=lambda item: weights_first(item[0])))


def result_of(record: Record) -> Result:
    """The result of a record that has numbers (status ok)."""
    assert record.result is not None
    return record.result


def is_dense(record: Record) -> bool:
    """Whether the record is of the unpruned network."""
    return not record.identity.densities and record.identity.control is None


def rows_of(records: Iterable[Record]) -> dict[Row, dict[Column, Cell]]:
    """The rows of a section: one for every method and control or, if a method has tickets of several sequences of rounds, one
    for every sequence; a record that belongs to several sequences is in the row of each."""
    methods: dict[Row, list[Record]] = defaultdict(list)
    known: dict[tuple[str, str, int], Row] = {}  # most records share the options of their method with others
    for r in records:
        key = r.label, r.identity.method, id(r.identity.method_config)
        if key not in known:
            known[key] = Row(r.label, canonical([r.identity.method, r.identity.method_config]))
        methods[known[key]].append(r)
    found: dict[Row, dict[Column, Cell]] = {}
    for method, its_records in methods.items():
        paths = _paths(its_records)
        chains = set(paths) - {path[:i] for path in set(paths) for i in range(len(path))}
        for chain in chains:
            cells: dict[str, dict[Column, list[Record]]] = defaultdict(lambda: defaultdict(list))
            cells[""]  # a control's ticket has its row, even without records
            for r, path in zip(its_records, paths, strict=True):
                if chain[: len(path)] == path:
                    cells[r.identity.control or ""][as_column(r.identity.densities)].append(r)
            for control, columns in cells.items():
                row = replace(method, rounds=chain if len(chains) > 1 else (), control=control)
                found[row] = {column: Cell(tuple(seeds)) for column, seeds in columns.items()}
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _paths(records: list[Record]) -> list[tuple[Column, ...]]:
    """For each record of one method the densities it was pruned to in turn, its own last; empty if they make no difference.

    They do if any record has rounds. If none has, every ticket may have been requested alone: then the method tells.
    """
    identity = records[0].identity
    if any(r.identity.rounds for r in records) or method_metadata.is_sequential(identity.method, identity.method_config):
        return [tuple(map(as_column, [*r.identity.rounds, r.identity.densities])) for r in records]
    return [() for _ in records]


def weights_first(budget: str) -> tuple[bool, str]:
    """What budgets are sorted by: weights, then the others by name."""
    return budget != "weights", budget
