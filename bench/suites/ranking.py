"""The ranking of a suite: every method's curve at every event, from boards, and what the score makes of them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import OF_DENSE, BenchError
from bench.leaderboard import format, method_metadata
from bench.leaderboard.boards import Board, digest
from bench.leaderboard.sections import as_column, is_dense, result_of
from bench.leaderboard.statistics import better, estimate, mean
from bench.leaderboard.table_types import Column
from bench.storage.files import canonical
from bench.storage.records import Record
from bench.suites import score
from bench.suites.schema import Event, Suite

SHARES = (1.0, 0.99, 0.95, 0.9, 0.75, 0.5)
"""Of performance profiles: shares of the best method's retention."""


@dataclass(frozen=True)
class Curve:
    """One method at one event; it is whole.

    retentions  a row for every seed, a column for every density of the event
    random      the same of its random control
    score       mean area of the seeds
    matching    smallest density whose mean test metric lies within or above the dense network's 95 % interval; None: none
    beats       whether its areas are separably larger than its random control's; None if the control does not apply
    cost        search and training, in dense trainings, mean over seeds and densities
    """

    event: Event
    retentions: tuple[tuple[float, ...], ...]
    random: tuple[tuple[float, ...], ...] | None
    matching: float | None
    beats: bool | None
    cost: float

    @property
    def areas(self) -> list[float]:
        """The area under the curve of every seed."""
        return list(_areas(self.event, self.retentions).values())

    @property
    def score(self) -> float:
        """The mean area."""
        return mean(self.areas)

    @property
    def random_score(self) -> float | None:
        """The mean area of its random control; None if that does not apply."""
        return mean(_areas(self.event, self.random).values()) if self.random else None

    @property
    def means(self) -> list[float]:
        """The mean retention at every density."""
        return [mean(column) for column in zip(*self.retentions, strict=True)]


@dataclass(frozen=True)
class Entry:
    """A method of a suite. ``label``: it and its options; ``curves``: by name of the event, whole ones alone; ``missing``: name
    of an event -> why it has no curve there."""

    method: str
    label: str
    curves: dict[str, Curve]
    missing: dict[str, str]


@dataclass(frozen=True)
class Ranked:
    """A whole row of a suite. ``mean_rank``: over events, by their scores; ``beats``: events in which it beats its random control
    and events that have one; ``profile``: for every one of ``SHARES``."""

    rank: int
    entry: Entry
    score: float
    low: float
    high: float
    mean_rank: float
    beats: tuple[int, int]
    cost: float
    profile: tuple[float, ...]

    @property
    def label(self) -> str:
        """The method and its options."""
        return self.entry.label


@dataclass(frozen=True)
class Ranking:
    """What the records say of a suite: whole rows, best first, and methods that have some of its events, by label."""

    suite: Suite
    ranked: tuple[Ranked, ...]
    unranked: tuple[Entry, ...]


def ranking(suite: Suite, boards: Iterable[Board]) -> Ranking:
    """Rank every method that has records at events of a suite."""
    entries = _entries(suite, list(boards))
    whole = [entry for entry in entries if not entry.missing]
    domains = {domain: [event.name for event in events] for domain, events in suite.domains.items()}
    scores = {e.label: score.balanced({name: c.score for name, c in e.curves.items()}, domains) for e in whole}
    whole.sort(key=lambda entry: (-scores[entry.label], entry.label))
    drawn = [score.draws({name: curve.areas for name, curve in entry.curves.items()}, domains) for entry in whole]
    ranks = score.shared_ranks(len(whole), lambda i, j: score.separated(drawn[i], drawn[j]))
    by_event = {e.name: score.mean_ranks([entry.curves[e.name].score for entry in whole]) for e in suite.events}
    cells = {e.label: [mean for event in suite.events for mean in e.curves[event.name].means] for e in whole}
    profiles = score.profile(cells, SHARES) if whole else {}
    ranked = tuple(
        Ranked(
            ranks[i],
            entry,
            scores[entry.label],
            *score.interval(drawn[i]),
            mean(by_event[event.name][i] for event in suite.events),
            _beats(entry),
            mean(curve.cost for curve in entry.curves.values()),
            tuple(profiles[entry.label]),
        )
        for i, entry in enumerate(whole)
    )
    return Ranking(suite, ranked, tuple(entry for entry in entries if entry.missing))


def board_of(event: Event, boards: Iterable[Board]) -> Board | None:
    """The board whose records count at an event; None if there is none."""
    for board in boards:
        identity = board.records[0].identity
        if identity.names == event.names and digest(identity) == event.config:
            return board
    return None


def _entries(suite: Suite, boards: Sequence[Board]) -> list[Entry]:
    """Every method that has a record at a density of an event, by label."""
    found: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    labels: dict[str, str] = {}
    higher: dict[str, bool] = {}
    for event in suite.events:
        board = board_of(event, boards)
        if board is None:
            continue
        higher[event.name] = board.metric[1]
        for key, records in _by_method(event, board.records).items():
            found[key][event.name] = records
            labels.setdefault(key, plain_label(records[0]))
    twice = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    entries = []
    for key, by_event in found.items():
        label = f"{labels[key]} #{hashlib.sha256(key.encode()).hexdigest()[:6]}" if labels[key] in twice else labels[key]
        curves: dict[str, Curve] = {}
        missing: dict[str, str] = {}
        for event in suite.events:
            made = _curve(event, suite.controls, by_event.get(event.name, []), higher.get(event.name, True))
            if isinstance(made, Curve):
                curves[event.name] = made
            else:
                missing[event.name] = made
        method = next(iter(by_event.values()))[0].identity.method
        entries.append(Entry(method, label, curves, missing))
    return sorted(entries, key=lambda entry: entry.label)


