"""Hidden units of graph networks: gates, and slim against masked networks."""

import pytest
import torch

from bench import from_pretrained
from bench.config import settings
from bench.errors import BenchError
from bench.runner.jobs import open_task
from pruning import Masks, allocate, attach

SMOKE = ["protocol=smoke", "model.scope=units"]


def task_of(name: str, *more: str):
    return open_task(settings("tasks/gcn_planetoid", [*SMOKE, f"model={name}", *more])[0])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("gcn", []),
        ("gcn", ["+model.batch_norm=true", "+model.layers=3"]),
        ("gin", []),
        ("sage", ["+model.layers=3"]),
        ("gat", []),
        ("gat", ["+model.layers=3"]),
    ],
)
def test_slim_computes_what_the_masked_network_does(name, more):
    task = task_of(name, *more)
    model = task.build(0).double().eval()
    found = task.maskables(model)
    assert {m.budget for m in found} == {"units", "edges"}
    generator = torch.Generator().manual_seed(1)
    for _, parameter in model.named_parameters():  # gates and biases that were trained
        parameter.data += 0.1 * torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        norm.running_mean.uniform_(-1, 1, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    masks = allocate({m.name: torch.rand(m.shape, generator=generator) for m in found}, Masks.ones(found),
                     {"units": 0.5, "edges": 0.6}, found)  # fmt: skip
    attach(masks, model)
    small = task.slim(model, dict(masks))
    with torch.no_grad():
        assert torch.allclose(small(task._graph), model(task._graph), atol=1e-12)
        assert torch.allclose(task.folded(small)(task._graph), model(task._graph), atol=1e-12)
    assert not any("gate" in n for n in task.folded(small).state_dict())
    assert sum(p.numel() for p in small.parameters()) < 0.75 * sum(p.numel() for p in model.parameters())
    # what is counted is what a network of that size costs
    kept = {n: float(m.double().mean()) for n, m in masks.items() if n.endswith("gate")}
    ratio = [conv.weight.numel() for conv in small.convolutions], [conv.weight.numel() for conv in model.convolutions]
    assert task.macs(model, kept) < task.macs(model, {})
    assert sum(ratio[0]) < sum(ratio[1])


def test_multiply_adds_of_half_the_units():
    task = task_of("gcn")
    model = task.build(0)
    full, half = task.macs(model, {}), task.macs(model, {"conv1.gate": 0.5})
    assert half == pytest.approx(full - 0.5 * (full - self_cost(task, model)))


def self_cost(task, model) -> float:
    """The aggregation of the last layer, which is as wide as the classes whatever its inputs."""
    nodes, links = task._data.features.shape[0], 2 * len(task._data.edges)
    return (links + nodes) * model.convolutions[-1].weight.shape[1]


def test_units_of_a_ticket_end_to_end(bench):
    said = [*SMOKE, "method=one_shot", "densities={units: 0.5, edges: 0.8}", "controls=[random,slim]", "seeds=[0]"]
    assert bench.run(*said, task="tasks/gcn_planetoid") == 0
    by_control = {r.identity.control: r for r in bench.records() if r.identity.method != "dense"}
    assert {r.status for r in by_control.values()} == {"ok"}
    assert by_control["slim"].cost.measured_speedup > 0
    assert by_control[None].budgets["units"].kept == by_control[None].budgets["units"].total // 2
    for control in (None, "slim"):  # taken out, without gates
        to = bench.folder / str(control)
        said = ["export", str(bench.path(by_control[control])), "--to", str(to), f"store={bench.folder / 'store'}"]
        assert bench(*said) == 0, bench.err
        network = from_pretrained(to)
        assert network.convolutions[0].weight.shape[1] == by_control[None].budgets["units"].kept
        assert not any("gate" in n for n in network.state_dict())
        found = task_of("gcn").evaluate(network, "test")
        assert found == pytest.approx(by_control[control].result.test, rel=1e-4)


def test_networks_without_units_of_their_own_say_so():
    with pytest.raises(BenchError, match="residual networks do not have"):
        task_of("resgcn7").build(0)
