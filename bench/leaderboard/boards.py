"""Records grouped by what may be compared: a board for each setting."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.errors import BenchError
from bench.leaderboard.sections import Cell, Section, as_column, is_dense, result_of, rows_of, weights_first
from bench.leaderboard.statistics import Estimate, estimate
from bench.storage.files import canonical, safe_name
from bench.storage.records import ChecksummedRecord, ExperimentIdentity, Record
from bench.storage.reruns import Rerun, outcomes


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
        identity = self.records[0].identity
        parts = [
            *identity.names[1:],
            *([f"config {self.config}"] if self.config else []),
            *([f"old task version {identity.task_version}"] if self.old else []),
        ]
        return " · ".join(parts)

    @property
    def slug(self) -> str:
        """The board's part of file names."""
        return slug(self.records[0].identity, self.config)

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
        for budgets, records in sorted(by_budgets.items(), key=lambda item: (len(item[0]), [weights_first(b) for b in item[0]])):
            rows = rows_of(records)
            columns = sorted({column for cells in rows.values() for column in cells}, reverse=True)
            sections.append(Section(budgets, columns, rows, self.metric[1], self.checked))
        return sections


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
    by_names: dict[tuple[int, str, str, str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    newest: dict[str, int] = defaultdict(int)
    texts = _texts()
    for record in sorted(unique.values(), key=lambda r: r.id):
        identity = record.identity
        by_names[identity.task_version, *identity.names][texts(identity)].append(record)
        newest[identity.task] = max(newest[identity.task], identity.task_version)
    grouped = []
    for (version, task, *_), configs in by_names.items():
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


def slug(identity: ExperimentIdentity, suffix: str) -> str:
    """The part of file names that is of a setting; ``suffix``: what tells settings of the same names apart, or empty."""
    task, *others = identity.names
    return safe_name("-".join(part for part in (task, f"v{identity.task_version}", *others, suffix) if part))


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


def _board_order(board: Board) -> tuple[object, ...]:
    """Newest version first, then longest training: protocols of papers come before those that take minutes."""
    identity = board.records[0].identity
    train = identity.config.get("train")
    epochs = train.get("epochs") if isinstance(train, Mapping) else None
    length = epochs if isinstance(epochs, int | float) else 0
    return identity.task, -identity.task_version, identity.data, identity.model, -length, identity.protocol, board.config
