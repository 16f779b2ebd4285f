"""Plots drawn as SVG: equal data gives equal bytes on every machine, and one file serves light and dark pages."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.leaderboard import format
from bench.leaderboard.markup import Markup, element
from bench.leaderboard.plot_styles import PlotStyle
from bench.leaderboard.plots import HeatMap, Panel, Plot, Series

LIGHT = ("#0072b2", "#c4460a", "#00835f", "#b5508a", "#332288", "#a66a00", "#1d8fc0")
DARK = ("#4da3e0", "#ff8a4c", "#2bc49a", "#e58fc0", "#a79bff", "#f2b93b", "#8ad0f5")
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    "M-3.6 -3.6h7.2v7.2h-7.2Z",
    "M0 -4.6L4.4 3.4H-4.4Z",
    "M0 -5L4 0L0 5L-4 0Z",
    "M0 4.6L4.4 -3.4H-4.4Z",
    "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    "M-4 -2L-2 -4L0 -2L2 -4L4 -2L2 0L4 2L2 4L0 2L-2 4L-4 2L-2 0Z",
    "M0 -5L1.3 -1.7L4.8 -1.5L2 0.7L3 4L0 2.1L-3 4L-2 0.7L-4.8 -1.5L-1.3 -1.7Z",
)
DASHES = ("", "7 3", "2 2.5", "8 3 2 3", "3 3 1 3")
VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def _palette(ink: str, paper: str, line: str, grey: str, colours: Sequence[str]) -> str:
    named = {"ink": ink, "paper": paper, "line": line, "grey": grey, **{f"c{i}": colour for i, colour in enumerate(colours)}}
    return "".join(f"--{name}:{value};" for name, value in named.items())


STYLE = (
    f".plot{{{_palette('#1f2328', '#ffffff', '#d8dee4', '#656d76', LIGHT)}}}\n"
    f"@media(prefers-color-scheme:dark){{.plot{{{_palette('#e6edf3', '#0d1117', '#30363d', '#9198a1', DARK)}}}}}\n"
    ".plot text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:var(--ink)}.plot .title{font-weight:600}\n"
    ".plot .paper{fill:var(--paper)}.plot .grid{stroke:var(--line);fill:none}.plot .dense{stroke:var(--ink);fill:none}\n"
    ".plot .band{fill:var(--ink);opacity:.12}.plot .context{opacity:.22}.plot .lead{stroke-width:.75;opacity:.6}\n"
    ".plot .line{fill:none;stroke-width:1.8}.plot .half{stroke-width:1;opacity:.55}.plot .front{stroke:var(--ink);fill:none}\n"
    ".plot .grey{--own:var(--grey)}" + "".join(f".plot .c{i}{{--own:var(--c{i})}}" for i in range(len(LIGHT))) + "\n"
    ".plot .line,.plot .half,.plot .lead,.plot .mark{stroke:var(--own)}.plot .mark{fill:var(--own)}"
    ".plot .open{fill:var(--paper);stroke-width:1.4}\n"
)
"""The style sheet of all plots."""


class Box(NamedTuple):
    """Where a panel's axes are in the picture, and how numbers become places in it."""

    left: float
    top: float
    width: float
    height: float
    across: Callable[[float], float]
    up: Callable[[float], float]

    @property
    def right(self) -> float:
        """The right end of the axes."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower end of the axes."""
        return self.top + self.height


def file(plot: Plot | HeatMap) -> str:
    """A plot as a file of its own."""
    return f"{draw(plot, element('style', STYLE))}\n"


def draw(plot: Plot | HeatMap, style: Markup | None = None) -> Markup:
    """A plot, with a style sheet or, for a page that has it, without."""
    return _heat_map(plot, style) if isinstance(plot, HeatMap) else _lines(plot, style)


def _picture(width: float, height: float, plot: Plot | HeatMap, style: Markup | None, *children: Markup) -> Markup:
    label = f"{plot.title}: {plot.y_label} against {plot.x_label}"
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return element(
        "svg",
        style,
        element("title", label),
        element("rect", class_="paper", width=size["width"], height=size["height"]),
        element("text", plot.title, x=16, y=22, class_="title"),
        *children,
        class_="plot",
        role="img",
        aria_label=label,
        xmlns="http://www.w3.org/2000/svg",
        **size,
    )


