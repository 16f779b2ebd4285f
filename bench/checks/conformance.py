"""Run the conformance suite of ``bench test`` on a task folder. Every check is a function that raises AssertionError where its
promise is broken."""

import ast
import copy
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from bench.config import Setting
from bench.errors import first_line
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.storage.stages import Store
from bench.task import Task, counted, evaluated, trainable
from bench.task.capabilities import CanExport
from pruning import Masks, allocate, attach, budgets
from pruning.ticket import State


def examine(setting: Setting) -> list[dict[str, str]]:
    """Run every check and return its result: ok, or broken and why."""
    torch.set_num_threads(1)
    task = open_task(setting)
    rows = []
    for check in CHECKS:
        result, about = "ok", ""
        try:
            check(setting, task)
        except Exception as error:  # a task may fail in any way
            result, about = "broken", first_line(error)
        rows.append({"check": (check.__doc__ or "").strip(), "result": result, "about": about})
    return rows


def _explains_itself(setting: Setting, task: Task) -> None:
    """README.md gives a command"""
    readme = setting.folder / "README.md"
    assert readme.exists(), f"no {readme}"
    assert "bench run" in readme.read_text(), "README.md shows no `bench run` command"


def _stands_alone(setting: Setting, task: Task) -> None:
    """the folder does not import pruning"""
    for path in setting.folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            assert not any(n.split(".")[0] == "pruning" for n in names), f"{path.name} imports pruning"


