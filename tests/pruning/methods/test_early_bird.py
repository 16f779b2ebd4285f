"""The early-bird observer: distances, their normalisation, when a ticket emerges; and that nothing notices being watched."""

import math

import pytest
import torch
from torch import nn

from bench.lab.dry_run import NotPlanned, PlanLab
from pruning import Maskable, Masks, PruningError
from pruning.callbacks.base import Callback, CallbackList, TrainingContext
from pruning.methods.early_bird import EarlyBird, early_bird, normalise
from tests.conftest import toy_lab


class Idle(Callback):
    """Does nothing beside another callback."""

    name = "idle"

    def options(self):
        return {"name": self.name}


class Values(nn.Module):
    """Four weights and four edges, set by hand."""

    def __init__(self):
        super().__init__()
        self.weight, self.edge = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))


MASKABLES = [Maskable("weight", (4,), "linear"), Maskable("edge", (4,), "edge", "edges")]
WEIGHTS = [[4, 3, 2, 1], [4, -3, 2, 1], [1, 2, 3, 4], [1, 4, -3, 2], [1, 4, 3, 2], [1, 4, 3, 2], [1, 4, 3, 2]]
EDGES = [[4, 3, 2, 1]] * 4 + [[4, 2, 3, 1]] * 3


def watched(rule: EarlyBird, epochs: int = 7) -> TrainingContext:
    """The run after ``epochs`` of 10 steps each, in which weights and edges take the values above."""
    model = Values()
    run = TrainingContext(
        model,
        None,
        MASKABLES,
        0,
        70,
        10,
        Masks.ones(MASKABLES),
        lambda masks: None,
        lambda purpose: torch.Generator().manual_seed(3),
        lambda: 0.0,
    )
    rule.on_start(run)
    for weight, edge in zip(WEIGHTS[:epochs], EDGES[:epochs], strict=True):
        model.weight.data, model.edge.data = torch.tensor(weight).float(), torch.tensor(edge).float()
        run.step += 10
        rule.after_epoch(run)
    return run


def steps(stop: str, **options) -> int:
    """When the ticket of half the weights and half the edges emerges; 0: never."""
    options = {"window": 2, "eps": 0.1, "normalised": False} | options
    rule = EarlyBird([{"weights": 0.5, "edges": 0.5}], stop=stop, **options)
    watched(rule)
    return int(rule.state()["0/emerged"])


def test_distances_by_hand():
    """Kept are weights 01 01 23 12 12 12 12 and edges 01 01 01 01 02 02 02; each mask is compared with the two before it."""
    rule = EarlyBird([{"weights": 0.5, "edges": 0.5}], 2, 0.1, False)
    watched(rule)
    state, nan = rule.state(), math.nan
    expected = {
        "0/raw/weights": [nan, nan, 1, 0.5, 0.5, 0, 0],
        "0/normalised/weights": [nan, nan, 1, 0.5, 0.5, 0, 0],
        "0/raw/edges": [nan, nan, 0, 0, 0.5, 0.5, 0],
        "0/normalised/edges": [nan, nan, 0, 0, 1, 1, 0],
    }
    for name, curve in expected.items():
        torch.testing.assert_close(state[name], torch.tensor(curve, dtype=torch.float64), equal_nan=True, rtol=0, atol=0)
    masks = {name: mask.tolist() for name, mask in state.items() if "/mask/" in name}  # the last two alone
    assert masks == {
        f"0/mask/{k}/{name}": [i in kept for i in range(4)]
        for k in (0, 1)
        for name, kept in (("weight", (1, 2)), ("edge", (0, 2)))
    }


@pytest.mark.parametrize(
    ("stop", "options", "step"),
    [
        ("weights", {}, 60),
        ("edges", {}, 30),
        ("each", {}, 70),
        ("joint", {}, 70),
        ("joint", {"eps": 0.26}, 40),
        ("each", {"eps": 0.51}, 40),  # raw means: 0.5 0.25 0.5 0.25 0
        ("joint", {"eps": 0.26, "after": 4}, 60),
        ("joint", {"eps": 0.51}, 30),
        ("joint", {"eps": 0.51, "normalised": True}, 30),
        ("joint", {"eps": 0.26, "normalised": True}, 40),
        ("joint", {"eps": 0.26, "after": 4, "normalised": True}, 70),  # normalised means: 0.5 0.25 0.75 0.5 0
        ("joint", {"window": 7}, 0),
        ("weights", {"window": 1}, 20),
    ],
)
def test_when_a_ticket_emerges(stop, options, step):
    assert steps(stop, **options) == step


