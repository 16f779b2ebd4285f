"""One training over several processes, started by ``torchrun`` or ``accelerate launch``: each takes its shard of every batch.

Every process runs the same command, makes the same random draws except those of dropout, and comes to the same masks, which is
checked. Rank 0 decides what is in the store and in the runs; it alone writes and prints. All processes must see one file system.
"""

import os
import sys
import time
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed
from torch import Tensor, nn

from bench.errors import BenchError
from bench.launcher import first, launched, local

__all__ = ["first", "launched", "local"]  # imported from here by the code that trains
LONGEST_WAIT = timedelta(days=1)
"""Collective timeout. The launcher notices a process that ended; until then another one may be waiting for a lock."""
PATIENCE = 1.0, 5.0
"""Seconds before rank 0, and before any other rank, reports a failure: others wait so that secondary failures are not printed."""


def join(device: str) -> None:
    """Find the other processes. ``device`` is that of the configuration; each process takes a GPU of its own."""
    from accelerate import PartialState

    PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def processes() -> int:
    """Return how many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among those that train together."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def share() -> dict[str, tuple[int, int]]:
    """Return the argument ``share`` for ``batches`` of a shardable task: (this process, number of processes); empty for a lone
    process."""
    return {"share": (rank(), processes())} if processes() > 1 else {}


def parallel(model: nn.Module) -> nn.Module:
    """Return the model as the loop calls it, until ``undo_parallel``: gradients are averaged over the processes, and batch norm
    covers the whole batch."""
    if processes() == 1:
        return model
    _turn(model, nn.BatchNorm2d, SharedNorm)
    return nn.parallel.DistributedDataParallel(model)


def undo_parallel(model: nn.Module) -> None:
    """Turn the model back into what it was before ``parallel``."""
    _turn(model, SharedNorm, nn.BatchNorm2d)


class SharedNorm(nn.BatchNorm2d):
    """Batch norm whose statistics cover the shards of all processes, which are equally large. PyTorch has none for CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        var, mean = torch.var_mean(x.to(wide), (0, 2, 3), correction=0)
        mean, var = mean.double(), var.double()  # or the difference of squares would lose digits
        mean, square = _Mean.apply(torch.stack([mean, var + mean**2])).unbind()
        var = square - mean**2
        count = processes() * x.numel() // x.shape[1]
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var), self.momentum)
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias
        scale, shift = (t.to(wide)[:, None, None] for t in (scale, shift))
        return (x * scale + shift).to(x.dtype)


class _Mean(torch.autograd.Function):
    """The function ``all_reduce_mean`` as one through which gradients flow, those of the other processes' losses too."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return all_reduce_mean(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return all_reduce_mean(gradient)


def _turn(model: nn.Module, one: type, other: type) -> None:
    """Change the class of a module in place, so that parameters, hooks and copies are unaffected."""
    for module in model.modules():
        if type(module) is one:
            module.__class__ = other


def all_reduce_mean(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes."""
    if processes() > 1:
        value = value / processes()
        torch.distributed.all_reduce(value)
    return value


def all_reduce_sum(*values: float) -> list[float]:
    """Return sums over all processes."""
    return list(values) if processes() == 1 else [sum(column) for column in zip(*_gathered(values), strict=True)]


def broadcast(value: Any) -> Any:
    """Return rank 0's value, so that ranks agree even if a file appears between their checks."""
    return _gathered(value)[0]


def agree(what: str, value: str) -> None:
    """Raise an error unless all processes have the same value."""
    found = _gathered(value)
    if len(set(found)) > 1:
        raise BenchError(
            f"the processes of this training differ in {what}: {', '.join(v[:12] for v in found)}; they must see "
            "the same data and run the same versions"
        )


def _gathered(value: Any) -> list[Any]:
    """Return the value of every process, in the order of their ranks."""
    found = [value] * processes()
    if len(found) > 1:
        torch.distributed.all_gather_object(found, value)
    return found


def wait() -> None:
    """Wait until all processes are here."""
    if processes() > 1:
        torch.distributed.barrier()


def fail(message: str) -> NoReturn:
    """End this process and, through the launcher, the others, which may be waiting for it; report the reason once."""
    time.sleep(PATIENCE[not first()])
    print(f"bench: {message}", file=sys.__stderr__, flush=True)
    os._exit(1)  # a normal exit would wait for the others
