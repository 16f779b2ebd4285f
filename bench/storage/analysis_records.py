"""Records of analyses: one file of rows for one setting, analysis and seed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from bench.storage.records import ANALYSIS, ChecksummedRecord, ExperimentIdentity, Record, read_sealed

Value = str | int | float | None
Row = dict[str, Value]


class AnalysisIdentity(ExperimentIdentity):
    """The setting, analysis, options and densities of a record. The hash of it is the record's id."""

    prefix: ClassVar[str] = "analysis "
    ending: ClassVar[str] = ANALYSIS
    analysis: str
    options: dict[str, Any] = Field(description="every option, defaults spelled out")
    densities: list[dict[str, float]]


class AnalysisRecord(ChecksummedRecord):
    """The rows that an analysis measured with one seed."""

    identity: AnalysisIdentity
    about: str = Field(description="what the rows say, in a sentence")
    keys: list[str] = Field(description="columns that say what a row is about; all others were measured")
    plots: list[str] = Field(description="measured columns to plot")
    rows: list[Row]
    stages: list[str] = Field(description="trainings the rows rest on: key/step")
    steps: int = Field(description="training steps they took")

    @model_validator(mode="after")
    def check_rows(self) -> Self:
        """Refuse rows whose columns differ, and two rows with the same keys."""
        if not self.rows:
            raise ValueError("there are no rows")
        for row in self.rows:
            if row.keys() != self.rows[0].keys():
                raise ValueError(f"rows differ in their columns: {', '.join(sorted(row.keys() ^ self.rows[0].keys()))}")
        for name in (*self.keys, *self.plots):
            if name not in self.rows[0]:
                raise ValueError(f"there is no column {name}")
        if len({keys_of(row, self.keys) for row in self.rows}) < len(self.rows):
            raise ValueError(f"two rows have the same {', '.join(self.keys)}")
        return self


def keys_of(row: Mapping[str, Value], keys: Sequence[str]) -> tuple[Value, ...]:
    """Return the values of a row's keys."""
    return tuple(row[key] for key in keys)


def read_any(path: Path) -> Record | AnalysisRecord:
    """Read and validate one record, of a network or of an analysis, which its file's name tells."""
    return read_sealed(path, AnalysisRecord) if path.name.endswith(ANALYSIS) else read_sealed(path, Record)


def read_analyses(root: Path) -> Iterator[AnalysisRecord]:
    """Yield all records of analyses below ``root``, in the order of their paths."""
    for path in sorted(root.rglob(f"*{ANALYSIS}")):
        yield read_sealed(path, AnalysisRecord)
