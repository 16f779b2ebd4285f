"""The score of a suite, step by step, with numbers made by hand."""

import math

import numpy as np
import pytest

from bench.errors import BenchError
from bench.suites import score


def test_retention_is_the_share_of_what_training_gave():
    assert score.retention(70.0, 90.0, 10.0) == 0.75
    assert score.retention(10.0, 90.0, 10.0) == 0.0
    assert score.retention(5.0, 90.0, 10.0) == -0.0625
    assert score.retention(1.5, 1.0, 3.0, higher_is_better=False) == 0.75  # a loss: 1 is dense, 3 is chance


@pytest.mark.parametrize(("dense", "chance", "higher"), [(10.0, 10.0, True), (9.0, 10.0, True), (3.5, 3.0, False)])
def test_a_dense_network_at_chance_has_nothing_to_keep(dense, chance, higher):
    with pytest.raises(BenchError, match="not better than the best constant answer"):
        score.retention(1.0, dense, chance, higher)


def test_area_is_the_mean_height_on_the_logarithmic_axis():
    assert score.area([0.1], [0.4]) == 0.4
    assert score.area([0.1, 0.01], [1.0, 0.5]) == pytest.approx(0.75)
    # from 1 to 0.1 a decade of mean height 0.9, from 0.1 to 0.001 two decades of 0.5
    assert score.area([1.0, 0.1, 0.001], [1.0, 0.8, 0.2]) == pytest.approx((0.9 + 2 * 0.5) / 3)
    assert score.area([0.5, 0.2, 0.1], [0.7, 0.7, 0.7]) == pytest.approx(0.7)


def test_domains_count_the_same_whatever_their_events():
    domains = {"images": ["a", "b", "c"], "text": ["d"]}
    assert score.balanced({"a": 0.6, "b": 0.9, "c": 0.9, "d": 0.4}, domains) == pytest.approx((0.8 + 0.4) / 2)


def test_draws_resample_each_event_by_itself():
    domains = {"images": ["a"], "text": ["d"]}
    drawn = score.draws({"a": [0.0, 1.0], "d": [0.5, 0.5, 0.5]}, domains)
    assert set(np.round(drawn, 12)) == {0.25, 0.5, 0.75}  # of a 0, 1/2 or 1; d is 1/2 however it is drawn
    assert np.mean(drawn == 0.5) == pytest.approx(0.5, abs=0.02)  # twice as likely as either end
    assert score.interval(drawn) == (0.25, 0.75)
    assert np.array_equal(drawn, score.draws({"d": [0.5, 0.5, 0.5], "a": [0.0, 1.0]}, {"text": ["d"], "images": ["a"]}))


def test_resampled_seeds_are_the_same_for_ever():
    assert score.resampled("lenet", 3)[:4].tolist() == [[1, 0, 2], [2, 2, 2], [0, 1, 2], [2, 1, 2]]


def test_methods_are_separated_by_their_paired_difference():
    domains, spread = {"x": ["e"]}, [0.1, 0.5, 0.9]
    one = score.draws({"e": spread}, domains)
    other = score.draws({"e": [value + 0.01 for value in spread]}, domains)
    assert score.separated(one, other)  # a hundredth better in every seed, though the intervals overlap
    assert not score.separated(one, score.draws({"e": [0.11, 0.51, 0.89]}, domains))
    assert not score.separated(one, one)


def test_ranks_are_shared_with_the_best_of_the_rank():
    apart = {(0, 2), (0, 3), (2, 3)}  # 1 is apart from nobody, and 4 not from 3
    assert score.shared_ranks(5, lambda i, j: (i, j) in apart) == [1, 1, 3, 4, 4]
    assert score.shared_ranks(0, lambda i, j: True) == []


def test_mean_ranks_share_ties():
    assert score.mean_ranks([0.5, 0.9, 0.5, 0.1]) == [2.5, 1.0, 2.5, 4.0]


def test_profile_is_the_share_of_cells_near_the_best():
    shares = score.profile({"a": [1.0, 0.5, 0.2], "b": [0.8, 0.5, 0.4]}, [1.0, 0.75, 0.5])
    assert shares == {"a": [2 / 3, 2 / 3, 1.0], "b": [2 / 3, 1.0, 1.0]}
    assert all(math.isfinite(value) for values in shares.values() for value in values)
