"""Controls, on tickets small enough to know the answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from pruning import CONTROLS, Maskable, Masks, NotApplicable, PruningError, Ticket, allocate, budgets
from pruning.scores import random as random_score


@dataclass(frozen=True)
class State:
    key: str


class Lab:
    """Real masks, no training."""

    def __init__(self, maskables: list[Maskable], seed: int = 0):
        self.maskables, self.budgets, self.seed = maskables, budgets(maskables), seed

    def ones(self) -> Masks:
        return Masks.ones(self.maskables)

    def start(self, rewind: str) -> State:
        return State(rewind)

    def generator(self, purpose: str = "") -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def score(self, name: str, state: State, masks: Masks) -> dict[str, torch.Tensor]:
        assert name == "random"
        return random_score(None, self.maskables, self)

    def allocate(self, scores, masks, densities, scheme="global") -> Masks:
        return allocate(scores, masks, densities, self.maskables, scheme, self.seed)

    def spent_steps(self) -> int:
        return 300

    def training_steps(self, ticket: Ticket) -> int:
        return 90


MASKABLES = [Maskable("a", (20, 10), "linear"), Maskable("b", (50,), "linear"), Maskable("e", (40,), "edge", "edges")]


@pytest.fixture
def lab() -> Lab:
    return Lab(MASKABLES)


def drawn_ticket(lab: Lab, densities: dict[str, float], before: Masks | None = None, scheme: str = "global") -> Ticket:
    """Cut to ``densities`` by scores that rise with the index."""
    before = before or lab.ones()
    scores = {m.name: torch.arange(m.size, dtype=torch.float32).reshape(m.shape) for m in lab.maskables}
    masks = lab.allocate(scores, before, densities, scheme)
    return Ticket(densities, masks, lab.start("init"), "replay", scores, before, scheme)


def test_random_keeps_the_density_of_every_budget_exactly(lab):
    ticket = drawn_ticket(lab, {"weights": 0.333, "edges": 0.85})
    control = CONTROLS["random"](ticket, lab)
    assert {b: control.masks.kept(b) for b in lab.budgets} == {"weights": 83, "edges": 34}
    assert control.masks != ticket.masks
    assert (control.start, control.schedule, control.densities) == (ticket.start, ticket.schedule, ticket.densities)
    # no information: both tensors near the density of the budget
    assert 50 <= control.masks["a"].sum() <= 80
    assert CONTROLS["random"](ticket, lab).masks == control.masks
    assert CONTROLS["random"](ticket, Lab(MASKABLES, seed=1)).masks != control.masks


def test_random_keeps_a_budget_pruned_by_an_earlier_decision(lab):
    earlier = drawn_ticket(lab, {"edges": 0.5}).masks
    control = CONTROLS["random"](drawn_ticket(lab, {"weights": 0.2}, earlier), lab)
    assert (control.masks.kept("weights"), control.masks.kept("edges")) == (50, 20)


def test_shuffle_keeps_the_density_of_every_tensor(lab):
    ticket = drawn_ticket(lab, {"weights": 0.4, "edges": 0.5})
    control = CONTROLS["shuffle"](ticket, lab)
    assert control.masks.densities() == ticket.masks.densities()
    assert all((control.masks[n] != ticket.masks[n]).any() for n in ("a", "e"))
    assert control.start == ticket.start


def test_shuffle_does_not_tear_groups_apart():
    lab = Lab([Maskable("h", (4,), "query", groups=torch.tensor([0, 0, 1, 1]))])
    with pytest.raises(NotApplicable, match="tear groups of entries apart"):
        CONTROLS["shuffle"](drawn_ticket(lab, {"weights": 0.5}), lab)


def test_reinit_keeps_the_masks_and_draws_the_weights_anew(lab):
    ticket = drawn_ticket(lab, {"weights": 0.2})
    control = CONTROLS["reinit"](ticket, lab)
    assert control.masks == ticket.masks
    assert (control.start, control.schedule) == (State("reinit"), "whole")
    constant = Ticket(ticket.densities, ticket.masks, State("end"), "constant")
    assert CONTROLS["reinit"](constant, lab).schedule == "constant"
    with pytest.raises(PruningError, match="from these very weights already"):
        CONTROLS["reinit"](control, lab)


def test_invert_keeps_the_worst_of_those_alive():
    lab = Lab([Maskable("w", (8,), "linear")])
    before = lab.ones().replace({"w": torch.tensor([c == "1" for c in "01110111"])})
    ticket = drawn_ticket(lab, {"weights": 3 / 8}, before)
    assert ticket.masks["w"].nonzero().flatten().tolist() == [5, 6, 7]
    control = CONTROLS["invert"](ticket, lab)
    assert control.masks["w"].nonzero().flatten().tolist() == [1, 2, 3]
    assert not (control.masks["w"] & ~before["w"]).any()


def test_invert_ranks_by_the_ticket_s_own_scheme(lab):
    ticket = drawn_ticket(lab, {"weights": 0.2}, scheme="uniform")
    control = CONTROLS["invert"](ticket, lab)
    assert control.masks.densities() == ticket.masks.densities() == {"a": 0.2, "b": 0.2, "e": 1.0}
    assert control.masks["b"].nonzero().flatten().tolist() == list(range(10))
    assert ticket.masks["b"].nonzero().flatten().tolist() == list(range(40, 50))


def test_invert_needs_scores(lab):
    ticket = drawn_ticket(lab, {"weights": 0.2})
    with pytest.raises(NotApplicable, match="this method keeps none"):
        CONTROLS["invert"](Ticket(ticket.densities, ticket.masks, ticket.start), lab)


def test_dense_as_long_spends_what_search_and_training_spent(lab):
    control = CONTROLS["dense_as_long"](drawn_ticket(lab, {"weights": 0.2}), lab)
    assert control.masks == lab.ones()
    assert (control.start, control.schedule, control.densities) == (State("init"), "stretch:390", {})


@pytest.mark.parametrize("name", ["random", "shuffle", "invert"])
def test_a_control_that_changes_nothing_is_an_error(lab, name):
    with pytest.raises(PruningError, match="compare the ticket with itself"):
        CONTROLS[name](drawn_ticket(lab, {"weights": 1.0}), lab)
