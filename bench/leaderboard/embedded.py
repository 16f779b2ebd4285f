"""Tables from the records within pages that are written by hand: README.md, those of the tasks, and the pages of docs/.

Such a page has a comment that lists what is shown, and `bench leaderboard` fills in what follows it:

    <!-- results: what this is
    - board: NAME        # of its folder of plots
      title: ...
      section: ...       # a heading below the board
      densities: [...]   # columns
      rows: {...}        # name of a row -> how the table calls it
    - suite: NAME
      title: ...
      rows: 15           # how many, from the best
    - analysis: speed    # the table of measured speeds
    -->
    <!-- /results -->
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, one_of
from bench.leaderboard import markdown, tables
from bench.leaderboard.boards import Board
from bench.leaderboard.speed import speed_table
from bench.storage.analysis_records import AnalysisRecord
from bench.suites import page as suite_page
from bench.suites.ranking import Ranking

RESULTS = re.compile(r"(<!-- results\b[^\n]*\n(.*?)-->\n).*?(<!-- /results -->)", re.S)


def pages(
    root: Path, grouped: Iterable[Board], rankings: Iterable[Ranking], analyses: Iterable[AnalysisRecord]
) -> dict[Path, str]:
    """The pages with such a comment in the repository whose leaderboards are in ``root`` -> their texts, filled in; none for a
    folder that is not called ``leaderboards``. BenchError for a comment that names what is not there."""
    repository = root.resolve().parent
    if root.resolve().name != "leaderboards":
        return {}
    boards = {board.slug: board for board in grouped}
    suites = {ranking.suite.name: ranking for ranking in rankings}
    analyses = list(analyses)

    def filled(path: Path, match: re.Match[str]) -> str:
        try:
            parts = [_part(shown, boards, suites, analyses) for shown in yaml.safe_load(match[2])]
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(
                f"{path}: the comment `results` is no list of tables with board, section, title, densities and "
                f"rows: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        return f"{match[1]}\n{''.join(parts)}{match[3]}"

    found = {}
    for path in (repository / "README.md", *sorted(repository.glob("docs/*.md")), *sorted(repository.glob("tasks/*/README.md"))):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if RESULTS.search(text):
            found[path] = RESULTS.sub(partial(filled, path), text)
    return found


def by_hand(text: str) -> str:
    """The part of such a page that people write."""
    return RESULTS.sub(r"\1\3", text)


def _part(
    shown: Mapping[str, Any], boards: Mapping[str, Board], suites: Mapping[str, Ranking], analyses: Iterable[AnalysisRecord]
) -> str:
    """One entry of a comment as markdown."""
    if "analysis" in shown:
        one_of("analysis", shown["analysis"], ["speed"])
        return f"{markdown.table(speed_table(analyses))}\n\n"
    if "suite" in shown:
        suite = suites[one_of("suite", shown["suite"], suites)]
        return f"{shown['title']}\n\n{suite_page.summary(suite, shown['rows'])}\n\n"
    board = boards[one_of("board", shown["board"], boards)]
    sections = {section.title: section for section in board.sections}
    section = sections[one_of(f"section of {board.slug}", shown["section"], sections)]
    chosen = tables.selected(section, shown["rows"], [str(d) for d in shown["densities"]], "Density")
    head = f"{shown['title']}: test {board.metric[0]}; the whole network has {tables.dense_result(board)}."
    return f"{head}\n\n{markdown.table(chosen)}\n\n"
