"""CPU kernels of PyTorch that compute wrong numbers on some machines: the way around them, and a check of those that are here.

oneDNN's AVX2 kernel for the weight gradient of a 1x1 convolution writes past its workspace (its issue 6035; it is in PyTorch
2.14.1) where the stride is larger than 1 and divides the image, the memory is channels-last, the numbers are float32 and there
are fewer than 8 input channels: gradients are wrong, the process may die or hang. CPUs with AVX-512 use another kernel.
"""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

LANES = 8
"""Float32 numbers in a register of AVX2."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest relative error of a right kernel that computes in this precision."""
PATIENCE = 60
"""Seconds after which a check counts as hung."""
WRONG = "wrong: "
ATEN = torch.ops.aten.convolution_backward.default
DEFAULT = torch._C.DispatchKeySet(torch._C.DispatchKey.Undefined)
"""Leads to PyTorch's own implementation, whatever is registered for the CPU."""


def is_affected() -> bool:
    """Return whether oneDNN may choose the AVX2 kernel on this machine, under this environment."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return (torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
            and (torch.backends.cpu.get_cpu_capability() != "AVX512" or limit.startswith("AVX2")))


@cache
def guard() -> torch.library.Library | None:
    """Have every gradient of a convolution in this process go around the wrong kernel; does nothing on machines without it.

    The dispatcher is the one place that all code passes: modules and functions, compiled or not, of any task.
    """
    if not is_affected():
        return None
    library = torch.library.Library("aten", "IMPL")  # in force as long as it lives
    library.impl("convolution_backward", convolution_backward, "CPU")
    return library


def convolution_backward(gradient: Tensor, inputs: Tensor, weight: Tensor, bias_sizes: list[int] | None, stride: list[int],
                         padding: list[int], dilation: list[int], transposed: bool, output_padding: list[int], groups: int,
                         wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """PyTorch's operator of this name; the gradients of weight and bias are computed in contiguous memory, whose kernel is right,
    where that in channels-last memory is wrong."""
    def original(gradient: Tensor, inputs: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
        return ATEN.redispatch(DEFAULT, gradient, inputs, weight, bias_sizes, stride, padding, dilation, transposed,
                               output_padding, groups, wanted)

    large, small = (gradient, inputs) if transposed else (inputs, gradient)
    if not (max(stride) > 1 and weight.shape[2:] == (1, 1) and groups == 1 and large.shape[1] < LANES and any(wanted[1:])
            and weight.dtype == torch.float32 and large.shape[2] == stride[0] * small.shape[2]
            and large.shape[3] == stride[-1] * small.shape[3]):
        return original(gradient, inputs, weight, wanted)
    for_inputs = original(gradient, inputs, weight, [True, False, False])[0] if wanted[0] else None
    contiguous = (t.clone(memory_format=torch.contiguous_format) for t in (gradient, inputs, weight))
    _, for_weight, for_bias = original(*contiguous, [False, *wanted[1:]])
    if for_weight is not None:
        for_weight = torch.empty_like(weight).copy_(for_weight)
    return for_inputs, for_weight, for_bias


def relative_errors(layer: nn.Module, inputs: Tensor, precision: torch.dtype = torch.float32) -> dict[str, float]:
    """Return the largest relative errors, in three passes, of a layer's ``output`` and of the gradients of its ``inputs`` and of
    every parameter, by name, beside float64: norm of the difference / norm.

    inputs     (B, ...) float32 in any memory order
    precision  bfloat16: under autocast
    """
    def run(layer: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        inputs = inputs.detach().requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            output = layer(inputs)
        weights = torch.linspace(-1, 2, output.numel()).cos().reshape(output.shape)  # of every output in the loss
        output.backward(weights.to(output))
        return {"output": output.detach(), "inputs": inputs.grad} | {name: p.grad for name, p in layer.named_parameters()}

    exact = run(copy.deepcopy(layer).double(), inputs.double())
    passes = [run(layer, inputs) for _ in range(3)]  # what lies beyond a buffer differs from pass to pass
    return {name: max(float((found[name] - right).norm() / right.norm()) for found in passes) for name, right in exact.items()}


def wrong_kernels(guarded: bool) -> list[str]:
    """Return the layers whose numbers are wrong on this machine, with or without ``guard``. Looks in a process of its own, since
    a wrong kernel may corrupt its memory or hang."""
    try:
        done = subprocess.run([sys.executable, "-m", "bench.training.kernels", *["guarded"] * guarded], capture_output=True,
                              text=True, timeout=PATIENCE, check=False)
        lines, ended = done.stdout.splitlines(), done.returncode == 0
    except subprocess.TimeoutExpired as late:
        lines, ended = (late.stdout or b"").decode().splitlines(), False
    wrong = [line.removeprefix(WRONG) for line in lines if line.startswith(WRONG)]
    return wrong if ended else [*wrong, f"{lines[-1] if lines else 'all'} (the process died)"]


def _layers() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """The layers of the suite's networks at small and odd sizes: name, layer, inputs. What is known to be wrong comes last."""
    for size in (5, 384):
        yield f"linear layer of {size} inputs", nn.Linear(size, 7), torch.randn(64, size)
    for order, memory in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
        for channels in (16, 5, 3):
            images = torch.randn(64, channels, 8, 8).to(memory_format=order)
            about = f"of {channels} input channels in {memory} memory"
            yield f"batch norm {about}", nn.BatchNorm2d(channels), images
            for stride, kernel, groups in ((1, 1, 1), (1, 3, 1), (1, 3, channels), (2, 3, channels), (2, 3, 1), (2, 1, 1)):
                name = f"{kernel}x{kernel} {'depthwise ' * (groups > 1)}convolution of stride {stride} {about}"
                width = channels if groups > 1 else 16
                yield name, nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups).to(memory_format=order), images


def _check() -> None:
    """Print every layer before it is looked at, and once more where it is wrong."""
    torch.set_num_threads(1)  # with several the wrong kernel may hang
    for name, layer, inputs in _layers():
        for precision, tolerance in TOLERANCES.items():
            print(name, flush=True)
            wrong = [f"{part} by {error:.1g}" for part, error in relative_errors(layer, inputs, precision).items()
                     if not error <= tolerance]
            if wrong:
                print(f"{WRONG}{name}, {precision}: {', '.join(wrong)}".replace("torch.", ""), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["guarded"]:
        guard()
    _check()
