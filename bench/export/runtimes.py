"""How a network is run, here and in other runtimes, and what every exporter needs."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bench.task.capabilities import Call

Runner = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
"""From the inputs of a ``Call`` to its outputs."""


def module_runner(module: Callable[..., Any]) -> Runner:
    """Return what runs a module of PyTorch."""

    @torch.no_grad()
    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        output = module(*inputs)
        return (output,) if torch.is_tensor(output) else tuple(output)

    return run


def examples(call: Call) -> tuple[Tensor, ...]:
    """Return the inputs, two rows at least along every free axis: of one row an exporter concludes that there is always one."""
    found = []
    for name, tensor in call.inputs.items():
        for axis in call.free.get(name, {}):
            tensor = tensor.repeat_interleave(2, axis) if tensor.shape[axis] == 1 else tensor
        found.append(tensor)
    return tuple(found)


def free_sizes(call: Call, size_of: Callable[[str], Any]) -> tuple[dict[int, Any], ...]:
    """Return axis -> free size for every input as exporters take them; ``size_of`` makes one of its name."""
    sizes = {name: size_of(name) for axes in call.free.values() for name in axes.values()}
    return tuple({axis: sizes[name] for axis, name in call.free.get(given, {}).items()} for given in call.inputs)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the context exporters say nothing of themselves, which is of no use to who exports."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
