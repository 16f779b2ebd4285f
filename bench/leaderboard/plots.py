"""The plots of the leaderboards as plain data; ``svg`` draws them.

Methods stand in panels of at most ten lines, every ticket with its controls in a panel of its own, and costs as the points of
one density in each panel, with the front of those that no other is better than at the same cost or less.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from bench.leaderboard import format, plot_styles
from bench.leaderboard.boards import Board
from bench.leaderboard.plot_styles import PlotStyle
from bench.leaderboard.sections import Cell, Row, Section
from bench.leaderboard.table_types import Column
from bench.storage.files import safe_name

MOST_LINES = 10
"""In one panel: more, nobody can tell apart."""
MOST_FRONTS = 6
"""Densities that have a panel in a plot of costs: those with the most methods."""


@dataclass(frozen=True)
class Series:
    """One line, or one point. ``half``: half-widths of the intervals, 0 where there is none. ``row``: what the row is called on
    its board, by which a page finds it."""

    label: str
    style: PlotStyle
    x: tuple[float, ...]
    y: tuple[float, ...]
    half: tuple[float, ...]
    row: str = ""


@dataclass(frozen=True)
class Panel:
    """A part of a plot. ``context``: drawn faintly and not labelled; ``front``: the corners of a Pareto front."""

    title: str
    series: tuple[Series, ...]
    context: tuple[Series, ...] = ()
    front: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Plot:
    """Panels of one scale, in so many columns. ``log``: the x axis is logarithmic; ``falling``: it goes from large to small.
    ``ticks``: value and text of the x ticks. ``dense``: mean and half-width of the dense network, a band."""

    title: str
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    log: bool = False
    falling: bool = False
    columns: int = 1
    ticks: tuple[tuple[float, str], ...] = ()
    dense: tuple[float, float] | None = None


@dataclass(frozen=True)
class HeatMap:
    """A heat map of a value for pairs of numbers. ``cells``: column, row, value."""

    title: str
    x_label: str
    y_label: str
    value: str
    cells: tuple[tuple[float, float, float], ...]


def plots(board: Board) -> dict[str, Plot]:
    """The plots of a board by their paths."""
    return {
        f"plots/{board.slug}/{kind}-{safe_name('-'.join(section.budgets)) or 'whole'}.svg": plot
        for section in board.sections
        for kind, plot in plots_of(board, section).items()
    }


def plots_of(board: Board, section: Section) -> dict[str, Plot]:
    """The plots of a section by their kinds: the metric against density, likewise every ticket with its controls, and the metric
    against cost and against measured speed."""
    mean = board.dense_estimate
    dense = (format.decimals(mean.mean), format.decimals(mean.half or 0)) if mean else None
    empty = Plot(f"{board.records[0].identity.task} · {board.title}", "", f"test {board.metric[0]}", (), dense=dense)
    drawn = {
        "density": _against_density(section, empty),
        "controls": _with_controls(section, empty),
        "cost": _against_cost(section, empty),
        "speed": _against_speed(section, empty),
    }
    return {kind: plot for kind, plot in drawn.items() if plot.panels}


def _against_density(section: Section, empty: Plot) -> Plot:
    """Tickets in the order of their styles, so that methods of one family share a panel."""
    lines = [_line(section, row) for row in section.controls]
    lines = sorted((line for line in lines if line.x), key=lambda s: (_place(s.style), s.label))
    return replace(_scaled(section, empty), panels=panels_of(lines))


def panels_of(lines: Sequence[Series]) -> tuple[Panel, ...]:
    """Lines spread over panels of at most ten, each with the others in its background."""
    count = -(-len(lines) // MOST_LINES)
    panels = []
    for i in range(count):
        start, end = (len(lines) * k // count for k in (i, i + 1))
        title = f"{start + 1} to {end} of {len(lines)}; the others are faint" if count > 1 else ""
        panels.append(Panel(title, tuple(lines[start:end]), (*lines[:start], *lines[end:])))
    return tuple(panels)


def _with_controls(section: Section, empty: Plot) -> Plot:
    """Every ticket that has controls, in a panel with them."""
    panels = []
    for row, others in section.controls.items():
        if controls := [line for line in (_line(section, other) for other in others) if line.x]:
            ticket = _line(section, row)
            panels.append(Panel(ticket.label, (*([ticket] if ticket.x else []), *controls[: MOST_LINES - 1])))
    return replace(_scaled(section, empty), panels=tuple(panels), columns=min(2, max(1, len(panels))))


def _scaled(section: Section, empty: Plot) -> Plot:
    place, single = _places(section), len(section.budgets) == 1
    ticks = tuple((place[c], " / ".join(format.number(density) for _, density in c)) for c in section.columns)
    axis = f"density of {' / '.join(section.budgets)}"
    return replace(empty, x_label=axis, ticks=ticks, log=single, falling=single)


def _places(section: Section) -> dict[Column, float]:
    """Densities of several budgets have no common scale: the columns are then equally spaced, in the order of the table."""
    return {c: c[0][1] if len(section.budgets) == 1 else float(i) for i, c in enumerate(section.columns)}


def _line(section: Section, row: Row) -> Series:
    """A row against density."""
    place = _places(section)
    cells = {place[c]: section.rows[row][c] for c in section.columns if c in section.rows[row] and section.rows[row][c].done}
    return _series(section, row, cells, row.control or section.label(row))


def _series(section: Section, row: Row, cells: Mapping[float, Cell], label: str) -> Series:
    return Series(
        label,
        _style(section, row),
        tuple(format.decimals(x, 6) for x in cells),
        tuple(format.decimals(cell.mean.mean) for cell in cells.values()),
        tuple(format.decimals(cell.mean.half or 0) for cell in cells.values()),
        section.name(row),
    )


def _style(section: Section, row: Row) -> PlotStyle:
    """Rows of one method differ in their dashes."""
    if row.control:
        return plot_styles.control(row.control)
    return plot_styles.method(row.method, section.places[row])


def _place(style: PlotStyle) -> tuple[int, int]:
    """Where a style is in the order of the catalogue."""
    order = next(i for i in range(plot_styles.COLOURS * plot_styles.MARKERS) if plot_styles.nth(i)[:2] == style[:2])
    return order, style.dash


def _against_cost(section: Section, empty: Plot) -> Plot:
    """What a ticket costs and reaches, for the densities at which the most methods can be compared."""
    points: dict[Column, dict[Row, tuple[float, Cell]]] = defaultdict(dict)
    for row in section.controls:
        for column, cell in section.rows[row].items():
            if cell.done:
                points[column][row] = cell.cost("search_dense_trainings") + cell.cost("train_dense_trainings"), cell
    counts = Counter({c: len(points[c]) for c in section.columns if len(points[c]) > 1})
    few = min(3, max(counts.values(), default=0))
    shown = {c for c, count in islice(counts.most_common(), MOST_FRONTS) if count >= few}
    panels = [
        _front(
            f"density {format.densities(column)}",
            [_series(section, row, {cost: cell}, section.label(row)) for row, (cost, cell) in points[column].items()],
            -1,
            section.higher_is_better,
        )
        for column in section.columns
        if column in shown
    ]
    axis = "search + training, in dense trainings"
    return replace(empty, x_label=axis, panels=tuple(panels), log=True, columns=min(2, max(1, len(panels))))


def _against_speed(section: Section, empty: Plot) -> Plot:
    """Every ticket whose inference was timed, at every density."""
    points = []
    for row, cells in section.rows.items():
        for column in section.columns:
            if column in cells and (measured := cells[column].costs("measured_speedup")):
                label = f"{section.name(row)}, {format.densities(column)}"
                point = _series(section, row, {sum(measured) / len(measured): cells[column]}, label)
                points.append(replace(point, style=_style(section, row.ticket)))
    panels = (_front("", points, 1, section.higher_is_better),) if points else ()
    return replace(empty, x_label="measured speed-up of inference over dense", panels=panels)


def _front(title: str, points: Sequence[Series], sign: int, higher_is_better: bool) -> Panel:
    """Points with their Pareto front. ``sign``: 1 where a larger x is better, -1 where a smaller one is. The front's points and
    the best of the others are labelled, ten in all."""
    up = 1 if higher_is_better else -1
    by_x = sorted(points, key=lambda p: (-sign * p.x[0], -up * p.y[0], p.label))
    front: list[Series] = []
    for point in by_x:
        if not front or up * point.y[0] > up * front[-1].y[0]:
            front.append(point)
    first = sorted(points, key=lambda p: (p not in front, -up * p.y[0], p.label))[:MOST_LINES]
    others = tuple(p for p in points if p not in first)
    notes = [title] * bool(title) + [f"{len(others)} more are faint"] * bool(others)
    return Panel("; ".join(notes), tuple(p for p in points if p in first), others, tuple((p.x[0], p.y[0]) for p in front))
