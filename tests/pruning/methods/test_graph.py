"""Graph tickets: the rules by hand on four edges, the methods on the generated graph, and once on Cora."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.config import settings
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.storage.stages import Store
from pruning import Maskable, Masks, NotApplicable, PruningError
from pruning.callbacks.base import TrainingContext
from pruning.methods.graph import FreezeExcept, SoftMasks, Sparsifier, degree, geb, gebt, jaccard, sgcn, ugs
from tests.conftest import toy_lab

EDGE, WEIGHT = Maskable("edge", (4,), "edge", "edges"), Maskable("weight", (2,), "linear")


class Values(nn.Module):
    """Two weights, a bias, four edges."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor([2.0, -1.0])), nn.Parameter(torch.zeros(1))
        self.edge = nn.Parameter(torch.tensor([1.0, 0.5, -0.8, 0.2]))


def begun(rule, masks: Masks | None = None, validate=lambda: 0.0) -> TrainingContext:
    """A run of one step an epoch, every gradient 0.1."""
    run = TrainingContext(
        Values(),
        None,
        [WEIGHT, EDGE],
        0,
        100,
        1,
        masks or Masks.ones([WEIGHT, EDGE]),
        lambda masks: None,
        lambda purpose: torch.Generator().manual_seed(3),
        validate,
    )
    rule.on_start(run)
    return run


def backward(run: TrainingContext) -> None:
    for parameter in run.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)


def close(tensor: torch.Tensor, *values: float) -> bool:
    return torch.allclose(tensor, torch.tensor(values, dtype=tensor.dtype), rtol=1e-5, atol=1e-9)


# the rules


@pytest.mark.parametrize(("side", "learns"), [("edges", {"edge"}), ("network", {"weight", "bias"})])
def test_one_side_learns_alone(side, learns):
    run = begun(rule := FreezeExcept(side))
    backward(run)
    rule.after_backward(run)
    assert {name for name, p in run.model.named_parameters() if p.grad is not None} == learns


def test_the_sparsifier_by_hand():
    run = begun(rule := Sparsifier(0.5, 1, 1e-3, "half_sum", nodes=10))
    backward(run)
    rule.after_backward(run)
    assert close(run.model.edge.grad, 0.104, 0.102, 0.0968, 0.1008)  # 0.1 + 4 * 0.001 * (values - 0 + 0)
    assert close(run.model.weight.grad, 0.1, 0.1)
    run.step = 1
    rule.after_epoch(run)
    assert close(rule.target["edge"], 1, 0, -0.8, 0)  # the larger half of values + 0
    assert close(rule.dual["edge"], 0, 0.5, 0, 0.2)  # 0 + values - target
    run.model.edge.data[2] = -0.3
    backward(run)
    rule.after_backward(run)
    assert close(run.model.edge.grad, 0.1, 0.1 + 0.004, 0.1 + 0.002, 0.1 + 0.0016)  # values - target + dual: 0 1 0.5 0.4
    run.step = 2
    rule.after_epoch(run)
    assert close(rule.target["edge"], 1, 1, 0, 0)  # of values + dual: 1 1 -0.3 0.4
    assert close(rule.dual["edge"], 0, 0, -0.3, 0.4)


def test_a_value_of_one_direction_is_pulled_half_as_hard():
    run = begun(rule := Sparsifier(0.5, 1, 1e-3, "half_sum", nodes=10, directions=1))
    backward(run)
    rule.after_backward(run)
    assert close(run.model.edge.grad, 0.102, 0.101, 0.0984, 0.1004)
    assert rule.options()["directions"] == 1


def test_nodes_that_have_all_features_are_not_compared():
    class Full(Square):
        def graph(self):
            edges, features = super().graph()
            return edges, torch.ones_like(features)

    with pytest.raises(NotApplicable, match="has most of them"):
        jaccard(Values(), [WEIGHT, EDGE], Full())


