"""Layerwise distributions: a stranger's own, and the whole numbers they are rounded to."""

import torch

from pruning import Maskable, Masks, allocate
from pruning.allocation import DISTRIBUTIONS, Ranking
from pruning.allocation.distributions import quotas


def test_a_distribution_of_ones_own_is_a_function_in_the_table(monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, "last_twice", lambda tensors, k: [Ranking([m], 1 + (m is tensors[-1])) for m in tensors])
    net = [Maskable(name, (10,), "linear") for name in "abc"]
    masks = allocate({m.name: torch.arange(10.0) for m in net}, Masks.ones(net), {"weights": 0.4}, net, "last_twice")
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 3, "b": 3, "c": 6}
    assert masks["a"].tolist() == [False] * 7 + [True] * 3


def test_quotas_sum_to_k_within_their_bounds():
    assert quotas([1, 1, 2], [0, 0, 0], [10, 10, 10], 12) == [3, 3, 6]
    assert quotas([1, 1, 2], [0, 0, 0], [10, 10, 4], 12) == [4, 4, 4]
    assert quotas([1, 1, 98], [2, 0, 0], [10, 10, 10], 12) == [2, 0, 10]
    assert quotas([5.0], [0], [10], 7) == [7]
