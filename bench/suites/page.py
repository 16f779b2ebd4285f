"""The page of a suite: its ranking as tables and Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.leaderboard import format, markdown, plot_styles
from bench.leaderboard.boards import Board
from bench.leaderboard.plots import Plot, Series, panels_of
from bench.leaderboard.statistics import mean
from bench.leaderboard.table_types import Bold, DenseTrainings, Label, MeanRank, Percent, Ratio, Share, Table
from bench.storage.files import safe_name
from bench.suites.ranking import SHARES, Entry, Ranking, board_of
from bench.suites.schema import Event, Suite
from bench.suites.score import DRAWS

ABOUT = """\
- **Retention** of a ticket: (its test metric - chance) / (the dense network's of the same seed - chance). 1 is as good as the
  dense network and 0 as good as the best constant answer; a network that diverged counts 0.
- **Score** of an event: the mean retention over its densities, as the area under the curve on the logarithmic axis, and over its
  seeds. The score of the suite is the mean over the events of a domain, then over the domains. In brackets: 95 % interval by a
  bootstrap over the seeds of each event ({draws:,} draws). Of three seeds such an interval is rather too narrow.
- **Rank**: methods by score. Those that follow the best method of a rank share it, up to the first whose paired difference to
  that method has a bootstrap interval that excludes 0.
- **Mean rank**: over the events, by their scores. **Beats random**: events in which the score is separably larger than that of
  random masks of the same densities (paired t-interval over the seeds). **Cost**: search and training of a ticket, in trainings
  of the dense network, mean over events. **Matches dense at**: the smallest density whose mean lies within the dense network's
  95 % interval or above it, for each event.
- Only a method with every seed, density and control of every event is ranked."""


def ranking_table(ranking: Ranking, rows: int | None = None) -> Table:
    """Ranked methods, best first: rank, score, score of every domain, and what stands beside it; at most so many rows."""
    domains = ranking.suite.domains
    return Table(
        [
            "Rank",
            "Method",
            "Score",
            *(domain.capitalize() for domain in domains),
            "Mean rank",
            "Beats random",
            "Matches dense at",
            "Cost (dense trainings)",
        ],
        [
            [
                str(row.rank),
                Bold(row.label) if row.rank == 1 else row.label,
                Share(row.score, row.low, row.high),
                *(Share(mean(row.entry.curves[event.name].score for event in events)) for events in domains.values()),
                MeanRank(row.mean_rank),
                Ratio(*row.beats),
                ", ".join(_matching(row.entry, event) for event in ranking.suite.events),
                DenseTrainings(row.cost),
            ]
            for row in ranking.ranked[:rows]
        ],
    )


def events_table(suite: Suite, boards: Sequence[Board]) -> Table:
    """What every event is."""
    rows = []
    for event in suite.events:
        board = board_of(event, boards)
        name = " · ".join([*event.names, *event.overrides])
        dense = format.interval(board.dense_estimate) if board and board.dense_estimate else format.MISSING
        rows.append(
            [
                event.name,
                event.domain,
                Label(name, f"{safe_name(event.names[0])}.md" if board else ""),
                "+".join(event.budgets),
                ", ".join(map(format.number, event.densities)),
                str(event.seeds),
                board.metric[0] if board else format.MISSING,
                dense,
                format.number(event.chance),
            ]
        )
    headers = ["Event", "Domain", "Setting", "Pruned", "Densities", "Seeds", "Test metric", "Dense", "Chance"]
    return Table(headers, rows)


def event_table(event: Event, entries: Sequence[Entry]) -> Table:
    """The methods that have the whole of an event, best first: score and mean retention at every density, and of the random
    control in the last column its score."""
    curves = {entry.label: entry.curves[event.name] for entry in entries if event.name in entry.curves}
    rows = [
        [
            label,
            Share(curve.score),
            *map(Share, curve.means),
            Share(curve.random_score) if curve.random_score is not None else format.MISSING,
        ]
        for label, curve in sorted(curves.items(), key=lambda item: (-item[1].score, item[0]))
    ]
    return Table(["Method", "Score", *map(format.number, event.densities), "Score of random masks"], rows)


def profile_table(ranking: Ranking) -> Table:
    """For every ranked method the share of all cells in which it keeps at least so much of the best method's retention."""
    headers = ["Method", *(f"at least {format.brief(Percent(share))}" for share in SHARES)]
    return Table(headers, [[row.label, *map(Percent, row.profile)] for row in ranking.ranked])


def profile_plot(ranking: Ranking) -> Plot:
    """The performance profiles of the ranked methods as lines, in the styles that methods have on all plots."""
    seen: Counter[str] = Counter()
    lines = []
    for row in ranking.ranked:
        method = row.entry.method
        shares = tuple(format.decimals(100 * share, 1) for share in row.profile)
        lines.append(Series(row.label, plot_styles.method(method, seen[method]), SHARES, shares, (0.0,) * len(SHARES), row.label))
        seen[method] += 1
    return Plot(
        f"Suite {ranking.suite.name}, version {ranking.suite.version}: performance profiles",
        "at least so large a share of the best retention",
        "% of events and densities",
        panels_of(lines),
        falling=True,
        ticks=tuple((share, format.number(share)) for share in SHARES),
    )


def plots(rankings: Sequence[Ranking]) -> dict[str, Plot]:
    """Every suite's plot by its path, where methods are ranked."""
    return {plot_path(ranking.suite): profile_plot(ranking) for ranking in rankings if ranking.ranked}


def missing_table(ranking: Ranking) -> Table:
    """The methods that are not ranked, and why."""
    return Table(
        ["Method", *(event.name for event in ranking.suite.events)],
        [
            [entry.label, *(entry.missing.get(event.name, "whole") for event in ranking.suite.events)]
            for entry in ranking.unranked
        ],
    )


def render(ranking: Ranking, boards: Sequence[Board]) -> str:
    """The page as Markdown."""
    suite = ranking.suite
    entries = [*(row.entry for row in ranking.ranked), *ranking.unranked]
    parts = [
        markdown.HEADER.strip("\n"),
        f"# Suite {suite.name}, version {suite.version}",
        markdown.escape(suite.about),
        summary(ranking),
        ABOUT.format(draws=DRAWS),
        "## Events",
        markdown.table(events_table(suite, boards)),
    ]
    for event in suite.events:
        table = event_table(event, entries)
        if table.rows:
            parts += [f"### {event.name}", "Mean retention at each density.", markdown.table(table)]
    if ranking.ranked:
        cells = sum(len(event.densities) for event in suite.events)
        parts += [
            "## Performance profiles",
            f"In what share of the {cells} pairs of an event and a density a method keeps at least so much of the best method's "
            "retention there (Dolan & Moré 2002).",
            f"![Performance profiles]({plot_path(suite)})",
            markdown.table(profile_table(ranking)),
        ]
    if ranking.unranked:
        parts += [
            "## Not ranked",
            "Methods that have records at an event's densities, and what they lack.",
            markdown.table(missing_table(ranking)),
        ]
    parts += ["## A row of your own", f"    bench suite run {suite.name} method=mine.py:f runs=runs --dry-run"]
    return "\n\n".join(parts) + "\n"


def summary(ranking: Ranking, rows: int | None = None) -> str:
    """The ranking as Markdown, at most so many rows of it."""
    return markdown.table(ranking_table(ranking, rows)) if ranking.ranked else "No method is whole yet."


def section(ranking: Ranking) -> str:
    """What the index says of a suite."""
    suite = ranking.suite
    link = f"[Events, every density and what is missing]({path_of(suite)})"
    return f"## Suite {suite.name}\n\n{markdown.escape(suite.about)} {link}.\n\n{summary(ranking)}"


def rows(ranking: Ranking) -> list[dict[str, Any]]:
    """The ranking as JSON: a row for every method, ranked or not."""
    names = [event.name for event in ranking.suite.events]
    ranked = [
        {
            "suite": ranking.suite.name,
            "version": ranking.suite.version,
            "rank": row.rank,
            "method": row.label,
            "score": row.score,
            "low": row.low,
            "high": row.high,
            "mean_rank": row.mean_rank,
            "beats_random": row.beats[0],
            "has_random": row.beats[1],
            "cost": row.cost,
            "events": {name: row.entry.curves[name].score for name in names},
            "missing": {},
        }
        for row in ranking.ranked
    ]
    unranked = [
        {
            **dict.fromkeys(("rank", "score", "low", "high", "mean_rank", "beats_random", "has_random", "cost")),
            "suite": ranking.suite.name,
            "version": ranking.suite.version,
            "method": entry.label,
            "events": {name: entry.curves[name].score for name in names if name in entry.curves},
            "missing": entry.missing,
        }
        for entry in ranking.unranked
    ]
    return [*ranked, *unranked]


def pages(rankings: Sequence[Ranking], boards: Sequence[Board]) -> Mapping[str, str]:
    """Every suite's page by its path."""
    return {path_of(ranking.suite): render(ranking, boards) for ranking in rankings}


def path_of(suite: Suite) -> str:
    """The path of a suite's page in the leaderboards folder."""
    return f"suite_{suite.name}.md"


def plot_path(suite: Suite) -> str:
    """The path of a suite's plot in the leaderboards folder."""
    return f"plots/suite_{suite.name}/profiles.svg"


def _matching(entry: Entry, event: Event) -> str:
    matching = entry.curves[event.name].matching
    return format.MISSING if matching is None else format.number(matching)
