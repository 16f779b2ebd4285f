"""A few training examples of each class, for scores that look at the data before any training."""

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.seeds import seed_for


def pick(labels: Tensor, classes: int, per_class: int, seed: int, balanced: bool) -> Tensor:
    """Return indices (per_class * classes,) into ``labels`` (n,), drawn from ``seed`` in shuffled order: ``per_class`` of each
    class or, if not ``balanced``, of any class. BenchError where there are too few."""
    if per_class < 1:
        raise BenchError(f"per_class is {per_class}: a score needs at least one example of each class")
    generator = torch.Generator().manual_seed(seed_for(seed, "examples"))
    order = torch.randperm(len(labels), generator=generator)
    if not balanced:
        if per_class * classes > len(labels):
            raise BenchError(
                f"per_class is {per_class}, {per_class * classes} examples in all, but there are only "
                f"{len(labels)} training examples"
            )
        return order[: per_class * classes]
    counts = torch.bincount(labels, minlength=classes)
    if int(counts.min()) < per_class:
        raise BenchError(
            f"per_class is {per_class}, but class {int(counts.argmin())} has only {int(counts.min())} training "
            "examples: ask for fewer, or balanced=false"
        )
    chosen = torch.cat([order[labels[order] == label][:per_class] for label in range(classes)])
    return chosen[torch.randperm(len(chosen), generator=generator)]
