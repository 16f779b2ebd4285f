"""Measured speed: the same work on two networks in turn, so that other load on the machine slows both alike."""

import itertools
import statistics
import time

import torch
from torch import nn

from bench.task import Batch, Task
from bench.training import kernels


def speedups(task: Task, whole: nn.Module, slim: nn.Module, seed: int, repeats: int = 9) -> tuple[float, float]:
    """Return how many times faster ``slim`` is than ``whole`` at inference (a forward pass) and at training (forward, backward
    and an optimizer step), on the same batches of training data: medians of the ratios of ``repeats`` pairs, after one to warm
    up."""
    kernels.guard()
    networks = [(model, task.optimizer(model, repeats + 1)[0]) for model in (whole, slim)]
    epochs = (task.batches("train", epoch, seed) for epoch in itertools.count())  # some trainings have only one step
    ratios = []
    try:
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), repeats + 1):
            (forward, step), (slim_forward, slim_step) = (_seconds(task, *network, batch) for network in networks)
            ratios.append((forward / slim_forward, step / slim_step))
            kernels.relax()
    finally:
        kernels.guard()
    inference, training = zip(*ratios[1:], strict=True)
    return statistics.median(inference), statistics.median(training)


def bf16(device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Return how many times faster a forward and backward pass is under bf16 autocast than in fp32, for a layer of each kind at
    the size of desk protocols: medians of the ratios of ``repeats`` pairs after one to warm up. Below 1 where bf16 is emulated.
    """
    conv, images = nn.Conv2d(32, 32, 3, padding=1), torch.randn(128, 32, 8, 8).to(memory_format=torch.channels_last)
    layers = {
        "linear layers": (nn.Linear(384, 1536), torch.randn(32, 32, 384)),
        "convolutions": (conv.to(memory_format=torch.channels_last), images),
    }

    def seconds(layer: nn.Module, inputs: torch.Tensor, enabled: bool) -> float:
        began = now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            layer(inputs.requires_grad_()).sum().backward()
        return now(device) - began

    found = {}
    for kind, (layer, inputs) in layers.items():
        layer, inputs = layer.to(device), inputs.to(device)
        ratios = [seconds(layer, inputs, False) / seconds(layer, inputs, True) for _ in range(repeats + 1)]
        found[kind] = statistics.median(ratios[1:])
    return found


def _seconds(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, float]:
    """Return the seconds of one inference and of one training step."""
    model.eval()
    began = now(task.device)
    with torch.no_grad():
        task.loss(model, batch)
    inferred = now(task.device)
    model.train()
    task.loss(model, batch).backward()
    optimizer.step()
    optimizer.zero_grad()
    return inferred - began, now(task.device) - inferred


def now(device: torch.device) -> float:
    """Return the time after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
