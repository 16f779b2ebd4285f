"""Statistics over seeds, against values computed by hand."""

import math

import pytest

from bench.leaderboard import statistics


def test_every_interval_is_the_t_interval_computed_by_hand():
    # t quantiles at 97.5 %: 12.706 (1 degree of freedom), 4.303 (2), 2.776 (4), as printed in any table
    assert [round(statistics.t_quantile(k), 3) for k in (1, 2, 4)] == [12.706, 4.303, 2.776]
    three = statistics.estimate([1.0, 2.0, 3.0])
    assert (three.n, three.mean, three.std) == (3, 2.0, 1.0)
    assert three.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert statistics.estimate([5.0]) == statistics.Estimate(1, 5.0, None, None)


def test_differences_are_paired_by_seed():
    a, b = {0: 1.0, 1: 12.0, 2: 23.0, 9: 5.0}, {0: 0.0, 1: 10.0, 2: 20.0, 8: 5.0}
    difference = statistics.paired(a, b)
    assert (difference.n, difference.mean, difference.std) == (3, 2.0, 1.0)  # 1, 2, 3: seeds 8 and 9 have no pair
    assert not statistics.separable(a, b)  # 2 < 2.484
    assert statistics.separable({s: v + 1 for s, v in a.items()}, b)  # 3 > 2.484
    assert not statistics.separable({0: 1.0, 1: 1.0}, {0: 99.0, 1: 99.0})  # two seeds separate nothing
    assert statistics.paired({0: 1.0}, {1: 1.0}) is None
    higher = {s: v + 1 for s, v in a.items()}
    assert [statistics.better(higher, b, True), statistics.better(higher, b, False)] == [True, False]
    assert [statistics.better(b, higher, True), statistics.better(b, higher, False)] == [False, True]


def test_matching_allows_the_larger_standard_deviation():
    dense = {0: 9.0, 1: 10.0, 2: 11.0}  # std 1
    assert statistics.matches({0: 9.0, 1: 9.0, 2: 9.0}, dense, True)
    assert not statistics.matches({0: 8.9, 1: 8.9, 2: 8.9}, dense, True)
    assert statistics.matches({0: 6.0, 1: 8.0, 2: 10.0}, dense, True)  # its own std is 2
    assert statistics.matches({0: 1.0, 1: 1.0, 2: 1.0}, dense, False)
    assert not statistics.matches({0: 12.0, 1: 12.0, 2: 12.0}, dense, False)
    assert not statistics.matches({0: 20.0, 1: 20.0}, dense, True)  # two seeds are provisional


def test_equal_values_have_no_spread():
    assert statistics.estimate([14.893617021276595] * 5) == statistics.Estimate(5, 14.893617021276595, 0.0, 0.0)
