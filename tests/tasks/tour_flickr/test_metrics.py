"""Metrics of trips, by hand."""

import pytest

from tasks.tour_flickr import metrics


@pytest.mark.parametrize(
    ("real", "found", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], (1, 1, 1)),
        ([1, 2, 3, 4], [1, 3, 2, 4], (1, 5 / 6, 1)),
        ([1, 2, 3, 4], [1, 5, 3, 4], (0.75, 0.5, 0.5)),
        ([1, 2, 3], [1, 9, 3], (2 / 3, 1 / 3, 0)),  # one middle point
        ([1, 2, 3], [1, 2, 3], (1, 1, 1)),
        ([1, 2, 3, 4], [1, 2, 2, 4], (0.75, 5 / 6, 0.5)),  # pairs 12 12 14 24 24, the repeated POI counted twice
        ([1, 2, 3, 4], [1, 2, 3], (6 / 7, 2 / 3, 2 / 3)),  # no end: 3 of 3 and of 6 pairs; middle [2] of [2, 3]
        ([1, 2, 3], [], (0, 0, 0)),
        ([1, 2, 3], [1], (0.5, 0, 0)),
        ([1, 2, 3], [3, 2, 1], (1, 0, 1)),
    ],
)
def test_metrics_by_hand(real, found, expected):
    assert tuple(metric(real, found) for metric in metrics.METRICS.values()) == pytest.approx(expected)


def test_pairs_of_a_repeating_real_trip_are_refused():
    with pytest.raises(ValueError, match="repeats"):
        metrics.pairs_f1([1, 2, 1], [1, 2, 1])