def _lines(plot: Plot, style: Markup | None) -> Markup:
    width, height = (860 / plot.columns, 250 if plot.columns > 1 else 400)
    room = 190 if plot.columns > 1 else 260  # for labels
    rows = -(-len(plot.panels) // plot.columns)
    values = [x for panel in plot.panels for line in (*panel.series, *panel.context) for x in line.x]
    ends = _ends([*values, *(x for x, _ in plot.ticks)], plot)
    drawn = []
    for i, panel in enumerate(plot.panels):
        left, top = 58 + width * (i % plot.columns), 56 + (height + 66) * (i // plot.columns)
        inner = width - 58 - room
        low, high = _range([*panel.series, *panel.context], plot.dense)
        box = Box(left, top, inner, height, _scale(*ends, left, inner, plot.log), _scale(low, high, top + height, -height))
        drawn.append(_panel(panel, plot, box, _ticks(low, high)))
    return _picture(860, 56 + (height + 66) * rows, plot, style, *drawn)


def _range(lines: Sequence[Series], dense: tuple[float, float] | None) -> tuple[float, float]:
    """The range of the y axis: all intervals, as far as they do not dwarf the means."""
    means = [y for line in lines for y in line.y] + ([dense[0]] if dense else [])
    reach = (max(means) - min(means)) / 4
    ends = [y + side * half for line in lines for y, half in zip(line.y, line.half, strict=True) for side in (-1, 1)]
    low, high = max(min(means) - reach, min([*ends, *means])), min(max(means) + reach, max([*ends, *means]))
    pad = (high - low) * 0.05 or 1.0
    return low - pad, high + pad


def _ends(values: Sequence[float], plot: Plot) -> tuple[float, float]:
    """The ends of the x axis, left and right, with some air."""
    low, high = min(values), max(values)
    if plot.log:
        air = max((high / low) ** 0.06, 1.15)
        low, high = low / air, high * air
    else:
        air = (high - low) * 0.05 or 1.0
        low, high = low - air, high + air
    return (high, low) if plot.falling else (low, high)


def _scale(first: float, last: float, start: float, length: float, log: bool = False) -> Callable[[float], float]:
    """A function from a number between ``first`` and ``last`` to a place in the picture; beyond them, to the nearer end."""
    a, b = (math.log10(first), math.log10(last)) if log else (first, last)
    return lambda value: start + length * min(1.0, max(0.0, ((math.log10(value) if log else value) - a) / (b - a)))


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _x_ticks(plot: Plot, box: Box) -> list[tuple[float, str]]:
    """Places and texts of the ticks that have room."""
    if plot.ticks:
        wanted = [(box.across(x), text) for x, text in plot.ticks]
    else:
        values = [x for panel in plot.panels for line in (*panel.series, *panel.context) for x in line.x]
        low, high = min(values), max(values)
        if plot.log:
            round_numbers = [m * 10.0**e for e in range(-6, 9) for m in (1, 2, 5)]
            numbers = [v for v in round_numbers if low / 1.2 <= v <= high * 1.2]
        else:
            numbers = _ticks(low, high) if high > low else [low]
        wanted = [(box.across(x), format.number(x)) for x in numbers]
    shown: list[tuple[float, str]] = []
    for x, text in sorted(wanted):
        if not shown or x - shown[-1][0] >= 10 + 3.4 * (len(text) + len(shown[-1][1])):
            shown.append((x, text))
    return shown


def _panel(panel: Panel, plot: Plot, box: Box, y_ticks: Sequence[float]) -> Markup:
    parts = [element("text", panel.title, x=_n(box.left), y=_n(box.top - 8))] if panel.title else []
    for value in y_ticks:
        y = _n(box.up(value))
        parts += [
            element("path", class_="grid", d=f"M{_n(box.left)} {y}H{_n(box.right)}"),
            element("text", format.number(value), x=_n(box.left - 7), y=_n(box.up(value) + 4), text_anchor="end"),
        ]
    for x, text in _x_ticks(plot, box):
        parts += [
            element("path", class_="grid", d=f"M{_n(x)} {_n(box.top)}V{_n(box.bottom + 4)}"),
            element("text", text, x=_n(x), y=_n(box.bottom + 18), text_anchor="middle"),
        ]
    middle = f"translate({_n(box.left - 44)} {_n(box.top + box.height / 2)}) rotate(-90)"
    parts += [
        element("text", plot.x_label, x=_n(box.left + box.width / 2), y=_n(box.bottom + 36), text_anchor="middle"),
        element("text", plot.y_label, transform=middle, text_anchor="middle"),
    ]
    if plot.dense:
        mean, half = plot.dense
        low, high = box.up(mean - half), box.up(mean + half)
        size = {"x": _n(box.left), "y": _n(high), "width": _n(box.width), "height": _n(low - high)}
        parts.append(element("rect", class_="band", **size))
        parts.append(element("path", class_="dense", d=f"M{_n(box.left)} {_n(box.up(mean))}H{_n(box.right)}"))
    if len(panel.front) > 1:
        points = "L".join(f"{_n(box.across(x))} {_n(box.up(y))}" for x, y in panel.front)
        parts.append(element("path", class_="front", d=f"M{points}", stroke_dasharray="3 3"))
    parts += [_series(line, box, "context") for line in panel.context]
    *labels, dense = _labels(panel.series, box, plot.dense)
    parts += [_series(line, box, "series", label) for line, label in zip(panel.series, labels, strict=True)]
    return element("g", *parts, dense)


def _series(line: Series, box: Box, kind: str, label: Markup | None = None) -> Markup:
    points = [(box.across(x), box.up(y)) for x, y in zip(line.x, line.y, strict=True)]
    parts = []
    if len(points) > 1:
        dash = DASHES[line.style.dash] or None
        path = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        parts.append(element("path", class_="line", d=f"M{path}", stroke_dasharray=dash))
    halves = [
        f"M{_n(x)} {_n(box.up(y - half))}V{_n(box.up(y + half))}"
        for (x, _), y, half in zip(points, line.y, line.half, strict=True)
        if half
    ]
    if halves and kind != "context":
        parts.append(element("path", class_="half", d="".join(halves)))
    if kind != "context" or len(points) == 1:  # a faint line stands in another panel with its points
        for (x, y), value, mean in zip(points, line.x, line.y, strict=True):
            parts.append(_marker(line.style, x, y, f"{line.label}: {format.number(mean)} at {format.number(value)}"))
    return element("g", *parts, label, class_=f"{kind} {_colour(line.style)}", data_row=line.row or None)


def _colour(style: PlotStyle) -> str:
    return "grey" if style.colour < 0 else f"c{style.colour}"


def _marker(style: PlotStyle, x: float, y: float, tooltip: str | None = None) -> Markup:
    place = f"translate({_n(x)} {_n(y)})" + (" scale(.7)" if style.small else "")
    title = element("title", tooltip) if tooltip else None
    return element("path", title, class_="mark open" if style.open else "mark", d=MARKERS[style.marker], transform=place)


def _labels(lines: Sequence[Series], box: Box, dense: tuple[float, float] | None) -> list[Markup | None]:
    """The labels right of the axes, each as near to its line's last point as the others let it, with a line that leads to it;
    last that of the dense network."""
    width = 24 if box.width < 300 else 34
    texts = [_wrapped(line.label, width) for line in lines] + [["dense"]] * (dense is not None)
    ends = [max((box.across(x), box.up(y)) for x, y in zip(line.x, line.y, strict=True)) for line in lines]
    ends += [(box.right, box.up(dense[0]))] if dense else []
    order = sorted(range(len(ends)), key=lambda i: (ends[i][1], -ends[i][0], texts[i]))
    places = _spread([ends[i][1] for i in order], [14.0 * len(texts[i]) + 2 for i in order], box.top, box.bottom + 20)
    made: dict[int, Markup] = {}
    for i, middle in zip(order, places, strict=True):
        x, first = box.right + 28, middle + 4 - 7 * (len(texts[i]) - 1)
        spans = [element("tspan", text, x=_n(x), y=_n(first + 14 * k)) for k, text in enumerate(texts[i])]
        lead = f"M{_n(ends[i][0])} {_n(ends[i][1])}L{_n(box.right + 4)} {_n(middle)}H{_n(box.right + 11)}"
        if i < len(lines):
            sign = _marker(lines[i].style, box.right + 17, middle)
        else:
            sign = element("path", class_="dense", d=f"M{_n(box.right + 11)} {_n(middle)}h12")
        made[i] = element(
            "g",
            element("title", lines[i].label if i < len(lines) else "the dense network"),
            element("path", class_="lead", d=lead, fill="none", stroke_dasharray="1 2"),
            sign,
            element("text", *spans),
        )
    return [made.get(i) for i in range(len(lines) + 1)]


def _wrapped(text: str, width: int) -> list[str]:
    """A text in at most three lines; options start on a new one."""
    name, mark, options = text.partition("(")
    parts = [text] if len(text) <= width or not mark else [name, f"  {mark}{options}"]
    lines = [line for part in parts for line in textwrap.wrap(part, width, subsequent_indent="   ", break_on_hyphens=False)]
    return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2][: width - 2]} …"]


