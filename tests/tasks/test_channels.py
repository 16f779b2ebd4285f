"""Whole channels: which layers share them, surgery that changes no logit, scores of filters, slimming, early birds."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bench.config
from bench.errors import BenchError
from bench.runner.jobs import open_task
from pruning import Maskable, Masks, PruningError, allocate, attach
from pruning.callbacks.base import TrainingContext
from pruning.callbacks.l1 import L1
from pruning.callbacks.low_precision import LowPrecision, rounded
from pruning.scores import fpgm, group_mean_scores, l1_filter, random
from tasks import channels

MODELS = [
    ("resnet20", "projection", 8),
    ("resnet20", "zero_pad", 8),
    ("vgg11", "projection", 16),
    ("mobilenet_v2", "projection", 16),
]


@cache
def task(model="resnet8", *words, shortcut="projection", size=8, scope="channels"):
    """The adapter, pruning channels."""
    said = ["protocol=smoke", f"model={model}", f"model.scope={scope}", f"model.shortcut={shortcut}", f"data.size={size}"]
    return open_task(bench.config.settings("tasks/cnn_cifar", [*said, *words])[0])


def masks_of(subject, network, density, seed=0):
    """Random channels kept."""
    listed = subject.maskables(network)
    draw = torch.Generator().manual_seed(seed)
    scores = group_mean_scores({m.name: torch.rand(m.shape, generator=draw) for m in listed}, listed)
    return allocate(scores, Masks.ones(listed), {"channels": density}, listed)


def stirred(network, seed=0):
    """Batch norms as after some training, so that an error shows."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for t in (module.weight.data, module.running_var):
                t.copy_(torch.rand(t.shape, generator=draw) + 0.5)
            for t in (module.bias.data, module.running_mean):
                t.copy_(torch.randn(t.shape, generator=draw) * 0.2)
    return network


def test_what_a_network_gives_stays_whole():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    found = channels.spaces(network)
    assert (found.norms["1"], found.norms["4"]) == ("0", channels.WHOLE)
    assert [m.name for m in channels.maskables(network, found)] == ["1.weight", "1.bias"]


def test_spaces_of_a_residual_network():
    found = channels.spaces(task().build(0))
    assert found.norms["norm"] == found.norms["stages.0.0.norm2"]  # the stem's channels are added to
    assert found.norms["stages.1.0.norm2"] == found.norms["stages.1.0.shortcut.1"]
    assert len({found.norms[n] for n in ("norm", "stages.0.0.norm1", "stages.1.0.norm1", "stages.1.0.norm2")}) == 4
    assert (found.reads["stem"], found.makes["head"]) == (channels.WHOLE, channels.WHOLE)
    assert found.reads["head"] == found.norms["stages.2.0.norm2"]
    assert found.filters["stages.1.0.shortcut.1"] == "stages.1.0.shortcut.0"


def test_shortcuts_without_weights_leave_the_residual_stream_whole():
    found = channels.spaces(task(shortcut="zero_pad").build(0))
    assert found.norms["norm"] == found.norms["stages.2.0.norm2"] == channels.WHOLE
    assert found.norms["stages.1.0.norm1"] != channels.WHOLE


def test_maskables_are_scales_and_shifts_that_share_groups():
    subject = task("vgg11", size=16)
    listed = subject.maskables(subject.build(0))
    assert [(m.kind, m.follows) for m in listed[:2]] == [("scale", False), ("shift", True)]
    assert sum(m.size for m in listed) == 2 * (64 + 128 + 2 * 256 + 4 * 512)
    assert torch.equal(listed[0].groups, listed[1].groups)
    assert listed[2].groups.min() == 64
    masks = masks_of(subject, subject.build(0), 0.5)
    assert masks.density("channels") == pytest.approx(0.5, abs=1e-3)
    assert all(torch.equal(masks[a.name], masks[b.name]) for a, b in zip(listed[::2], listed[1::2], strict=True))


def test_inner_channels_are_those_of_one_convolution():
    def scales(model, **more):
        subject = task(model, scope="inner_channels", **more)
        return [m.name for m in subject.maskables(subject.build(0)) if m.kind == "scale"]

    assert scales("resnet20") == [f"stages.{stage}.{block}.norm1.weight" for stage in range(3) for block in range(3)]
    assert len(scales("vgg11", size=16)) == 8
    mobile = scales("mobilenet_v2", size=16)
    assert "features.3.conv.0.1.weight" in mobile  # a block's expansion
    assert "features.3.conv.3.weight" not in mobile  # added to the output of the block before


