"""Records of analyses grouped by setting: their tables and plots as plain data."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.errors import BenchError
from bench.leaderboard import format, method_metadata, plot_styles
from bench.leaderboard.boards import Board, slug
from bench.leaderboard.plots import HeatMap, Plot, Series, panels_of
from bench.leaderboard.statistics import Estimate, estimate
from bench.leaderboard.table_types import Measurement, Table
from bench.storage.analysis_records import AnalysisRecord, Value, keys_of
from bench.storage.files import canonical, safe_name

MOST_LINES = 12
"""A plot of more lines is left out: nobody could tell them apart."""


class Group(NamedTuple):
    """Records of one analysis that differ only in their seeds."""

    records: list[AnalysisRecord]

    @property
    def title(self) -> str:
        """The heading of the group."""
        return " · ".join([*self.records[0].identity.names, self.records[0].label])

    @property
    def slug(self) -> str:
        """The group's part of file names, with a hash because groups may share a title."""
        return slug(self.records[0].identity, hashlib.sha256(_setting(self.records[0]).encode()).hexdigest()[:8])

    def table(self) -> dict[tuple[Value, ...], dict[str, Estimate]]:
        """The rows: values of the keys -> measured column -> estimate over the seeds."""
        keys = self.records[0].keys
        values: dict[tuple[Value, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in self.records:
            for row in record.rows:
                measured = values[keys_of(row, keys)]  # a row without any number is shown too
                for name, value in row.items():
                    if name not in keys and value is not None:
                        measured[name].append(_number(record, name, value))
        return {at: {name: estimate(numbers) for name, numbers in measured.items()} for at, measured in values.items()}

    def measured(self) -> list[str]:
        """The columns that were measured."""
        first = self.records[0]
        return [name for name in first.rows[0] if name not in first.keys]

    def figures(self) -> dict[str, Plot | HeatMap]:
        """The plots by their paths. Each shows a measured column against the first numeric key, with a line for each value of
        the other keys. If the last two keys are ordered pairs of numbers, such as epochs, it is a heat map of them."""
        first, table = self.records[0], self.table()
        if len(first.keys) > 1 and _are_pairs([at[-2:] for at in table]):
            return self._matrices(table)
        numeric = [
            i
            for i, _ in enumerate(first.keys)
            if len({at[i] for at in table}) > 1 and all(isinstance(at[i], int | float) for at in table)
        ]
        if not numeric:
            return {}
        axis = numeric[0]
        plots: dict[str, Plot | HeatMap] = {}
        for column in first.plots:
            lines: dict[str, list[tuple[float, Estimate]]] = defaultdict(list)
            for at, measured in table.items():
                others = [
                    f"{key}={value}" if isinstance(value, int | float) else str(value)
                    for i, (key, value) in enumerate(zip(first.keys, at, strict=True))
                    if i != axis
                ]
                if column in measured:
                    lines[", ".join(others)].append((_float(at[axis]), measured[column]))
            if not 0 < len(lines) <= MOST_LINES:
                continue
            series = [
                Series(
                    label or column,
                    plot_styles.nth(i),
                    tuple(x for x, _ in points),
                    tuple(format.significant(e.mean) for _, e in points),
                    tuple(format.significant(e.half or 0) for _, e in points),
                )
                for i, (label, points) in enumerate(lines.items())
            ]
            name = safe_name(f"{first.identity.analysis}-{column}")
            plots[f"plots/{self.slug}/{name}.svg"] = Plot(self.title, first.keys[axis], column, panels_of(series))
        return plots

    def _matrices(self, table: dict[tuple[Value, ...], dict[str, Estimate]]) -> dict[str, Plot | HeatMap]:
        first, plots = self.records[0], dict[str, Plot | HeatMap]()
        for column in first.plots:
            maps: dict[tuple[Value, ...], list[tuple[float, float, float]]] = defaultdict(list)
            for at, measured in table.items():
                if column in measured:
                    maps[at[:-2]].append((_float(at[-2]), _float(at[-1]), format.significant(measured[column].mean)))
            for others, cells in maps.items():
                keys = [f"{key} {format.scalar(value)}" for key, value in zip(first.keys, others, strict=False)]
                name = safe_name("-".join([first.identity.analysis, column, *map(format.scalar, others)]))
                title = ", ".join([self.title, *keys])
                plots[f"plots/{self.slug}/{name}.svg"] = HeatMap(title, first.keys[-2], first.keys[-1], column, tuple(cells))
        return plots


def _are_pairs(pairs: Sequence[tuple[Value, ...]]) -> bool:
    """Whether these are pairs (a, b) of numbers with a < b, some number of which is an a and a b."""
    if not all(isinstance(a, int | float) and isinstance(b, int | float) and a < b for a, b in pairs):
        return False
    return len({a for a, _ in pairs} & {b for _, b in pairs}) > 1


def groups(records: Iterable[AnalysisRecord]) -> dict[str, list[Group]]:
    """Group records by the name of their analysis and by their setting. BenchError if two records have one id."""
    by_name: dict[str, dict[str, list[AnalysisRecord]]] = defaultdict(lambda: defaultdict(list))
    seen: set[str] = set()
    for record in sorted(records, key=lambda r: (r.identity.analysis, _setting(r), r.identity.seed)):
        if record.id in seen:
            raise BenchError(f"two analyses have id {record.id} ({record.label}): remove the one that is not at its own path")
        seen.add(record.id)
        by_name[record.identity.analysis][_setting(record)].append(record)
    return {name: [Group(of_setting) for of_setting in settings.values()] for name, settings in by_name.items()}


def on_board(board: Board, of_analyses: Iterable[Sequence[Group]]) -> list[Group]:
    """The groups whose rows a board shows: of analyses that look at its data alone, whatever the model, one for each analysis."""
    identity, shown = board.records[0].identity, dict[str, Group]()
    for group in (group for of_name in of_analyses for group in of_name):
        other = group.records[0].identity
        same = all(getattr(identity, key) == getattr(other, key) for key in ("task", "task_version", "data", "fingerprint"))
        if same and method_metadata.analysis_info(other.analysis).on_boards:
            shown.setdefault(other.analysis, group)
    return list(shown.values())


def table_of(group: Group) -> Table:
    """The rows of a group: its keys, then its measured columns."""
    columns = group.measured()
    rows = [
        [*map(format.scalar, at), *(Measurement(measured.get(column)) for column in columns)]
        for at, measured in group.table().items()
    ]
    return Table([*group.records[0].keys, *columns], rows)


def page_path(name: str) -> str:
    """The path of an analysis' page."""
    return f"analysis_{safe_name(name.rpartition(':')[2])}.md"


def _setting(record: AnalysisRecord) -> str:
    return canonical({**record.identity.model_dump(exclude={"seed"}), "keys": record.keys})


def _number(record: AnalysisRecord, name: str, value: Value) -> float:
    if isinstance(value, str):
        raise BenchError(f"analysis {record.id} ({record.label}) has text in its measured column {name}: {value!r}")
    return _float(value)


def _float(value: Value) -> float:
    """A value that is known to be a number."""
    assert isinstance(value, int | float)
    return float(value)