def _spread(wanted: Sequence[float], heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places near those wanted, in ascending order, at which labels of these heights do not overlap: groups of labels that
    would are centred on the mean of what they want."""
    groups: list[tuple[float, float, int]] = []  # middle wanted, height, members
    for place, height in zip(wanted, heights, strict=True):
        groups.append((place, height, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-1][1] / 2 < groups[-2][0] + groups[-2][1] / 2:
            (a, tall, n), (b, more, m) = groups[-2:]
            groups[-2:] = [((a * n + b * m) / (n + m), tall + more, n + m)]
        middle, height, n = groups[-1]
        groups[-1] = (min(max(middle, top + height / 2), max(bottom - height / 2, top + height / 2)), height, n)
    places: list[float] = []
    for middle, height, n in groups:
        start = middle - height / 2
        for own in heights[len(places) : len(places) + n]:
            places.append(start + own / 2)
            start += own
    return places


def _heat_map(plot: HeatMap, style: Markup | None) -> Markup:
    columns, rows = (sorted({cell[i] for cell in plot.cells}) for i in (0, 1))
    low, high = (end(value for *_, value in plot.cells) for end in (min, max))
    left, top, side = 70.0, 40.0, min(400.0 / max(len(columns), len(rows)), 60.0)
    bottom = top + side * len(rows)
    parts = []
    for x, y, value in plot.cells:
        cell = {"x": _n(left + side * columns.index(x)), "y": _n(bottom - side * (rows.index(y) + 1))}
        tooltip = element("title", f"{format.number(x)}, {format.number(y)}: {format.number(value)}")
        parts.append(element("rect", tooltip, width=_n(side), height=_n(side), fill=_viridis(value, low, high), **cell))
    for i in range(0, len(columns), 1 + len(columns) // 12):
        text = format.number(columns[i])
        parts.append(element("text", text, x=_n(left + side * (i + 0.5)), y=_n(bottom + 18), text_anchor="middle"))
    for i in range(0, len(rows), 1 + len(rows) // 12):
        text = format.number(rows[i])
        parts.append(element("text", text, x=_n(left - 7), y=_n(bottom - side * (i + 0.5) + 4), text_anchor="end"))
    right = left + side * len(columns)
    middle = f"translate(20 {_n((top + bottom) / 2)}) rotate(-90)"
    parts += [
        element("text", plot.x_label, x=_n((left + right) / 2), y=_n(bottom + 38), text_anchor="middle"),
        element("text", plot.y_label, transform=middle, text_anchor="middle"),
        element("text", plot.value, x=_n(right + 24), y=_n(top - 8)),
    ]
    for i in range(20):  # what the colours mean
        value = low + (high - low) * i / 19
        place = {"x": _n(right + 24), "y": _n(bottom - (bottom - top) * (i + 1) / 20)}
        parts.append(element("rect", width=16, height=_n((bottom - top) / 20 + 0.5), fill=_viridis(value, low, high), **place))
        if i in (0, 19):
            parts.append(element("text", format.ratio(value), x=_n(right + 46), y=_n(bottom if i == 0 else top + 11)))
    return _picture(right + 130, bottom + 56, plot, style, *parts)


def _viridis(value: float, low: float, high: float) -> str:
    """The colour of a value."""
    place = (value - low) / (high - low) * (len(VIRIDIS) - 1) if high > low else 0.0
    i = min(int(place), len(VIRIDIS) - 2)
    mixed = (round(a + (b - a) * (place - i)) for a, b in zip(VIRIDIS[i], VIRIDIS[i + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _n(value: float) -> str:
    """A place in the picture, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
