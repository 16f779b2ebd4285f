"""Transfer matrices: the results of masks that were found on one data set and trained on another, from ordinary records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.leaderboard import format, method_metadata
from bench.leaderboard.sections import Cell, as_column
from bench.leaderboard.table_types import Column
from bench.storage.files import canonical
from bench.storage.records import Record

PRETRAINED = "pre-trained weights"
"""The source of masks that were searched on no data set: the largest of the weights that every target starts from."""


@dataclass(frozen=True)
class TransferMatrix:
    """Masks of one density that one method found on several sources, each trained on several targets."""

    model: str
    protocol: str
    column: Column
    method: str
    """The method that searched, and its options."""
    cells: dict[tuple[str, str], Cell]
    """(source, target) -> the seeds of masks of the source, trained on the target."""

    @property
    def title(self) -> str:
        """The heading of the matrix."""
        return f"Transfer · {self.model} · {self.protocol} · {self.method} · density {format.densities(self.column)}"

    @property
    def targets(self) -> list[str]:
        """Data sets that the masks were trained on."""
        return sorted({target for _, target in self.cells})

    @property
    def sources(self) -> list[str]:
        """Data sets that the masks were found on; those that are targets too come first, in the same order."""
        return sorted(
            {source for source, _ in self.cells}, key=lambda source: (source not in self.targets, source == PRETRAINED, source)
        )

    def matching(self, source: str) -> int:
        """The number of other targets on which a source's masks match dense."""
        return sum(cell.matching for (of, target), cell in self.cells.items() if of == source != target)


def matrices(records: Iterable[Record]) -> list[TransferMatrix]:
    """All transfer matrices among the records of one task. On its own data set, a source has the tickets of the method that
    searched, requested with the same options and rounds, if they start from the initial weights."""
    transfers: list[Record] = []
    others: list[Record] = []
    for r in records:
        if r.identity.control is None and r.identity.densities and (r.ticket is None or r.ticket.start == "init/0"):
            (transfers if method_metadata.method_info(r.identity.method).transfers else others).append(r)
    by_search: dict[tuple[object, ...], dict[tuple[str, str], dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    titles = {}
    for r in transfers:
        identity, key = r.identity, _search(r)
        by_search[key][identity.method_config.get("source", "unknown"), identity.data][identity.seed] = r
        titles[key] = identity.model, identity.protocol, as_column(identity.densities), _label(identity.method_config)
    for r in others:
        untrained, search = method_metadata.method_info(r.identity.method).searches_no_data, _search(r)
        for key, cells in by_search.items():
            if key == search or (untrained and key[:2] == search[:2]):
                cells[PRETRAINED if untrained else r.identity.data, r.identity.data].setdefault(r.identity.seed, r)
    found = [
        TransferMatrix(*titles[key], {at: Cell(tuple(by_seed.values())) for at, by_seed in cells.items()})
        for key, cells in by_search.items()
    ]
    return sorted(found, key=lambda m: (m.model, m.protocol, [-density for _, density in m.column], m.method))


def _search(record: Record) -> tuple[object, ...]:
    """The setting, density, method, options and rounds of the search that a record's masks come from: equal for all records of
    one matrix. The search of a record that transfers nothing is its own method."""
    identity = record.identity
    setting = canonical(
        [identity.task_version, identity.model, identity.protocol, {k: v for k, v in identity.config.items() if k != "data"}]
    )
    method, options, rounds = identity.method, identity.method_config, [as_column(r) for r in identity.rounds]
    if method_metadata.method_info(method).transfers:
        rounds = [as_column(dict.fromkeys(identity.densities, density)) for density in options.get("through") or ()] + rounds
        method, options = options.get("method", "unknown"), options.get("options") or {}
    # Pre-trained weights are the initial ones where there are any.
    spelled = {**method_metadata.default_options(method), **options}
    text = canonical({k: "init" if (k, v) == ("rewind", "pretrained") else v for k, v in spelled.items()})
    return setting, as_column(identity.densities), method, text, tuple(rounds)


def _label(options: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{key}={value}" for key, value in (options.get("options") or {}).items())
    return f"masks by {options.get('method', 'unknown')}" + (f"({listed})" if listed else "")
