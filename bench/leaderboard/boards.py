"""Records grouped by what may be compared: a board for each setting, in it a section for each set of budgets, rows and cells."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bench.errors import BenchError
from bench.leaderboard import format, metadata
from bench.leaderboard.statistics import MIN_SEEDS, Estimate, better, estimate, matches, separable
from bench.leaderboard.table_types import Column
from bench.storage.files import canonical, safe_name
from bench.storage.records import ChecksummedRecord, ExperimentIdentity, Record, Result
from bench.storage.reruns import Rerun, outcomes


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

    @property
    def matching(self) -> bool:
        """Whether the ticket matches the dense network."""
        return self.ranked and matches(self.values, self.dense, result_of(self.done[0]).higher_is_better)

    @cached_property
    def mean(self) -> Estimate:
        """The test metric over the seeds, of which there is at least one."""
        return estimate(self.values.values())

    def costs(self, name: str) -> list[float]:
        """The values of one field of ``Cost`` in the records that have it."""
        return [value for r in self.done if r.cost and (value := getattr(r.cost, name)) is not None]

    def cost(self, name: str) -> float:
        """Mean of one field of ``Cost`` over the seeds."""
        return estimate(self.costs(name)).mean


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

    def ranking(self, column: Column) -> dict[Row, Cell]:
        """The rows and cells of a column that may be ranked, best first."""
        cells = {row: cells[column] for row, cells in self.rows.items() if not row.control and column in cells}
        sign = -1 if self.higher_is_better else 1
        return dict(
            sorted(
                ((row, cell) for row, cell in cells.items() if cell.ranked), key=lambda pair: (sign * pair[1].mean.mean, pair[0])
            )
        )

    def best(self, column: Column) -> set[Row]:
        """The best row of a column and all that are not separable from it; empty unless at least two can be compared."""
        ranking = self.ranking(column)
        first = next(iter(ranking.values()), None)
        if first is None or all(cell == first for cell in ranking.values()):  # rows of common rounds share their cells
            return set()
        return {row for row, cell in ranking.items() if not separable(first.values, cell.values)}


@dataclass(frozen=True)
class Board:
    """All records that may be compared. ``config``: a short hash if configurations of the same names differ, and
    ``differs``: the settings in which they do. ``old``: records of a newer version of the task exist."""

    records: tuple[Record, ...]
    config: str
    differs: dict[str, str]
    old: bool
    checked: Mapping[str, Rerun] = field(default_factory=dict)
    """Record's id -> the re-run of it that counts."""

    @property
    def title(self) -> str:
        """The heading of the board."""
        who = self.records[0].identity
        parts = [
            who.data,
            who.model,
            who.protocol,
            *([f"config {self.config}"] if self.config else []),
            *([f"old task version {who.task_version}"] if self.old else []),
        ]
        return " · ".join(parts)

    @property
    def slug(self) -> str:
        """The board's part of file names."""
        who = self.records[0].identity
        parts = [who.task, f"v{who.task_version}", who.data, who.model, who.protocol, self.config]
        return safe_name("-".join(part for part in parts if part))

    @cached_property
    def metric(self) -> tuple[str, bool]:
        """The metric's name and whether higher is better; BenchError if records differ in it."""
        metrics = {(result_of(r).metric, result_of(r).higher_is_better): r for r in Cell(self.records).done}
        if len(metrics) > 1:
            ids = " and ".join(sorted(r.id for r in metrics.values()))
            raise BenchError(
                f"records {ids} of {self.slug} report different metrics; a task that changes its metric must raise its version"
            )
        return next(iter(metrics), ("metric", True))

    @cached_property
    def dense(self) -> Cell | None:
        """Records of the dense network."""
        records = tuple(r for r in self.records if is_dense(r))
        return Cell(records) if records else None

    @cached_property
    def dense_values(self) -> dict[int, list[float]]:
        """Seed -> test metrics of the dense network in the seed's records, dense records first; several if machines differ."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        for r in sorted(Cell(self.records).done, key=lambda r: (not is_dense(r), r.id)):
            value = result_of(r).dense_test[self.metric[0]]
            if value not in by_seed[r.identity.seed]:
                by_seed[r.identity.seed].append(value)
        return dict(sorted(by_seed.items()))

    @cached_property
    def dense_estimate(self) -> Estimate | None:
        """The dense network over the seeds, by the first value of each; None if no record has numbers."""
        return estimate(values[0] for values in self.dense_values.values()) if self.dense_values else None

    @cached_property
    def sections(self) -> list[Section]:
        """The sections, those of fewer budgets first."""
        by_budgets: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for r in self.records:
            if not is_dense(r):
                by_budgets[tuple(budget for budget, _ in as_column(r.identity.densities))].append(r)
        sections = []
        for budgets, records in sorted(by_budgets.items(), key=lambda item: (len(item[0]), [_weights_first(b) for b in item[0]])):
            columns = sorted({as_column(r.identity.densities) for r in records}, reverse=True)
            sections.append(Section(budgets, columns, _rows(records), self.metric[1], self.checked))
        return sections


def beats(ticket: Cell, control: Cell) -> bool | None:
    """Whether a ticket is separably better than its control; None if either may not be ranked."""
    if not (ticket.ranked and control.ranked):
        return None
    return better(ticket.values, control.values, result_of(ticket.done[0]).higher_is_better)


def boards(records: Iterable[Record], reruns: Iterable[Rerun] = ()) -> list[Board]:
    """Group records into boards, newest task version first, with what came of running them again. BenchError if two records
    have one id or if a record lacks the numbers that a table needs."""
    unique: dict[str, Record] = {}
    for record in records:
        if record.id in unique:
            raise BenchError(
                f"two records have id {record.id} ({record.label}, seed {record.identity.seed}): "
                "remove the one that is not at its own path"
            )
        unique[record.id] = _checked(record)
    checked = outcomes(reruns, {record.id: record.digest for record in unique.values()})
    by_names: dict[tuple[str, int, str, str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    newest: dict[str, int] = defaultdict(int)
    texts = _texts()
    for record in sorted(unique.values(), key=lambda r: r.id):
        who = record.identity
        names = (who.task, who.task_version, who.data, who.model, who.protocol)
        by_names[names][texts(who)].append(record)
        newest[who.task] = max(newest[who.task], who.task_version)
    grouped = []
    for (task, version, *_), configs in by_names.items():
        configurations = [settings(records[0]) for records in configs.values()]
        for records in configs.values():
            config = digest(records[0].identity) if len(configs) > 1 else ""
            differs = {
                key: value
                for key, value in settings(records[0]).items()
                if any(other.get(key) != value for other in configurations)
            }
            grouped.append(Board(tuple(records), config, differs, version < newest[task], checked))
    return sorted(grouped, key=_board_order)


def row_name(label: str, control: str | None) -> str:
    """A method's label, and the control after it."""
    return f"{label} ↳ {control}" if control else label


