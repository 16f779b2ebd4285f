"""Recommendations without training: by hand, and on the real cities, where they are at hand, against bars computed apart
from this suite with the published protocol."""

import numpy as np
import pytest
import torch
from scipy import stats

from tasks.tour_flickr import baselines
from tasks.tour_flickr.task import TourFlickr

from .city import osaka, task, write


def test_markov_chain_and_popularity_by_hand(tmp_path):
    tours = osaka(write(tmp_path))
    logs = baselines.transitions(tours, np.array([0, 1, 2]))  # 9 4 7 2; 4 5 7; 4 5 -> from 4: once to 7, twice to 5
    assert np.exp(logs[0]).tolist() == pytest.approx([1 / 8, 3 / 8, 2 / 8, 1 / 8, 1 / 8])
    assert np.exp(logs[4]).tolist() == pytest.approx([0.2] * 5)  # nothing leads on from POI 2
    known, asked = np.array([0, 1, 2, 3]), np.array([5])  # users u1 u2 u0 u1; asked: from 4 to 2 in five visits
    rng = np.random.default_rng(0)
    # visitors of 5: u2, u0; of 7: u1, u2; of 9: u1
    assert baselines.popularity(tours, known, asked, rng) == [[0, 1, 2, 3, 4]]
    assert baselines.nearest(tours, known, asked, rng) == [[0, 1, 2, 3, 4]]
    (drawn,) = baselines.random(tours, known, asked, rng)
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    assert (drawn[0], drawn[-1]) == (0, 4)


COUNTS = {
    "edinburgh": (28, 634, 2681),
    "glasgow": (27, 112, 395),
    "melbourne": (88, 442, 2006),
    "osaka": (27, 47, 165),
    "toronto": (29, 335, 1243),
}

BARS = {  # leave-one-out: F1 and pairs-F1 of popularity and of the Markov beam
    "osaka": ((0.659, 0.360), (0.708, 0.465)),
    "glasgow": ((0.744, 0.505), (0.777, 0.569)),
    "edinburgh": ((0.701, 0.436), (0.722, 0.481)),
    "toronto": ((0.679, 0.385), (0.754, 0.528)),
    "melbourne": ((0.607, 0.303), (0.641, 0.369)),
}

RANDOM = {  # means of three drawings: one computed apart from this suite, Chen et al., an independent one
    "osaka": (0.623, 0.314),
    "glasgow": (0.628, 0.314),
    "edinburgh": (0.575, 0.264),
    "toronto": (0.614, 0.300),
    "melbourne": (0.543, 0.235),
}

BEST_OF_20 = {
    "osaka": (0.810, 0.629),
    "glasgow": (0.832, 0.667),
    "edinburgh": (0.764, 0.544),
    "toronto": (0.779, 0.567),
    "melbourne": (0.654, 0.378),
}


def _means(t: TourFlickr, name: str) -> list[float]:
    found = t.baseline_metrics(name, "test", 0)
    return [float(found[metric].mean()) / 100 for metric in ("f1", "pairs_f1")]


def _most_hits(others: int, middle: int, draws: int) -> float:
    """The expected largest number of right POIs in several random middles."""
    return float(np.sum(1 - stats.hypergeom.cdf(np.arange(middle), others, middle, middle) ** draws))


@pytest.mark.parametrize("city", ["osaka", "glasgow", "toronto"])
def test_baselines_meet_the_bars_of_leave_one_out(mirror, city):
    t = task(f"data={city}", f"data.root={mirror}", "protocol=paper")
    for name, bar in zip(("popularity", "markov_beam"), BARS[city], strict=True):
        assert _means(t, name) == pytest.approx(bar, abs=0.01), name


@pytest.mark.parametrize("city", list(COUNTS))
def test_baselines_and_the_oracle_in_ten_folds(mirror, city):
    """The oracle over random trips as well, whose F1 has a closed form: the largest of 20 hypergeometric draws."""
    t = task(f"data={city}", f"data.root={mirror}")
    sizes, pois = t._tours.lengths[t._tours.lengths >= 3], t._tours.poi_count
    assert (pois, len(sizes), int(sizes.sum())) == COUNTS[city]
    for name, bar in zip(("popularity", "markov_beam"), BARS[city], strict=True):
        assert _means(t, name) == pytest.approx(bar, abs=0.02), name
    draws = [t.baseline_metrics("random", "test", seed) for seed in range(20)]
    drawn = torch.stack([torch.stack([d["f1"], d["pairs_f1"]], 1) for d in draws]) / 100
    assert drawn.mean((0, 1)).tolist() == pytest.approx(RANDOM[city], abs=0.02)
    best = torch.tensor([max(row.tolist() for row in of_trip) for of_trip in drawn.unbind(1)]).mean(0)
    assert float(best[0]) == pytest.approx(BEST_OF_20[city][0], abs=0.04)
    assert float(best[1]) == pytest.approx(BEST_OF_20[city][1], abs=0.08)  # both are one draw of 20
    exact = np.mean([(2 + _most_hits(pois - 2, size - 2, 20)) / size for size in sizes])
    assert exact == pytest.approx(BEST_OF_20[city][0], abs=0.02)
