"""Transfer matrices: how masks found on one data set do on another, from ordinary records. ``board`` shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bench import registry
from bench.leaderboard.tables import Cell, Column, as_column, column_text
from bench.storage.records import Record, canonical

TRANSFER, UNTRAINED = "transfer", "magnitude_at_init"
PRETRAINED = "pre-trained weights"
"""The source of masks that no training found: the largest of the weights every target starts from."""


@dataclass(frozen=True)
class Matrix:
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
        """For headings."""
        return f"Transfer · {self.model} · {self.protocol} · {self.method} · density {column_text(self.column)}"

    @property
    def targets(self) -> list[str]:
        """Data sets trained on."""
        return sorted({target for _, target in self.cells})

    @property
    def sources(self) -> list[str]:
        """Data sets that masks were found on: first those that are targets too, in the same order."""
        found = {source for source, _ in self.cells}
        return sorted(found, key=lambda source: (source not in self.targets, source == PRETRAINED, source))

    def matching(self, source: str) -> int:
        """On how many other targets a source's masks match dense."""
        return sum(cell.matching for (of, target), cell in self.cells.items() if of == source != target)


def matrices(records: Iterable[Record]) -> list[Matrix]:
    """All there are among the records of one task: wherever masks were transferred. A source's masks on itself are tickets of the
    method that searched, asked with the same options and rounds, if they start from the initial weights."""
    transfers, others = [], []
    for r in records:
        if r.identity.control is None and r.identity.densities and (r.ticket is None or r.ticket.start == "init/0"):
            (transfers if r.identity.method == TRANSFER else others).append(r)
    found: dict[tuple, dict[tuple[str, str], dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    titles = {}
    for r in transfers:
        who, key = r.identity, _searched(r)
        found[key][who.method_config.get("source", "unknown"), who.data][who.seed] = r
        titles[key] = who.model, who.protocol, as_column(who.densities), _label(who.method_config)
    for r in others:
        untrained = r.identity.method == UNTRAINED
        for key, cells in found.items():
            if key == _searched(r) or (untrained and key[:2] == _searched(r)[:2]):
                cells[PRETRAINED if untrained else r.identity.data, r.identity.data].setdefault(r.identity.seed, r)
    made = [Matrix(*titles[key], {at: Cell(tuple(by_seed.values())) for at, by_seed in cells.items()})
            for key, cells in found.items()]
    return sorted(made, key=lambda m: (m.model, m.protocol, [-density for _, density in m.column], m.method))


def _searched(record: Record) -> tuple:
    """What records of one matrix have in common: setting and density, then the search. Another record of it is one whose
    method is the search itself."""
    who = record.identity
    setting = canonical([who.task_version, who.model, who.protocol, {k: v for k, v in who.config.items() if k != "data"}])
    options, rounds = who.method_config, [as_column(r) for r in who.rounds]
    if who.method == TRANSFER:
        rounds = [as_column(dict.fromkeys(who.densities, density)) for density in options.get("through") or ()] + rounds
        method, options = options.get("method", "unknown"), options.get("options") or {}
    else:
        method = who.method
    return setting, as_column(who.densities), method, _spelled(method, options), tuple(rounds)


def _spelled(method: str, options: dict) -> str:
    """Options with the defaults of a method of this repository; pre-trained weights are the initial ones where there are any."""
    spelled = {**(registry.options(registry.method(method)) if method in registry.METHODS else {}), **options}
    return canonical({k: "init" if (k, v) == ("rewind", "pretrained") else v for k, v in spelled.items()})


def _label(options: dict) -> str:
    said = ", ".join(f"{key}={value}" for key, value in (options.get("options") or {}).items())
    return f"masks by {options.get('method', 'unknown')}" + (f"({said})" if said else "")
