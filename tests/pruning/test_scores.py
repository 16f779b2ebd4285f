"""Scores, the rounds of IMP, and methods run against a lab that only takes notes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from pruning import Maskable, Masks, PruningError, allocate
from pruning.methods.magnitude import dense, imp, one_shot
from pruning.schedules import geometric
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


# rounds


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
    convs = layers((16, 3, 3, 3), *[(16, 16, 3, 3)] * 6, (32, 16, 3, 3), *[(32, 32, 3, 3)] * 5,
                   (64, 32, 3, 3), *[(64, 64, 3, 3)] * 5)
    assert sum(m.size for m in convs) == 267_696
    left = percent_after_rounds(convs, {"weights": 0.8**10}, excluded=2_560 + 640)  # projections, output layer
    assert len(left) == 10
    assert [left[round_ - 1] for round_ in (4, 6, 7, 10)] == [41.7, 27.1, 21.9, 11.8]


def test_densities_of_lenet_in_the_paper():
    """The output layer is cut at half the rate."""
    lenet = [*layers((300, 784), (100, 300), budget="hidden", kind="linear"),
             *layers((10, 100), budget="output", kind="linear")]
    left = percent_after_rounds(lenet, {"hidden": 0.8**7, "output": 0.9**7})
    assert len(left) == 7
    assert (left[2], left[6]) == (51.3, 21.1)


# methods


class NotingLab:
    """Ten weights worth 0..9 whatever the training; writes down what it is asked for, in the words of the papers."""

    budgets = ("weights",)
    maskables = layers((10,))

    def __init__(self):
        self.notes: list[str] = []
        self._trainings = 0

    def ones(self) -> Masks:
        return Masks.ones(self.maskables)

    def start(self, rewind: str) -> str:
        self.notes.append(f"start {rewind}")
        return rewind

    def train(self, start: str, masks: Masks, schedule: str) -> str:
        self._trainings += 1
        self.notes.append(f"train {start} at {masks.kept()} by {schedule}")
        return f"trained{self._trainings}"

    def score(self, name: str, state: str, masks: Masks) -> dict[str, torch.Tensor]:
        self.notes.append(f"score {state} at {masks.kept()} by {name}")
        return {"weights.0": torch.arange(10.0)}

    def allocate(self, scores, masks, densities, scheme) -> Masks:
        result = allocate(scores, masks, densities, self.maskables, scheme)
        self.notes.append(f"cut {masks.kept()} to {result.kept()} by {scheme}")
        return result


def run(method, densities: list[float], **options):
    """The tickets and the lab's notes, the yields among them."""
    lab, tickets = NotingLab(), []
    for ticket in method(lab, [{"weights": d} for d in densities], **options):
        lab.notes.append(f"ticket {ticket.start} at {ticket.masks.kept()} by {ticket.schedule}")
        tickets.append(ticket)
    return tickets, lab.notes


@pytest.mark.parametrize("rewind", ["init", "2ep"])
def test_imp_trains_cuts_and_rewinds_in_that_order(rewind):
    tickets, notes = run(imp, [0.5, 0.2], rewind=rewind)
    assert notes == [f"start {rewind}", "start end",
                     "score end at 10 by magnitude", "cut 10 to 5 by global", f"ticket {rewind} at 5 by replay",
                     f"train {rewind} at 5 by replay",
                     "score trained1 at 5 by magnitude", "cut 5 to 2 by global", f"ticket {rewind} at 2 by replay",
                     f"train {rewind} at 2 by replay"]
    assert [t.densities for t in tickets] == [{"weights": 0.5}, {"weights": 0.2}]
    assert tickets[1].masks["weights.0"].tolist() == [False] * 8 + [True] * 2
    assert tickets[1].before == tickets[0].masks


@pytest.mark.parametrize("schedule", ["whole", "constant"])
def test_imp_without_rewinding_goes_on_from_the_trained_weights(schedule):
    _, notes = run(imp, [0.5, 0.2], rewind="end", schedule=schedule, scheme="uniform", score="random")
    assert notes == ["start end", "start end",
                     "score end at 10 by random", "cut 10 to 5 by uniform", f"ticket end at 5 by {schedule}",
                     f"train end at 5 by {schedule}",
                     "score trained1 at 5 by random", "cut 5 to 2 by uniform", f"ticket trained1 at 2 by {schedule}",
                     f"train trained1 at 2 by {schedule}"]


def test_imp_takes_rounds_between_the_densities_asked():
    tickets, notes = run(imp, [0.5, 0.2], rate=0.3)
    cuts = [n for n in notes if n.startswith(("cut", "ticket"))]
    # 0.5 is two rounds of 0.71, 0.2 three more of 0.74
    assert cuts == ["cut 10 to 7 by global", "cut 7 to 5 by global", "ticket init at 5 by replay",
                    "cut 5 to 4 by global", "cut 4 to 3 by global", "cut 3 to 2 by global",
                    "ticket init at 2 by replay"]
    assert len([n for n in notes if n.startswith("train")]) == 5
    assert tickets[0].before.kept() == 7


def test_one_shot_trains_once_and_cuts_every_ticket_from_the_dense_network():
    tickets, notes = run(one_shot, [0.5, 0.2], rewind="2ep", schedule="whole", scheme="erk")
    assert notes == ["start 2ep", "start end", "score end at 10 by magnitude",
                     "cut 10 to 5 by erk", "ticket 2ep at 5 by whole", "cut 10 to 2 by erk", "ticket 2ep at 2 by whole"]
    assert all(t.before.kept() == 10 and t.scheme == "erk" for t in tickets)


def test_dense_is_one_ticket_that_keeps_everything():
    tickets, notes = run(dense, [0.5, 0.2])
    assert notes == ["start init", "ticket init at 10 by replay"]
    assert tickets[0].densities == {}
    assert tickets[0].scores is None
