"""Schedules by hand and as printed in papers: rounds of iterative pruning, paths, cubics, cosines and timetables."""

from itertools import pairwise

import pytest
import torch

from pruning import Maskable, Masks, PruningError, allocate
from pruning.schedules import cubic, density_schedule, drop_share, geometric, timetable


def test_no_rate_is_one_round():
    assert geometric({"weights": 1.0}, {"weights": 0.1}, None) == [{"weights": 0.1}]


def test_rounds_by_hand():
    steps = geometric({"weights": 1.0}, {"weights": 0.512}, 0.2)
    assert [s["weights"] for s in steps] == pytest.approx([0.8, 0.64, 0.512])
    assert steps[-1]["weights"] == 0.512
    assert len(geometric({"weights": 0.512}, {"weights": 0.4096}, 0.2)) == 1
    assert [s["weights"] for s in geometric({"weights": 1.0}, {"weights": 0.25}, 0.6)] == pytest.approx([0.5, 0.25])


def test_rounds_never_cut_more_than_the_rate():
    for goal in (0.9, 0.5, 0.118, 0.01):
        path = [1.0, *(s["weights"] for s in geometric({"weights": 1.0}, {"weights": goal}, 0.2))]
        ratios = [b / a for a, b in pairwise(path)]
        assert min(ratios) >= 0.8 - 1e-9
        assert ratios == pytest.approx([ratios[0]] * len(ratios))
        assert 0.8 ** (len(ratios) - 1) > goal  # nor take a round more than they must


def test_budgets_arrive_together():
    steps = geometric({"weights": 1.0, "edges": 1.0}, {"weights": 0.64, "edges": 0.9025}, 0.2)
    assert steps[0] == pytest.approx({"weights": 0.8, "edges": 0.95})
    assert steps[1] == {"weights": 0.64, "edges": 0.9025}


@pytest.mark.parametrize("rate", [0, 1, -0.2, 1.5, float("nan")])
def test_rate_outside_0_1_is_refused(rate):
    with pytest.raises(PruningError, match="rate is"):
        geometric({"weights": 1.0}, {"weights": 0.5}, rate)


# The densities Frankle & Carbin (2019) print, which count the weights they never prune among the total


def layers(*shapes: tuple[int, ...], budget: str = "weights", kind: str = "conv") -> list[Maskable]:
    return [Maskable(f"{budget}.{i}", shape, kind, budget) for i, shape in enumerate(shapes)]


def percent_after_rounds(maskables: list[Maskable], goal: dict[str, float], excluded: int = 0) -> list[float]:
    """Weights left after each round of cutting at most a fifth, in percent of all, as printed in a paper."""
    masks, left = Masks.ones(maskables), []
    scores = {m.name: torch.rand(m.shape, generator=torch.Generator().manual_seed(i)) for i, m in enumerate(maskables)}
    for densities in geometric(dict.fromkeys(goal, 1.0), goal, 0.2):
        masks = allocate(scores, masks, densities, maskables)
        left.append(round(100 * (masks.kept() + excluded) / (masks.total() + excluded), 1))
    return left


def test_densities_of_resnet20_in_the_paper():
    convs = layers(
        (16, 3, 3, 3), *[(16, 16, 3, 3)] * 6, (32, 16, 3, 3), *[(32, 32, 3, 3)] * 5, (64, 32, 3, 3), *[(64, 64, 3, 3)] * 5
    )
    assert sum(m.size for m in convs) == 267_696
    left = percent_after_rounds(convs, {"weights": 0.8**10}, excluded=2_560 + 640)  # projections, output layer
    assert len(left) == 10
    assert [left[round_ - 1] for round_ in (4, 6, 7, 10)] == [41.7, 27.1, 21.9, 11.8]


def test_densities_of_lenet_in_the_paper():
    """The output layer is cut at half the rate."""
    lenet = [*layers((300, 784), (100, 300), budget="hidden", kind="linear"), *layers((10, 100), budget="output", kind="linear")]
    left = percent_after_rounds(lenet, {"hidden": 0.8**7, "output": 0.9**7})
    assert len(left) == 7
    assert (left[2], left[6]) == (51.3, 21.1)


@pytest.mark.parametrize(("step", "share"), [(0, 0.3), (100, 0.3 * 0.75), (150, 0.15), (200, 0.3 * 0.25), (300, 0.0)])
def test_the_share_dropped_falls_along_a_cosine(step, share):
    assert drop_share(0.3, step, 300) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("done", "density"), [(0, 1.0), (0.5, 0.2125), (0.75, 0.1 + 0.9 / 64), (1, 0.1)])
def test_the_density_falls_along_a_cubic(done, density):
    assert cubic(0.1, done) == pytest.approx(density, abs=1e-12)  # 0.1 + 0.9 (1 - done)^3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((97_656, 0.0, 0.75, None), (100, 73_242, 732)),
        ((2_000, 0.0, 0.75, None), (100, 1_500, 15)),
        ((240, 0.0, 0.75, None), (12, 180, 15)),
        ((10, 0.0, 0.75, None), (1, 7, 7)),
        ((100, 0.2, 0.7, 15), (15, 70, 3)),
    ],
)
def test_timetables(arguments, expected):
    assert timetable(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 0.5, 0.5, None), "must rise within"),
        ((100, 0.0, 1.1, None), "must rise within"),
        ((100, 0.0, 0.5, 51), "interval is 51, but masks move during 50 steps"),
        ((100, 0.0, 0.5, 0), "interval is 0"),
        ((100, 0.0, 0.5, 2.5), "interval is 2.5"),
        ((100, 0.0, 0.5, "abc"), "interval is abc"),
        ((2, 0.0, 0.4, None), "during 0 steps"),
    ],
)
def test_a_timetable_without_an_update_is_refused(arguments, message):
    with pytest.raises(PruningError, match=message):
        timetable(*arguments)


def test_densities_over_rounds():
    assert density_schedule({"weights": 0.25}, 2, "exponential") == [{"weights": 0.5}, {"weights": 0.25}]
    assert [s["weights"] for s in density_schedule({"weights": 0.2}, 4, "linear")] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert density_schedule({"weights": 0.1, "edges": 0.3}, 1, "linear") == [{"weights": 0.1, "edges": 0.3}]
    with pytest.raises(PruningError, match="one of exponential, linear"):
        density_schedule({"weights": 0.1}, 2, "cubic")
    with pytest.raises(PruningError, match="rounds is 0"):
        density_schedule({"weights": 0.1}, 0, "linear")
