"""Re-runs of records: one file for every time that somebody ran a record's command again, added and never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from bench.errors import BenchError, first_problem
from bench.storage.files import canonical, parsed, text_sum
from bench.storage.records import write_sealed
from bench.storage.strict_model import Strict

FOLDER = "reruns"
"""Of the leaderboards: ``reruns/<id of the record>/<first digits of the digest>.json``."""
OUTCOMES = {
    "equal": "every number was the same",
    "inside": "numbers differ, and the test metric lies within the 95 % interval of the record's cell",
    "outside": "the test metric lies outside that interval, or there is none",
}


class Rerun(Strict):
    """What came of running a record's command again."""

    record: str = Field(description="id of the record")
    record_digest: str = Field(description="digest of the record as it was then")
    by: Literal["CI", "elsewhere"]
    outcome: Literal["equal", "inside", "outside"]
    differences: list[str] = Field(description="the values that differ, one line each; at most twenty")
    environment: dict[str, Any]
    created: str = Field(description="UTC, ISO 8601")
    digest: str = Field(description="sha256 of everything else")

    @classmethod
    def make(cls, **fields: Any) -> Rerun:
        """A re-run with its digest filled in."""
        return cls(**fields, digest=_sum(cls.model_construct(**fields)))

    @model_validator(mode="after")
    def check_digest(self) -> Rerun:
        """The digest is that of what it covers."""
        if self.digest != _sum(self):
            raise ValueError("the digest is not that of the re-run")
        return self

    @property
    def agrees(self) -> bool:
        """Whether it speaks for the record."""
        return self.outcome != "outside"

    def __str__(self) -> str:
        """Who ran it again, and what came of it."""
        return f"re-run {'by CI' if self.by == 'CI' else 'elsewhere'}: {self.outcome}"

    def path(self, root: Path) -> Path:
        """The file below the leaderboards' folder."""
        return root / FOLDER / self.record / f"{self.digest[:16]}.json"


def write(rerun: Rerun, root: Path) -> Path:
    """Store a re-run below the leaderboards' folder."""
    return write_sealed(rerun, rerun.path(root))


def read(path: Path) -> Rerun:
    """Read and validate one file. Every flaw is a BenchError of one line."""
    try:
        return Rerun.model_validate(parsed(path.read_bytes()))
    except ValidationError as error:
        why = first_problem(error)
    except (OSError, ValueError) as error:
        why = str(error)
    raise BenchError(f"{path} is no re-run of a record ({why}): it was edited or damaged; take it from the history again")


def read_all(root: Path) -> list[Rerun]:
    """All re-runs below the leaderboards' folder, in the order of their paths."""
    return [read(path) for path in sorted((root / FOLDER).rglob("*.json"))]


def outcomes(reruns: Iterable[Rerun], digests: Mapping[str, str]) -> dict[str, Rerun]:
    """Record's id -> the re-run of it that counts: one that disagrees before one that agrees, and one by CI before another.
    ``digests``: those of the records today, because a re-run of another state of a record says nothing."""
    known = [rerun for rerun in reruns if digests.get(rerun.record) == rerun.record_digest]
    return {rerun.record: rerun for rerun in sorted(known, key=lambda r: (not r.agrees, r.by == "CI", r.created))}


def _sum(rerun: Rerun) -> str:
    return text_sum(canonical(rerun.model_dump(exclude={"digest"})))