def test_uniform_cuts_every_space_alike():
    subject = task("resnet20")
    network = subject.build(0)
    listed = subject.maskables(network)
    scores = {m.name: torch.rand(m.shape, generator=torch.Generator().manual_seed(0)) for m in listed}
    masks = allocate(group_mean_scores(scores, listed), Masks.ones(listed), {"channels": 0.5}, listed, "uniform")
    assert {int(masks[m.name].sum()) * 2 - m.size for m in listed} == {0}


@pytest.mark.parametrize(("model", "shortcut", "size"), MODELS)
def test_surgery_changes_no_logit(model, shortcut, size):
    subject = task(model, shortcut=shortcut, size=size)
    network = stirred(subject.build(1)).double()  # in single precision batch norm magnifies rounding
    masks = masks_of(subject, network, 0.4)
    small = subject.slim(network, dict(masks))
    attach(masks, network)
    x = torch.rand(4, 1, size, size, dtype=torch.float64)
    for mode in (False, True):
        one, other = (copy.deepcopy(m).train(mode) for m in (network, small))
        assert torch.allclose(one(x), other(x), atol=1e-5), mode
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in network.parameters())
    assert small.state_dict().keys() == network.state_dict().keys()


@settings(max_examples=20, deadline=None)
@given(
    network=st.sampled_from([*MODELS, ("resnet8", "projection", 8)]),
    density=st.floats(0.2, 1.0),
    seed=st.integers(0, 99),
    scope=st.sampled_from(["channels", "inner_channels"]),
)
def test_surgery_holds_at_any_density(network, density, seed, scope):
    model, shortcut, size = network
    subject = task(model, shortcut=shortcut, size=size, scope=scope)
    network = stirred(subject.build(seed), seed).double()
    masks = masks_of(subject, network, density, seed)
    small = subject.slim(network, dict(masks)).eval()
    attach(masks, network)
    x = torch.rand(2, 1, size, size, dtype=torch.float64)
    assert torch.allclose(network.eval()(x), small(x), atol=1e-5)


@pytest.mark.parametrize(("model", "shortcut", "size"), MODELS)
def test_macs_of_channels_are_those_of_the_slim_network(model, shortcut, size):
    from bench.task.macs import module_macs

    subject = task(model, shortcut=shortcut, size=size)
    network = subject.build(0)
    masks = masks_of(subject, network, 0.5)
    counted = sum(module_macs(subject.slim(network, dict(masks)), torch.ones(1, 1, size, size)).values())
    assert subject.macs(network, masks.densities()) == pytest.approx(counted, rel=1e-9)
    assert subject.macs(network, {}) == sum(module_macs(network, torch.ones(1, 1, size, size)).values())


def test_a_density_that_empties_a_layer_is_refused():
    subject = task()
    with pytest.raises(PruningError, match="the floors of its"):
        masks_of(subject, subject.build(0), 0.01)


def test_networks_without_scales_have_no_channels():
    subject = task("resnet8", "model.affine=false")
    with pytest.raises(BenchError, match="no channel to prune"):
        subject.maskables(subject.build(0))


def test_masks_that_disagree_on_a_channel_are_refused():
    subject = task()
    network = subject.build(0)
    masks = dict(masks_of(subject, network, 0.5))
    masks["norm.bias"] = ~masks["norm.bias"]
    with pytest.raises(BenchError, match=r"the mask of norm\.bias cuts other channels"):
        subject.slim(network, masks)


# scores


class Filters:
    """A score's view of two filters behind a scale."""

    def filters(self, model):
        return {"1.weight": "0.weight"}


def test_scores_of_filters_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 3, (1, 2), bias=False), nn.BatchNorm2d(3))
    model[0].weight.data = torch.tensor([[0.0, 0.0], [3.0, -4.0], [0.0, -1.0]]).reshape(3, 1, 1, 2)
    listed = [Maskable("1.weight", (3,), "scale", "channels"), Maskable("1.bias", (3,), "shift", "channels", follows=True)]
    assert l1_filter(model, listed, Filters())["1.weight"].tolist() == [0, 7, 1]
    far = 18**0.5  # between (3, -4) and (0, -1)
    assert fpgm(model, listed, Filters())["1.weight"].tolist() == pytest.approx([5 + 1, 5 + far, 1 + far])
    assert fpgm(model, listed, Filters())["1.bias"].tolist() == [0, 0, 0]


