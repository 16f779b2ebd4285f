"""What hardware gives for half of the channels: ResNet-20 against the same network with half of its widths, in plain PyTorch.

    python tests/benchmarks/half_width.py

Prints medians of the ratios of seconds on one core, interleaved, and in brackets their share of the saving of multiply-adds: the
bound for a ticket with half of its channels. No code of this project takes part. It takes three minutes and the extra [onnx].
"""

import copy
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

SECONDS, FEWEST, MOST = 6, 7, 60
"""To spend on each pair, and its rounds."""

Run = Callable[[Tensor], object]


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        same = stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def resnet20(width: int) -> nn.Module:
    """Three stages of three blocks, for images of 32 x 32."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(3):
        for block in range(3):
            outputs = width * 2**stage
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100)]
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)


def macs(network: nn.Module) -> int:
    """Multiply-adds of the convolutions for one image."""
    counts: list[int] = []
    hooks = [
        conv.register_forward_hook(lambda conv, inputs, output: counts.append(output[0].numel() * conv.weight[0].numel()))
        for conv in network.modules()
        if isinstance(conv, nn.Conv2d)
    ]
    network(torch.ones(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def onnx(network: nn.Module, folder: str) -> Run:
    """The network in ONNX Runtime."""
    path = str(Path(folder) / f"{id(network)}.onnx")
    torch.onnx.export(
        network, (torch.randn(2, 3, 32, 32),), path, dynamo=True, verbose=False, external_data=False, dynamic_shapes=({0: "n"},)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.contiguous().numpy()})


def compiled(network: nn.Module) -> Run:
    """The network as `bench speed` compiles it."""
    run: Run = torch.compile(copy.deepcopy(network), dynamic=False, options={"freezing": True})
    return run


def ratio(whole: Run, half: Run, x: Tensor) -> float:
    """How many times faster the half is."""
    for run in (whole, half, whole, half):
        run(x)
    ratios: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(ratios) < FEWEST or (time.perf_counter() < end and len(ratios) < MOST):
        began = time.process_time()
        whole(x)
        between = time.process_time()
        half(x)
        ratios.append((between - began) / (time.process_time() - between))
    return statistics.median(ratios)


@torch.no_grad()
def main() -> None:
    """Both pairs of widths, at several batches."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        for width, batches in ((16, (1, 8, 32, 128, 512)), (64, (1, 8))):
            whole, half = resnet20(width), resnet20(width // 2)
            saving = macs(whole) / macs(half)
            forms: dict[str, tuple[Run, Run]] = {
                "eager": (whole, half),
                "eager with folded norms": (fuse(whole), fuse(half)),
                "compiled": (compiled(whole), compiled(half)),
                "ONNX Runtime": (onnx(whole, folder), onnx(half, folder)),
            }
            for size in batches:
                x = torch.randn(size, 3, 32, 32).to(memory_format=torch.channels_last)
                found = {name: ratio(*pair, x) for name, pair in forms.items()}
                shown = ", ".join(f"{name} {value:.2f} ({value / saving:.2f})" for name, value in found.items())
                print(f"widths from {width} and {width // 2}, batch {size}: fewer MACs {saving:.2f}; {shown}", flush=True)


if __name__ == "__main__":
    main()
