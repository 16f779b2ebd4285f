"""What all pages share: the frame, tables that are real tables, and plots."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bench.leaderboard import format, svg
from bench.leaderboard.markup import Markup, element, text
from bench.leaderboard.plots import Plot
from bench.leaderboard.table_types import (
    Bold,
    DenseTrainings,
    Label,
    MeanRank,
    Measurement,
    MetricCell,
    Percent,
    Ratio,
    Seconds,
    Share,
    Speedups,
    Table,
)

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
"""Only this folder's own script and style sheet: nothing is fetched from elsewhere, and no text can run."""
LINKS = (
    ("index.html", "Ranking and tables"),
    ("methods.html", "Methods"),
    ("claims.html", "Claims"),
    ("records.html", "Records"),
)
MOST_ROWS = 1000
"""Of one page without JavaScript, and shown at once with it."""


@dataclass(frozen=True)
class Link:
    """A cell that leads to another page; ``address`` is relative to the site's root."""

    text: str
    address: str


@dataclass(frozen=True)
class Code:
    """A cell that can be copied, such as a command."""

    text: str


@dataclass(frozen=True)
class Line:
    """A row of a table. ``name``: what it is called, by which it is pinned and found in plots; ``anchor``: its own address."""

    cells: Sequence[Any]
    name: str = ""
    control: bool = False
    anchor: str = ""


@dataclass
class Page:
    """A page at an address below the site's root."""

    address: str
    title: str
    filtered: bool = False
    """Whether it has fields to filter its tables by."""
    scripts: Sequence[str] = ()
    parts: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        """The way from the page to the site's root."""
        return "../" * self.address.count("/")

    def add(self, *parts: str) -> None:
        """Append elements."""
        self.parts += parts

    def section(self, title: str, *parts: str) -> None:
        """Append a section with its heading."""
        self.parts.append(element("section", element("h2", title), *parts))

    def table(self, name: str, caption: str, headers: Sequence[str], lines: Iterable[Line]) -> Markup:
        """A table that can be sorted and filtered. ``name``: unique on the page."""
        head = element("tr", *(element("th", header, scope="col") for header in headers))
        rows = [
            element(
                "tr",
                Markup(self._cell(line.cells[0], "th")),
                Markup("".join([f"<td>{text(c)} </td>" if type(c) is str else self._cell(c, "td") for c in line.cells[1:]])),
                data_row=line.name or None,
                data_control="" if line.control else None,
                id=line.anchor or None,
            )
            for line in lines
        ]
        made = element("table", element("caption", caption), element("thead", head), element("tbody", *rows), id=name)
        return element("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)

    def plain(self, name: str, caption: str, table: Table) -> Markup:
        """A table of the leaderboards, as it is."""
        lines = [Line(row, name=str(row[0]) if isinstance(row[0], str) else "", control="↳" in str(row[0])) for row in table.rows]
        return self.table(name, caption, table.headers, lines)

    def plot(self, plot: Plot) -> Markup:
        """A plot, whose lines the page's filters find."""
        return element("figure", svg.draw(plot), class_="scroll", tabindex=0, role="group", aria_label=plot.y_label)

    def _cell(self, cell: Any, kind: str) -> str:
        """A cell as markup. It is written out here, because big collections have millions of them."""
        attributes = ' scope="row"' if kind == "th" else ""
        if type(cell) is str:
            inner = f"{text(cell)} "
        elif isinstance(cell, Code):
            inner = f'<code class="copy">{text(cell.text)}</code>'
        elif isinstance(cell, Link):
            inner = element("a", cell.text, href=self.root + cell.address)
        elif isinstance(cell, Label) and cell.link:
            inner = element("a", cell.text, href=self.root + cell.link)
        else:
            inner = "<br/>".join("".join(map(_word, words)) for words in format.lines(cell))
            if (key := _key(cell)) is not None:
                attributes = f' data-sort="{key}"{attributes}'
        return f"<{kind}{attributes}>{inner}</{kind}>"

    def __str__(self) -> str:
        """The page's text."""
        links = [
            element("a", text, href=self.root + address, aria_current="page" if address == self.address else None)
            for address, text in LINKS
        ]
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", f"{self.title} · Ticket Bench"),
            element("link", rel="icon", href="data:,"),
            element("link", rel="stylesheet", href=f"{self.root}site.css"),
            *(element("script", src=self.root + script, defer="") for script in (*self.scripts, "site.js")),
        )
        body = element(
            "body",
            element("a", "Skip to the content", href="#content", class_="skip"),
            element("header", element("strong", "Ticket Bench"), element("nav", *links, aria_label="Pages")),
            element("main", element("h1", self.title), _filters() if self.filtered else None, *self.parts, id="content"),
        )
        return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def rows_script(table: str, rows: Sequence[Sequence[str]]) -> str:
    """Rows of a table as a script that a page can load from a file, column by column: the page that a row's first cell leads to
    (and there to its text), then the texts of the cells."""
    columns = json.dumps([_column(texts) for texts in zip(*rows, strict=True)], ensure_ascii=False, separators=(",", ":"))
    variables = {"table": json.dumps(table), "count": len(rows), "columns": f"JSON.parse({json.dumps(columns)})"}
    return f"window.moreRows = {{{', '.join(f'{name}: {value}' for name, value in variables.items())}}};\n"


def paragraph(*parts: str) -> Markup:
    """A paragraph."""
    return element("p", *parts)


def definitions(of: Mapping[str, str]) -> Markup:
    """A list of names and what each is."""
    return _definitions(tuple(of.items()))


@lru_cache(1024)  # settings and environments are said on many pages
def _definitions(of: Sequence[tuple[str, str]]) -> Markup:
    return element("dl", *(part for name, value in of for part in (element("dt", name), element("dd", value))))


def folded(title: str, *parts: str) -> Markup:
    """What opens when asked to."""
    return element("details", element("summary", title), *parts)


def _word(word: str) -> str:
    return element("strong", word) if isinstance(word, Bold) else f"{text(word)} "


def _column(texts: Sequence[str]) -> Sequence[str] | tuple[list[str], list[int]]:
    """A column as it is or, where that is shorter, its different texts and the place of each row's text among them."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return (list(places), [places[text] for text in texts]) if 2 * len(places) < len(texts) else texts


def _filters() -> Markup:
    """The fields that filter the page's tables and plots; the script shows them."""
    return element(
        "form",
        element("label", "Filter rows ", element("input", type="search", name="q")),
        element("label", element("input", type="checkbox", name="hide"), " Hide controls"),
        element("button", "Clear", type="button", name="clear"),
        element("button", "Copy link", type="button", name="link"),
        element("output", aria_live="polite"),
        role="search",
        hidden="",
    )


def _key(cell: Any) -> str | None:
    """The number that a cell is sorted by; None: by its text."""
    value: float | None = None
    if isinstance(cell, MetricCell):
        value = cell.mean.mean if cell.mean else None
    elif isinstance(cell, Measurement):
        value = cell.estimate.mean if cell.estimate else None
    elif isinstance(cell, DenseTrainings):
        value = cell.dense
    elif isinstance(cell, Speedups):
        value = cell.measured[0] if cell.measured else None
    elif isinstance(cell, Ratio):
        value = cell.count / cell.of if cell.of else None
    elif isinstance(cell, MeanRank | Percent | Seconds | Share):
        value = cell.value
    return None if value is None else repr(value)
