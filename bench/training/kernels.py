"""Kernels of PyTorch that are wrong on some machines, and the one place that goes around them.

PyTorch 2.14.1 with oneDNN 3.12, on x86 CPUs without AVX-512: the weight gradient of a float32 1x1 convolution with a stride, on
channels-last memory and 2 to 7 input channels, is wrong and corrupts the heap. Networks that lost channels have such layers.
``python -m bench.training.kernels`` checks the kernels of this machine against float64 and prints the wrong ones as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WRONG_INPUTS = range(2, 8)
"""Numbers of input channels, fewer than a vector of AVX2 holds, for which the kernel is wrong."""
ISA_WITH_AVX512 = ("AVX512", "AVX10", "DEFAULT", "ALL")
"""How the values of ONEDNN_MAX_CPU_ISA begin that let oneDNN use AVX-512 where the CPU has it."""
TOLERANCE = 1e-4
"""Largest relative error of a float32 kernel that counts as rounding."""

_convolution = F.conv2d


def affected() -> bool:
    """Return whether oneDNN runs here without AVX-512, and so with the wrong kernel."""
    capped = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    with_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512" and capped.upper().startswith(ISA_WITH_AVX512)
    return platform.machine().lower() in ("x86_64", "amd64") and not with_avx512


def avoid() -> None:
    """Have every convolution of this process avoid the wrong kernel. Does nothing on a machine that is not affected."""
    if affected():
        F.conv2d = conv2d


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """Return what ``torch.nn.functional.conv2d`` does. A strided 1x1 convolution of few channels takes its pixels first and then
    has no stride: the same numbers by another kernel."""
    strides = tuple(stride) if isinstance(stride, (tuple, list)) else (stride, stride)
    if isinstance(input, Tensor) and strides != (1, 1) and groups == 1 and padding in (0, (0, 0), [0, 0], (0,), "valid") \
            and tuple(weight.shape[2:]) == (1, 1) and weight.shape[1] in WRONG_INPUTS:
        input, stride = input[..., :: strides[0], :: strides[-1]], 1
    return _convolution(input, weight, bias, stride, padding, dilation, groups)


def error(function: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Return the largest relative error, against float64, of a function's value and its gradients by all inputs."""
    def computed(*tensors: Tensor) -> list[Tensor]:
        leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
        value = function(*leaves)
        generator = torch.Generator().manual_seed(1)
        value.backward(torch.randn(value.shape, generator=generator).to(value.dtype))
        return [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    worst = 0.0
    for ours, exact in zip(computed(*inputs), computed(*(t.double() for t in inputs)), strict=True):
        wrong = (ours.double() - exact).norm().item() / max(exact.norm().item(), 1e-30)
        worst = max(worst, wrong if wrong == wrong else float("inf"))
    return worst


def kernels() -> Iterator[tuple[str, Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Yield the operations that tickets make odd-sized: a name, the function and float32 inputs."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        tensor = torch.randn(shape, generator=draw)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    for size, stride, padding in ((1, 2, 0), (1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 2, 2)):
        for channels in (1, 2, 3, 5, 6, 7, 9, 17):
            yield (f"{size}x{size} convolution of stride {stride} with {channels} input channels",
                   lambda x, w, s=stride, p=padding: F.conv2d(x, w, None, s, p), (normal(8, channels, 8, 8),
                                                                                 normal(16, channels, size, size)))
    for channels in (1, 3, 6, 7, 17):
        yield (f"depthwise convolution of {channels} channels", lambda x, w, c=channels: F.conv2d(x, w, None, 2, 1, 1, c),
               (normal(8, channels, 8, 8), normal(channels, 1, 3, 3)))
        yield (f"batch norm of {channels} channels", lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
               (normal(8, channels, 8, 8), normal(channels), normal(channels)))
        yield f"linear layer with {channels} inputs", F.linear, (normal(33, channels), normal(5, channels), normal(5))
        yield (f"sparse product with {channels} columns", lambda x, n=channels: torch.sparse.mm(_adjacency(x.dtype), x),
               (normal(9, channels),))


def _adjacency(dtype: torch.dtype) -> Tensor:
    return torch.eye(9, dtype=dtype).roll(1, 0).add(torch.eye(9, dtype=dtype)).to_sparse_csr()


def wrong_kernels() -> list[str]:
    """Return the names of the kernels of this machine that are wrong, checked in a process that may die of them."""
    done = subprocess.run([sys.executable, "-m", "bench.training.kernels"], capture_output=True, text=True, check=False)
    try:
        return list(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return [f"the check itself ended with exit code {done.returncode}"]


if __name__ == "__main__":
    print(json.dumps([name for name, function, inputs in kernels() if error(function, *inputs) > TOLERANCE]), flush=True)
    os._exit(0)  # a corrupt heap might not survive an orderly end