def test_followers_have_no_say():
    groups = torch.arange(2)
    listed = [Maskable("a", (2,), "scale", groups=groups), Maskable("b", (2,), "shift", groups=groups, follows=True)]
    scores = group_mean_scores({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([9.0, 0.0])}, listed)
    assert allocate(scores, Masks.ones(listed), {"weights": 0.5}, listed)["b"].tolist() == [False, True]


def test_a_group_of_many_tensors_ranks_by_its_mean():
    groups = torch.arange(2)
    listed = [
        Maskable("a", (2,), "scale", groups=groups),
        Maskable("b", (2,), "scale", groups=groups),
        Maskable("c", (2,), "scale", groups=groups + 2),
    ]
    given = {"a": torch.tensor([2.0, 4.0]), "b": torch.tensor([2.0, 0.0]), "c": torch.tensor([3.0, 1.0])}
    scores = group_mean_scores(given, listed)
    assert [t.tolist() for t in scores.values()] == [[1, 2], [1, 0], [3, 1]]


# the penalty


def test_the_penalty_by_hand():
    model = nn.BatchNorm2d(3)
    model.weight.data, model.weight.grad, model.bias.grad = torch.tensor([2.0, -1.0, 0.0]), torch.ones(3), torch.ones(3)
    listed = [Maskable("weight", (3,), "scale", "channels"), Maskable("bias", (3,), "shift", "channels", follows=True)]
    run = TrainingContext(model, None, listed, 0, 1, 1, Masks.ones(listed), lambda masks: None, lambda p: None, lambda: 0.0)
    rule = L1(0.25, ["channels"])
    rule.on_start(run)
    rule.after_backward(run)
    assert model.weight.grad.tolist() == [1.25, 0.75, 1]
    assert model.bias.grad.tolist() == [1, 1, 1]
    with pytest.raises(PruningError, match="l1 is 0"):
        L1(0, ["channels"])


# few bits


def test_numbers_of_few_bits_by_hand():
    """Four bits are -8 to 7 times a unit; the largest number of a row takes the third."""
    draw = torch.Generator().manual_seed(0)
    exact = torch.tensor([[1.75, -1.25, 0.25], [0.0, 0.0, 0.0], [-3e-3, 3e-3, 0.0]])
    exact[2] = torch.tensor([-(2.0**-9), 2.0**-10, 2.0**-11])
    assert torch.equal(rounded(exact, 4, draw), exact)  # units 1/4, any, 2 ** -11
    assert rounded(torch.tensor([[1.0, 0.1]]), 4, draw)[0, 1].item() in (0.0, 0.25)
    assert rounded(torch.tensor([1.99, 0.1]), 4, draw)[0].item() == 1.75  # 8 units are one too many
    many = rounded(torch.full((1, 20000), 0.1) + torch.tensor([[0.9] + [0.0] * 19999]), 4, draw)[0, 1:]
    assert many.mean().item() == pytest.approx(0.1, abs=3e-3)
    assert set(many.tolist()) == {0.0, 0.25}


def test_searching_in_few_bits_leaves_no_other_number(tmp_path):
    from tests.conftest import toy_lab

    lab, rule = toy_lab(tmp_path), LowPrecision(8)
    there = lab.train(lab.start("init"), lab.ones(), until=5, callback=rule)
    for weight in lab.load(there).parameters():  # one bit more: what was rounded up to a power of two has a larger unit now
        assert torch.equal(rounded(weight.detach(), 9, torch.Generator().manual_seed(1)), weight)
    end, other = lab.train(lab.start("init"), lab.ones(), callback=rule), toy_lab(tmp_path / "uncut")
    uncut = other.stage(other.train(other.start("init"), other.ones(), callback=rule)).tensors()
    assert all(torch.equal(tensor, uncut[name]) for name, tensor in lab.stage(end).tensors().items())
    with pytest.raises(PruningError, match="bits is 1;"):
        LowPrecision(1)


# what a search costs


def test_published_sums_of_trainings_follow_from_the_epoch_of_the_ticket():
    """You et al. (2020), ResNet-18 on ImageNet, PFLOPs: the whole network, slimming and the early bird, 11 of 90 epochs in."""
    for slimming, early_bird in ((2424.86, 1177.15), (2168.89, 952.46)):
        whole, pruned = 1259.13, slimming - 1259.13
        assert 11 / 90 * whole + 79 / 90 * pruned == pytest.approx(early_bird, abs=0.01)


