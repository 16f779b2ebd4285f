"""Plots of the leaderboards: plain data, drawn as SVG. One matplotlib version draws equal data as equal bytes; others draw
differently, so a file carries a checksum (seal) of its data and bytes, by which it is checked without being drawn again."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.leaderboard import format
from bench.leaderboard.boards import Board, Cell
from bench.storage.files import canonical, safe_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's colour-blind-safe palette without black (the dense network's) and yellow (faint on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP"
CONTROL_MARKERS = "oX*<>p"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ticket-bench",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Series:
    """One line of a plot. ``half``: half-widths of the intervals, 0 where there is none. ``method``: number of the method, for
    colour and marker; ``control``: number of the control, drawn thin and dashed in its method's colour, or None."""

    label: str
    method: int
    control: int | None
    x: tuple[float, ...]
    y: tuple[float, ...]
    half: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """A line plot. ``ticks``: value and text of the x ticks. ``dense``: mean and half-width of the dense network, a band."""

    title: str
    x_label: str
    y_label: str
    log: bool
    series: tuple[Series, ...]
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
    """The plots of a board by their paths: metric against density for every section, and metric against total cost."""
    title, y_label = f"{board.records[0].identity.task} · {board.title}", f"test {board.metric[0]}"
    mean = board.dense_estimate
    dense = (format.decimals(mean.mean), format.decimals(mean.half or 0)) if mean else None
    rows = sorted({row for section in board.sections for row in section.rows})
    methods = list(dict.fromkeys(row.ticket for row in rows))
    controls = sorted({row.control for row in rows if row.control})
    found: dict[str, Plot] = {}
    by_cost = []
    for section in board.sections:
        # Densities of several budgets have no common scale: the columns are then equally spaced, in the order of the table.
        single = len(section.budgets) == 1
        place = {c: c[0][1] if single else float(i) for i, c in enumerate(section.columns)}
        pruned = f" ({'+'.join(section.budgets)})" if len(board.sections) > 1 else ""
        by_density = []
        for row, cells in section.rows.items():
            columns = [c for c in section.columns if c in cells and cells[c].done]
            if not columns:
                continue
            label = section.label(row) + (f" ↳ {row.control}" if row.control else "")
            look = methods.index(row.ticket), controls.index(row.control) if row.control else None
            points = [cells[c] for c in columns]
            totals = [cell.cost("search_dense_trainings") + cell.cost("train_dense_trainings") for cell in points]
            by_density.append(_series(label, *look, [place[c] for c in columns], points))
            by_cost.append(_series(label + pruned, *look, totals, points))
        if by_density:
            ticks = tuple((place[c], format.densities(c)) for c in section.columns)
            path = f"plots/{board.slug}/density-{safe_name('-'.join(section.budgets)) or 'whole'}.svg"
            found[path] = Plot(title, section.title.lower(), y_label, single, tuple(by_density), ticks, dense)
    if by_cost:
        found[f"plots/{board.slug}/cost.svg"] = Plot(
            title, "search + training, in dense trainings", y_label, True, tuple(by_cost), dense=dense
        )
    return found


def _series(label: str, method: int, control: int | None, x: list[float], cells: list[Cell]) -> Series:
    return Series(
        label,
        method,
        control,
        tuple(format.decimals(v, 6) for v in x),
        tuple(format.decimals(cell.mean.mean) for cell in cells),
        tuple(format.decimals(cell.mean.half or 0) for cell in cells),
    )


def draw(plot: Plot | HeatMap) -> str:
    """Draw a plot as an SVG file with its seal."""
    import matplotlib  # lazy: `bench leaderboard --check` needs no matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the bytes
        matplotlib.rcParams.update(STYLE)
        figure = _heat_map(plot) if isinstance(plot, HeatMap) else _lines(plot)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    body = file.getvalue()
    return f"{body}<!-- seal: {_seal(plot, body)} -->\n"


def _lines(plot: Plot) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    widest = max((len(line.label) for line in plot.series), default=0)  # room for the legend
    figure = Figure(figsize=(6 + 0.08 * widest, max(4.5, 0.25 * len(plot.series))), layout="constrained")
    axes = figure.subplots()
    if plot.dense:
        mean, half = plot.dense
        axes.axhspan(mean - half, mean + half, color="black", alpha=0.12, linewidth=0)
        axes.axhline(mean, color="black", linewidth=1, label="dense")
    for line in plot.series:
        if line.control is None:
            look: dict[str, Any] = {"marker": MARKERS[line.method % len(MARKERS)], "linestyle": "-", "linewidth": 1.8}
        else:
            look = {
                "marker": CONTROL_MARKERS[line.control % len(CONTROL_MARKERS)],
                "linestyle": "--",
                "linewidth": 1,
                "markerfacecolor": "white",
            }
        axes.errorbar(
            line.x, line.y, yerr=line.half, label=line.label, capsize=3, color=COLOURS[line.method % len(COLOURS)], **look
        )
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    if plot.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    if plot.ticks:
        axes.set_xticks([x for x, _ in plot.ticks], [text for _, text in plot.ticks], minor=False)
        axes.tick_params(axis="x", rotation=30 if not plot.log else 0)
        axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _heat_map(plot: HeatMap) -> Figure:
    from matplotlib.figure import Figure

    columns, rows = (sorted({cell[i] for cell in plot.cells}) for i in (0, 1))
    values = {(x, y): value for x, y, value in plot.cells}
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow([[values.get((x, y), math.nan) for x in columns] for y in rows], origin="lower", cmap="viridis")
    for set_ticks, numbers in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
        shown = range(0, len(numbers), 1 + len(numbers) // 12)
        set_ticks(list(shown), [format.number(numbers[i]) for i in shown])
    axes.grid(visible=False)
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    figure.colorbar(image, label=plot.value)
    return figure


def sealed(text: str, plot: Plot | HeatMap) -> bool:
    """Whether ``text`` was drawn from this plot's data, by any version of matplotlib, and not edited afterwards."""
    body, _, seal = text.rpartition("<!-- seal: ")
    return seal == f"{_seal(plot, body)} -->\n"


def _seal(plot: Plot | HeatMap, body: str) -> str:
    return hashlib.sha256((canonical(asdict(plot)) + body).encode()).hexdigest()
