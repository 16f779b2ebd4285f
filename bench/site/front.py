"""The first page: the suites' rankings, every table, and what came of the claims."""

from collections import Counter
from collections.abc import Sequence

from bench.claims.judge import Verdict
from bench.leaderboard import tables
from bench.leaderboard.boards import Board
from bench.leaderboard.markup import element
from bench.site import boards, suites
from bench.site.page import Page, paragraph
from bench.suites.ranking import Ranking


def page(rankings: Sequence[Ranking], grouped: Sequence[Board], verdicts: Sequence[Verdict]) -> Page:
    """The page."""
    made = Page("index.html", "Lottery tickets, found and checked", filtered=True)
    made.add(
        paragraph(
            "Every number is computed from records: one file for one task, data, model, protocol, method, densities, seed and "
            "control. Compare methods within one table."
        )
    )
    for ranking in rankings:
        more = element("a", "Events, every density and what is missing", href=suites.address(ranking))
        made.section(f"Suite {ranking.suite.name}", paragraph(f"{ranking.suite.about} ", more), suites.table(made, ranking))
    overview = tables.overview((board, boards.address(board)) for board in grouped)
    made.section("Tables", made.plain("tables", "One row for every table: its dense network and its best tickets", overview))
    if verdicts:
        counts = Counter(v.verdict for v in verdicts)
        listed = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        all_claims = element("a", "All claims", href="claims.html")
        made.section("Claims of papers", paragraph(f"Judged by these records: {listed}. ", all_claims))
    return made
