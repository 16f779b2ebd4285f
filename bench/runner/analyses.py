"""Run an analysis: what is measured on networks and tickets in addition to the test metric.

An analysis is a generator of rows, ``(lab, densities, **options) -> dicts``, found like a method. ``pruning.metadata.analysis``
declares which columns identify a row; all others hold measured numbers, averaged over seeds. The rows of one seed are one file;
pages and plots are made of the files.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from omegaconf import MISSING

from bench import registry
from bench.config import checked
from bench.errors import BenchError, UsageError, one_of
from bench.lab.lab import Lab
from bench.storage.files import canonical
from bench.task import number
from pruning.metadata import AnalysisInfo, info_of


class Analysis(NamedTuple):
    """A requested analysis: its name and all its options."""

    name: str
    options: dict[str, Any]

    @property
    def label(self) -> str:
        """The name and the options that differ from the defaults."""
        defaults = registry.options(registry.analysis(self.name))
        changed = {k: v for k, v in self.options.items() if k not in defaults or canonical(v) != canonical(defaults[k])}
        return with_options(self.name, changed)


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """Return a label: the name of a method or analysis without its file, and options in brackets."""
    listed = ", ".join(f"{key}={value}" for key, value in options.items())
    return name.rpartition(":")[2] + (f"({listed})" if listed else "")


def requested(name: str, overrides: Iterable[str]) -> tuple[Analysis, list[str]]:
    """Return the analysis that a command line requests, and the remaining words. ``analysis.KEY=VALUE`` are options of the
    analysis."""
    function = registry.analysis(name)
    options = {**dict.fromkeys(registry.required(function), MISSING), **registry.options(function)}
    kinds = {f"analysis.{option}": kind for option, kind in registry.hints(function).items()}
    known, rest = {"analysis": dict(options)}, []
    for text in overrides:
        key, _, _ = text.partition("=")
        if key.partition(".")[0] in ("method", "controls", "pattern"):
            raise UsageError(f"{text}: an analysis runs no method of the command's; its options are analysis.KEY=VALUE")
        if not key.startswith("analysis."):
            rest.append(text)
            continue
        key = key.removeprefix("analysis.")
        one_of(f"option of analysis {name}", key, options)
        options[key] = checked(text, known, kinds)
    for key, value in options.items():
        if value == MISSING:
            raise UsageError(f"analysis.{key} has no default: give analysis.{key}=...")
    return Analysis(name, options), rest


def measure(lab: Lab, analysis: Analysis, densities: list[dict[str, float]]) -> dict[str, Any]:
    """Run an analysis on a lab; return the fields of its record that the analysis decides."""
    function: Callable[..., Any] = registry.analysis(analysis.name)
    declared = info_of(function, AnalysisInfo)
    keys = list(declared.keys)
    rows: list[dict[str, Any]] = []
    for row in function(lab, densities, **analysis.options):
        if rows and not keys:
            raise BenchError(
                f"analysis {analysis.name} gave a second row: name the columns that identify it by @analysis(keys=(...))"
            )
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            raise BenchError(f"analysis {analysis.name} gave a row that is no dict by column: {row!r:.60}")
        values = {
            key: v if v is None or isinstance(v, (str, int)) else number(v, f"{key} of analysis {analysis.name}")
            for key, v in row.items()
        }
        rows.append({key: float(f"{v:.12g}") if isinstance(v, float) else v for key, v in values.items()})
    if not rows:
        raise BenchError(f"analysis {analysis.name} gave no rows")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                about = ", ".join(f"{key}={row[key]}" for key in keys if key in row)
                raise BenchError(f"analysis {analysis.name} measured {name} as {value} at {about or 'its only row'}")
    measured = [name for name in rows[0] if name not in keys]
    return {
        "about": (function.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        "keys": keys,
        "plots": list(declared.plots) or measured[:1],
        "rows": rows,
        "stages": [state.key for state in lab.spent().states()],
        "steps": round(lab.spent().dense_steps),
    }
