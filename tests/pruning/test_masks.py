"""Masks as values, and masks in force on a model and its optimizer."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pruning import Maskable, Masks, PruningError, attach


def bits(text: str, *shape: int) -> torch.Tensor:
    """ "101" -> [True, False, True]"""
    return torch.tensor([c == "1" for c in text], dtype=torch.bool).reshape(shape or (len(text),))


@pytest.fixture
def masks() -> Masks:
    return Masks(
        {"a": bits("110100", 2, 3), "b": bits("00100"), "e": bits("1011")}, {"a": "weights", "b": "weights", "e": "edges"}
    )


# values


def test_counts_by_hand(masks):
    assert (masks.kept(), masks.total()) == (7, 15)
    assert (masks.kept("weights"), masks.total("weights"), masks.density("weights")) == (4, 11, 4 / 11)
    assert masks.density("edges") == 0.75
    assert masks.densities() == {"a": 0.5, "b": 0.2, "e": 0.75}
    assert masks.names("weights") == ["a", "b"]
    assert masks.names() == ["a", "b", "e"]


def test_ones_keep_everything():
    ones = Masks.ones([Maskable("w", (3, 2), "linear"), Maskable("g", (4,), "edge", budget="edges")])
    assert ones.kept() == ones.total() == 10
    assert ones.budgets == {"w": "weights", "g": "edges"}


def test_collapsed_names_empty_masks_but_not_empty_tensors(masks):
    assert masks.collapsed() == []
    assert masks.replace({"b": bits("00000")}).collapsed() == ["b"]
    assert Masks({"none": torch.ones(0, 3, dtype=torch.bool)}, {"none": "weights"}).collapsed() == []


def test_distance_and_overlap_by_hand(masks):
    other = masks.replace({"a": bits("101100", 2, 3), "e": bits("0111")})
    assert masks.distance(other, "weights") == 2 / 11
    assert masks.distance(other, "edges") == 2 / 4
    assert masks.distance(other) == 4 / 15
    assert masks.overlap(other, "weights") == 3 / 5  # both keep a[0], a[3], b[2]; one of them a[1], a[2] too
    assert masks.overlap(other) == 5 / 9
    assert masks.distance(masks) == 0
    assert masks.overlap(masks) == 1


def test_digest_is_of_the_content(masks):
    reordered = Masks({n: masks[n].clone() for n in reversed(list(masks))}, masks.budgets)
    assert reordered.digest() == masks.digest()
    assert reordered == masks
    assert hash(reordered) == hash(masks)
    different = [
        masks.replace({"b": bits("01000")}),  # bits
        masks.replace({"a": masks["a"].reshape(3, 2)}),  # shape
        Masks(dict(masks), {**masks.budgets, "e": "weights"}),  # budget
        Masks({n.upper(): m for n, m in masks.items()}, {n.upper(): b for n, b in masks.budgets.items()}),
    ]
    assert len({masks.digest(), *(m.digest() for m in different)}) == 5
    assert all(m != masks for m in different)


def test_a_strided_mask_is_its_values(masks):
    transposed = masks.replace({"a": masks["a"].T.contiguous().T})
    assert transposed == masks


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5, 7), (64, 3, 3, 3), (0,), (4, 0)])
def test_save_and_load(tmp_path, shape):
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
    masks = Masks({"w.x": drawn, "e": bits("10")}, {"w.x": "weights", "e": "edges"})
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(tmp_path / "masks.safetensors")
    assert loaded == masks
    assert loaded["w.x"].shape == shape
    assert torch.equal(loaded["w.x"], drawn)
    assert loaded.budgets == masks.budgets
    assert [p.name for p in tmp_path.iterdir()] == ["masks.safetensors"]


def test_no_masks_at_all(tmp_path):
    Masks({}, {}).save(tmp_path / "none")
    assert len(Masks.load(tmp_path / "none")) == 0
    assert Masks({}, {}).density() == 0


def test_one_bit_an_entry(tmp_path):
    Masks({"w": torch.ones(80_000, dtype=torch.bool)}, {"w": "weights"}).save(tmp_path / "m")
    assert (tmp_path / "m").stat().st_size < 10_000 + 300


def test_different_models_are_named(masks):
    with pytest.raises(PruningError, match="mask e is on one side only"):
        masks.distance(Masks({n: masks[n] for n in "ab"}, {n: "weights" for n in "ab"}))
    with pytest.raises(PruningError, match=r"mask a has shape \(2, 3\) on one side and \(3, 2\)"):
        masks.overlap(masks.replace({"a": masks["a"].T}))


def test_masks_are_bool_and_have_budgets():
    with pytest.raises(PruningError, match=r"mask w is torch\.float32, not bool"):
        Masks({"w": torch.ones(2)}, {"w": "weights"})
    with pytest.raises(PruningError, match="masks and budgets name different tensors"):
        Masks({"w": bits("1")}, {})


def test_unreadable_files_end_in_one_line(tmp_path, masks):
    path = tmp_path / "masks"
    with pytest.raises(PruningError, match="no mask file at"):
        Masks.load(path)
    masks.save(path)
    whole = path.read_bytes()
    header = {"w": '{"shape": [16], "budget": "weights"}'}
    for write in (
        lambda: path.write_bytes(whole[:-1]),
        lambda: path.write_bytes(whole[:20]),
        lambda: path.write_bytes(b""),
        lambda: save_file({"w": torch.ones(2)}, path, header),  # floats for bits
        lambda: save_file({"w": torch.ones(1, dtype=torch.uint8)}, path, header),  # 8 bits for 16 entries
        lambda: save_file({"w": torch.ones(3, dtype=torch.uint8)}, path, header),
        lambda: save_file({"x": torch.ones(2, dtype=torch.uint8)}, path, header),
        lambda: save_file({"w": torch.ones(2, dtype=torch.uint8)}, path),
        lambda: save_file({"w": torch.ones(2, dtype=torch.uint8)}, path, {"w": "{}"}),
        lambda: save_file({"w": torch.ones(2, dtype=torch.uint8)}, path, {"w": "not json"}),
    ):
        write()
        with pytest.raises(PruningError, match="is not a readable mask file") as caught:
            Masks.load(path)
        assert "\n" not in str(caught.value)


# in force


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))


def half_of(model: nn.Module, names: tuple[str, ...] = ("0.weight", "3.weight", "5.weight")) -> Masks:
    generator = torch.Generator().manual_seed(1)
    parameters = dict(model.named_parameters())
    return Masks({n: torch.rand(parameters[n].shape, generator=generator) < 0.5 for n in names}, dict.fromkeys(names, "weights"))


def step(model, optimizer, attached, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(8, 2, 4, 4, generator=generator), torch.randint(3, (8,), generator=generator)
    nn.functional.cross_entropy(model(images), labels).backward()
    attached.mask_gradients()
    optimizer.step()
    optimizer.zero_grad()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
    "fused": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, fused=True),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1),
    "radam": lambda p: torch.optim.RAdam(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1, centered=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_entries_stay_exactly_zero_with_their_state(name, memory_format):
    model = network().to(memory_format=memory_format)
    optimizer = OPTIMIZERS[name](model.parameters())
    masks = half_of(model)
    attached = attach(masks, model, optimizer)
    parameters = dict(model.named_parameters())
    before = {n: p.detach().clone() for n, p in parameters.items()}
    for number in range(4):
        step(model, optimizer, attached, number)
        for n, mask in masks.items():
            assert not parameters[n][~mask].any()
            state = optimizer.state[parameters[n]].values()
            states = [v for v in state if torch.is_tensor(v) and v.shape == mask.shape]
            assert states
            assert not any(v[~mask].any() for v in states)
    assert all((parameters[n] != before[n]).any() for n in parameters)
    assert model[0].weight.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_that_masks_no_gradients_trains_to_the_same_bits(name):
    ends = []
    for masks_gradients in (True, False):
        model = network()
        optimizer = OPTIMIZERS[name](model.parameters())
        attached = attach(half_of(model), model, optimizer)
        for number in range(3):
            step(model, optimizer, attached if masks_gradients else attach(Masks({}, {}), model), number)
        ends.append([*model.state_dict().values(), *optimizer.state[model[3].weight].values()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True) if torch.is_tensor(one))


def test_after_the_first_step_only_gradients_are_multiplied(monkeypatch):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    attached = attach(half_of(model), model, optimizer)
    step(model, optimizer, attached)
    monkeypatch.setattr(attached, "enforce", lambda: pytest.fail("the step left nothing to do"))
    step(model, optimizer, attached, 1)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_that_grow_after_they_were_masked_are_masked_again(set_to_none):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = half_of(model)
    attached = attach(masks, model, optimizer)
    x = torch.randn(8, 2, 4, 4)
    for _ in range(4):
        for _ in range(2):
            model(x).square().sum().backward()
            attached.mask_gradients()
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        for name, mask in masks.items():
            assert not model.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_computes_its_gradients_itself(name):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    masks = half_of(model)
    attach(masks, model, optimizer)
    x = torch.randn(8, 2, 4, 4)

    def closure():
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        for parameter, mask in ((model.get_parameter(n), mask) for n, mask in masks.items()):
            assert not parameter[~mask].any()
            states = optimizer.state[parameter].values()
            assert not any(v[~mask].any() for v in states if torch.is_tensor(v) and v.shape == mask.shape)


@pytest.mark.parametrize("what", ["weights", "data", "state"])
def test_what_somebody_writes_between_steps_is_zeroed(what):
    """A dense network or optimizer that is loaded after ``attach``."""
    dense, model = network(), network()
    others = [OPTIMIZERS["sgd"](m.parameters()) for m in (dense, model)]
    step(dense, others[0], attach(Masks({}, {}), dense))
    masks = half_of(model)
    attached = attach(masks, model, others[1])
    for number in range(2):
        step(model, others[1], attached, number)
    if what == "weights":
        model.load_state_dict(dense.state_dict())
    elif what == "data":
        model[3].weight.data = dense[3].weight.detach().clone()
    else:
        others[1].load_state_dict(others[0].state_dict())
    for number in range(2):
        step(model, others[1], attached, number)
        assert not model[3].weight[~masks["3.weight"]].any()
        assert not others[1].state[model[3].weight]["momentum_buffer"][~masks["3.weight"]].any()


class Noisy(torch.optim.SGD):
    """Moves every entry at every step, whatever its gradient."""

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("optimizer", [lambda p: Noisy(p, 0.1), torch.optim.Adagrad, torch.optim.Rprop])
def test_optimizers_that_move_pruned_entries_are_corrected(optimizer):
    model = network()
    optimizer = optimizer(model.parameters())
    masks = half_of(model)
    attached = attach(masks, model, optimizer)
    for number in range(3):
        step(model, optimizer, attached, number)
        assert not any(p[~masks[n]].any() for n, p in model.named_parameters() if n in masks)


def test_state_left_from_a_dense_training_is_cleared_at_once():
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer, attach(half_of(model, ()), model))
    masks = half_of(model)
    assert optimizer.state[model[3].weight]["momentum_buffer"][~masks["3.weight"]].any()
    attach(masks, model, optimizer)
    assert not optimizer.state[model[3].weight]["momentum_buffer"][~masks["3.weight"]].any()
    assert optimizer.state[model[3].weight]["momentum_buffer"][masks["3.weight"]].all()


def test_kept_entries_are_left_alone():
    model = network()
    before = copy.deepcopy(model.state_dict())
    masks = half_of(model)
    attach(masks, model)
    for n, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[n] * masks[n] if n in masks else before[n])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trains_as_the_really_smaller_network(name):
    """Two hidden units cut off: gradient norm, weights after clipped steps and outputs are the small network's."""
    torch.manual_seed(0)
    big = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    small = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    small.load_state_dict(
        {"0.weight": big[0].weight[:4], "0.bias": big[0].bias[:4], "2.weight": big[2].weight[:, :4], "2.bias": big[2].bias}
    )
    units = bits("111100")
    masks = Masks(
        {"0.weight": units[:, None].expand(6, 4), "2.weight": units.expand(2, 6)},
        dict.fromkeys(("0.weight", "2.weight"), "weights"),
    )
    with torch.no_grad():  # the cut units are active, so their gradients are not zero by themselves
        big[0].bias[4:] = 1
    optimizers = [OPTIMIZERS[name](m.parameters()) for m in (big, small)]
    attached = attach(masks, big, optimizers[0])
    images, labels = torch.randn(8, 4, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    for _ in range(3):
        norms = []
        for model, optimizer in zip((big, small), optimizers, strict=True):
            nn.functional.cross_entropy(model(images), labels).backward()
            if model is big:
                inflated = torch.nn.utils.get_total_norm([p.grad for p in big.parameters()])
                attached.mask_gradients()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
            optimizer.step()
            optimizer.zero_grad()
        assert norms[0] == pytest.approx(norms[1].item(), rel=1e-12)
        assert inflated > norms[0] * 1.01
    torch.testing.assert_close(big[0].weight[:4], small[0].weight)
    torch.testing.assert_close(big[2].weight[:, :4], small[2].weight)
    torch.testing.assert_close(big(images), small(images))


def test_model_is_left_a_plain_one():
    model = network()
    keys, modules = list(model.state_dict()), [type(m) for m in model.modules()]
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    attached = attach(half_of(model), model, optimizer)
    step(model, optimizer, attached)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == modules
    assert not list(model.buffers())
    twin = copy.deepcopy(model)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    network().load_state_dict(model.state_dict())


def test_tied_weights_are_pruned_once_and_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = half_of(model, ("0.weight",))
    attached = attach(masks, model, optimizer)
    for _ in range(2):
        model(torch.ones(2, 4)).sum().backward()
        attached.mask_gradients()
        optimizer.step()
    assert model[1].weight is model[0].weight
    assert not model[1].weight[~masks["0.weight"]].any()
    with pytest.raises(PruningError, match=r"no parameter 1\.weight"):
        attach(half_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), ("1.weight",)), model)


