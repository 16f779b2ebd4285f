"""The page of claims, with verdicts and numbers."""

from collections.abc import Sequence

from bench.claims.judge import Verdict
from bench.leaderboard.markup import Markup
from bench.leaderboard.table_types import Bold
from bench.site.page import Code, Line, Page, paragraph

HEADERS = ("Claim", "Verdict", "What is claimed", "Paper", "Judged at", "Numbers", "Test", "Command")


def page(verdicts: Sequence[Verdict]) -> Page:
    """Every claim at every place where it is judged."""
    made = Page("claims.html", "Claims of papers, judged by the records", filtered=True)
    made.add(
        paragraph(
            "What papers claim, in our words, judged at our protocols and with our tolerances. Numbers: density, mean ± "
            "half-width of the 95 % interval (seeds) of both sides, then Δ, their paired difference; ✓ where the test holds."
        ),
        table(made, verdicts),
    )
    return made


def table(page: Page, verdicts: Sequence[Verdict]) -> Markup:
    """Claims as a table of a page."""
    lines = [
        Line(
            [
                v.claim.id,
                Bold(v.verdict) if v.has_numbers else v.verdict,
                f"{v.claim.statement} ({v.claim.source})",
                v.paper,
                f"{v.where}. {v.note}".rstrip(". "),
                tuple(v.numbers),
                v.claim.test,
                Code("\n".join(map(str, v.run))),
            ]
        )
        for v in verdicts
    ]
    return page.table("claims", f"{len(verdicts)} verdicts on {len({v.claim.id for v in verdicts})} claims", HEADERS, lines)


def methods(verdict: Verdict) -> set[str]:
    """The methods whose records a verdict compares."""
    words = (word for command in verdict.run for word in command.words)
    return {word.removeprefix("method=") for word in words if word.startswith("method=")}
