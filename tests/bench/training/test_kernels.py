"""No layer of any network of the suite, whole or cut to odd widths, may meet a kernel of PyTorch that computes wrong numbers.

Everything here also runs as on a CPU without AVX-512, in a process of its own: what a wrong kernel leaves behind kills others.
"""

import itertools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bench.task  # noqa: F401  (what puts the guard in force)
from bench.training import kernels
from tasks import channels
from tasks.cnn_cifar import models
from tasks.cnn_imagenet.task import MODELS
from tests.conftest import toy_lab

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
NETWORKS = [
    *((name, 16 if name in models.VGGS or name == "mobilenet_v2" else 8) for name in models.MODELS),
    *((f"imagenet {name}", 64) for name in MODELS),
]
"""Name and side of the images."""
last = torch.channels_last


def build(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("imagenet"):
        from torchvision.models import get_model

        return get_model(MODELS[name.removeprefix("imagenet ")], weights=None, num_classes=10)
    return models.build(name, "projection", (3, size, size), 10, 0)


def narrowed(model: nn.Module) -> nn.Module:
    """The network cut to 1 to 9 channels, other numbers in every space of channels."""
    found, masks, widths, modules = channels.spaces(model), {}, {}, dict(model.named_modules())
    cycle = itertools.cycle((5, 3, 7, 2, 9, 1, 6))
    for norm, space in found.norms.items():
        if space != channels.WHOLE:
            widths.setdefault(space, next(cycle))
            mask = torch.arange(modules[norm].num_features) < widths[space]
            masks |= {f"{norm}.weight": mask, f"{norm}.bias": mask}
    return channels.slim(model, masks, found)


def layers(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Every different layer and the shape of what it is given."""
    met = {}

    def meet(layer: nn.Module, given: tuple[torch.Tensor]) -> None:
        met.setdefault(f"{layer} of {tuple(given[0].shape)}", (layer, given[0].shape))

    hooks = [
        module.register_forward_pre_hook(meet)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    return met


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_every_layer_of_a_slim_network_computes_what_it_does_in_float64(name, size):
    model = narrowed(build(name, size)).to(memory_format=last)
    met = layers(model, torch.randn(2, 3, size, size).contiguous(memory_format=last))
    assert met
    for about, (layer, shape) in met.items():
        inputs = torch.randn(8, *shape[1:])
        inputs = inputs.contiguous(memory_format=last) if inputs.dim() == 4 else inputs
        errors = kernels.relative_errors(layer.train(), inputs)
        assert max(errors.values()) < 1e-4, (about, errors)


def convolution(width: int, stride: tuple[int, int], order: torch.memory_format, transposed: bool = False) -> tuple:
    """What the operator is called with for a 1x1 convolution of images of 12 x 12 pixels."""
    torch.manual_seed(width)
    large = torch.randn(8, width, 12, 12).to(memory_format=order)
    small = torch.randn(8, 9, 12 // stride[0], 12 // stride[1]).to(memory_format=order)
    weight = torch.randn(9, width, 1, 1).to(memory_format=order)
    gradient, inputs, bias = (large, small, width) if transposed else (small, large, 9)
    return (
        gradient,
        inputs,
        weight,
        [bias],
        list(stride),
        [0, 0],
        [1, 1],
        transposed,
        [s - 1 for s in stride] if transposed else [0, 0],
        1,
    )


WANTED = [True, True, True]


@pytest.mark.parametrize("order", [torch.contiguous_format, last])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("stride", [(2, 2), (3, 3), (2, 1), (1, 2)])
def test_the_way_around_gives_the_same_gradients(stride, transposed, order):
    for width in range(1, 10):
        what = convolution(width, stride, order, transposed)
        exact = kernels.convolution_backward(*(t.double() for t in what[:3]), *what[3:], WANTED)
        for wanted in itertools.product((True, False), repeat=3):
            found = kernels.convolution_backward(*what, list(wanted))
            for asked, one, right in zip(wanted, found, exact, strict=True):
                assert not asked or one is not None
                assert one is None or (one - right).norm() < 1e-5 * right.norm()
        assert kernels.convolution_backward(*what, WANTED)[1].stride() == what[2].stride()


@pytest.mark.parametrize(
    "what",
    [
        convolution(16, (2, 2), last),
        convolution(5, (1, 1), last),
        convolution(5, (2, 2), torch.contiguous_format),
        convolution(5, (2, 2), torch.contiguous_format, True),
        [t.bfloat16() for t in convolution(5, (2, 2), last)[:3]] + list(convolution(5, (2, 2), last)[3:]),
    ],
    ids=["wide", "stride 1", "contiguous", "contiguous transposed", "bfloat16"],
)
def test_where_the_kernel_is_right_no_bit_moves(what):
    original = kernels.ATEN.redispatch(kernels.DEFAULT, *what, WANTED)
    assert all(map(torch.equal, kernels.convolution_backward(*what, WANTED), original))


def narrow(width: int, kernel: int, stride: int) -> tuple[nn.Module, torch.Tensor]:
    """A convolution of images of 3 x ``width`` pixels, and the images."""
    torch.manual_seed(0)
    return nn.Conv2d(16, 16, kernel, stride, kernel // 2), torch.randn(8, 16, 3, width)


@pytest.mark.parametrize("order", [torch.contiguous_format, last])
@pytest.mark.parametrize(("width", "kernel", "stride"), [(1, 3, 2), (1, 3, 3), (2, 3, 3), (1, 5, 2), (2, 3, 2)])
def test_weights_that_meet_only_padding_have_no_gradient(width, kernel, stride, order):
    layer, images = narrow(width, kernel, stride)
    layer.to(memory_format=order)
    for _ in range(5):
        errors = kernels.relative_errors(layer, images.contiguous(memory_format=order), torch.bfloat16)
        assert max(errors.values()) < 2e-2, errors


def in_force() -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key("aten::convolution_backward", "CPU")


def test_only_loops_that_never_need_the_guard_run_without_it(tmp_path):
    if not in_force():
        pytest.skip("this machine has other kernels")
    kernels.guard()
    for width, needed in ((2, False), (1, True)):
        layer, images = narrow(width, 3, 2)
        kernels.relative_errors(layer, images, torch.bfloat16)
        kernels.relax()
        assert in_force() == needed
        kernels.guard()
        assert in_force()
    lab, found = toy_lab(tmp_path), []
    loss = lab.task.loss
    lab.task.loss = lambda model, batch: found.append(in_force()) or loss(model, batch)
    lab.train(lab.start("init"), lab.ones())
    assert found[0]
    assert not any(found[1:])
    assert in_force()


class Projection(nn.Module):
    """A user's own network: no module of torch's but functions."""

    def __init__(self):
        super().__init__()
        self.weight, self.back = nn.Parameter(torch.randn(8, 3, 1, 1)), nn.Parameter(torch.randn(8, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.weight.contiguous(memory_format=last), stride=2)
        return F.conv_transpose2d(x, self.back, stride=2, output_padding=1)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_users_functions_are_guarded_too(compiled):
    torch.manual_seed(0)
    model = Projection()
    inputs = torch.randn(32, 3, 16, 16).contiguous(memory_format=last)
    errors = kernels.relative_errors(torch.compile(model, backend="aot_eager") if compiled else model, inputs)
    assert max(errors.values()) < 1e-4, errors


def test_gradients_of_gradients_are_guarded_too():
    def curvature(dtype: torch.dtype) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Conv2d(5, 4, 1, 2).to(dtype, memory_format=last)
        images = torch.randn(16, 5, 8, 8).to(dtype, memory_format=last)
        (gradient,) = torch.autograd.grad(model(images).square().mean(), model.weight, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), model.weight)[0]

    torch.testing.assert_close(curvature(torch.float32), curvature(torch.float64).float())


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_either_name_of_the_limit_counts(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)
    assert kernels._has_avx512()
    monkeypatch.setenv(name, "avx2")
    assert not kernels._has_avx512()


once = pytest.mark.skipif("ONEDNN_MAX_CPU_ISA" in os.environ, reason="this process is already limited to AVX2")


@once
def test_all_of_this_holds_on_a_cpu_without_avx512():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        env={**os.environ, **AVX2},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@once
@pytest.mark.parametrize("limits", [{}, AVX2], ids=["this machine", "without AVX-512"])
def test_the_check_of_this_machine_finds_nothing_that_the_guard_does_not_mend(limits, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    assert kernels.wrong_kernels(guarded=True) == []


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("echo one; echo wrong: one", ["one"]),
        ("echo one; kill -SEGV $$", ["one (the process died)"]),
        ("echo one; sleep 9", ["one (the process died)"]),
        ("exit 1", ["all (the process died)"]),
        ("echo one", []),
    ],
)
def test_a_kernel_that_kills_or_hangs_its_process_is_told(tmp_path, monkeypatch, script, wrong):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(kernels, "PATIENCE", 1)
    assert kernels.wrong_kernels(guarded=False) == wrong