def as_column(densities: Mapping[str, float]) -> Column:
    """The requested densities, weights first and then the other budgets by name."""
    if len(densities) == 1:  # nearly always
        return tuple(densities.items())
    return tuple(sorted(densities.items(), key=lambda item: _weights_first(item[0])))


def result_of(record: Record) -> Result:
    """The result of a record that has numbers (status ok)."""
    assert record.result is not None
    return record.result


def is_dense(record: Record) -> bool:
    """Whether the record is of the unpruned network."""
    return not record.identity.densities and record.identity.control is None


def precisions(records: Sequence[ChecksummedRecord]) -> str:
    """A sentence on records of one setting if any was made in another precision than the setting says; else empty."""
    made = Counter(record.precision for record in records)
    if {precision and canonical(precision) for precision in made} == {settings(records[0]).get("train.precision")}:
        return ""
    counted = "; ".join(f"{count} of {len(records)} records in {precision}" for precision, count in sorted(made.items(), key=str))
    return f"Made in the precision that each machine has: {counted}."


def settings(record: ChecksummedRecord) -> dict[str, str]:
    """The configuration of a record as dotted key -> JSON text, such as ``train.epochs`` -> ``2``."""
    return _settings(record.identity)


def digest(identity: ExperimentIdentity) -> str:
    """The short hash that names a configuration and its data."""
    return hashlib.sha256(canonical(_settings(identity)).encode()).hexdigest()[:8]


