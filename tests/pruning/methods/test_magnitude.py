"""Dense, one-shot and iterative magnitude pruning, run against a lab that only takes notes."""

import pytest
import torch

from pruning import Maskable, Masks, allocate
from pruning.methods.magnitude import dense, imp, one_shot


class NotingLab:
    """Ten weights worth 0..9 whatever the training; writes down what it is asked for, in the words of the papers."""

    budgets = ("weights",)
    maskables = (Maskable("weights.0", (10,), "conv"),)

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
    assert notes == [
        f"start {rewind}",
        "start end",
        "score end at 10 by magnitude",
        "cut 10 to 5 by global",
        f"ticket {rewind} at 5 by replay",
        f"train {rewind} at 5 by replay",
        "score trained1 at 5 by magnitude",
        "cut 5 to 2 by global",
        f"ticket {rewind} at 2 by replay",
        f"train {rewind} at 2 by replay",
    ]
    assert [t.densities for t in tickets] == [{"weights": 0.5}, {"weights": 0.2}]
    assert tickets[1].masks["weights.0"].tolist() == [False] * 8 + [True] * 2
    assert tickets[1].before == tickets[0].masks


@pytest.mark.parametrize("schedule", ["whole", "constant"])
def test_imp_without_rewinding_goes_on_from_the_trained_weights(schedule):
    _, notes = run(imp, [0.5, 0.2], rewind="end", schedule=schedule, scheme="uniform", score="random")
    assert notes == [
        "start end",
        "start end",
        "score end at 10 by random",
        "cut 10 to 5 by uniform",
        f"ticket end at 5 by {schedule}",
        f"train end at 5 by {schedule}",
        "score trained1 at 5 by random",
        "cut 5 to 2 by uniform",
        f"ticket trained1 at 2 by {schedule}",
        f"train trained1 at 2 by {schedule}",
    ]


def test_imp_takes_rounds_between_the_densities_asked():
    tickets, notes = run(imp, [0.5, 0.2], rate=0.3)
    cuts = [n for n in notes if n.startswith(("cut", "ticket"))]
    # 0.5 is two rounds of 0.71, 0.2 three more of 0.74
    assert cuts == [
        "cut 10 to 7 by global",
        "cut 7 to 5 by global",
        "ticket init at 5 by replay",
        "cut 5 to 4 by global",
        "cut 4 to 3 by global",
        "cut 3 to 2 by global",
        "ticket init at 2 by replay",
    ]
    assert len([n for n in notes if n.startswith("train")]) == 5
    assert tickets[0].before.kept() == 7


def test_one_shot_trains_once_and_cuts_every_ticket_from_the_dense_network():
    tickets, notes = run(one_shot, [0.5, 0.2], rewind="2ep", schedule="whole", scheme="erk")
    assert notes == [
        "start 2ep",
        "start end",
        "score end at 10 by magnitude",
        "cut 10 to 5 by erk",
        "ticket 2ep at 5 by whole",
        "cut 10 to 2 by erk",
        "ticket 2ep at 2 by whole",
    ]
    assert all(t.before.kept() == 10 and t.scheme == "erk" for t in tickets)


def test_dense_is_one_ticket_that_keeps_everything():
    tickets, notes = run(dense, [0.5, 0.2])
    assert notes == ["start init", "ticket init at 10 by replay"]
    assert tickets[0].densities == {}
    assert tickets[0].scores is None