def test_normalising_waits_for_the_first_move():
    assert normalise([0.0, 0.0, 0.2, 0.1, 0.0]) == [0, 0, 1, 0.5, 0]
    assert math.isnan(normalise([math.nan, 0.3])[0])
    assert normalise([0.0, 0.0]) == [0, 0]


def test_several_densities_are_watched_at_once():
    rule = EarlyBird([{"weights": 0.5}, {"weights": 0.75}, {"weights": 0.25, "edges": 1.0}], 2, 0.1, False)
    run = watched(rule)
    state = rule.state()
    assert [int(state[f"{i}/emerged"]) for i in range(3)] == [60, 50, 60]  # kept: 012 012 123 ..., and 0 0 3 1 ...
    assert state["1/raw/weights"].tolist()[2:] == [0.5, 0.5, 0, 0, 0]
    assert state["2/raw/weights"].tolist()[2:] == [0.5, 0.5, 0.5, 0, 0]
    assert "2/raw/edges" not in state  # nothing of them is cut
    assert rule.finished(run)
    early = EarlyBird([{"weights": 0.5}, {"weights": 0.75}], 2, 0.1, False)
    assert not early.finished(watched(early, 5))


def test_equal_scores_keep_one_order():
    rule = EarlyBird([{"edges": 0.5}], 3, 0.1, True)
    rule.on_start(run := watched(EarlyBird([{"edges": 0.5}], 1, 1, True)))
    run.model.edge.data.fill_(1.0)
    for _ in range(8):
        rule.after_epoch(run)
    assert rule.state()["0/raw/edges"].tolist()[3:] == [0] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"densities": [{"weights": 1.0}]}, "needs a density below 1"),
        ({"window": 0}, "window is 0"),
        ({"eps": 0}, "eps is 0"),
        ({"stop": "wieghts"}, "unknown stop rule 'wieghts': one of each, joint, weights"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(PruningError, match=message):
        EarlyBird(**{"densities": [{"weights": 0.5}], "window": 3, "eps": 0.1, "normalised": True} | options)


# in a training


EPOCHS = "train.epochs=9"
HALF = {"weights": 0.5, "edges": 0.5}


def stored(lab, callback=None, **options):
    return lab.stage(lab.train(lab.start("init"), lab.ones(), callback=callback, **options)).tensors()


def same(one, other) -> bool:
    """Equal names, equal bits."""
    return one.keys() == other.keys() and all(torch.equal(one[n].nan_to_num(-1), other[n].nan_to_num(-1)) for n in one)


def test_the_observed_training_notices_nothing(tmp_path):
    lab = toy_lab(tmp_path, EPOCHS)
    plain, seen = stored(lab), stored(lab, EarlyBird([HALF, {"weights": 0.2}], 3, 1e-9, False))
    assert len(plain) > 10
    assert all(torch.equal(seen[name], plain[name]) for name in plain)
    assert all(name.startswith(("rule/", "masks/")) for name in seen.keys() - plain.keys())
    assert not torch.equal(seen["rule/0/raw/weights"], torch.zeros(9))


def test_the_training_stops_where_all_have_emerged_and_can_be_asked_for_again(tmp_path, trainings):
    rule = EarlyBird([HALF], 3, 1.1, False)  # no distance is above 1: as soon as there are four masks
    lab = toy_lab(tmp_path, EPOCHS)
    end = lab.train(lab.start("init"), lab.ones(), callback=rule)
    assert int(lab.callback_state(end)["0/emerged"]) == 32 == round(lab.spent().dense_steps)
    there = lab.train(lab.start("init"), lab.ones(), until=32, callback=rule)
    assert trainings == [(0, 72)]  # that very step was kept
    assert same(lab.stage(end).tensors(), lab.stage(there).tensors())
    other = toy_lab(tmp_path / "other", EPOCHS)
    other.train(other.start("init"), other.ones(), until=32, callback=rule)
    assert other.stage(other.train(other.start("init"), other.ones(), callback=rule)).info["progress"]["step"] == 32


@pytest.mark.parametrize("cuts", [(8, 24), (13, 41)])
def test_a_cut_observation_equals_an_uncut_one(tmp_path, cuts):
    whole, cut = (toy_lab(tmp_path / name, EPOCHS) for name in ("whole", "cut"))
    for step in cuts:
        stored(cut, CallbackList(Idle(), EarlyBird([HALF], 3, 1e-9, True)), until=step)
    one, other = (stored(lab, CallbackList(Idle(), EarlyBird([HALF], 3, 1e-9, True))) for lab in (whole, cut))
    assert same(one, other)
    assert "rule/early_bird/0/mask/2/gate" in one


def test_tickets_inherit_from_where_they_emerged(tmp_path, trainings):
    lab = toy_lab(tmp_path, EPOCHS)
    densities = [{"weights": 0.8}, {"weights": 0.3}]
    tickets, spent = [], []
    for ticket in early_bird(lab, densities, window=2, eps=0.05):
        tickets.append(ticket)
        spent.append(ticket.search.dense_steps)
    emerged = [t.notes["emerged_step"] for t in tickets]
    assert all(step and step % 8 == 0 and step >= 24 for step in emerged), emerged
    assert trainings == [(0, max(emerged)), (0, min(emerged))]  # watched in one training; the earlier ticket is then fetched
    assert spent == emerged  # each search costs what it would alone
    plain = toy_lab(tmp_path / "plain", EPOCHS)
    for ticket, density, step in zip(tickets, densities, emerged, strict=True):
        assert ticket.start.step == step
        assert ticket.schedule == ("replay" if step < lab.steps else "whole")  # after the last step there is no rest
        then = plain.load(plain.train(plain.start("init"), plain.ones(), until=step)).state_dict()
        assert all(torch.equal(t, then[n]) for n, t in lab.load(ticket.start).state_dict().items())
        assert ticket.masks == plain.allocate({n: then[n].abs() for n in ticket.masks}, plain.ones(), density)
        curve = ticket.notes["raw_distance"]["weights"]
        assert curve[:2] == [None, None]
        assert curve[step // 8 - 1] < 0.05 <= min(curve[2 : step // 8 - 1], default=1)


def test_a_ticket_of_the_last_step_is_trained_by_the_whole_schedule(bench):
    assert bench.run("method=early_bird", "method.window=1", "method.eps=1.1", "method.after=2", "densities=[0.5]") == 0
    record = bench.record("early_bird", 0.5)
    assert record.ticket.notes["emerged_step"] == record.cost.search_steps == 24
    assert record.cost.train_steps == 24


@pytest.mark.parametrize(("weights", "start", "schedule"), [("reset", "init", "replay"), ("reinit", "reinit", "replay")])
def test_tickets_may_begin_anew(tmp_path, weights, start, schedule):
    lab = toy_lab(tmp_path, EPOCHS)
    (ticket,) = early_bird(lab, [HALF], eps=1.1, weights=weights)
    assert (ticket.start, ticket.schedule) == (lab.start(start), schedule)
    assert ticket.notes["emerged_step"] == 5 * 8


def test_a_ticket_that_never_emerges_is_drawn_at_the_end(tmp_path):
    lab = toy_lab(tmp_path)
    (ticket,) = early_bird(lab, [HALF])  # three epochs are too few for five masks
    assert ticket.notes["emerged_step"] is None
    assert ticket.schedule == "whole"
    assert (ticket.masks.kept("weights"), ticket.masks.kept("edges")) == (208, 4)
    lab.train(ticket.start, ticket.masks, ticket.schedule)


def test_bad_options_and_dry_runs(tmp_path, trainings):
    with pytest.raises(PruningError, match="unknown weights 'fresh': one of inherit, reset, reinit"):
        next(early_bird(toy_lab(tmp_path), [HALF], weights="fresh"))
    lab = toy_lab(tmp_path, kind=PlanLab, planned={})
    with pytest.raises(NotPlanned):
        next(early_bird(lab, [HALF]))
    assert trainings == []
