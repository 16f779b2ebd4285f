"""Analyses: what is measured on networks and tickets beside the test metric.

An analysis is a generator of rows, ``(lab, densities, **options) -> dicts``, found like a method. ``pruning.metadata.analysis``
declares which columns identify a row; all others are numbers measured there, averaged over seeds. The rows of one seed are one
file; pages and plots are made of files.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from omegaconf import MISSING
from pydantic import Field, model_validator
from tabulate import tabulate

from bench import registry
from bench.config import checked
from bench.errors import BenchError, UsageError, unknown
from bench.leaderboard.plots import Matrix, Plot, Series
from bench.leaderboard.statistics import Estimate, estimate
from bench.storage.records import ANALYSIS, Asked, Sealed, canonical, identity_id, read_sealed, safe_name, setting_folder
from bench.task import number
from pruning.metadata import AnalysisInfo, info_of

Value = str | int | float | None
Row = dict[str, Value]

MOST_LINES = 12
"""A plot of more says nothing."""
LONG = 40
"""Rows from which a table is folded."""


class Analysis(NamedTuple):
    """What was asked: a name and all its options."""

    name: str
    options: dict[str, Any]

    @property
    def label(self) -> str:
        """The name and the options that differ from the defaults."""
        defaults = registry.options(registry.analysis(self.name))
        said = [f"{k}={v}" for k, v in self.options.items() if k not in defaults or canonical(v) != canonical(defaults[k])]
        name = self.name.rpartition(":")[2]
        return f"{name}({', '.join(said)})" if said else name


def asked(name: str, overrides: Iterable[str]) -> tuple[Analysis, list[str]]:
    """The analysis that a command line asks for, and what it says to the task: ``analysis.KEY=VALUE`` are its options."""
    function = registry.analysis(name)
    options = {**dict.fromkeys(registry.required(function), MISSING), **registry.options(function)}
    kinds = {f"analysis.{option}": kind for option, kind in registry.hints(function).items()}
    known, rest = {"analysis": dict(options)}, []
    for text in overrides:
        key, _, _ = text.partition("=")
        if key.partition(".")[0] in ("method", "controls"):
            raise UsageError(f"{text}: an analysis runs no method of the command's; its options are analysis.KEY=VALUE")
        if not key.startswith("analysis."):
            rest.append(text)
            continue
        key = key.removeprefix("analysis.")
        if key not in options:
            raise unknown(f"option of analysis {name}", key, options)
        options[key] = checked(text, known, kinds)
    for key, value in options.items():
        if value == MISSING:
            raise UsageError(f"analysis.{key} has no default: give analysis.{key}=...")
    return Analysis(name, options), rest


class AnalysisIdentity(Asked):
    """What was asked of an analysis."""

    analysis: str
    options: dict[str, Any] = Field(description="every option, defaults spelled out")
    densities: list[dict[str, float]]


class AnalysisRecord(Sealed):
    """The rows of one seed."""

    identity: AnalysisIdentity
    about: str = Field(description="what the rows say, in a sentence")
    keys: list[str] = Field(description="columns that say what a row is about; all others were measured")
    plots: list[str] = Field(description="measured columns to plot")
    rows: list[Row]
    stages: list[str] = Field(description="trainings the rows rest on: key/step")
    steps: int = Field(description="training steps they took")

    @model_validator(mode="after")
    def check_rows(self) -> Self:
        """All rows have the same columns, and no two the same keys."""
        if not self.rows:
            raise ValueError("there are no rows")
        for row in self.rows:
            if row.keys() != self.rows[0].keys():
                raise ValueError(f"rows differ in their columns: {', '.join(sorted(row.keys() ^ self.rows[0].keys()))}")
        for name in (*self.keys, *self.plots):
            if name not in self.rows[0]:
                raise ValueError(f"there is no column {name}")
        if len({_at(row, self.keys) for row in self.rows}) < len(self.rows):
            raise ValueError(f"two rows have the same {', '.join(self.keys)}")
        return self

    def path(self, root: Path) -> Path:
        """Where the record lives."""
        return analysis_path(root, self.identity, self.label)

    def content(self) -> dict[str, Any]:
        """All that must be equal when the same command runs again."""
        return self.model_dump(exclude={"digest", "environment", "created", "command"})


def analysis_path(root: Path, identity: AnalysisIdentity, label: str) -> Path:
    """Beside the records of the same setting."""
    return setting_folder(root, identity) / safe_name(f"analysis {label}") / f"{identity_id(identity)}{ANALYSIS}"


def made(lab, analysis: Analysis, densities: list[dict[str, float]]) -> dict[str, Any]:
    """Run an analysis on a lab: the fields of its record that it decides."""
    function: Callable = registry.analysis(analysis.name)
    declared = info_of(function, AnalysisInfo)
    keys = list(declared.keys)
    rows = []
    for row in function(lab, densities, **analysis.options):
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            raise BenchError(f"analysis {analysis.name} gave a row that is no dict by column: {row!r:.60}")
        values = {key: v if v is None or isinstance(v, (str, int)) else number(v, f"{key} of analysis {analysis.name}")
                  for key, v in row.items()}
        rows.append({key: float(f"{v:.12g}") if isinstance(v, float) else v for key, v in values.items()})
    if not rows:
        raise BenchError(f"analysis {analysis.name} gave no rows")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                about = ", ".join(f"{key}={row[key]}" for key in keys if key in row)
                raise BenchError(f"analysis {analysis.name} measured {name} as {value} at {about or 'its only row'}")
    measured = [name for name in rows[0] if name not in keys]
    return {"about": (function.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "), "keys": keys,
            "plots": list(declared.plots) or measured[:1], "rows": rows,
            "stages": [state.key for state in lab.spent().states()], "steps": round(lab.spent().dense_steps)}


def read_analyses(root: Path) -> Iterator[AnalysisRecord]:
    """All below ``root``, in path order."""
    for path in sorted(root.rglob(f"*{ANALYSIS}")):
        yield read_sealed(path, AnalysisRecord)


# Pages


class Group(NamedTuple):
    """Records of one analysis that differ in their seeds alone."""

    records: list[AnalysisRecord]

    @property
    def title(self) -> str:
        """For headings."""
        who = self.records[0].identity
        return " · ".join([who.task, who.data, who.model, who.protocol, self.records[0].label])

    @property
    def slug(self) -> str:
        """For file names; the hash tells apart what the title does not."""
        who = self.records[0].identity
        digest = hashlib.sha256(_setting(self.records[0]).encode()).hexdigest()[:8]
        return safe_name("-".join([who.task, f"v{who.task_version}", who.data, who.model, who.protocol, digest]))

    def table(self) -> dict[tuple[Value, ...], dict[str, Estimate]]:
        """Keys of a row -> measured column -> its estimate over the seeds."""
        keys = self.records[0].keys
        values: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in self.records:
            for row in record.rows:
                found = values[_at(row, keys)]  # a row without a number has its place all the same
                for name, value in row.items():
                    if name not in keys and value is not None:
                        found[name].append(_number(record, name, value))
        return {at: {name: estimate(numbers) for name, numbers in found.items()} for at, found in values.items()}

    def measured(self) -> list[str]:
        """Columns that hold numbers."""
        first = self.records[0]
        return [name for name in first.rows[0] if name not in first.keys]

    def figures(self) -> dict[str, Plot | Matrix]:
        """Path -> plot of a measured column against the first key of numbers, a line for every value of the others; of pairs of
        the same numbers, such as epochs, a picture for every value of the others."""
        first, table = self.records[0], self.table()
        if len(first.keys) > 1 and _are_pairs([at[-2:] for at in table]):
            return self._matrices(table)
        numeric = [i for i, _ in enumerate(first.keys)
                   if len({at[i] for at in table}) > 1 and all(isinstance(at[i], int | float) for at in table)]
        if not numeric:
            return {}
        axis = numeric[0]
        plots = {}
        for column in first.plots:
            lines: dict[str, list[tuple[float, Estimate]]] = defaultdict(list)
            for at, found in table.items():
                others = [f"{key}={value}" if isinstance(value, int | float) else str(value)
                          for i, (key, value) in enumerate(zip(first.keys, at, strict=True)) if i != axis]
                if column in found:
                    lines[", ".join(others)].append((float(at[axis]), found[column]))
            if not 0 < len(lines) <= MOST_LINES:
                continue
            series = tuple(Series(label or column, i, None, tuple(x for x, _ in points),
                                  tuple(_rounded(e.mean) for _, e in points), tuple(_rounded(e.half or 0) for _, e in points))
                           for i, (label, points) in enumerate(lines.items()))
            name = safe_name(f"{first.identity.analysis}-{column}")
            plots[f"plots/{self.slug}/{name}.svg"] = Plot(self.title, first.keys[axis], column, False, series)
        return plots

    def _matrices(self, table: dict[tuple[Value, ...], dict[str, Estimate]]) -> dict[str, Plot | Matrix]:
        first, made = self.records[0], {}
        for column in first.plots:
            pictures: dict[tuple[Value, ...], list[tuple[float, float, float]]] = defaultdict(list)
            for at, found in table.items():
                if column in found:
                    pictures[at[:-2]].append((float(at[-2]), float(at[-1]), _rounded(found[column].mean)))
            for others, cells in pictures.items():
                said = [f"{key} {_text(value)}" for key, value in zip(first.keys, others, strict=False)]
                name = safe_name("-".join([first.identity.analysis, column, *map(_text, others)]))
                title = ", ".join([self.title, *said])
                made[f"plots/{self.slug}/{name}.svg"] = Matrix(title, *first.keys[-2:], column, tuple(cells))
        return made


def _are_pairs(pairs: Sequence[tuple[Value, ...]]) -> bool:
    """Whether these are ordered pairs of numbers of one range."""
    if not all(isinstance(a, int | float) and isinstance(b, int | float) and a < b for a, b in pairs):
        return False
    return len({a for a, _ in pairs} & {b for _, b in pairs}) > 1


def groups(records: Iterable[AnalysisRecord]) -> dict[str, list[Group]]:
    """By analysis, then by setting."""
    found: dict[str, dict[str, list[AnalysisRecord]]] = defaultdict(lambda: defaultdict(list))
    seen: set[str] = set()
    for record in sorted(records, key=lambda r: (r.identity.analysis, _setting(r), r.identity.seed)):
        if record.id in seen:
            raise BenchError(f"two analyses have id {record.id} ({record.label}): remove the one that is not at its own path")
        seen.add(record.id)
        found[record.identity.analysis][_setting(record)].append(record)
    return {name: [Group(mine) for mine in settings.values()] for name, settings in found.items()}


def page_path(name: str) -> str:
    """The page of an analysis."""
    return f"analysis_{safe_name(name.rpartition(':')[2])}.md"


def summary(records: Iterable[AnalysisRecord]) -> str:
    """Plain text for a terminal."""
    return "\n\n".join(f"{group.title}\n" + tabulate(*lines(group), "simple", disable_numparse=True)
                       for mine in groups(records).values() for group in mine)


def lines(group: Group) -> tuple[list[list[str]], list[str]]:
    """The rows of a group's table, and its headers: keys, then mean ± half-width of the 95 % interval (seeds)."""
    columns = group.measured()
    rows = [[*map(_text, at), *(measurement(found[c]) if c in found else "—" for c in columns)]
            for at, found in group.table().items()]
    return rows, [*group.records[0].keys, *columns]


def _setting(record: AnalysisRecord) -> str:
    return canonical({**record.identity.model_dump(exclude={"seed"}), "keys": record.keys})


def _at(row: Mapping[str, Value], keys: list[str]) -> tuple[Value, ...]:
    return tuple(row[key] for key in keys)


def _number(record: AnalysisRecord, name: str, value: Value) -> float:
    if isinstance(value, str):
        raise BenchError(f"analysis {record.id} ({record.label}) has text in its measured column {name}: {value!r}")
    return float(value)


def _rounded(value: float) -> float:
    """Six digits: the last bit of a library's t quantile changes no seal."""
    return float(f"{value:.6g}")


def _text(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "—" if value is None else str(value)


def measurement(value: Estimate, sign: str = "") -> str:
    """Mean ± half-width of the 95 % interval (seeds), to few digits of whatever size; with ``sign`` +, always signed."""
    half = "" if value.half is None else f" ± {value.half:.2g}"
    return f"{value.mean:{sign}.4g}{half} ({value.n})"

