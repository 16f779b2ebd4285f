"""Records: one JSON file for one task x data x model x method x densities x seed x control."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from bench.errors import BenchError, first_problem
from bench.storage.cost import MEASURED, Cost
from bench.storage.files import canonical, parsed, safe_name, text_sum, write_atomic
from bench.storage.migrations import DAMAGED, SCHEMA, migrated
from bench.storage.strict_model import Strict

ANALYSIS = ".analysis.json"
"""The ending of files of analyses, which are in the same folders as the records."""


class ExperimentIdentity(Strict):
    """The setting of an experiment."""

    prefix: ClassVar[str] = ""
    """Of the folder's name of a record."""
    ending: ClassVar[str] = ".json"
    """Of a record's file."""
    task: str
    task_version: int
    data: str
    model: str
    protocol: str
    config: dict[str, Any] = Field(
        description="data, model and train sections: all that can change numbers; "
        "train.precision: auto as bf16, whichever of the two was used"
    )
    fingerprint: str = Field(description="sha256 of the data as used")
    seed: int

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Task, data, model and protocol."""
        return self.task, self.data, self.model, self.protocol


class Identity(ExperimentIdentity):
    """The setting, method, densities and control of a record. The hash of it is the record's id."""

    method: str
    method_config: dict[str, Any] = Field(description="every option of the method, defaults spelled out")
    densities: dict[str, float] = Field(description="budget -> density asked; empty for a dense network")
    rounds: list[dict[str, float]] = Field(
        description="densities asked before these, highest first, where the method's tickets depend on them; else empty"
    )
    control: str | None = Field(None, description="the control applied to the ticket; None: the ticket itself")


class BudgetUse(Strict):
    """The density that was requested of one budget, and how many of its entries are kept."""

    asked: float | None = Field(description="density asked; None: the budget was not pruned")
    kept: int
    total: int


class TensorUse(Strict):
    """How many entries of one tensor are kept."""

    kept: int
    total: int


class Result(Strict):
    """The metrics of the trained ticket at its last step, and of the dense network of the same seed."""

    metric: str
    higher_is_better: bool
    val: dict[str, float]
    test: dict[str, float]
    dense_val: dict[str, float]
    dense_test: dict[str, float]
    step: int
    untrained_val: dict[str, float] | None = Field(
        None, description="of the ticket before its weights were trained, where it was found by learning which of them to keep"
    )
    untrained_test: dict[str, float] | None = None


class TicketOrigin(Strict):
    """The origin of a ticket: its masks, the start of its training, and the stages of its search."""

    masks: str = Field(description="sha256 digest of the masks")
    start: str = Field(description="key of the state its training starts from")
    schedule: str
    stages: list[str] = Field(description="every stage of search and training, in order: key/from-to")
    notes: dict[str, Any] = Field(default_factory=dict)


class ChecksummedRecord(Strict):
    """A record with an id and a digest, so that its integrity can be checked without trusting its sender."""

    schema_version: int = Field(SCHEMA, description="of this format")
    id: str = Field(description="sha256 of the identity, first 16 hex digits")
    digest: str = Field(description="sha256 of everything else in the record: nobody edits a number by hand")
    label: str = Field(description="what was asked, in short: names, and options that differ from their defaults")
    note: str = Field("", description="what every table of this data must say")
    identity: ExperimentIdentity
    command: str
    environment: dict[str, Any]
    created: str = Field(description="UTC, ISO 8601")

    @classmethod
    def make(cls, identity: ExperimentIdentity, **fields: Any) -> Self:
        """Return a record with its id and digest filled in."""
        draft = cls.model_construct(id=identity_id(identity), identity=identity, **fields)
        return cls(**{name: getattr(draft, name) for name in cls.model_fields if name != "digest"}, digest=draft._sum())

    @model_validator(mode="after")
    def check_seal(self) -> Self:
        """Refuse a record whose id or digest does not match its content."""
        if self.id != identity_id(self.identity):
            raise ValueError(f"id {self.id} is not that of the identity block ({identity_id(self.identity)})")
        if self.digest != self._sum():
            raise ValueError("the digest is not that of the record")
        return self

    @property
    def precision(self) -> str | None:
        """The precision that was used; older records used the one that they requested. None: the task offers no choice."""
        declared = self.environment.get("precision", self.identity.config.get("train", {}).get("precision"))
        return None if declared is None else str(declared)

    @property
    def folder(self) -> str:
        """The folder of the record's file, below that of all records."""
        return record_folder(self.identity, self.label)

    def path(self, root: Path) -> Path:
        """Return the record's file below ``root``."""
        return root / self.folder / f"{self.id}{self.identity.ending}"

    def content(self) -> dict[str, Any]:
        """Return everything that must be equal when the same command runs again: no times, dates, paths or machines."""
        return self.model_dump(exclude={"digest", "environment", "created", "command"})

    def _sum(self) -> str:
        return text_sum(canonical(self.model_dump(exclude={"digest"})))