def _texts() -> Callable[[ExperimentIdentity], str]:
    """Return a function that gives the settings of an identity as text, once for all identities that share a configuration."""
    known: dict[tuple[int, str], str] = {}

    def text(identity: ExperimentIdentity) -> str:
        key = id(identity.config), identity.fingerprint
        if key not in known:
            known[key] = canonical(_settings(identity))
        return known[key]

    return text


def _settings(identity: ExperimentIdentity) -> dict[str, str]:
    def flatten(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key in sorted(value):
                yield from flatten(f"{prefix}.{key}" if prefix else key, value[key])
        else:
            yield prefix, canonical(value)

    return dict(flatten("", {**identity.config, "fingerprint": identity.fingerprint}))


def _checked(record: Record) -> Record:
    if record.status == "ok" and record.cost:
        result = result_of(record)
        if result.metric not in result.test or result.metric not in result.dense_test:
            raise BenchError(
                f"record {record.id} has no test value of its metric {result.metric!r} for the ticket or for "
                "dense; run its command again"
            )
        if record.cost.inference_macs_dense <= 0:
            raise BenchError(f"record {record.id} says a dense inference takes no MACs; run its command again")
    return record


def _rows(records: Iterable[Record]) -> dict[Row, dict[Column, Cell]]:
    """The rows of a section: one for every method and control or, if a method has tickets of several sequences of rounds, one
    for every sequence; a record that belongs to several sequences is in the row of each."""
    methods: dict[Row, list[Record]] = defaultdict(list)
    for r in records:
        methods[Row(r.label, canonical([r.identity.method, r.identity.method_config]))].append(r)
    cells: dict[Row, dict[Column, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for method, its_records in methods.items():
        paths = _paths(its_records)
        chains = set(paths) - {path[:i] for path in set(paths) for i in range(len(path))}
        for chain in chains:
            row = replace(method, rounds=chain if len(chains) > 1 else ())
            cells[row]  # a control's ticket has its row, even without records
            for r, path in zip(its_records, paths, strict=True):
                if chain[: len(path)] == path:
                    cells[replace(row, control=r.identity.control or "")][as_column(r.identity.densities)].append(r)
    return {row: {column: Cell(tuple(seeds)) for column, seeds in cells[row].items()} for row in sorted(cells)}


def _paths(records: list[Record]) -> list[tuple[Column, ...]]:
    """For each record of one method the densities it was pruned to in turn, its own last; empty if they make no difference.

    They do if any record has rounds. If none has, every ticket may have been requested alone: then the method tells.
    """
    who = records[0].identity
    if any(r.identity.rounds for r in records) or metadata.is_sequential(who.method, who.method_config):
        return [tuple(map(as_column, [*r.identity.rounds, r.identity.densities])) for r in records]
    return [() for _ in records]


def _weights_first(budget: str) -> tuple[bool, str]:
    return budget != "weights", budget


def _board_order(board: Board) -> tuple[object, ...]:
    """Newest version first, then longest training: protocols of papers come before those that take minutes."""
    who = board.records[0].identity
    train = who.config.get("train")
    epochs = train.get("epochs") if isinstance(train, Mapping) else None
    length = epochs if isinstance(epochs, int | float) else 0
    return who.task, -who.task_version, who.data, who.model, -length, who.protocol, board.config
