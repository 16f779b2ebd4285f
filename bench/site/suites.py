"""The rankings of the suites, and a page for every suite."""

from collections.abc import Iterator, Sequence

from bench.leaderboard.boards import Board
from bench.leaderboard.markup import Markup, element
from bench.leaderboard.table_types import Label, Table
from bench.site import boards
from bench.site.page import Line, Link, Page, paragraph
from bench.suites import page as suite_page
from bench.suites.ranking import Ranking, board_of
from bench.suites.score import DRAWS


def address(ranking: Ranking) -> str:
    """The page of a suite."""
    return f"suites/{ranking.suite.name}.html"


def pages(rankings: Sequence[Ranking], grouped: Sequence[Board]) -> Iterator[Page]:
    """A page for every suite: its ranking, its events, every density, and what is missing."""
    for ranking in rankings:
        suite = ranking.suite
        page = Page(address(ranking), f"Suite {suite.name}, version {suite.version}", filtered=True)
        page.add(paragraph(suite.about), table(page, ranking))
        lines = suite_page.ABOUT.format(draws=DRAWS).removeprefix("- ").split("\n- ")
        page.section("How it is computed", element("ul", *(element("li", line.replace("**", "")) for line in lines)))
        page.section("Events", page.table("events", "What every event is", *_events(ranking, grouped)))
        entries = [*(row.entry for row in ranking.ranked), *ranking.unranked]
        for i, event in enumerate(suite.events):
            curves = suite_page.event_table(event, entries)
            if curves.rows:
                page.section(event.name, page.plain(f"e{i}", "Mean retention at each density", curves))
        if ranking.ranked:
            caption = "Share of all cells in which a method keeps at least so much of the best method's retention"
            page.section(
                "Performance profiles",
                page.plot(suite_page.profile_plot(ranking)),
                page.plain("profiles", caption, suite_page.profile_table(ranking)),
            )
        if ranking.unranked:
            page.section("Not ranked", page.plain("missing", "What they lack", suite_page.missing_table(ranking)))
        yield page


def table(page: Page, ranking: Ranking) -> Markup:
    """The ranking as a table of a page."""
    if not ranking.ranked:
        return paragraph("No method is whole yet.")
    ranked = suite_page.ranking_table(ranking)
    lines = [Line(cells, row.label) for cells, row in zip(ranked.rows, ranking.ranked, strict=True)]
    return page.table(f"suite-{ranking.suite.name}", f"Ranking of the suite {ranking.suite.name}", ranked.headers, lines)


def _events(ranking: Ranking, grouped: Sequence[Board]) -> tuple[Sequence[str], list[Line]]:
    """The table of events, with links to the boards of this site."""
    events: Table = suite_page.events_table(ranking.suite, grouped)
    lines = []
    for event, cells in zip(ranking.suite.events, events.rows, strict=True):
        board = board_of(event, grouped)
        shown = [
            (Link(cell.text, boards.address(board)) if board else cell.text) if isinstance(cell, Label) else cell
            for cell in cells
        ]
        lines.append(Line(shown))
    return events.headers, lines