Kind = TypeVar("Kind", bound=ChecksummedRecord)


class Record(ChecksummedRecord):
    """The record of one network: its identity, result, masks and costs."""

    status: Literal["ok", "diverged", "not_applicable", "failed"]
    reason: str | None = None
    identity: Identity
    result: Result | None = None
    budgets: dict[str, BudgetUse] = Field(default_factory=dict)
    tensors: dict[str, TensorUse] = Field(default_factory=dict)
    collapsed: list[str] = Field(default_factory=list, description="tensors of which nothing is kept")
    ticket: TicketOrigin | None = None
    cost: Cost | None = None

    @model_validator(mode="after")
    def check(self) -> Self:
        """Refuse a record whose status is ok but that lacks numbers, or that keeps more than requested."""
        if self.status == "ok" and None in (self.result, self.ticket, self.cost):
            raise ValueError("status is ok but result, ticket or cost is missing")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status is {self.status} but no reason is given")
        for name, budget in self.budgets.items():
            if budget.asked is not None and budget.kept - budget.asked * budget.total > 1:  # a density is a bound
                raise ValueError(f"budget {name} keeps {budget.kept} of {budget.total}, asked {budget.asked}")
        return self

    def content(self) -> dict[str, Any]:
        """Return the same without the costs that are measured in seconds."""
        content = super().content()
        if content["cost"]:
            content["cost"] = {name: value for name, value in content["cost"].items() if name not in MEASURED}
        return content


def record_path(root: Path, identity: ExperimentIdentity, label: str) -> Path:
    """Return the file of a record of any kind: readable folders, and the id as its name."""
    return root / record_folder(identity, label) / f"{identity_id(identity)}{identity.ending}"


def record_folder(identity: ExperimentIdentity, label: str) -> str:
    """Return the folder of a record's file, below that of all records: its setting and its label."""
    task, *others = identity.names
    return "/".join(map(safe_name, (task, "-".join(others), identity.prefix + label)))


def identity_id(identity: ExperimentIdentity) -> str:
    """Return the first 16 hex digits of the sha256 of the canonical identity."""
    return text_sum(canonical(identity.model_dump()))[:16]


def write_record(record: ChecksummedRecord, root: Path) -> Path:
    """Store a record of any kind under ``root``; return its path."""
    return write_sealed(record, record.path(root))


def write_sealed(record: Strict, path: Path) -> Path:
    """Store a record of any kind as JSON at a path of its own; return the path."""
    write_atomic(path, json.dumps(record.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def read_record(path: Path) -> Record:
    """Read and validate one record. Every flaw is one line that names the file."""
    return read_sealed(path, Record)


def read_sealed(path: Path, kind: type[Kind]) -> Kind:
    """Read and validate one file of a kind of record, in this schema or an older one (``bench.storage.migrations``)."""
    if path.is_dir() or (path.exists() and path.suffix != ".json"):
        raise BenchError(f"{path} is no record: name one of the .json files that `bench run` leaves below runs/")
    try:
        raw = parsed(path.read_bytes())
    except FileNotFoundError:
        raise BenchError(f"no record at {path}") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} is not readable JSON ({error}): delete it and run its command again") from None
    try:
        return kind.model_validate(migrated(raw))
    except ValidationError as error:
        raise BenchError(f"{path} is not a valid record: {first_problem(error, 'record')}; {DAMAGED}") from None
    except ValueError as error:
        raise BenchError(f"{path} {error}") from None


def read_records(root: Path) -> Iterator[Record]:
    """Yield all records below ``root``, in the order of their paths, without those of analyses
    (``bench.storage.analysis_records``)."""
    for path in sorted(root.rglob("*.json")):
        if not path.name.endswith(ANALYSIS):
            yield read_record(path)
