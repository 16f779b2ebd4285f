"""A page for every board."""

from collections.abc import Iterator

from bench.leaderboard import format, tables
from bench.leaderboard.boards import Board, precisions, settings
from bench.leaderboard.markup import element
from bench.leaderboard.plots import plots_of
from bench.leaderboard.sections import Section, row_name
from bench.leaderboard.statistics import MIN_SEEDS
from bench.leaderboard.table_types import Label, Table
from bench.site.page import Line, Link, Page, definitions, folded, paragraph
from bench.site.records import folder_address

KEY = (
    "Cell: mean ± half-width of the 95 % interval (seeds), then Δ, the paired difference to dense. Bold: not separable from the "
    "best of its column. ✓ matches dense; ≈ control not separably worse than its ticket; † tensors emptied; "
    "↻ seeds run again by others or by CI, ↯ not reproduced; provisional: fewer "
    f"than {MIN_SEEDS} seeds. Controls stand after ↳ and are never ranked."
)
"""What the marks in a cell say."""


def address(board: Board) -> str:
    """The page of a board."""
    return f"boards/{board.slug}.html"


def board_page(board: Board) -> Page:
    """The page of a board: what a reader must know, every section with its plots, and the costs."""
    identity, (metric, higher) = board.records[0].identity, board.metric
    page = Page(address(board), f"{identity.task} · {board.title}", filtered=True)
    notes = sorted({r.note for r in board.records if r.note})
    made = precisions(board.records)
    page.add(
        *(paragraph(note) for note in notes),
        paragraph(
            f"Test {metric}, {'higher' if higher else 'lower'} is better. Protocol {identity.protocol}, task version "
            f"{identity.task_version}. Dense: {tables.dense_result(board)}. {made}"
        ),
        paragraph(KEY),
        folded("Data, splits, model and training as run", definitions(settings(board.records[0]))),
    )
    for number, section in enumerate(board.sections):
        headers = ["Method", *map(format.densities, section.columns)]
        caption = f"Test {metric} by the density of {' and '.join(section.budgets) or 'the whole network'}"
        parts = [page.table(f"t{number}", caption, headers, _lines(section))]
        checks = tables.sanity_table(section)
        if checks.rows:
            lead = "Sanity checks: the ticket's lead over each control, positive where the ticket is better"
            parts.append(page.plain(f"s{number}", lead, checks))
        parts += map(page.plot, plots_of(board, section).values())
        page.section(section.title, *parts)
    if board.dense_values:
        page.section(
            "Cost", page.plain("cost", "Costs of every method at every density, means over seeds", tables.cost_table(board))
        )
    reasons = sorted({f"{row_name(r.label, r.identity.control)}: {r.status}: {r.reason}" for r in board.records if r.reason})
    if reasons:
        page.section("Without a number", element("ul", *(element("li", reason) for reason in reasons)))
    return page


def _lines(section: Section) -> Iterator[Line]:
    """The rows of a section, a control by its whole name, because sorting may part it from its ticket."""
    table: Table = tables.metric_table(section)
    for (row, cells), (_, *metrics) in zip(section.rows.items(), table.rows, strict=True):
        name = section.name(row)
        records = next((cell.records for cell in cells.values()), ())
        first = Link(name, folder_address(records[0].folder)) if records else Label(name)
        yield Line([first, *metrics], name, control=bool(row.control))
