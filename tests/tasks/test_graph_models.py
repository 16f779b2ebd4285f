"""Graph networks with prunable edges: masked is removed, against formulas written out with N x N matrices; costs as published."""

import copy

import pytest
import torch
import torch.nn.functional as F

from bench.task import BenchError
from tasks.graph import models, sparse
from tasks.graph.graph import Graph, from_edges, narrowed

from . import gebt_costs as costs

OPTIONS = {
    "gcn": {},
    "gat": {"hidden": 3, "heads": 2},
    "gin": {},
    "sage": {},
    "resgcn7": {"hidden": 8},
    "resgcn28": {"hidden": 8},
}


def graph(features: torch.Tensor, edges: torch.Tensor, directed: bool = False) -> Graph:
    return from_edges(features, len(features), edges, directed)


def network(name: str, edges: int, **options) -> models.Network:
    options = {"dropout": 0.0, "input_dropout": 0.0} | OPTIONS[name] | options
    return (
        models.network(
            {"name": name, **options},
            features=6,
            outputs=3,
            edges=edges,
            learn_edges=True,
            generator=torch.Generator().manual_seed(0),
        )
        .double()
        .eval()
    )


@pytest.fixture
def example():
    """Nine nodes, the last one alone, 14 edges with values of both signs."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    pairs = torch.combinations(torch.arange(8))
    edges = pairs[torch.randperm(len(pairs), generator=generator)[:14].sort().values]
    return features, edges, torch.randn(14, generator=generator, dtype=torch.float64)


def adjacency(edges: torch.Tensor, value: torch.Tensor, nodes: int = 9) -> torch.Tensor:
    source, target = edges.T
    empty = torch.zeros(nodes, nodes, dtype=value.dtype)
    return empty.index_put((source, target), value).index_put((target, source), value)


def reference_gat(model, features, a):
    hidden = features
    for conv in (model.conv1, model.conv2):
        heads = []
        for head in range(conv.attention.shape[1]):
            x = (hidden @ conv.weight).unflatten(1, conv.attention.shape[1:])[:, head]
            logits = F.leaky_relu((x @ conv.attention[0, head])[:, None] + (x @ conv.attention[1, head])[None], 0.2)
            weight = (a + torch.eye(9)) * logits.exp()
            heads.append(weight @ x / weight.abs().sum(1, keepdim=True))
        hidden = torch.cat(heads, 1) + conv.bias
        hidden = F.elu(hidden) if conv is model.conv1 else hidden
    return hidden


def mean(a):
    return a / a.abs().sum(1, keepdim=True).clamp(min=1e-12)


def reference_gin(model, features, a):
    a = mean(a)
    hidden = F.relu(((1 + model.conv1.eps) * features + a @ features) @ model.conv1.weight + model.conv1.bias)
    return ((1 + model.conv2.eps) * hidden + a @ hidden) @ model.conv2.weight + model.conv2.bias


def reference_sage(model, features, a):
    a = mean(a)
    hidden = F.relu(features @ model.conv1.root + a @ features @ model.conv1.weight + model.conv1.bias)
    return hidden @ model.conv2.root + a @ hidden @ model.conv2.weight + model.conv2.bias


def reference_resgcn(model, features, a):
    a = a + torch.eye(9)

    def convolution(conv, hidden):
        message = F.relu(hidden) + 1e-7
        weight = a[:, :, None] * (0.1 * message).exp()[None]
        return (hidden + (weight * message).sum(1) / weight.abs().sum(1)) @ conv.weight + conv.bias

    hidden = convolution(model.conv1, features @ model.encoder.weight + model.encoder.bias)
    for i in range(2, 8):
        hidden = hidden + convolution(getattr(model, f"conv{i}"), F.relu(getattr(model, f"norm{i - 1}")(hidden)))
    return F.relu(model.norm7(hidden)) @ model.decoder.weight + model.decoder.bias


@pytest.mark.parametrize(
    ("name", "reference"),
    [("gat", reference_gat), ("gin", reference_gin), ("sage", reference_sage), ("resgcn7", reference_resgcn)],
)
def test_equals_its_formula_with_gradients(example, name, reference):
    features, edges, value = example
    model = network(name, 14)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.edge_weight.copy_(value)
        for key, parameter in model.named_parameters():
            if key.endswith(("bias", "eps")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    out = model(graph(features, edges))
    expected = reference(model, features, adjacency(edges, model.edge_weight))
    torch.testing.assert_close(out, expected)
    coefficients = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    parameters = list(model.parameters())
    mine, theirs = (torch.autograd.grad((x * coefficients).sum(), parameters) for x in (out, expected))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", OPTIONS)
def test_masked_edges_are_removed_edges(example, name):
    features, edges, value = example
    kept = torch.arange(14) % 3 > 0
    masked, small = network(name, 14), network(name, int(kept.sum()))
    with torch.no_grad():
        masked.edge_weight.copy_(value * kept)
        small.edge_weight.copy_(value[kept])
    torch.testing.assert_close(masked(graph(features, edges)), small(graph(features, edges[kept])), rtol=0, atol=1e-12)
    single = [copy.deepcopy(m).float()(graph(features.float(), e)) for m, e in ((masked, edges), (small, edges[kept]))]
    torch.testing.assert_close(*single, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_without_any_edge_everything_is_finite(example, name):
    features, edges, _ = example
    model = network(name, 14).float().train()
    with torch.no_grad():
        model.edge_weight.zero_()
    out = model(graph(1e4 * features.float(), edges))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["gcn", "gat", "gin", "sage"])
def test_gradient_reaches_the_labelled_neighbourhood_alone(name):
    """A path 0 - 1 - ... - 7, node 0 labelled. Two layers: a message travels over 0 - 1 and 1 - 2. gcn divides by the degree of
    2, so that it feels 2 - 3 as well."""
    path = torch.stack([torch.arange(7), torch.arange(1, 8)], 1)
    features = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = network(name, 7, hidden=16)
    F.cross_entropy(model(graph(features, path))[:1], torch.tensor([2])).backward()
    assert model.edge_weight.grad.nonzero().flatten().tolist() == ([0, 1, 2] if name == "gcn" else [0, 1])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_directed_edge_is_a_message_one_way(example, name):
    """Values bound together give the undirected network; without 0 -> 1 nothing that 0 says reaches 1."""
    features, edges, value = example
    both, bound = network(name, 28), network(name, 14)
    with torch.no_grad():
        both.edge_weight.copy_(value.repeat(2))
        bound.edge_weight.copy_(value)
    torch.testing.assert_close(both(graph(features, edges, directed=True)), bound(graph(features, edges)))
    two = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair = graph(two, torch.tensor([[0, 1]]), directed=True)
    one_way = network(name, 2)
    with torch.no_grad():
        one_way.edge_weight.copy_(torch.tensor([1.0, 0.0]))  # 0 hears 1; 1 does not hear 0
    pair.features.requires_grad_()
    gradient = torch.autograd.grad(one_way(pair)[1].sum(), pair.features, retain_graph=True)[0]
    assert gradient[1].any()
    assert not gradient[0].any()
    assert torch.autograd.grad(one_way(pair)[0].sum(), pair.features)[0][1].any()


def test_an_edge_listed_twice_is_refused():
    with pytest.raises(BenchError, match=r"edge \(0, 1\) is listed twice, or in both directions"):
        graph(torch.eye(3), torch.tensor([[0, 1], [1, 2], [1, 0]]))


@pytest.mark.parametrize("name", ["gcn", "gat", "gin", "sage", "resgcn7"])
def test_sparse_features_give_what_dense_ones_give(example, name):
    features, edges, _ = example
    features = features * (features > 0)
    starts = F.pad((features != 0).sum(1).cumsum(0), (1, 0))
    packed = sparse.from_csr(starts, features.nonzero()[:, 1], features[features != 0], 6)
    model = network(name, 14)
    torch.testing.assert_close(model(from_edges(packed, 9, edges)), model(graph(features, edges)))


def test_gradient_in_pieces_is_the_same(monkeypatch):
    pattern = sparse.Pattern(torch.arange(50) // 5, torch.arange(50) % 7, (10, 7))
    dense = torch.randn(7, 3)
    whole = torch.randn(50, requires_grad=True)
    sparse.product(pattern, whole, dense).square().sum().backward()
    monkeypatch.setattr(sparse, "PIECE", 3 * 8)
    pieces = whole.detach().clone().requires_grad_()
    sparse.product(pattern, pieces, dense).square().sum().backward()
    assert torch.equal(whole.grad, pieces.grad)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # 54 features, 9 nodes, 28 directed edges; half of the weights, a quarter of the edges: 7 links and 9 self-loops
        ("gin", {"hidden": 4}, 54 * 4 / 2 + (7 + 9) * 4 + 36 * 3 / 2 + (7 + 9) * 3),
        ("sage", {"hidden": 4}, 54 * 4 + (7 + 9) * 4 + 36 * 3 + (7 + 9) * 3),
        ("gat", {"hidden": 4, "heads": 2}, 54 * 8 / 2 + (7 + 9) * 8 + 2 * 9 * 8 + 72 * 3 / 2 + (7 + 9) * 3 + 2 * 9 * 3),
        ("resgcn7", {"hidden": 4}, 54 * 4 / 2 + 7 * (36 * 4 / 2 + 2 * (7 + 9) * 4) + 36 * 3 / 2),
    ],
)
def test_macs_by_hand(name, options, expected):
    model = network(name, 14, **options)
    half = {key: 0.5 for key, parameter in model.named_parameters() if parameter.ndim == 2}
    assert model.macs(54, 9, 28 / 4, half) == expected


@pytest.mark.parametrize(
    ("model", "data", "published"),
    [  # the papers' tables, in millions
        ("gcn", "cora", 77.95),
        ("gcn", "citeseer", 231.6),
        ("gcn", "pubmed", 203.0),
        ("gin", "cora", 77.95),
        ("gat", "cora", 623.6),
        ("gat", "citeseer", 1853),
        ("gat", "pubmed", 1624),
        ("sage", "cora", 6239),
        ("sage", "citeseer", 19655),
        ("sage", "pubmed", 15868),
        ("resgcn7", "arxiv", 18_560),
        ("resgcn14", "arxiv", 39_030),
        ("resgcn28", "arxiv", 79_960),
        ("resgcn7", "collab", 24_400),
        ("resgcn14", "collab", 52_600),
        ("resgcn28", "collab", 109_010),
    ],
)
def test_inference_as_published(model, data, published):
    assert costs.inference(model, costs.SIZES[data]) / 1e6 == pytest.approx(published, abs=max(0.5 * published / 1000, 0.05))


@pytest.mark.parametrize(
    ("model", "data", "p_edges", "p_weights", "published"),
    [  # GEBT's rows of the same tables
        ("gcn", "cora", 20, 80, 24.9),
        ("gcn", "citeseer", 10, 90, 51.2),
        ("gcn", "pubmed", 10, 90, 55.8),
        ("gat", "cora", 20, 90, 149),
        ("gat", "citeseer", 20, 90, 382),
        ("sage", "pubmed", 0, 70, 4760),
        ("resgcn7", "arxiv", 10, 90, 2690),
        ("resgcn28", "collab", 10, 90, 14_590),
    ],
)
def test_pruned_inference_as_published(model, data, p_edges, p_weights, published):
    macs = costs.inference(model, costs.SIZES[data], 1 - p_edges / 100, 1 - p_weights / 100)
    assert macs / 1e6 == pytest.approx(published, rel=4e-3)


@pytest.mark.parametrize(
    ("pipeline", "data", "p_edges", "p_weights", "ticket", "published"),
    [  # in billions
        ("sgcn", "cora", 10, 0, 100, 69.69),
        ("random", "cora", 10, 0, 0, 22.92),
        ("sgcn", "cora", 90, 0, 100, 66.0),
        ("geb", "cora", 10, 0, 28, 52.8),
        ("geb", "citeseer", 90, 0, 26, 147.6),
        ("gebt", "cora", 10, 90, 18, 14.5),
        ("gebt", "cora", 10, 60, 28, 24.8),
        ("sgcn", "citeseer", 10, 0, 100, 207.4),
        ("gebt", "pubmed", 90, 90, 20, 30.5),
    ],
)
def test_training_as_published(pipeline, data, p_edges, p_weights, ticket, published):
    dense = costs.inference("gcn", costs.SIZES[data])
    pruned = costs.inference("gcn", costs.SIZES[data], 1 - p_edges / 100, 1 - p_weights / 100)
    assert costs.training(pipeline, dense, pruned, ticket) / 1e9 == pytest.approx(published, rel=3e-3)


def test_unknown_names_are_one_line():
    with pytest.raises(BenchError, match="unknown model 'gan'; did you mean"):
        models.network({"name": "gan"})
    with pytest.raises(BenchError, match="unknown pipeline 'gbt'; did you mean gebt"):
        costs.training("gbt", 1, 1)


# without the edges that were cut


@pytest.mark.parametrize("name", ["gcn", "gat", "gin", "sage", "resgcn7"])
def test_a_network_without_edges_computes_what_the_masked_one_does(name):
    torch.manual_seed(0)
    features, edges = torch.randn(12, 5), torch.combinations(torch.arange(12))[::3]
    whole = from_edges(features, 12, edges)
    network = models.network(
        {"name": name}, features=5, outputs=3, edges=len(edges), learn_edges=True, generator=torch.Generator().manual_seed(1)
    ).eval()
    network.edge_weight.data.uniform_(0.5, 1.5)
    kept = torch.rand(len(edges)) < 0.5
    small = network.without(kept)
    assert small.edge_weight.shape == (int(kept.sum()),)
    network.edge_weight.data[~kept] = 0
    assert torch.allclose(small(whole), network(whole), atol=1e-6)
    small(whole).sum().backward()
    network(whole).sum().backward()
    assert torch.allclose(small.edge_weight.grad, network.edge_weight.grad[kept], atol=1e-5)
    assert small._seen(whole) is small._seen(whole)  # narrowed once
    assert small._seen(whole).links.rows.numel() == 2 * int(kept.sum())


def test_edges_without_links_leave_an_empty_graph():
    whole = from_edges(torch.randn(4, 5), 4, torch.tensor([[0, 1], [2, 3]]))
    assert narrowed(whole, torch.tensor([False, True])).edge.tolist() == [0, 0]
    assert narrowed(whole, torch.zeros(2, dtype=torch.bool)).links.rows.numel() == 0