def plain_label(record: Record) -> str:
    """A record's label without rewinding to pre-trained weights, which are the initial ones where there are any."""
    name, _, options = record.label.partition("(")
    kept = [word for word in options.removesuffix(")").split(", ") if word not in ("", "rewind=pretrained")]
    return f"{name}({', '.join(kept)})" if kept else name


def method_key(record: Record) -> str:
    """Equal for records of one method with equal options, on whatever task."""
    options = {k: "init" if (k, v) == ("rewind", "pretrained") else v for k, v in record.identity.method_config.items()}
    return canonical([record.identity.method, options])


def _by_method(event: Event, records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records that count at an event, by method: of its seeds and densities. Tickets that depend on the densities before
    theirs must have come through the event's own, every one of them. Of two records that differ in ``rewind=pretrained`` and
    ``rewind=init``, which name one start, the latter comes last and counts."""
    columns = event.columns
    found: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.identity.method_config.get("rewind") == "init", r.id)):
        column = as_column(record.identity.densities)
        if not is_dense(record) and column in columns and record.identity.seed < event.seeds:
            found[method_key(record)].append(record)
    return {key: counted for key, of_method in found.items() if (counted := _counted(of_method, columns))}


def _counted(of_method: list[Record], columns: list[Column]) -> list[Record]:
    """Those records of one method whose rounds are the densities before their own; or all, if rounds make no difference."""
    identity = of_method[0].identity
    if not (method_metadata.is_sequential(identity.method, identity.method_config) or any(r.identity.rounds for r in of_method)):
        return of_method
    return [
        r
        for r in of_method
        if [as_column(passed) for passed in r.identity.rounds] == columns[: columns.index(as_column(r.identity.densities))]
    ]


def _curve(event: Event, controls: Sequence[str], records: list[Record], higher: bool) -> Curve | str:
    """The curve of a method at an event, or in a few words why there is none."""
    at = {(r.identity.control, as_column(r.identity.densities), r.identity.seed): r for r in records}
    tickets = [at[None, column, seed] for column in event.columns for seed in range(event.seeds) if (None, column, seed) in at]
    if any(r.status == "not_applicable" for r in tickets):
        return "not applicable"
    if not tickets:
        return "not run"
    for control in (None, *controls):
        made = {c: sum(not _lacks(at.get((control, c, seed))) for seed in range(event.seeds)) for c in event.columns}
        gaps = {count: [c for c in made if made[c] == count] for count in made.values() if count < event.seeds}
        if gaps:
            at_densities = (
                f"{count} of {event.seeds} seeds at {', '.join(format.number(c[0][1]) for c in columns)}"
                for count, columns in sorted(gaps.items())
            )
            return f"{f'control {control}' if control else 'tickets'}: {'; '.join(at_densities)}"
    retentions = _retentions(event, at, None, higher)
    assert retentions
    random = _retentions(event, at, "random", higher)
    matching = [c[0][1] for c in event.columns if _matches_dense([at[None, c, s] for s in range(event.seeds)], higher)]
    costs = [r.cost.search_dense_trainings + r.cost.train_dense_trainings for r in tickets if r.cost]
    return Curve(
        event,
        retentions,
        random,
        min(matching) if matching else None,
        better(_areas(event, retentions), _areas(event, random), True) if random else None,
        mean(costs) if costs else 0.0,
    )


def _areas(event: Event, rows: Sequence[Sequence[float]]) -> dict[int, float]:
    """Seed -> area under its curve."""
    return {seed: score.area(event.densities, row) for seed, row in enumerate(rows)}


def _lacks(record: Record | None) -> bool:
    return record is None or record.status == "failed"


def _retentions(
    event: Event, at: Mapping[Any, Record], control: str | None, higher: bool
) -> tuple[tuple[float, ...], ...] | None:
    """Seed by density; a network that diverged is worth chance. None if the control does not apply."""
    rows = [[at[control, column, seed] for column in event.columns] for seed in range(event.seeds)]
    if any(r.status == "not_applicable" for row in rows for r in row):
        return None
    return tuple(tuple(_retention(event, r, higher) for r in row) for row in rows)


def _retention(event: Event, record: Record, higher: bool) -> float:
    if record.status == "diverged":
        if (record.reason or "").startswith(OF_DENSE):
            raise BenchError(f"record {record.id} at event {event.name}: {record.reason}, so nothing can be compared with it")
        return 0.0
    result = result_of(record)
    try:
        return score.retention(result.test[result.metric], result.dense_test[result.metric], event.chance, higher)
    except BenchError as error:
        raise BenchError(f"record {record.id} at event {event.name}: {error}") from None


def _matches_dense(records: Sequence[Record], higher: bool) -> bool:
    """Whether the mean over seeds lies within the dense network's interval or on the better side of it."""
    if any(r.status != "ok" for r in records):
        return False
    results = [result_of(r) for r in records]
    dense = estimate(result.dense_test[result.metric] for result in results)
    reached = mean(result.test[result.metric] for result in results)
    sign = 1 if higher else -1
    return sign * (reached - dense.mean) + (dense.half or 0) >= 0


def _beats(entry: Entry) -> tuple[int, int]:
    beats = [curve.beats for curve in entry.curves.values() if curve.beats is not None]
    return sum(beats), len(beats)