def test_the_published_penalty_is_a_mean_over_all_pairs():
    run = begun(rule := Sparsifier(0.5, 25, 1e-3, "mean", nodes=10))
    backward(run)
    rule.after_backward(run)
    assert close(run.model.edge.grad, 0.10008, 0.10004, 0.1 - 0.000064, 0.100016)  # 0.1 + 8 * 0.001 / 100 * values
    for run.step in range(1, 25):
        rule.after_epoch(run)
    assert not rule.target["edge"].any()  # every 25 epochs
    run.step = 25
    rule.after_epoch(run)
    assert close(rule.target["edge"], 1, 0, -0.8, 0)
    with pytest.raises(PruningError, match="unknown penalty 'sum': one of mean, half_sum"):
        Sparsifier(0.5, 1, 1e-3, "sum", 10)


def softened(masks: Masks | None = None, **options) -> tuple[SoftMasks, TrainingContext]:
    rule = SoftMasks(**{"lr": 0.01, "weight_decay": 0.0, "weight_penalty": 0.5, "edge_penalty": 0.05} | options)
    run = begun(rule, masks)
    assert all(((soft - 1).abs() <= 1.00001e-5).all() or masks for soft in rule.soft.values())
    rule.soft["weight"].data = torch.tensor([0.5, -2.0])
    return rule, run


def test_soft_masks_by_hand():
    rule, run = softened()
    model = run.model
    rule.before_forward(run)
    assert close(model.weight.data, 1.0, 2.0)  # 2 * 0.5, -1 * -2
    backward(run)
    rule.after_backward(run)
    assert close(model.weight.data, 2.0, -1.0)  # given back
    assert close(model.weight.grad, 0.05, -0.2)  # 0.1 * factor
    assert model.edge.grad is None  # edges learn through their factors
    assert close(rule.soft["weight"].grad, 0.2 + 0.5, -0.1 - 0.5)  # 0.1 * weight + 0.5 * sign
    assert close(rule.soft["edge"].grad, 0.1 + 0.05, 0.05 + 0.05, -0.08 + 0.05, 0.02 + 0.05)
    assert close(rule.soft["weight"].data, 0.49, -1.99)  # Adam's first step is its rate


def test_soft_masks_of_cut_entries_stay_zero():
    masks = Masks(
        {"weight": torch.tensor([True, True]), "edge": torch.tensor([True, False, True, True])},
        {"weight": "weights", "edge": "edges"},
    )
    rule, run = softened(masks, weight_decay=0.1)
    for _ in range(3):
        rule.before_forward(run)
        backward(run)
        rule.after_backward(run)
    assert (rule.soft["edge"] == 0).tolist() == [False, True, False, False]


def test_the_factors_of_the_best_epoch_count():
    rule, run = softened()
    plain, seen, values = run.model.weight.detach().clone(), [], iter([0.5, 0.7, 0.7, 0.6])

    def validate() -> float:
        seen.append(run.model.weight.detach().clone())
        return next(values)

    run.validate = validate
    for epoch in range(4):
        rule.soft["weight"].data = torch.tensor([1.0 + epoch, 1.0])
        rule.after_epoch(run)
    assert close(rule.state()["scores/weight"], 2, 1)
    assert [w[0].item() for w in seen] == [2, 4, 6, 8]  # validated with the factors in force
    assert torch.equal(run.model.weight, plain)


# the methods


TASK = str(Path(__file__).parents[3] / "tasks" / "gcn_planetoid")


def graph_lab(store: Path, *overrides: str, seed: int = 0) -> Lab:
    """A lab on the generated graph: 400 nodes, 120 words."""
    task = open_task(settings(TASK, ["protocol=smoke", *overrides])[0])
    return Lab(task, "gcn_planetoid", 1, seed, Store(store))


def state(lab: Lab, where) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in lab.load(where).state_dict().items()}


def counts(masks: Masks) -> tuple[int, int]:
    return masks.kept("weights"), masks.kept("edges")


@pytest.fixture
def lab(tmp_path) -> Lab:
    return graph_lab(tmp_path)