def _builds_from_seed(setting: Setting, task: Task) -> None:
    """build depends on its seed alone and leaves the global random state alone"""
    before = torch.get_rng_state()
    one, same, other = (task.build(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state()), "build moves the global random state"
    assert _equal(one, same), "two builds of seed 0 differ"
    assert not _equal(one, other), "builds of seeds 0 and 1 are equal"
    assert not _equal(one, task.reinit(1).state_dict()), "reinit with another seed gives the same weights"


def _names_its_tensors(setting: Setting, task: Task) -> None:
    """maskables name parameters, with their shapes"""
    model = task.build(0)
    parameters = dict(model.named_parameters())
    maskables = task.maskables(model)
    assert maskables, "nothing may be pruned"
    assert len({m.name for m in maskables}) == len(maskables), "a maskable is listed twice"
    for m in maskables:
        assert m.name in parameters, f"{m.name} is no parameter"
        assert tuple(parameters[m.name].shape) == m.shape, f"{m.name} has another shape"


def _orders_data_by_seed(setting: Setting, task: Task) -> None:
    """batches depend on (seed, epoch) alone; start skips; an epoch has steps_per_epoch of them"""
    one, same = list(task.batches("train", 1, 0)), list(task.batches("train", 1, 0))
    assert len(one) == task.steps_per_epoch, f"{len(one)} batches, {task.steps_per_epoch} steps_per_epoch"
    assert all(map(_same, one, same)), "an epoch read twice differs"
    if len(one) > 1:
        assert not all(map(_same, one, task.batches("train", 2, 0))), "epochs 1 and 2 are equal"
        assert not all(map(_same, one, task.batches("train", 1, 1))), "seeds 0 and 1 are equal"
        assert all(map(_same, one[1:], task.batches("train", 1, 0, start=1))), "start=1 is not the epoch less one batch"
    assert any(True for _ in task.batches("val", 0, 0)), "no validation batch"


def _learns(setting: Setting, task: Task) -> None:
    """the loss is a finite scalar and its gradient reaches every trainable maskable"""
    model = task.build(0)
    loss = trainable(task.loss(model, next(iter(task.batches("train", 0, 0)))), task)
    assert math.isfinite(loss.item()), "the loss is not finite"
    loss.backward()
    parameters = dict(model.named_parameters())
    for m in task.maskables(model):
        p = parameters[m.name]
        assert not p.requires_grad or (p.grad is not None and p.grad.abs().sum() > 0), f"no gradient reaches {m.name}"
        assert p.grad is None or p.grad.isfinite().all(), f"the gradient of {m.name} is not finite"


def _evaluates(setting: Setting, task: Task) -> None:
    """evaluate repeats itself, gives the metric on val and test, restores the model's mode"""
    model = task.build(0)
    for split in ("val", "test"):
        model.train()
        one, same = evaluated(task, model, split), evaluated(task, model, split)
        assert one == same, f"{split} evaluated twice differs"
        assert model.training, "the model was left in another mode"


def _feels_masks(setting: Setting, task: Task) -> None:
    """masking half of a budget changes the loss; masking nearly all of it keeps the loss finite"""
    model = task.build(0)
    maskables = task.maskables(model)
    batch = next(iter(task.batches("val", 0, 0)))
    scores = {m.name: torch.rand(m.shape, generator=torch.Generator().manual_seed(0)) for m in maskables}
    whole = Masks.ones(maskables)
    for budget in budgets(maskables):
        half = allocate(scores, whole, {budget: 0.5}, maskables)
        losses = [_loss_under(task, model, masks, batch) for masks in (whole, half)]
        assert losses[0] != losses[1], f"masking half of {budget} changes nothing"
        none = whole.replace({n: torch.zeros_like(whole[n]) for n in whole.names(budget)})
        assert math.isfinite(_loss_under(task, model, none, batch)), f"the loss is not finite without {budget}"


def _schedules(setting: Setting, task: Task) -> None:
    """the schedules are functions of the step alone"""
    for make in (task.optimizer, task.constant_optimizer):
        optimizer, schedule = make(task.build(0), 10)
        assert type(schedule) is LambdaLR, f"{make.__name__} gives a {type(schedule).__name__}, not a LambdaLR"
        rates = [[fn(step) for fn in schedule.lr_lambdas] for step in range(10)]
        assert rates == [[fn(step) for fn in schedule.lr_lambdas] for step in range(10)], "asked twice, rates differ"
        assert all(rate >= 0 for row in rates for rate in row), "a rate is negative"
        assert len(optimizer.param_groups) == len(schedule.lr_lambdas)


def _goes_on(setting: Setting, task: Task) -> None:
    """training in two pieces gives the bits of training in one"""
    ends = []
    for cuts in ((3,), (1, 3)):
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(task, setting.name, 1, 0, Store(folder))
            for step in cuts:
                state: State = lab.train(lab.start("init"), lab.ones(), until=step)
            ends.append(lab.stage(state).tensors())
    assert _equal(*ends), "0 -> 1 -> 3 steps and 0 -> 3 steps differ"


def _counts_cost(setting: Setting, task: Task) -> None:
    """macs is positive and falls with density"""
    model = task.build(0)
    names = [m.name for m in task.maskables(model)]
    dense, half = counted(task, model, {}), counted(task, model, dict.fromkeys(names, 0.5))
    assert 0 < half < dense, f"macs: dense {dense}, at density 0.5 {half}"
    assert task.macs(model, dict.fromkeys(names, 1.0)) == dense, "macs: density 1 is not dense"


def _knows_its_data(setting: Setting, task: Task) -> None:
    """the fingerprint is the same when the task is opened again, and identity holds no path"""
    again = open_task(setting)
    assert task.fingerprint == again.fingerprint, "the fingerprint differs"
    for section in task.identity().values():
        for key, value in section.items():
            assert not (isinstance(value, str) and Path(value).is_absolute()), f"identity holds the path {key}={value}"


def _can_be_copied(setting: Setting, task: Task) -> None:
    """the model survives deepcopy and state_dict"""
    model = task.build(0)
    other = task.build(1)
    other.load_state_dict(model.state_dict())
    assert _equal(model.state_dict(), other.state_dict())
    assert _equal(model.state_dict(), copy.deepcopy(model).state_dict())


def _can_be_taken_out(setting: Setting, task: Task) -> None:
    """a task that exports builds its network from facts alone, and calls it with tensors"""
    exporting = task.capability(CanExport)
    if exporting is None:
        return
    model = task.build(0).eval()
    facts = json.loads(json.dumps(exporting.facts(model)))
    bare = exporting.bare(facts).eval()
    shapes = [{name: t.shape for name, t in network.state_dict().items()} for network in (model, bare)]
    assert shapes[0] == shapes[1], "bare gives a network of other tensors than build"
    bare.load_state_dict(model.state_dict())
    batch = next(iter(task.batches("val", 0, 0)))
    calls = [exporting.call(network, batch) for network in (model, exporting.folded(bare).eval())]
    with torch.no_grad():
        one, two = (call.module.eval()(*call.inputs.values()) for call in calls)
    outputs = [[given] if torch.is_tensor(given) else list(given) for given in (one, two)]
    assert len(outputs[0]) == len(calls[0].outputs), "call gives another number of tensors than it names"
    same = all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*outputs, strict=True))
    assert same, "the network built from facts computes another thing"


CHECKS: list[Callable[[Setting, Task], None]] = [
    _explains_itself,
    _stands_alone,
    _builds_from_seed,
    _names_its_tensors,
    _orders_data_by_seed,
    _learns,
    _evaluates,
    _feels_masks,
    _schedules,
    _goes_on,
    _counts_cost,
    _knows_its_data,
    _can_be_copied,
    _can_be_taken_out,
]


def _loss_under(task: Task, model: nn.Module, masks: Masks, batch: Any) -> float:
    masked = copy.deepcopy(model).eval()
    attach(masks, masked)
    with torch.no_grad():
        return task.loss(masked, batch).item()


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def _same(one: Any, other: Any) -> bool:
    """Return whether two batches hold the same numbers, in tensors, lists, tuples or dictionaries."""
    if torch.is_tensor(one):
        return torch.is_tensor(other) and one.shape == other.shape and (one.is_sparse_csr or torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    return one is other or one == other
