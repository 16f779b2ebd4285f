"""Scores by hand."""

import torch
from torch import nn

from pruning import Maskable
from pruning.scores import magnitude, random


class Draws:
    """The data of a score that reads none."""

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)


def test_magnitude_is_the_absolute_weight():
    model = nn.Linear(2, 1)
    model.weight.data = torch.tensor([[-3.0, 2.0]])
    score = magnitude(model, [Maskable("weight", (1, 2), "linear")], Draws())
    assert score["weight"].tolist() == [[3.0, 2.0]]
    assert not score["weight"].requires_grad
    score["weight"].zero_()
    assert model.weight.tolist() == [[-3.0, 2.0]]


def test_random_scores_are_drawn_from_the_lab_alone():
    maskables = [Maskable("a", (3,), "linear"), Maskable("b", (2, 2), "linear")]
    state = torch.get_rng_state()
    one, same = (random(nn.Identity(), maskables, Draws()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[n], same[n]) for n in "ab")
    assert {n: tuple(s.shape) for n, s in one.items()} == {"a": (3,), "b": (2, 2)}
    assert all(((s >= 0) & (s < 1)).all() for s in one.values())