@pytest.mark.parametrize(
    "rule",
    [Sparsifier(0.5, 2, 1e-3, "half_sum", 400), SoftMasks(0.01, 1e-4, 1e-2, 1e-2)],
    ids=lambda rule: rule.options()["name"],
)
def test_a_cut_training_equals_an_uncut_one(tmp_path, rule):
    whole, cut = graph_lab(tmp_path / "whole"), graph_lab(tmp_path / "cut")
    for step in (3, 11):
        cut.train(cut.start("init"), cut.ones(), until=step, callback=rule)
    one, other = (x.stage(x.train(x.start("init"), x.ones(), callback=rule)).tensors() for x in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    plain = whole.stage(whole.start("end")).tensors()
    assert not torch.equal(plain["model/conv1.weight"], one["model/conv1.weight"])


def test_gebt_inherits_values_and_masks(lab, monkeypatch):
    tickets = gebt(lab, [{"edges": 0.5, "weights": 0.4}], eps=0.5)
    ticket = next(tickets)
    total = lab.ones()
    weights, edges = total.total("weights"), total.total("edges")
    assert counts(ticket.masks) == (int(0.4 * weights + 0.5), int(0.5 * edges + 0.5))
    step = ticket.notes["emerged_step"]
    assert step == ticket.start.step == ticket.search.dense_steps < 20  # the search stopped there
    searched = state(lab, ticket.start)
    assert not (searched["edge_weight"] == 1).all()
    kept = {name: searched[name].abs()[mask].min() for name, mask in ticket.masks.items()}
    cut = {name: searched[name].abs()[~mask].max() for name, mask in ticket.masks.items()}
    assert cut["edge_weight"] <= kept["edge_weight"]  # ties at 1
    assert max(cut["conv1.weight"], cut["conv2.weight"]) < min(kept["conv1.weight"], kept["conv2.weight"])
    first, loss = {}, lab.task.loss

    def look(model, batch):
        if not first:
            first.update({name: t.clone() for name, t in model.state_dict().items()})
        return loss(model, batch)

    monkeypatch.setattr(lab.task, "loss", look)
    end = state(lab, lab.train(ticket.start, ticket.masks, ticket.schedule))
    for name, tensor in searched.items():
        mask = ticket.masks.get(name)
        assert torch.equal(first[name], tensor if mask is None else tensor * mask), name
        assert mask is None or not end[name][~mask].any()
    assert lab.spent().dense_steps == 20  # the search is the ticket's


def test_gebt_weights_reset_or_dense(lab):
    density = {"edges": 0.5, "weights": 0.4}
    (inherited,) = gebt(lab, [density])
    (reset,) = gebt(lab, [density], weights="reset")
    assert (reset.masks, reset.start) == (inherited.masks, lab.start("init"))
    (dense,) = gebt(lab, [{"edges": 0.5}], weights="dense_fresh", watch_weights=0.4)
    assert dense.start == lab.start("init")
    assert dense.notes == inherited.notes  # the same search
    assert dense.masks.density("weights") == 1
    assert torch.equal(dense.masks["edge_weight"], inherited.masks["edge_weight"])


def test_gebt_stop_rules_and_uncut_weights(lab):
    density, found = {"edges": 0.5, "weights": 0.4}, {}
    for stop in ("joint", "edges", "weights", "each"):
        found[stop] = next(gebt(lab, [density], stop=stop, eps=0.5)).notes
        distances = [c[-1] for b, c in found[stop]["normalised_distance"].items() if stop in (b, "joint", "each")]
        value = max(distances) if stop == "each" else sum(distances) / len(distances)
        assert value < 0.5 or not found[stop]["emerged_step"]
    reached = {stop: notes["emerged_step"] or 99 for stop, notes in found.items()}
    assert reached["each"] >= max(reached["edges"], reached["weights"])
    assert min(reached.values()) > 5
    (ticket,) = gebt(lab, [{"edges": 0.5, "weights": 1.0}])
    assert ticket.notes["raw_distance"].keys() == {"edges"}
    assert ticket.masks.density("weights") == 1


def test_every_density_pays_for_its_own_search(lab):
    spent = []
    for ticket in gebt(lab, [{"edges": d, "weights": d} for d in (0.8, 0.5)], eps=0.5):
        spent.append((ticket.search.dense_steps, ticket.notes["emerged_step"] or 20))
    assert all(steps == emerged for steps, emerged in spent)
    assert round(lab.spent().dense_steps) == 0


def test_geb_and_sgcn_train_one_side_after_the_other(lab):
    for method in (geb, sgcn):
        (ticket,) = method(lab, [{"edges": 0.3}], weights="inherit")
        trained = state(lab, lab.train(lab.start("init"), lab.ones(), callback=FreezeExcept("network")))
        sparsified = state(lab, ticket.start)
        assert (trained["edge_weight"] == 1).all()
        assert not (sparsified["edge_weight"] == 1).all()
        assert all(torch.equal(sparsified[name], trained[name]) for name in trained if name != "edge_weight")
        assert counts(ticket.masks) == (lab.ones().total("weights"), int(0.3 * lab.ones().total("edges") + 0.5))
        (again,) = method(lab, [{"edges": 0.3}])
        assert (again.masks, again.start) == (ticket.masks, lab.start("init"))
    tickets, spent = geb(lab, [{"edges": 0.8}, {"edges": 0.5}]), []
    for ticket in tickets:
        spent.append((ticket.search.dense_steps, 20 + (ticket.notes["emerged_step"] or 20)))
    assert all(steps == paid for steps, paid in spent)


def test_ugs_cuts_the_smallest_factors_round_by_round(lab):
    densities = [{"weights": 0.8, "edges": 0.95}, {"weights": 0.64, "edges": 0.9025}]
    tickets = list(ugs(lab, densities))
    weights, edges = lab.ones().total("weights"), lab.ones().total("edges")
    assert [counts(t.masks) for t in tickets] == [
        (int(d["weights"] * weights + 0.5), int(d["edges"] * edges + 0.5)) for d in densities
    ]
    assert round(lab.spent().dense_steps) == 2 * 20
    for before, ticket in zip([lab.ones(), tickets[0].masks], tickets, strict=True):
        assert ticket.start == lab.start("init")  # rewound
        assert ticket.before == before
        for name, mask in ticket.masks.items():
            assert not (mask & ~before[name]).any()
            assert not ticket.scores[name][~before[name]].any()
        cut = before["edge_weight"] & ~ticket.masks["edge_weight"]
        assert ticket.scores["edge_weight"][cut].max() <= ticket.scores["edge_weight"][ticket.masks["edge_weight"]].min()
    (halves,) = ugs(graph_lab(lab.store.root / "other"), [{"weights": 0.64, "edges": 0.9025}], rate=0.2)
    assert counts(halves.masks) == counts(tickets[1].masks)
    assert counts(halves.before) == counts(tickets[0].masks)  # in two rounds


def test_ugs_needs_no_graph(tmp_path):
    (ticket,) = ugs(toy_lab(tmp_path), [{"weights": 0.5}])
    assert counts(ticket.masks) == (208, 8)


@pytest.mark.parametrize(
    ("method", "density", "options", "error", "message"),
    [
        (geb, {"edges": 0.5, "weights": 0.5}, {}, NotApplicable, "prunes edges alone: ask for no density of weights"),
        (sgcn, {"weights": 0.5}, {}, NotApplicable, "prunes edges alone"),
        (gebt, {"edges": 0.5}, {"weights": "keep"}, PruningError, "unknown weights 'keep': one of inherit, reset, dense_fresh"),
        (gebt, {"edges": 0.5}, {"watch_weights": 0.5}, PruningError, "is for weights=dense_fresh"),
        (gebt, {"edges": 0.5, "weights": 0.1}, {"weights": "dense_fresh"}, NotApplicable, "ask for no density of weights"),
        (gebt, {"edges": 0.5}, {"penalty": "sum"}, PruningError, "unknown penalty 'sum'"),
        (geb, {"edges": 0.5}, {"weights": "keep"}, PruningError, "unknown weights 'keep': one of reset, inherit"),
        (sgcn, {"edges": 0.5}, {"weights": "keep"}, PruningError, "unknown weights 'keep': one of reset, inherit"),
    ],
)
def test_what_cannot_be_asked_is_one_line(lab, method, density, options, error, message):
    with pytest.raises(error, match=message) as said:
        next(method(lab, [density], **options))
    assert "\n" not in str(said.value)
    assert round(lab.spent().dense_steps) == 0


@pytest.mark.parametrize("method", [geb, gebt, ugs])
def test_edges_that_are_not_trained_are_named(tmp_path, method):
    with pytest.raises(PruningError, match=r"edge_weight has no gradient.*a learning rate above 0"):
        next(method(graph_lab(tmp_path, "train.edge_lr=0"), [{"edges": 0.5}]))


def test_a_task_without_a_graph_is_told(tmp_path):
    lab = toy_lab(tmp_path)
    with pytest.raises(NotApplicable, match="needs a graph's edges"):
        next(gebt(lab, [{"edges": 0.5}]))
    with pytest.raises(NotApplicable, match="score degree needs a graph's edges"):
        lab.score("degree", lab.start("init"), lab.ones())


# scores of edges


class Square:
    """0-1, 0-2, 0-3, 1-2: degrees 3 2 2 1."""

    def graph(self):
        features = torch.tensor([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 1, 0], [0, 0, 0, 0]])
        return torch.tensor([[0, 0, 0, 1], [1, 2, 3, 2]]), features


