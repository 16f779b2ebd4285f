"""Controls, on tickets small enough to know the answer."""

from dataclasses import dataclass, replace

import pytest
import torch

from pruning import CONTROLS, Maskable, Masks, NotApplicable, PruningError, Ticket, allocate, budgets
from pruning.rewinding import shuffled_layers, shuffled_weights
from pruning.scores import random as random_score
from pruning.ticket import SearchCost, TrainingCost
from tests.conftest import toy_lab


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

    def score(self, name: str, state: State, masks: Masks, **options) -> dict[str, torch.Tensor]:
        assert name == "random"
        return random_score(None, self.maskables, self, **options)

    def allocate(self, scores, masks, densities, scheme="global", floors=True) -> Masks:
        return allocate(scores, masks, densities, self.maskables, scheme, self.seed, floors)

    def spent(self) -> SearchCost:
        return SearchCost({"search": TrainingCost(300, 300, 300.0)})

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


def test_the_random_control_of_a_random_ticket_is_of_other_draws(lab):
    drawn = lab.score("random", lab.start("init"), lab.ones())
    masks = lab.allocate(drawn, lab.ones(), {"weights": 0.2})
    control = CONTROLS["random"](Ticket({"weights": 0.2}, masks, lab.start("init"), scores=drawn), lab)
    assert control.masks.kept("weights") == 50
    common = sum(int((control.masks[n] & masks[n]).sum()) for n in ("a", "b"))
    assert common < 25  # 10 are expected of 50


def test_random_where_the_ticket_keeps_less_than_floors(lab):
    masks = lab.ones().replace({"a": torch.zeros(20, 10, dtype=torch.bool), "b": torch.zeros(50, dtype=torch.bool)})
    with pytest.raises(NotApplicable, match=r"density of weights is 0\.0"):
        CONTROLS["random"](Ticket({"weights": 0.1}, masks, lab.start("init")), lab)
    with pytest.raises(NotApplicable, match=r"density of weights is 0\.0"):
        CONTROLS["invert"](replace(drawn_ticket(lab, {"weights": 0.1}), masks=masks), lab)


def test_shuffle_keeps_the_density_of_every_tensor(lab):
    ticket = drawn_ticket(lab, {"weights": 0.4, "edges": 0.5})
    control = CONTROLS["shuffle"](ticket, lab)
    assert control.masks.densities() == ticket.masks.densities()
    assert all((control.masks[n] != ticket.masks[n]).any() for n in ("a", "e"))
    assert control.start == ticket.start


def test_shuffle_does_not_tear_groups_apart():
    lab = Lab([Maskable("h", (4,), "query", groups=torch.tensor([0, 0, 1, 1]))])
    with pytest.raises(NotApplicable, match="kept or pruned in groups"):
        CONTROLS["shuffle"](drawn_ticket(lab, {"weights": 0.5}), lab)


def test_reinit_keeps_the_masks_and_draws_the_weights_anew(lab):
    ticket = drawn_ticket(lab, {"weights": 0.2})
    control = CONTROLS["reinit"](ticket, lab)
    assert control.masks == ticket.masks
    assert (control.start, control.schedule) == (State("reinit"), "whole")
    constant = Ticket(ticket.densities, ticket.masks, State("end"), "constant")
    assert CONTROLS["reinit"](constant, lab).schedule == "constant"
    with pytest.raises(PruningError, match="from the same weights already"):
        CONTROLS["reinit"](control, lab)


LAYERS = 5
ENCODER = [
    Maskable(f"{i}.{kind}", shape, kind)
    for i in range(LAYERS)
    for kind, shape in (("query", (4, 4)), ("key", (4, 4)), ("ffn", (2, 4)), ("out", (4, 2)))
]
POOLER = Maskable("pooler", (4, 4), "pooler")


def numbered() -> dict[str, torch.Tensor]:
    """Every entry its own number; those of layer i begin at 100 * i."""
    state = {}
    for i in range(LAYERS):
        at = 100.0 * i
        for m in ENCODER[4 * i : 4 * i + 4]:
            state[m.name] = torch.arange(at, at + m.size).reshape(m.shape)
            at += m.size
    return state | {"pooler": torch.arange(16.0).reshape(4, 4)}


