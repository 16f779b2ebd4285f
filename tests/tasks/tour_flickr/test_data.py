"""Folds of a city, and what each may see."""

import numpy as np
import pytest

from bench.task import BenchError
from tasks.tour_flickr import baselines, data

from .city import osaka, task, write


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "data.folds is 1: give 2 to 6"),
        ({"folds": 9}, "data.folds is 9: give 2 to 6"),
        ({"val": 0}, "data.val is 0"),
        ({"val": 0.99}, "leave none for training"),
        ({"name": "paris"}, "unknown data 'paris'"),
    ],
)
def test_options_out_of_range_are_one_line(tmp_path, options, said):
    write(tmp_path)
    with pytest.raises(BenchError) as error:
        osaka(tmp_path, **options)
    assert said in str(error.value)


@pytest.mark.parametrize("folds", [3, 0])
def test_folds_cover_the_trips_once_and_never_overlap(tmp_path, folds):
    tours = osaka(write(tmp_path), folds=folds)
    assert len(tours.folds) == (folds or 6)
    assert sorted(np.concatenate([fold["test"] for fold in tours.folds])) == [0, 1, 4, 5, 6, 7]
    for fold in tours.folds:
        assert sorted(np.concatenate(list(fold.values()))) == [0, 1, 4, 5, 6, 7]
    assert tours.fingerprint != osaka(tmp_path, folds=folds, split_seed=1).fingerprint


def test_no_test_trip_is_seen_by_its_fold(tmp_path):
    """Other middles of the test trips of a fold change nothing that the fold learns from or recommends."""
    tours = osaka(write(tmp_path))
    fold = tours.folds[0]
    changed = tours.pois.copy()
    for trip in fold["test"]:
        middle = slice(1, tours.lengths[trip] - 1)
        others = np.setdiff1d(np.arange(5), [changed[trip, 0], changed[trip, tours.lengths[trip] - 1]])
        changed[trip, middle] = np.roll(others, 1)[: tours.lengths[trip] - 2]
    other = data.Tours(**{**tours.__dict__, "pois": changed})
    assert (other.pois != tours.pois).any()
    for name in baselines.BASELINES:
        one, two = ([found for _, found in baselines.recommend(name, t, "test", 0)[: len(fold["test"])]] for t in (tours, other))
        assert one == two, name
    t = task("data=osaka", f"data.root={tmp_path}", "data.folds=3", "data.val=0.2", "protocol=smoke", "data=osaka")
    for epoch in range(4):
        for batch in t.batches("train", epoch, 0):
            for pois in batch.pois[0].tolist():
                assert pois not in [tours.pois[trip, : len(pois)].tolist() for trip in fold["test"]]
