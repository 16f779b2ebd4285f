"""Kernels of convolutions, native and on a CPU that has AVX2 alone: what slim networks are made of is right everywhere.

``python -m tests.bench.training.test_kernels`` prints every wrong convolution of the slim networks of every architecture.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.training import kernels
from tasks import channels
from tasks.cnn_cifar import models
from tasks.cnn_imagenet.task import MODELS

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def networks():
    """One network of every architecture that has channels to cut."""
    from torchvision.models import get_model
    for name in ("resnet8", "resnet20", "resnet18", "vgg11", "mobilenet_v2"):
        yield models.build(name, "projection", (3, 16, 16), 10, 0)
    for name in sorted(set(MODELS.values())):
        yield get_model(name, weights=None, num_classes=5)


def wrong_convolutions() -> list[str]:
    """The convolutions of slim networks, 1 to 7 channels left of every space, that are wrong; each shape is tried once."""
    tried, wrong = set(), []
    for network in networks():
        network = network.to(memory_format=torch.channels_last)
        spaces = channels.spaces(network)
        listed = channels.maskables(network, spaces)
        for left in (3, 5, 7):
            masks = {m.name: torch.arange(m.size) < max(1, left - m.size % 2) for m in listed}
            for layer in channels.slim(network, masks, spaces).modules():
                if isinstance(layer, nn.Conv2d):
                    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.groups)
                    size = max(8, *layer.kernel_size)
                    x = torch.randn(8, layer.in_channels, size, size).contiguous(memory_format=torch.channels_last)
                    w = torch.randn_like(layer.weight)

                    def convolution(x, w, layer=layer):
                        return F.conv2d(x, w, None, layer.stride, layer.padding, layer.dilation, layer.groups)

                    if shape not in tried and kernels.error(convolution, x, w) > kernels.TOLERANCE:
                        wrong.append(str(shape))
                    tried.add(shape)
    assert len(tried) > 20, len(tried)
    return wrong


def printed(module: str, **environment: str) -> list[str]:
    """The JSON that a module prints, run in a process of its own on the CPU that the environment says."""
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("environment", [{}, AVX2], ids=["native", "avx2"])
def test_every_convolution_of_a_slim_network_is_right(environment):
    assert printed("tests.bench.training.test_kernels", **environment) == []


def test_a_strided_convolution_of_few_channels_gives_the_same_numbers_by_striding_first():
    for stride, batched in ((2, True), ((2, 1), True), ((1, 2), False), (3, True)):
        x = torch.randn(*([4] if batched else []), 5, 9, 8, dtype=torch.float64)
        w, b = torch.randn(6, 5, 1, 1, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
        torch.testing.assert_close(kernels.conv2d(x, w, b, stride), kernels._convolution(x, w, b, stride))
    for padding in (0, (0, 0), "valid"):
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        w = torch.randn(4, 3, 1, 1, dtype=torch.float64)
        torch.testing.assert_close(kernels.conv2d(x, w, None, 2, padding), kernels._convolution(x, w, None, 2, padding))


@pytest.mark.parametrize(("inputs", "size", "groups", "padding"), [(1, 1, 1, 0), (8, 1, 1, 0), (4, 3, 1, 1), (4, 1, 2, 0),
                                                                   (4, 1, 1, 1)])
def test_any_other_convolution_takes_its_own_kernel_to_the_bit(inputs, size, groups, padding, monkeypatch):
    x, w = torch.randn(2, inputs, 8, 8), torch.randn(4, inputs // groups, size, size)
    seen = []
    monkeypatch.setattr(kernels, "_convolution", lambda *given: seen.append(given))
    kernels.conv2d(x, w, None, 2, padding, 1, groups)
    assert seen[0][0] is x
    assert seen[0][3] == 2


@pytest.mark.parametrize(("machine", "capability", "capped", "expected"), [
    ("x86_64", "AVX2", None, True), ("AMD64", "DEFAULT", None, True), ("x86_64", "AVX512", None, False),
    ("x86_64", "AVX512", "AVX2", True), ("x86_64", "AVX512", "avx512_core_bf16", False), ("arm64", "DEFAULT", None, False)])
def test_machines_without_avx512_are_affected(machine, capability, capped, expected, monkeypatch):
    monkeypatch.setattr(kernels.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    if capped:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", capped)
    else:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert kernels.affected() == expected


def test_a_wrong_kernel_is_found_and_a_dead_check_is_named(monkeypatch):
    assert kernels.error(F.linear, torch.randn(3, 4), torch.randn(2, 4)) < kernels.TOLERANCE
    assert kernels.error(lambda x: x.float().add(0.1).to(x.dtype) if x.dtype == torch.float32 else x, torch.ones(3)) > 0.05
    monkeypatch.setattr(kernels.sys, "executable", "/bin/false")
    assert kernels.wrong_kernels() == ["the check itself ended with exit code 1"]


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps(wrong_convolutions()), flush=True)
    os._exit(0)
