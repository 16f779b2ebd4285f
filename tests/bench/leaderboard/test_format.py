"""Texts of numbers and marks: every type of cell."""

import pytest

from bench.leaderboard import format
from bench.leaderboard.statistics import estimate
from bench.leaderboard.table_types import (
    Bold,
    DenseTrainings,
    Label,
    Measurement,
    MetricCell,
    Percent,
    Problems,
    SanityCell,
    Seconds,
    Speedups,
    TransferCell,
)

THREE, ONE = estimate([1.0, 2.0, 3.0]), estimate([-0.001])


def test_intervals_differences_and_measurements():
    assert [format.interval(THREE), format.interval(ONE)] == ["2.00 ± 2.48 (3)", "0.00 (1)"]  # no minus zero
    assert [format.difference(THREE), format.difference(ONE)] == ["+2.00 ± 2.48", "+0.00"]
    assert [format.measurement(estimate([123456.0])), format.measurement(THREE, "+")] == ["1.235e+05 (1)", "+2 ± 2.5 (3)"]


@pytest.mark.parametrize(
    ("column", "text", "named"),
    [
        ((), "whole network", "whole network"),
        ((("weights", 0.5),), "0.5", "weights 0.5"),
        ((("weights", 0.5), ("edges", 0.5)), "weights+edges 0.5", "weights+edges 0.5"),
        ((("weights", 0.5), ("edges", 0.8)), "weights 0.5, edges 0.8", "weights 0.5, edges 0.8"),
    ],
)
def test_densities(column, text, named):
    assert (format.densities(column), format.densities(column, named=True)) == (text, named)


@pytest.mark.parametrize(
    ("cell", "lines"),
    [
        ("text", ["text"]),
        (("two", "lines"), ["two", "lines"]),
        (Label("imp"), ["imp"]),
        (Label("random", control=True), ["↳ random"]),
        (MetricCell(THREE, ONE, best=True, matches=True, explains=True, emptied=2), ["2.00 ± 2.48 (3)", "Δ +0.00 ✓ ≈ †2"]),
        (
            MetricCell(ONE, ONE, provisional=True, untrained=THREE, disconnected=1, problems=Problems(diverged=1, failed=2)),
            ["0.00 (1)", "provisional", "Δ +0.00", "untrained 2.00 ± 2.48 (3)", "1 cut through", "1 diverged", "2 failed"],
        ),
        (MetricCell(problems=Problems(not_applicable=True)), ["not applicable"]),
        (MetricCell(), []),
        (
            SanityCell((("random", THREE, True), ("shuffle", ONE, False), ("reinit", ONE, None))),
            ["random +2.00 ± 2.48 (3) passes", "shuffle +0.00 (1) fails", "reinit +0.00 (1)"],
        ),
        (TransferCell(THREE, True, Problems(failed=1)), ["+2.00 ± 2.48 (3) ✓ 1 failed"]),
        (DenseTrainings(1.0, 0.126), ["1.00 / 0.13"]),
        (DenseTrainings(1.0), ["1.00"]),
        (Speedups((1.256, 2.0), True), ["1.26 x / 2.00 x"]),
        (Speedups((), True), ["theoretical only"]),
        (Speedups(), [""]),
        (Percent(0.1234), ["12.3 %"]),
        (Seconds(9.96), ["10"]),
        (Seconds(10.4), ["10"]),
        (Seconds(0.123), ["0.12"]),
        (Measurement(None), ["—"]),
        (Measurement(THREE), ["2 ± 2.5 (3)"]),
    ],
)
def test_lines_of_cells(cell, lines):
    assert [" ".join(words) for words in format.lines(cell)] == lines


def test_only_the_best_and_what_fails_are_emphasised():
    assert isinstance(format.lines(MetricCell(THREE, ONE, best=True))[0][0], Bold)
    assert not isinstance(format.lines(MetricCell(THREE, ONE))[0][0], Bold)
    assert isinstance(format.lines(SanityCell((("random", ONE, False),)))[0][-1], Bold)


def test_a_terminal_shows_a_metric_and_its_problems_in_one_line():
    assert format.brief(MetricCell(THREE, ONE, matches=True, problems=Problems(diverged=1))) == "2.00 ± 2.48 (3), 1 diverged"
    assert format.brief(("a", "b")) == "a, b"