def test_shuffled_layers_move_together():
    state = numbered()
    shuffled = shuffled_layers(state, [*ENCODER, POOLER], torch.Generator().manual_seed(0))
    came_from = [int(shuffled[f"{i}.query"][0, 0]) // 100 for i in range(LAYERS)]
    assert sorted(came_from) == list(range(LAYERS)) != came_from
    for i, of in enumerate(came_from):
        for kind in ("query", "key", "ffn", "out"):
            assert torch.equal(shuffled[f"{i}.{kind}"], state[f"{of}.{kind}"])
    assert "pooler" not in shuffled
    for seed in range(8):  # of two layers half of all permutations change nothing
        two = shuffled_layers(state, ENCODER[:8], torch.Generator().manual_seed(seed))
        assert torch.equal(two["0.query"], state["1.query"])


def test_layers_that_do_not_match_are_not_shuffled():
    for maskables in (MASKABLES, [*ENCODER, Maskable("5.key", (4, 4), "key")]):
        with pytest.raises(NotApplicable, match="need layers of one shape"):
            shuffled_layers(numbered(), maskables, torch.Generator())


def test_shuffled_weights_stay_in_their_tensor():
    state = numbered()
    shuffled = shuffled_weights(state, [*ENCODER, POOLER], torch.Generator().manual_seed(0))
    for m in [*ENCODER, POOLER]:
        assert not torch.equal(shuffled[m.name], state[m.name])
        assert torch.equal(shuffled[m.name].flatten().sort().values, state[m.name].flatten())
    again = shuffled_weights(state, [*ENCODER, POOLER], torch.Generator().manual_seed(0))
    assert all(torch.equal(again[name], shuffled[name]) for name in state)


@pytest.mark.parametrize(("control", "start"), [("shuffle_layers", "shuffled_layers"), ("shuffle_weights", "shuffled_weights")])
def test_shuffles_keep_the_masks_and_train_by_the_whole_schedule(lab, control, start):
    ticket = drawn_ticket(lab, {"weights": 0.2})
    made = CONTROLS[control](ticket, lab)
    assert (made.masks, made.start, made.schedule) == (ticket.masks, State(start), "whole")
    with pytest.raises(PruningError, match="from the same weights already"):
        CONTROLS[control](made, lab)


def test_shuffled_states_of_a_lab(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(NotApplicable, match="rewind=shuffled_weights needs a pre-trained model"):
        lab.start("shuffled_weights")
    lab.task.pretrained = True
    initial = {name: t.clone() for name, t in lab.load(lab.start("init")).state_dict().items()}
    state = lab.start("shuffled_weights")
    shuffled = {name: t.clone() for name, t in lab.load(state).state_dict().items()}
    moved = [name for name in initial if not torch.equal(initial[name], shuffled[name])]
    assert moved == ["first.weight", "middle.weight", "again.weight", "last.weight"]  # the gate is of ones
    assert torch.equal(shuffled["again.weight"], shuffled["middle.weight"])  # tied
    one = lab.evaluate(lab.train(state, lab.ones(), "whole"), "test")
    assert one != lab.evaluate(lab.start("end"), "test")
    with pytest.raises(NotApplicable, match="need layers of one shape"):
        lab.train(lab.start("shuffled_layers"), lab.ones(), "whole")


def weights_of(lab, state) -> dict[str, torch.Tensor]:
    parameters = dict(lab.load(state).named_parameters())
    return {m.name: parameters[m.name].detach().clone() for m in lab.maskables}


def test_noise_is_in_deviations_of_its_tensor(tmp_path):
    lab = toy_lab(tmp_path)
    ticket = drawn_ticket(lab, {"weights": 0.5})
    initial = weights_of(lab, ticket.start)
    half, threefold = (CONTROLS[f"noise_{strength}"](ticket, lab) for strength in ("half", "threefold"))
    assert (half.masks, half.schedule) == (ticket.masks, ticket.schedule)
    noise = {d: {n: w - initial[n] for n, w in weights_of(lab, c.start).items()} for d, c in ((0.5, half), (3, threefold))}
    weight = "first.weight"
    assert float(noise[3][weight].std()) == pytest.approx(3 * float(initial[weight].std()), rel=0.2)
    assert torch.allclose(noise[3][weight], 6 * noise[0.5][weight], atol=1e-5)
    assert not noise[3]["gate"].any()  # equal weights have no deviation
    assert torch.equal(weights_of(lab, ticket.start)[weight], initial[weight])


def test_noise_goes_on_from_where_the_ticket_starts(tmp_path):
    lab = toy_lab(tmp_path)
    ticket = replace(drawn_ticket(lab, {"weights": 0.5}), start=lab.start("1ep"))
    control = CONTROLS["noise_half"](ticket, lab)
    assert lab.training_steps(control) == lab.training_steps(ticket) == 16
    buffers = [dict(lab.load(s).named_buffers())["norm.running_mean"].clone() for s in (ticket.start, control.start)]
    assert torch.equal(*buffers)
    ends = {lab.train(t.start, t.masks, t.schedule) for t in (ticket, control, CONTROLS["noise_threefold"](ticket, lab))}
    assert len(ends) == 3


def test_resampled_weights_are_those_the_mask_keeps(tmp_path):
    lab = toy_lab(tmp_path)
    ticket = drawn_ticket(lab, {"weights": 0.3})
    initial, drawn = weights_of(lab, ticket.start), weights_of(lab, CONTROLS["resample"](ticket, lab).start)
    for name in ("first.weight", "last.weight"):
        kept = set(initial[name][ticket.masks[name]].tolist()) or set(initial[name].tolist())
        assert set(drawn[name].flatten().tolist()) <= kept
    assert not torch.equal(drawn["last.weight"], initial["last.weight"])


def test_what_changes_no_weight_is_not_applicable(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(NotApplicable, match="leaves the weights that may be masked as they are"):
        lab.load(lab.derived_state(lab.start("init"), "nothing", lambda weights: weights))


def test_noise_and_resampling_on_the_command_line(bench):
    words = ["densities=[0.3]", "controls=[noise_half,noise_threefold,resample]", "method=one_shot"]
    assert bench.run(*words, "--dry-run") == 0
    assert bench.run(*words) == 0
    records = {r.identity.control: r for r in bench.records() if r.identity.densities}
    assert {name: r.ticket.start.split()[:2] for name, r in records.items() if name} == {
        "noise_half": ["init", "noise"],
        "noise_threefold": ["init", "noise"],
        "resample": ["init", "resample"],
    }
    assert len({r.ticket.stages[-1] for r in records.values()}) == 4


def test_invert_keeps_the_worst_of_those_alive():
    lab = Lab([Maskable("w", (8,), "linear")])
    before = lab.ones().replace({"w": torch.tensor([c == "1" for c in "01110111"])})
    ticket = drawn_ticket(lab, {"weights": 3 / 8}, before)
    assert ticket.masks["w"].nonzero().flatten().tolist() == [5, 6, 7]
    control = CONTROLS["invert"](ticket, lab)
    assert control.masks["w"].nonzero().flatten().tolist() == [1, 2, 3]
    assert not (control.masks["w"] & ~before["w"]).any()


def test_invert_keeps_as_many_as_the_ticket_does():
    """A density is a bound: the ticket may have less."""
    lab = Lab([Maskable("w", (8,), "linear")])
    ticket = replace(drawn_ticket(lab, {"weights": 3 / 8}, lab.ones()), densities={"weights": 0.5})
    assert CONTROLS["invert"](ticket, lab).masks.kept() == 3


def test_invert_ranks_by_the_ticket_s_own_scheme(lab):
    ticket = drawn_ticket(lab, {"weights": 0.2}, scheme="uniform")
    control = CONTROLS["invert"](ticket, lab)
    assert control.masks.densities() == ticket.masks.densities() == {"a": 0.2, "b": 0.2, "e": 1.0}
    assert control.masks["b"].nonzero().flatten().tolist() == list(range(10))
    assert ticket.masks["b"].nonzero().flatten().tolist() == list(range(40, 50))


@pytest.mark.parametrize(("floors", "left"), [(True, 1), (False, 0)])
def test_an_inverted_ticket_has_the_floors_of_its_ticket(floors, left):
    """All of b scores above all of a, so that inverted nothing of b is left but what its floor holds."""
    lab = Lab([Maskable("a", (8,), "linear"), Maskable("b", (8,), "linear")])
    scores = {"a": torch.arange(8.0), "b": torch.arange(8.0, 16.0)}
    masks = lab.allocate(scores, lab.ones(), {"weights": 0.5}, floors=floors)
    assert masks.densities() == {"a": left / 8, "b": (8 - left) / 8}
    ticket = Ticket({"weights": 0.5}, masks, lab.start("init"), "replay", scores, lab.ones(), floors=floors)
    control = CONTROLS["invert"](ticket, lab)
    assert control.masks.densities() == {"a": (8 - left) / 8, "b": left / 8}


def test_invert_needs_scores(lab):
    ticket = drawn_ticket(lab, {"weights": 0.2})
    with pytest.raises(NotApplicable, match="this method stores none"):
        CONTROLS["invert"](Ticket(ticket.densities, ticket.masks, ticket.start), lab)


def test_reinit_as_long_spends_as_many_multiply_adds_as_dense(bench):
    assert bench.run("method=one_shot", "densities=[0.25]", "controls=[reinit_as_long]") == 0
    record = bench.record("one_shot", 0.25, "reinit_as_long")
    cost = record.cost
    assert record.ticket.start.startswith("reinit")
    assert record.result.step == cost.train_steps == round(24 * cost.inference_macs_dense / cost.inference_macs)
    assert cost.train_at_sparse_rate == pytest.approx(1, abs=0.03)
    assert cost.train_dense_trainings > 2


def test_dense_as_long_spends_what_search_and_training_spent(lab):
    control = CONTROLS["dense_as_long"](drawn_ticket(lab, {"weights": 0.2}), lab)
    assert control.masks == lab.ones()
    assert (control.start, control.schedule, control.densities) == (State("init"), "stretch:390", {})


@pytest.mark.parametrize("name", ["random", "shuffle", "invert"])
def test_a_control_that_changes_nothing_is_an_error(lab, name):
    with pytest.raises(PruningError, match="compare the ticket with itself"):
        CONTROLS[name](drawn_ticket(lab, {"weights": 1.0}), lab)


def test_a_control_on_the_ticket_s_own_state_costs_only_its_record(bench):
    assert bench.run("method=imp", "method.rewind=reinit", "controls=[reinit]", "densities=[0.5,0.2]") == 0
    assert bench.record("imp", 0.5, "reinit").status == "not_applicable"
    assert bench.record("imp", 0.2).status == "ok"