def test_edge_scores_by_hand():
    scores = {score.__name__: score(Values(), [WEIGHT, EDGE], Square()) for score in (degree, jaccard)}
    with_themselves = torch.tensor([1 / 12, 1 / 12, 1 / 8, 1 / 9]).double()
    assert torch.allclose(scores["degree"]["edge"], with_themselves.sqrt())
    assert scores["jaccard"]["edge"].tolist() == [0.5, 0, 0, 0.25]  # 2 of 4, 0 of 3, 0 of 2, 1 of 4
    assert all(s["weight"].tolist() == [2, 1] for s in scores.values())


def test_an_edge_listed_both_ways_counts_once_in_its_nodes_degrees():
    class BothWays(Square):
        def graph(self):
            edges, features = super().graph()
            return torch.cat([edges, edges.flip(0)], 1), features

    once, twice = (degree(Values(), [WEIGHT, EDGE], data)["edge"] for data in (Square(), BothWays()))
    assert torch.equal(twice, torch.cat([once, once]))


def test_edge_scores_are_in_the_order_of_the_edges(lab):
    edges, features = lab.graph()
    scores = {name: lab.score(name, lab.start("init"), lab.ones())["edge_weight"] for name in ("degree", "jaccard")}
    for i in (0, 7, len(edges.T) - 1):
        u, v = edges[:, i].tolist()
        both = [set(features[n].nonzero().flatten().tolist()) for n in (u, v)]
        assert scores["jaccard"][i].item() == pytest.approx(len(both[0] & both[1]) / len(both[0] | both[1]))
        degrees = [(edges == n).sum().item() + 1 for n in (u, v)]  # and itself
        assert scores["degree"][i].item() == pytest.approx((degrees[0] * degrees[1]) ** -0.5)


# Cora


def test_the_graph_ticket_of_cora_emerges_when_the_paper_says(tmp_path, mirror):
    task = open_task(settings(TASK, ["train.epochs=100", "model.input_dropout=0", f"data.root={mirror}"])[0])
    lab = Lab(task, "gcn_planetoid", 1, 0, Store(tmp_path))
    (ticket,) = geb(lab, [{"edges": 0.5}])
    assert 8 <= ticket.notes["emerged_step"] <= 28  # what was measured of the paper's rule; its figures have 12 to 28
    assert counts(ticket.masks) == (23_040, 2_639)
    (joint,) = gebt(lab, [{"edges": 0.5, "weights": 0.1}])
    assert 9 <= joint.notes["emerged_step"] <= 28
    assert counts(joint.masks) == (2_304, 2_639)
