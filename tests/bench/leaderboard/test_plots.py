"""Plots: styles, panels, fronts, and the pictures drawn of them."""

from itertools import pairwise
from xml.etree import ElementTree

from bench.leaderboard import plot_styles, plots, svg
from bench.leaderboard.boards import boards
from pruning import CONTROLS
from pruning.catalogue import METHODS
from tests.bench.leaderboard.records import WEIGHTS, several


def drawn(records):
    (board,) = boards(records)
    return {path.rpartition("/")[2]: plot for path, plot in plots.plots(board).items()}


def test_no_two_methods_and_no_two_controls_look_alike_and_a_strange_name_like_none_of_them():
    of_methods = {name: plot_styles.method(name)[:2] for name in METHODS}
    assert len(set(of_methods.values())) == len(METHODS), "append what was added to plot_styles.METHODS"
    assert plot_styles.method("a/file.py:f")[:2] not in {plot_styles.method(name)[:2] for name in plot_styles.METHODS}
    assert len({plot_styles.control(name)[:3] for name in CONTROLS}) == len(CONTROLS)


def test_options_of_a_method_share_its_colour_and_marker_and_differ_in_the_rest():
    rows = [
        r for rate in (0.1, 0.2, 0.3) for r in several([1.0, 2.0, 3.0], densities=WEIGHTS, label=f"imp(rate={rate})", rate=rate)
    ]
    (panel,) = drawn(rows)["density-weights.svg"].panels
    assert {line.style[:2] for line in panel.series} == {plot_styles.method("imp")[:2]}
    assert len({line.style for line in panel.series}) == 3


def test_controls_have_a_panel_with_their_ticket_and_none_among_the_methods():
    ticket = several([80.0, 81.0, 82.0], densities=WEIGHTS)
    control = several([70.0, 71.0, 72.0], densities=WEIGHTS, control="random")
    made = drawn([*ticket, *control])
    assert [line.label for panel in made["density-weights.svg"].panels for line in panel.series] == ["imp"]
    assert [line.label for panel in made["controls-weights.svg"].panels for line in panel.series] == ["imp", "random"]


def test_a_panel_has_at_most_ten_lines_and_the_others_behind_them():
    rows = [r for i in range(23) for r in several([80.0 + i, 81.0, 82.0], densities=WEIGHTS, label=f"m{i}", method=f"m{i}")]
    panels = drawn(rows)["density-weights.svg"].panels
    assert [len(panel.series) for panel in panels] == [7, 8, 8]
    assert all(len(panel.series) + len(panel.context) == 23 for panel in panels)


def test_the_front_of_costs_is_of_one_density_and_holds_what_nothing_cheaper_reaches():
    def at(density, method, test, search):
        return several([test, test, test], densities={"weights": density}, method=method, label=method, search=search)

    half = [*at(0.5, "snip", 70.0, 0.0), *at(0.5, "grasp", 65.0, 0.5), *at(0.5, "imp", 80.0, 4.0), *at(0.5, "synflow", 60.0, 0.0)]
    tenth = [*at(0.1, "snip", 50.0, 0.0), *at(0.1, "imp", 45.0, 9.0), *at(0.1, "grasp", 40.0, 0.5)]
    first, second = drawn([*half, *tenth])["cost-weights.svg"].panels
    assert (first.title, first.front) == ("density 0.5", ((1.0, 70.0), (5.0, 80.0)))
    assert (second.title, second.front) == ("density 0.1", ((1.0, 50.0),))


def test_measured_speed_is_drawn_where_records_have_it_and_more_of_it_is_better():
    slow = several([80.0, 81.0, 82.0], densities={"weights": 0.5}, speedup=1.5)
    fast = several([70.0, 71.0, 72.0], densities={"weights": 0.1}, speedup=3.0)
    (panel,) = drawn([*slow, *fast])["speed-weights.svg"].panels
    assert panel.front == ((3.0, 71.0), (1.5, 81.0))
    assert "speed-weights.svg" not in drawn(several([80.0, 81.0, 82.0], densities=WEIGHTS))


def test_a_picture_repeats_to_the_byte_and_shows_hostile_text_as_text():
    name = "<script>alert(1)</script>\x00&"
    records = several([80.0, 81.0, 82.0], densities=WEIGHTS, label=name, method="m")
    (plot,) = (plot for path, plot in drawn(records).items() if path.startswith("density"))
    text = svg.file(plot)
    assert text == svg.file(plot)
    assert "<script" not in text
    words = "".join(ElementTree.fromstring(text).itertext())  # well-formed
    assert name.replace("\x00", "\ufffd") in words


def test_labels_keep_their_order_and_do_not_overlap():
    heights = [16.0, 30.0, 16.0, 16.0, 16.0]
    places = svg._spread([10.0, 11.0, 11.0, 90.0, 200.0], heights, 0.0, 120.0)
    edges = [(place - height / 2, place + height / 2) for place, height in zip(places, heights, strict=True)]
    assert edges[0][0] >= 0
    assert all(low <= high + 1e-9 for (_, low), (high, _) in pairwise(edges))


def test_numbers_of_a_scale_and_its_ticks():
    assert svg._ticks(58.0, 76.5) == [60.0, 65.0, 70.0, 75.0]
    across = svg._scale(1.0, 0.01, 100.0, 200.0, log=True)
    assert [round(across(x), 6) for x in (1.0, 0.1, 0.01, 5.0)] == [100.0, 200.0, 300.0, 100.0]
