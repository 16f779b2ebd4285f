"""A table of all records, and a page for every folder of them with each one's seed, numbers, environment and command."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from bench.leaderboard import format
from bench.leaderboard.boards import as_column, row_name, settings
from bench.leaderboard.tags import element
from bench.site.page import MOST_ROWS, Code, Line, Link, Page, definitions, folded, paragraph, rows_script
from bench.storage.records import Record
from bench.storage.reruns import Rerun

HEADERS = (
    "Record",
    "Task",
    "Data",
    "Model",
    "Protocol",
    "Method",
    "Density",
    "Seed",
    "Status",
    "Test metric",
    "Test",
    "Dense",
    "Δ",
    "Checked",
)
SELF_REPORTED = "self-reported"
"""A record that nobody ran again, as far as the files say."""


def folder_address(record: Record) -> str:
    """The page of a record's folder, which is where the record lies below ``records/``."""
    return f"{quote(record.path(Path('records')).parent.as_posix())}.html"


def pages(records: Sequence[Record], checked: Mapping[str, Rerun]) -> Iterator[tuple[str, str]]:
    """Address -> text of every page and script of records. ``checked``: record's id -> the re-run of it that counts."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[folder_address(record)].append(record)
    folders = {address: sorted(found[address], key=_order) for address in sorted(found)}
    yield from _all([_line(record, address, checked) for address, of_folder in folders.items() for record in of_folder])
    for address, of_folder in folders.items():
        yield address, str(_folder(address, of_folder, checked))


def _order(record: Record) -> tuple[str, str, int, str]:
    return record.identity.control or "", _densities(record), record.identity.seed, record.id


def _all(lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """The table of all records: a page for every thousand, the first of which loads the others' rows."""
    count = max(1, -(-len(lines) // MOST_ROWS))
    addresses = ["records.html", *(f"records-{i + 1}.html" for i in range(1, count))]
    if count > 1:
        yield "records.js", rows_script("records", lines[MOST_ROWS:])
    for i, address in enumerate(addresses):
        title = f"Records, part {i + 1} of {count}" if i else "Records"
        page = Page(address, title, filtered=True, scripts=("records.js",) if count > 1 and i == 0 else ())
        page.add(page.table("records", f"{len(lines)} records", HEADERS, lines[MOST_ROWS * i : MOST_ROWS * (i + 1)]))
        if count > 1:
            others = [element("a", str(n + 1), " ", href=other) for n, other in enumerate(addresses)]
            page.add(element("nav", "Parts: ", *others, class_="further", aria_label="Parts"))
        yield address, str(page)


def _line(record: Record, address: str, checked: Mapping[str, Rerun]) -> Line:
    who, metric, test, dense = record.identity, "", "", ""
    if result := record.result:
        metric, test, dense = result.metric, f"{result.test[result.metric]:.6g}", f"{result.dense_test[result.metric]:.6g}"
    name = row_name(record.label, who.control)
    return Line(
        [
            Link(record.id, f"{address}#{record.id}"),
            who.task,
            who.data,
            who.model,
            who.protocol,
            name,
            _densities(record),
            str(who.seed),
            record.status,
            metric,
            test,
            dense,
            f"{float(test) - float(dense):.4g}" if test else "",
            str(checked.get(record.id, SELF_REPORTED)),
        ],
        control=who.control is not None,
    )


def _folder(address: str, records: Sequence[Record], checked: Mapping[str, Rerun]) -> Page:
    """The records of one folder. What many share, environments and settings, is said once below the table."""
    who = records[0].identity
    page = Page(address, f"{records[0].label}: {who.task} · {who.data} · {who.model} · {who.protocol}", filtered=True)
    environments, configurations = _Numbered(_environment), _Numbered(settings)
    lines = []
    for r in records:
        result, cost = r.result, r.cost
        lines.append(
            Line(
                [
                    row_name(r.label, r.identity.control),
                    _densities(r),
                    str(r.identity.seed),
                    r.status if r.status == "ok" else f"{r.status}: {r.reason}",
                    f"{result.test[result.metric]:.6g}" if result else "",
                    f"{result.val.get(result.metric, float('nan')):.6g}" if result else "",
                    f"{result.dense_test[result.metric]:.6g}" if result else "",
                    f"{cost.search_dense_trainings:.2f} + {cost.train_dense_trainings:.2f}" if cost else "",
                    ", ".join(f"{name} {kept.kept} of {kept.total}" for name, kept in r.budgets.items()),
                    environments.number(r, id(r.environment)),
                    configurations.number(r, (id(r.identity.config), r.identity.fingerprint)),
                    r.created,
                    str(checked.get(r.id, SELF_REPORTED)),
                    Code(r.command),
                    Code(f"bench verify {r.path(Path('leaderboards/records')).as_posix()}"),
                ],
                control=r.identity.control is not None,
                anchor=r.id,
            )
        )
    headers = ["Method", "Density", "Seed", "Status", f"Test {records[0].result.metric if records[0].result else 'metric'}"]
    headers += [
        "Validation",
        "Dense",
        "Search + training (dense trainings)",
        "Kept",
        "Environment",
        "Settings",
        "Made",
        "Checked",
    ]
    page.add(page.table("records", f"{len(records)} records", [*headers, "Command", "To check it"], lines))
    for one, several, numbered in (("Environment", "Environments", environments), ("Settings", "Settings", configurations)):
        page.section(several, *(folded(f"{one} {n}", definitions(said)) for n, said in enumerate(numbered.said, 1)))
    page.add(paragraph("The id of a record is the address of its row: this page, then # and the id."))
    return page


def _densities(record: Record) -> str:
    return format.densities(as_column(record.identity.densities))


def _environment(record: Record) -> dict[str, str]:
    """What a record says of where it was made, in texts."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(record.environment.items())}


class _Numbered:
    """What many records of a folder share, numbered from 1 in the order in which the records name it."""

    def __init__(self, of: Callable[[Record], dict[str, str]]):
        self.of, self.said = of, list[dict[str, str]]()
        self.known: dict[object, str] = {}

    def number(self, record: Record, key: object) -> str:
        """The number of what a record says. ``key``: equal keys say the same, so that it need not be worked out again."""
        if key not in self.known:
            said = self.of(record)
            if said not in self.said:
                self.said.append(said)
            self.known[key] = str(self.said.index(said) + 1)
        return self.known[key]
