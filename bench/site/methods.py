"""A page for every method: what it is, its rows on all boards, and the claims that speak of it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from bench import registry
from bench.claims.judge import Verdict
from bench.leaderboard import format, method_metadata, tables
from bench.leaderboard.boards import Board
from bench.site import boards, claims
from bench.site.page import Line, Link, Page, definitions, paragraph
from bench.storage.files import safe_name
from bench.values import text


def address(method: str) -> str:
    """The page of a method."""
    return f"methods/{safe_name(method)}.html"


def pages(grouped: Sequence[Board], verdicts: Iterable[Verdict]) -> Iterator[Page]:
    """The list of methods and a page for each: those of this repository, and those that records name."""
    spoken: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        for method in claims.methods(verdict):
            spoken[method].append(verdict)
    rows: dict[str, list[Line]] = defaultdict(list)
    for board in grouped:
        for method, line in _lines(board):
            rows[method].append(line)
    names = sorted({*registry.METHODS, *rows})
    listed = Page("methods.html", "Methods", filtered=True)
    lines = [
        Line([Link(name, address(name)), _about(name)[0], str(len(rows[name])), str(len(spoken[name]))], name) for name in names
    ]
    listed.add(listed.table("methods", f"{len(names)} methods", ["Method", "What it is", "Cells", "Claims"], lines))
    yield listed
    for name in names:
        yield _method(name, rows[name], spoken[name])


def _method(name: str, rows: Sequence[Line], verdicts: Sequence[Verdict]) -> Page:
    page = Page(address(name), name, filtered=True)
    page.add(*map(paragraph, _about(name)))
    if options := method_metadata.default_options(name):
        meanings = registry.written_meanings(name)
        described = {f"{option}={text(default)}": meanings.get(option, "") for option, default in options.items()}
        page.section("Options and their defaults", definitions(described))
    headers = ["Board", "Row", "Density", "Test metric", "Place among those ranked", "Search (dense trainings)"]
    page.section("Results", page.table("rows", "Every cell of the method and of its controls", headers, rows))
    if verdicts:
        page.section("Claims", claims.table(page, verdicts))
    return page


def _lines(board: Board) -> Iterator[tuple[str, Line]]:
    """(method, row) for every cell of a board."""
    title = Link(f"{board.records[0].identity.task} · {board.title}", boards.address(board))
    for section in board.sections:
        places = {column: {row: i for i, row in enumerate(section.rankings[column], 1)} for column in section.columns}
        for (row, cells), (_, *metrics) in zip(section.rows.items(), tables.metric_table(section).rows, strict=True):
            for column, metric in zip(section.columns, metrics, strict=True):
                if column in cells:
                    place = f"{places[column][row]} of {len(places[column])}" if row in places[column] else ""
                    cost = format.trainings(cells[column].cost("search_dense_trainings")) if cells[column].done else ""
                    shown = [title, section.name(row), format.densities(column, named=True), metric, place, cost]
                    yield row.method, Line(shown, section.name(row), control=bool(row.control))


def _about(name: str) -> list[str]:
    """The paragraphs of a method's documentation but those on options. Code from elsewhere is not imported to read it."""
    if name not in registry.METHODS:
        return ["Not of this repository; records name it."]
    paragraphs = registry.documentation("methods", name).split("\n\n")
    return [" ".join(part.split()) for part in paragraphs if not registry.OPTION.match(part)]
