"""CPU kernels of PyTorch that compute wrong numbers on some machines: a way around them, and a check of this machine's kernels.

Both are oneDNN's, in PyTorch 2.14.1, and concern only the gradient of a convolution's weight:

- On CPUs without AVX-512, the gradient of a 1x1 convolution in float32 writes past its workspace (oneDNN's issue 6035) where the
  stride is larger than 1 and divides the image, the memory is channels-last and there are fewer than 8 input channels: gradients
  are wrong, and the process may die or hang.
- On CPUs with AVX-512, the gradient of any larger convolution in bfloat16 leaves entries unwritten where the image is narrower
  than the stride: old memory content becomes the gradient of weights that see only padding.
"""

import copy
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

LANES = 8
"""The number of float32 values in a register of AVX2."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""The largest relative error of a correct kernel, by the precision in which it computes."""
PATIENCE = 60
"""Seconds after which a check counts as hung."""
WRONG = "wrong: "
ATEN = torch.ops.aten.convolution_backward.default
DEFAULT = torch._C.DispatchKeySet(torch._C.DispatchKey.Undefined)
"""The dispatch key of PyTorch's own implementation, independent of what is registered for the CPU."""
_library: torch.library.Library | None = None
_met = False


def guard() -> None:
    """Make every gradient of a convolution in this process avoid the wrong kernels. The dispatcher is the one place that all code
    passes: modules and functions, compiled or not, of any task. It costs a call of Python for every convolution; see
    ``relax``."""
    global _library, _met
    _met = False
    if _library is None and torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64"):
        _library = torch.library.Library("aten", "IMPL")  # in force for as long as this object exists
        _library.impl("convolution_backward", convolution_backward, "CPU")


def relax() -> None:
    """End ``guard`` if no gradient has needed it since it was called: for loops that repeat the same step."""
    global _library
    if not _met:
        _library = None


def _has_avx512() -> bool:
    """Return whether oneDNN may use AVX-512 on this machine, under this environment."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and not re.match("SSE|AVX$|AVX2", isa_limit())


def isa_limit() -> str:
    """Return the instruction set that the environment limits oneDNN to, in capitals; empty where it does not."""
    # the older name is still read
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()


def convolution_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor | None, ...]:
    """Compute PyTorch's operator of this name; where its gradients of weight and bias would be wrong, they are computed in
    contiguous memory or in float32."""
    global _met

    def original(gradient: Tensor, inputs: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
        gradients: tuple[Tensor | None, ...] = ATEN.redispatch(
            DEFAULT, gradient, inputs, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, wanted
        )
        return gradients

    def contiguous(t: Tensor) -> Tensor:
        return t.clone(memory_format=torch.contiguous_format)

    large, small = (gradient, inputs) if transposed else (inputs, gradient)
    around: Callable[[Tensor], Tensor] | None = None
    if max(stride) > 1:
        if weight.dtype == torch.bfloat16 and weight.shape[-1] > 1 and large.shape[-1] < stride[-1]:
            around = Tensor.float
        if (
            weight.dtype == torch.float32
            and weight.shape[2:] == (1, 1)
            and groups == 1
            and large.shape[1] < LANES
            and large.shape[2] == stride[0] * small.shape[2]
            and large.shape[3] == stride[-1] * small.shape[3]
            and not _has_avx512()
        ):
            around = contiguous
    _met = _met or around is not None
    if around is None or not any(wanted[1:]):
        return original(gradient, inputs, weight, wanted)
    for_inputs = original(gradient, inputs, weight, [True, False, False])[0] if wanted[0] else None
    _, for_weight, for_bias = original(around(gradient), around(inputs), around(weight), [False, *wanted[1:]])
    if for_weight is not None:
        for_weight = torch.empty_like(weight).copy_(for_weight)
    return for_inputs, for_weight, None if for_bias is None else for_bias.to(weight.dtype)


def relative_errors(layer: nn.Module, inputs: Tensor, precision: torch.dtype = torch.float32) -> dict[str, float]:
    """Return the largest relative errors, in three passes, of a layer's ``output`` and of the gradients of its ``inputs`` and of
    every parameter, by name, compared with float64: norm of the difference / norm.

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
    passes = [run(layer, inputs) for _ in range(3)]  # memory beyond a buffer differs from pass to pass
    return {name: max(float((found[name] - right).norm() / right.norm()) for found in passes) for name, right in exact.items()}


def wrong_kernels(guarded: bool) -> list[str]:
    """Return the layers whose numbers are wrong on this machine, with or without ``guard``. Looks in a process of its own, since
    a wrong kernel may corrupt its memory or hang."""
    command = [sys.executable, "-m", "bench.training.kernels", *["guarded"] * guarded]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        lines, ended = done.stdout.splitlines(), done.returncode == 0
    except subprocess.TimeoutExpired as late:
        lines, ended = (late.stdout or b"").decode().splitlines(), False
    wrong = [line.removeprefix(WRONG) for line in lines if line.startswith(WRONG)]
    return wrong if ended else [*wrong, f"{lines[-1] if lines else 'all'} (the process died)"]


def _layers() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield the layers of the suite's networks at small and odd sizes: name, layer, inputs. Layers that are known to fail come
    last."""
    for size in (5, 384):
        yield f"linear layer of {size} inputs", nn.Linear(size, 7), torch.randn(64, size)
    for order, memory in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
        for channels in (16, 5, 3):
            images = torch.randn(64, channels, 8, 8).to(memory_format=order)
            about = f"of {channels} input channels in {memory} memory"
            yield f"batch norm {about}", nn.BatchNorm2d(channels), images
            narrow = nn.Conv2d(channels, 16, 3, 2, 1).to(memory_format=order)
            yield f"3x3 convolution of stride 2 of one pixel {about}", narrow, images[:, :, :1, :1]
            for stride, kernel, groups in ((1, 1, 1), (1, 3, 1), (1, 3, channels), (2, 3, channels), (2, 3, 1), (2, 1, 1)):
                name = f"{kernel}x{kernel} {'depthwise ' * (groups > 1)}convolution of stride {stride} {about}"
                width = channels if groups > 1 else 16
                yield name, nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups).to(memory_format=order), images


def _check() -> None:
    """Print every layer before it is checked, and once more if it is wrong."""
    torch.set_num_threads(1)  # with several the wrong kernel may hang
    for name, layer, inputs in _layers():
        for precision, tolerance in TOLERANCES.items():
            print(name, flush=True)
            errors = relative_errors(layer, inputs, precision)
            if wrong := [f"{part} by {error:.1g}" for part, error in errors.items() if not error <= tolerance]:
                print(f"{WRONG}{name}, {precision}: {', '.join(wrong)}".replace("torch.", ""), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["guarded"]:
        guard()
    _check()
