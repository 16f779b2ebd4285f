"""allocate: exactly k of n, whatever the scheme; small cases by hand, the rest by properties."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pruning import Maskable, Masks, PruningError, allocate

SCHEMES = ("global", "uniform", "erk")
quick = settings(max_examples=60, deadline=None)


def tensor(name: str, *shape: int, **more) -> Maskable:
    return Maskable(name, shape, "linear", **more)


def drawn(maskables: list[Maskable], seed: int = 0, levels: int | None = None) -> dict[str, torch.Tensor]:
    """Normal scores, or whole numbers below ``levels``, which tie."""
    generator = torch.Generator().manual_seed(seed)
    return {
        m.name: torch.randn(m.shape, generator=generator)
        if levels is None
        else torch.randint(levels, m.shape, generator=generator)
        for m in maskables
    }


def cut(density: float, *scores: list[float], scheme: str = "global", alive: list[str] | None = None, **more) -> list[str]:
    """Allocate over vectors, in and out as plain lists: [[1, 2], [3, 0]] -> ["01", "10"]."""
    maskables = [tensor(str(i), len(s), **more) for i, s in enumerate(scores)]
    masks = Masks.ones(maskables)
    if alive:
        masks = masks.replace({str(i): torch.tensor([c == "1" for c in text]) for i, text in enumerate(alive)})
    tensors = {str(i): torch.tensor(s) for i, s in enumerate(scores)}
    kept = allocate(tensors, masks, {"weights": density}, maskables, scheme)
    return ["".join("01"[int(bit)] for bit in kept[m.name]) for m in maskables]


# by hand


def test_global_is_one_ranking():
    assert cut(0.5, [1.0, 5.0, 2.0], [4.0, 3.0, 0.0]) == ["010", "110"]


def test_masked_entries_count_as_pruned_and_are_not_looked_at():
    nan, inf = math.nan, math.inf
    assert cut(0.5, [9.0, 5.0, nan], [inf, 3.0, 4.0], alive=["010", "011"]) == ["010", "011"]
    assert cut(1 / 3, [nan, 5.0, -inf], [nan, 3.0, 4.0], alive=["010", "011"], scheme="uniform") == ["010", "001"]


def test_the_count_is_rounded_half_up():
    assert cut(0.5, [1.0, 2.0, 3.0]) == ["011"]  # 1.5
    assert cut(0.25, [1.0, 2.0, 3.0, 4.0, 5.0]) == ["00001"]  # 1.25


def test_floor_takes_the_best_of_a_starved_tensor():
    assert cut(5 / 8, [1.0, 3.0, 2.0], [14.0, 13.0, 12.0, 11.0, 10.0]) == ["010", "11110"]
    assert cut(5 / 8, [1.0, 3.0, 2.0], [14.0, 13.0, 12.0, 11.0, 10.0], floor=2) == ["011", "11100"]
    assert cut(5 / 8, [1.0, 3.0, 2.0], [14.0, 13.0, 12.0, 11.0, 10.0], floor=0) == ["000", "11111"]


def test_floor_asks_no_more_than_is_alive():
    kept = cut(3 / 8, [1.0, 3.0, 2.0], [14.0, 13.0, 12.0, 11.0, 10.0], floor=2, alive=["001", "11111"])
    assert kept == ["001", "11000"]


def counts(maskables: list[Maskable], k: int, scheme: str) -> list[int]:
    ones = Masks.ones(maskables)
    masks = allocate(drawn(maskables), ones, {"weights": k / ones.total()}, maskables, scheme)
    return [int(masks[m.name].sum()) for m in maskables]


def test_uniform_keeps_the_density_of_every_tensor():
    assert counts([tensor("a", 10), tensor("b", 4, 5), tensor("c", 7, 10)], 30, "uniform") == [3, 6, 21]
    assert counts([tensor("a", 5), tensor("b", 5), tensor("c", 5)], 8, "uniform") == [3, 3, 2]  # 2.67 each
    assert counts([tensor("a", 8), tensor("b", 5)], 6, "uniform") == [4, 2]  # 3.69, 2.31
    assert counts([tensor("a", 1), tensor("b", 99)], 10, "uniform") == [1, 9]  # 0.1 lifted to the floor


def test_erk_by_hand():
    # entries proportional to the sum of the extents: 20 and 15 of 35 -> 70 entries at a factor of 2
    assert counts([tensor("a", 10, 10), tensor("b", 5, 4, 3, 3)], 70, "erk") == [40, 30]
    # 17 and 18
    assert counts([tensor("conv", 8, 3, 3, 3), tensor("fc", 10, 8)], 35, "erk") == [17, 18]
    assert counts([tensor("conv", 8, 3, 3, 3), tensor("fc", 10, 8)], 105, "erk") == [51, 54]


def test_erk_is_capped_at_density_1():
    # 4 and 30 of 34: a factor of 3 would ask 12 of 4 entries; the other tensor takes what is left over
    assert counts([tensor("a", 2, 2), tensor("b", 20, 10)], 102, "erk") == [4, 98]
    # a and b both full: 8 x (4 + 4) and 8 x 6 of 16 and 8 entries
    assert counts([tensor("a", 4, 4), tensor("b", 4, 2), tensor("c", 50, 50)], 824, "erk") == [16, 8, 800]


def test_dense_is_dense():
    for scheme in SCHEMES:
        assert counts([tensor("a", 3), tensor("b", 4, 2)], 11, scheme) == [3, 8]


# properties


@st.composite
def problems(draw):
    """Tensors with floors, tying scores, masks that may have holes, and a density that can be reached."""
    shapes = draw(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=4))
    maskables = [tensor(str(i), *shape, floor=draw(st.integers(0, 3))) for i, shape in enumerate(shapes)]
    scores = drawn(maskables, draw(st.integers(0, 99)), draw(st.sampled_from([None, 1, 3])))
    masks = Masks.ones(maskables)
    if draw(st.booleans()):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        masks = masks.replace({m.name: torch.rand(m.shape, generator=generator) < 0.7 for m in maskables})
    assume(masks.kept())
    floors = sum(min(m.floor, int(masks[m.name].sum())) for m in maskables)
    return maskables, scores, masks, draw(st.integers(max(1, floors), masks.kept()))


@quick
@given(problems(), st.sampled_from(SCHEMES), st.integers(0, 5))
def test_exactly_k_monotone_above_the_floors_and_repeatable(problem, scheme, seed):
    maskables, scores, masks, k = problem
    density = k / masks.total()
    kept = allocate(scores, masks, {"weights": density}, maskables, scheme, seed)
    assert kept.kept() == k
    for m in maskables:
        assert not (kept[m.name] & ~masks[m.name]).any()
        assert kept[m.name].sum() >= min(m.floor, int(masks[m.name].sum()))
        assert kept[m.name].shape == torch.Size(m.shape)
        inside, outside = scores[m.name][kept[m.name]], scores[m.name][masks[m.name] & ~kept[m.name]]
        assert not (inside.numel() and outside.numel()) or inside.min() >= outside.max()  # the best of the tensor
    assert allocate(scores, masks, {"weights": density}, maskables, scheme, seed) == kept


@quick
@given(problems(), st.sampled_from(SCHEMES))
def test_the_same_density_asked_again_changes_nothing(problem, scheme):
    maskables, scores, masks, k = problem
    once = allocate(scores, masks, {"weights": k / masks.total()}, maskables, scheme)
    again = allocate(scores, once, {"weights": k / masks.total()}, maskables, scheme)
    assert again == once


@quick
@given(problems())
def test_the_scale_and_the_precision_of_scores_do_not_matter(problem):
    maskables, scores, masks, k = problem
    scaled = {n: s.double() * 8 - 3 for n, s in scores.items()}
    assert allocate(scores, masks, {"weights": k / masks.total()}, maskables) == allocate(
        scaled, masks, {"weights": k / masks.total()}, maskables
    )


@quick
@given(problems(), st.integers(1, 5), st.integers(0, 99))
def test_groups_are_kept_whole_in_order_of_their_sum(problem, count, seed):
    maskables, scores, masks, k = problem
    generator = torch.Generator().manual_seed(seed)
    maskables = [tensor(m.name, *m.shape, floor=0, groups=torch.randint(count, m.shape, generator=generator)) for m in maskables]
    kept = allocate(scores, masks, {"weights": k / masks.total()}, maskables)
    assert kept.kept() <= k
    names, groups = masks.names(), {m.name: m.groups for m in maskables}
    sums = {}
    for group in range(count):
        alive = torch.cat([masks[n][groups[n] == group] for n in names])
        inside = torch.cat([kept[n][groups[n] == group] for n in names])
        assert torch.equal(inside, alive) or not inside.any()
        if alive.any():
            score = torch.cat([scores[n][groups[n] == group] for n in names])
            sums.setdefault(bool(inside.any()), []).append(score[alive].double().sum().item())
    assert len(sums) == 1 or min(sums[True]) >= max(sums[False]) - 1e-9


# ties


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_scores_are_drawn_by_the_seed(scheme):
    maskables = [tensor("a", 10, 10), tensor("b", 50)]
    scores, ones = {m.name: torch.ones(m.shape) for m in maskables}, Masks.ones(maskables)
    results = [allocate(scores, ones, {"weights": 0.3}, maskables, scheme, seed) for seed in (0, 0, 1, 2**62)]
    assert all(r.kept() == 45 for r in results)
    assert results[0] == results[1]
    assert len(set(results)) == 3
    # not the first ones, nor one corner
    assert 0 < results[0]["a"].reshape(-1)[:50].sum() < results[0]["a"].sum()


def test_ties_are_drawn_at_the_edge_only():
    scores = torch.tensor([5.0, 1.0, 3.0, 3.0, 3.0, 3.0, 0.0, 9.0])
    seen = set()
    for seed in range(20):
        kept = allocate({"w": scores}, Masks.ones([tensor("w", 8)]), {"weights": 0.5}, [tensor("w", 8)], seed=seed)["w"]
        assert kept[[0, 7]].all()
        assert not kept[[1, 6]].any()
        assert kept[2:6].sum() == 2
        seen.add(tuple(kept.tolist()))
    assert len(seen) == 6  # every pair of the four


def test_whole_numbers_and_half_precision_are_ranked():
    for dtype in (torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float64):
        scores = {"w": torch.tensor([0, 1, 0, 1]).to(dtype)}
        kept = allocate(scores, Masks.ones([tensor("w", 4)]), {"weights": 0.5}, [tensor("w", 4)])
        assert kept["w"].tolist() == [False, True, False, True]


def test_double_precision_is_not_rounded_away():
    scores = torch.tensor([1 + 1e-12, 1.0, 1 + 2e-12, 1.0], dtype=torch.float64)
    kept = allocate({"w": scores}, Masks.ones([tensor("w", 4)]), {"weights": 0.5}, [tensor("w", 4)])
    assert kept["w"].tolist() == [True, False, True, False]


# budgets


def test_every_budget_has_its_own_density_and_those_left_out_are_untouched():
    maskables = [tensor("a", 10), tensor("b", 10), tensor("e", 20, budget="edges"), tensor("h", 4, budget="heads")]
    scores = drawn(maskables)
    before = Masks.ones(maskables).replace({"h": torch.tensor([True, False, True, True])})
    kept = allocate(scores, before, {"weights": 0.3, "edges": 0.85}, maskables)
    assert (kept.kept("weights"), kept.kept("edges"), kept.kept("heads")) == (6, 17, 3)
    assert torch.equal(kept["h"], before["h"])
    alone = allocate(scores, before, {"edges": 0.85}, maskables)
    assert torch.equal(alone["e"], kept["e"])
    assert alone.kept("weights") == 20
    assert allocate({}, before, {}, maskables) == before


def test_allocate_leaves_its_arguments_alone():
    maskables = [tensor("a", 10), tensor("b", 10)]
    scores, ones = drawn(maskables), Masks.ones(maskables)
    copies = {n: s.clone() for n, s in scores.items()}
    for scheme in SCHEMES:
        allocate(scores, ones, {"weights": 0.3}, maskables, scheme)
    assert all(torch.equal(scores[n], copies[n]) for n in scores)
    assert ones.kept() == 20


# groups


def grouped(name: str, numbers: list[int], **more) -> Maskable:
    return tensor(name, len(numbers), groups=torch.tensor(numbers), **more)


def test_groups_stand_or_fall_by_their_sum_across_tensors():
    maskables = [grouped("a", [0, 0, 1, 1], floor=0), grouped("b", [0, 1], floor=0)]
    scores = {"a": torch.tensor([1.0, 1.0, 2.0, 2.0]), "b": torch.tensor([5.0, 1.0])}  # sums: 7 and 5
    for k, expected in ((3, 0b110010), (4, 0b110010), (5, 0b110010), (6, 0b111111)):
        kept = allocate(scores, Masks.ones(maskables), {"weights": k / 6}, maskables)
        flat = [*kept["a"].tolist(), *kept["b"].tolist()]
        assert flat == [c == "1" for c in f"{expected:06b}"]


def test_groups_mix_with_entries_that_decide_alone():
    maskables = [grouped("a", [3, 3, 8, 8], floor=0), tensor("b", 2, floor=0)]
    scores = {"a": torch.tensor([1.0, 2.0, 5.0, 5.0]), "b": torch.tensor([4.0, 0.0])}  # 3, 10; 4, 0
    kept = allocate(scores, Masks.ones(maskables), {"weights": 0.5}, maskables)
    assert kept["a"].tolist() == [False, False, True, True]
    assert kept["b"].tolist() == [True, False]


def test_masked_entries_of_a_group_neither_count_nor_come_back():
    maskables = [grouped("a", [0, 0, 1, 1])]
    alive = Masks.ones(maskables).replace({"a": torch.tensor([True, False, True, True])})
    scores = {"a": torch.tensor([3.0, math.nan, 1.0, 1.0])}
    assert allocate(scores, alive, {"weights": 0.25}, maskables)["a"].tolist() == [True, False, False, False]
    assert allocate(scores, alive, {"weights": 0.75}, maskables)["a"].tolist() == [True, False, True, True]


def test_floors_hold_whole_groups():
    maskables = [grouped("a", [0, 0, 1, 1]), grouped("b", [2, 2, 3, 3])]
    scores = {"a": torch.tensor([1.0, 1.0, 2.0, 2.0]), "b": torch.tensor([8.0, 8.0, 9.0, 9.0])}
    kept = allocate(scores, Masks.ones(maskables), {"weights": 0.5}, maskables)
    assert kept["a"].tolist() == [False, False, True, True]
    assert kept["b"].tolist() == [False, False, True, True]
    with pytest.raises(PruningError, match="3 entries are too few for the groups that hold the floors of 2 tensors"):
        allocate(scores, Masks.ones(maskables), {"weights": 3 / 8}, maskables)


def test_equal_groups_are_drawn_by_the_seed():
    maskables = [grouped("a", [0, 0, 1, 1, 2, 2, 3, 3])]
    ones, scores = Masks.ones(maskables), {"a": torch.ones(8)}
    seen = {tuple(allocate(scores, ones, {"weights": 0.5}, maskables, seed=s)["a"].tolist()) for s in range(40)}
    assert len(seen) == 6
    assert all(sum(mask) == 4 and mask[::2] == mask[1::2] for mask in seen)


@pytest.mark.parametrize("scheme", ["uniform", "erk"])
def test_schemes_per_tensor_take_groups_within_a_tensor_only(scheme):
    scores = {"a": torch.arange(4.0), "b": torch.arange(4.0)}
    apart = [grouped("a", [0, 0, 1, 1]), grouped("b", [2, 3, 2, 3])]
    kept = allocate(scores, Masks.ones(apart), {"weights": 0.5}, apart, scheme)
    assert kept["a"].tolist() == [False, False, True, True]
    assert kept["b"].tolist() == [False, True, False, True]
    across = [grouped("a", [0, 0, 1, 1]), grouped("b", [2, 1, 2, 1])]
    if scheme == "erk":
        with pytest.raises(PruningError, match="a group of b is also in another tensor: use scheme global or uniform"):
            allocate(scores, Masks.ones(across), {"weights": 0.5}, across, scheme)


def test_uniform_takes_tensors_that_share_groups_for_one():
    """Of a, b and d groups 0, 1 are joined by way of d; c has its own."""
    pairs = {"a": [0, 2], "b": [1, 3], "c": [4, 5, 6, 7], "d": [0, 1]}
    maskables = [grouped(name, numbers, floor=0) for name, numbers in pairs.items()]
    scores = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 5.0]), "c": torch.arange(4.0), "d": torch.zeros(2)}
    kept = allocate(scores, Masks.ones(maskables), {"weights": 0.5}, maskables, "uniform")
    assert {name: mask.tolist() for name, mask in kept.items()} == {
        "a": [False, True],
        "b": [False, True],
        "c": [False, False, True, True],
        "d": [False, False],
    }


# refusals


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_non_finite_scores_of_living_entries_are_refused(bad, scheme):
    with pytest.raises(PruningError, match="the score of 0 has non-finite entries"):
        cut(0.5, [1.0, bad, 2.0], scheme=scheme)


@pytest.mark.parametrize("density", [0, -0.1, 1.0001, math.nan])
def test_density_outside_0_1_is_refused(density):
    with pytest.raises(PruningError, match=r"density of weights is .*; it must lie in \(0, 1\]"):
        cut(density, [1.0, 2.0])


def test_regrowing_is_refused():
    with pytest.raises(PruningError, match="needs 3 entries but only 2 of 4 are left: masks never regrow"):
        cut(0.75, [1.0, 2.0, 3.0, 4.0], alive=["1010"])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_density_below_the_floors_says_the_least_that_works(scheme):
    with pytest.raises(PruningError, match=r"keeps 1 of 12 entries.* need 2: ask for at least 0\.166667"):
        cut(0.1, [1.0] * 6, [2.0] * 6, scheme=scheme)
    cut(0.166667, [1.0] * 6, [2.0] * 6, scheme=scheme)


def test_missing_and_misshapen_scores_and_unknown_names_are_refused():
    maskables = [tensor("a", 2), tensor("e", 2, budget="edges")]
    ones, scores = Masks.ones(maskables), {"a": torch.ones(2), "e": torch.ones(2)}
    with pytest.raises(PruningError, match="no score for a"):
        allocate({}, ones, {"weights": 0.5}, maskables)
    with pytest.raises(PruningError, match=r"the score of a has shape \(3,\), its maskable \(2,\)"):
        allocate({"a": torch.ones(3)}, ones, {"weights": 0.5}, maskables)
    with pytest.raises(PruningError, match="no maskable has budget 'heads'; this task has: weights, edges"):
        allocate(scores, ones, {"heads": 0.5}, maskables)
    with pytest.raises(PruningError, match="unknown scheme 'local': one of global, uniform, erk"):
        allocate(scores, ones, {"weights": 0.5}, maskables, scheme="local")