def test_a_whole_training_of_vgg16_costs_as_published():
    """You et al. (2020): 302 units of 5e13 operations, one multiply-add being two of them and a step three forward passes."""
    subject = task("vgg16", "data=cifar100_shapes", size=32)
    assert 6 * subject.macs(subject.build(0), {}) * 50_000 * 160 / 5e13 == pytest.approx(302, rel=0.01)


# through the command line


@pytest.mark.parametrize(
    "method",
    [
        ["method=early_bird", "method.l1=1e-3", "method.window=1", "method.eps=0.6", "method.bits=8"],
        ["method=slimming"],
        ["method=one_shot", "method.score=l1_filter"],
        ["method=one_shot", "method.score=fpgm"],
    ],
)
def test_channels_are_pruned_cut_out_and_measured(bench, method):
    assert (
        bench.run(
            "protocol=smoke",
            "model.scope=channels",
            "densities={channels: 0.5}",
            "controls=[slim,random]",
            *method,
            task="tasks/cnn_cifar",
        )
        == 0
    ), bench.err
    found = {r.identity.control: r for r in bench.records() if r.identity.method != "dense"}
    ticket, slim = found[None], found["slim"]
    assert ticket.budgets["channels"].kept == pytest.approx(0.5 * ticket.budgets["channels"].total, abs=130)
    assert slim.cost.inference_macs == ticket.cost.inference_macs < 0.6 * ticket.cost.inference_macs_dense
    assert slim.cost.measured_speedup > 0
    assert slim.result.test["accuracy"] == pytest.approx(ticket.result.test["accuracy"], abs=8)
    if ticket.identity.method == "early_bird":  # the whole network up to where the ticket emerged, the slim one from there
        searched = ticket.ticket.notes["emerged_step"] / slim.result.step
        assert 0 < searched < 1
        left = slim.cost.inference_macs / slim.cost.inference_macs_dense
        assert slim.cost.search_dense_trainings == pytest.approx(searched)
        assert slim.cost.train_dense_trainings == pytest.approx((1 - searched) * left)


@pytest.mark.parametrize("method", ["magnitude_at_init", "random_ticket", "gmp", "admm"])
def test_every_method_decides_by_whole_channels(bench, method):
    assert (
        bench.run(
            "protocol=smoke",
            "model.scope=channels",
            "densities={channels: 0.5}",
            "controls=[slim]",
            f"method={method}",
            "train.epochs=1",
            task="tasks/cnn_cifar",
        )
        == 0
    ), bench.err
    ticket, slim = (r for r in sorted(bench.records(), key=lambda r: r.identity.control or "") if r.identity.method == method)
    assert not ticket.collapsed
    assert ticket.tensors == slim.tensors
    of = {kind: [t for name, t in ticket.tensors.items() if name.endswith(kind)] for kind in (".weight", ".bias")}
    assert of[".weight"] == of[".bias"]  # a channel's scale and shift stay or go together


def test_methods_that_decide_entry_by_entry_do_not_apply(bench):
    for method in ("imp_by_kind", "rigl"):
        assert (
            bench.run(
                "protocol=smoke",
                "model.scope=channels",
                "densities={channels: 0.5}",
                "controls=[]",
                f"method={method}",
                task="tasks/cnn_cifar",
            )
            == 0
        )
        record = next(r for r in bench.records() if r.identity.method == method)
        assert record.status == "not_applicable"
        assert "kept or pruned in groups" in record.reason


@pytest.mark.parametrize("words", [["method=slimming"], ["method=early_bird", "method.l1=1e-3"]])
def test_a_penalty_on_scales_needs_scales(bench, words):
    assert bench.run("protocol=smoke", "densities=[0.5]", "controls=[]", *words, task="tasks/cnn_cifar") == 0
    record = next(r for r in bench.records() if r.identity.method != "dense")
    assert record.status == "not_applicable"
    assert "scales" in record.reason


def test_random_scores_are_one_number_a_group():
    """Or groups of many tensors would crowd in the middle."""
    groups = torch.arange(4)
    listed = [Maskable("a", (4,), "scale", groups=groups), Maskable("b", (4,), "scale", groups=groups)]

    class Draws:
        def generator(self):
            return torch.Generator().manual_seed(0)

    scores = random(None, listed, Draws())
    assert scores["a"].tolist() == scores["b"].tolist()
    assert len(set(scores["a"].tolist())) == 4
