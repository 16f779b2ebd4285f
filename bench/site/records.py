"""A table of all records, and a page for every folder of them with each one's seed, numbers, environment and command."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from bench.leaderboard import format
from bench.leaderboard.boards import settings
from bench.leaderboard.markup import element
from bench.leaderboard.sections import as_column, row_name
from bench.site.page import MOST_ROWS, Code, Line, Link, Page, definitions, folded, paragraph, rows_script
from bench.storage.records import Record
from bench.storage.reruns import Rerun

SELF_REPORTED = "self-reported"
"""A record that nobody ran again, as far as the files say."""


class Texts(NamedTuple):
    """What the table of all records says of one."""

    record: str
    task: str
    data: str
    model: str
    protocol: str
    method: str
    density: str
    seed: str
    status: str
    metric: str
    test: str
    dense: str
    difference: str
    checked: str


HEADERS = [{"metric": "Test metric", "difference": "Δ"}.get(name, name.capitalize()) for name in Texts._fields]


def folder_address(folder: str) -> str:
    """The page of a folder of records below ``records/``."""
    return f"records/{quote(folder)}.html"


def pages(records: Sequence[Record], checked: Mapping[str, Rerun]) -> Iterator[tuple[str, str]]:
    """Address -> text of every page and script of records. ``checked``: record's id -> the re-run of it that counts."""
    found: dict[str, list[tuple[Record, Texts]]] = defaultdict(list)
    for record in records:
        found[record.folder].append((record, _texts(record, checked)))
    folders = {folder_address(folder): sorted(found[folder], key=_order) for folder in sorted(found)}
    titles = {address: _title(of_folder[0][0]) for address, of_folder in folders.items()}
    yield from _all([(address, *texts) for address, of_folder in folders.items() for _, texts in of_folder], titles)
    known: dict[object, dict[str, str]] = {}
    for address, of_folder in folders.items():
        page = _folder(unquote(address), titles[address], of_folder, known)
        yield page.address, str(page)


def _title(record: Record) -> str:
    return f"{record.label}: {' · '.join(record.identity.names)}"


def _order(row: tuple[Record, Texts]) -> tuple[str, str, int, str]:
    record, texts = row
    return record.identity.control or "", texts.density, record.identity.seed, record.id


def _all(rows: Sequence[tuple[str, ...]], titles: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The page of all records: a table of as many as it may have, a script with the others, and a list of the folders' pages.
    ``rows``: the address of a record's page, then its cells; ``titles``: of the folders' pages."""
    more = rows[MOST_ROWS:]
    page = Page("records.html", "Records", filtered=True, scripts=["records.js"] * bool(more))
    method = HEADERS.index("Method") - 1  # the record has two entries in a row
    lines = [
        Line([Link(id, f"{address}#{id}"), *texts], control="↳" in texts[method]) for address, id, *texts in rows[:MOST_ROWS]
    ]
    page.add(page.table("records", f"{len(rows)} records", HEADERS, lines))
    if more:
        yield "records.js", rows_script("records", more)
        page.add(element("noscript", paragraph(f"The first {MOST_ROWS}. The pages of the folders have all of them.")))
    listed = [element("li", element("a", title, href=address)) for address, title in titles.items()]
    page.add(folded(f"{len(titles)} folders of records", element("ul", *listed)))
    yield page.address, str(page)


def _texts(record: Record, checked: Mapping[str, Rerun]) -> Texts:
    identity, metric, test, dense, difference = record.identity, "", "", "", ""
    if result := record.result:
        metric = result.metric
        test, dense = format.scalar(result.test[metric]), format.scalar(result.dense_test[metric])
        difference = format.scalar(float(test) - float(dense))
    return Texts(
        record.id,
        *identity.names,
        row_name(record.label, identity.control),
        format.densities(as_column(identity.densities)),
        str(identity.seed),
        record.status,
        metric,
        test,
        dense,
        difference,
        str(checked.get(record.id, SELF_REPORTED)),
    )


def _folder(address: str, title: str, records: Sequence[tuple[Record, Texts]], known: dict[object, dict[str, str]]) -> Page:
    """The records of one folder. What many share, environments and settings, is said once below the table. ``known``: the texts
    of the folders before."""
    page = Page(address, title, filtered=True)
    environments, configurations = _Numbered(_environment, known), _Numbered(settings, known)
    lines = []
    for r, texts in records:
        result, cost = r.result, r.cost
        lines.append(
            Line(
                [
                    texts.method,
                    texts.density,
                    texts.seed,
                    r.status if r.status == "ok" else f"{r.status}: {r.reason}",
                    texts.test,
                    format.scalar(result.val.get(result.metric, float("nan"))) if result else "",
                    texts.dense,
                    " + ".join(map(format.trainings, (cost.search_dense_trainings, cost.train_dense_trainings))) if cost else "",
                    ", ".join(f"{name} {kept.kept} of {kept.total}" for name, kept in r.budgets.items()),
                    environments.number(r, id(r.environment)),
                    configurations.number(r, (id(r.identity.config), r.identity.fingerprint)),
                    r.created,
                    texts.checked,
                    r.id,
                    Code(r.command),
                ],
                control=r.identity.control is not None,
                anchor=r.id,
            )
        )
    metric = records[0][1].metric or "metric"
    headers = ["Method", "Density", "Seed", "Status", f"Test {metric}", "Validation", "Dense"]
    headers += ["Search + training (dense trainings)", "Kept", "Environment", "Settings", "Made", "Checked", "Record", "Command"]
    page.add(page.table("records", f"{len(records)} records", headers, lines))
    for one, several, numbered in (("Environment", "Environments", environments), ("Settings", "Settings", configurations)):
        page.section(several, *(folded(f"{one} {n}", definitions(texts)) for n, texts in enumerate(numbered.texts, 1)))
    page.add(
        paragraph(
            "The address of a row is this page, then # and its record. To run a record again and compare: ",
            element("code", f"bench verify leaderboards/records/{records[0][0].folder}/RECORD.json", class_="copy"),
        )
    )
    return page


def _environment(record: Record) -> dict[str, str]:
    """What a record says of where it was made, in texts."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(record.environment.items())}


class _Numbered:
    """What many records of a folder share, numbered from 1 in the order in which the records name it."""

    def __init__(self, of: Callable[[Record], dict[str, str]], known: dict[object, dict[str, str]]):
        self.of, self.known, self.texts = of, known, list[dict[str, str]]()
        self.numbers: dict[object, str] = {}

    def number(self, record: Record, key: object) -> str:
        """The number of what a record says. ``key``: equal keys say the same, so that it need not be worked out again."""
        if key not in self.numbers:
            if key not in self.known:
                self.known[key] = self.of(record)
            if self.known[key] not in self.texts:
                self.texts.append(self.known[key])
            self.numbers[key] = str(self.texts.index(self.known[key]) + 1)
        return self.numbers[key]