def test_masks_that_keep_everything_cost_nothing():
    models = [network(), network()]
    optimizers = [OPTIMIZERS["adamw"](m.parameters()) for m in models]
    ones = half_of(models[0])
    ones = ones.replace({n: torch.ones_like(m) for n, m in ones.items()})
    attached = [attach(ones, models[0], optimizers[0]), attach(Masks({}, {}), models[1], optimizers[1])]
    assert not optimizers[0]._optimizer_step_pre_hooks
    assert not optimizers[0]._optimizer_step_post_hooks
    for model, optimizer, it in zip(models, optimizers, attached, strict=True):
        step(model, optimizer, it)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_detach_stops_enforcing():
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = half_of(model)
    attached = attach(masks, model, optimizer)
    attached.detach()
    attached.detach()  # again is harmless
    assert not model[3].weight[~masks["3.weight"]].any()
    step(model, optimizer, attach(Masks({}, {}), model))
    assert model[3].weight[~masks["3.weight"]].any()


def test_compiled_model_trains_to_the_same_bits():
    ends = []
    for compiled in (False, True):
        model = network()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        masks = half_of(model)
        attached = attach(masks, model, optimizer)
        forward = torch.compile(model, backend="eager") if compiled else model
        for number in range(3):
            step(forward, optimizer, attached, number)
        assert not model[3].weight[~masks["3.weight"]].any()
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_masks_of_another_model_are_refused():
    model = network()
    with pytest.raises(PruningError, match=r"no parameter 9\.weight"):
        attach(Masks({"9.weight": bits("10")}, {"9.weight": "weights"}), model)
    with pytest.raises(PruningError, match=r"parameter 5\.weight has shape \(3, 6\) but its mask \(6, 3\)"):
        attach(Masks({"5.weight": torch.ones(6, 3, dtype=torch.bool)}, {"5.weight": "weights"}), model)


def test_frozen_parameters_are_masked_too():
    model = network()
    model[0].weight.requires_grad_(False)
    masks = half_of(model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    attached = attach(masks, model, optimizer)
    step(model, optimizer, attached)
    assert not model[0].weight[~masks["0.weight"]].any()
