"""Tensors within tuples, lists and dicts: what a network takes and gives, a batch, or a whole split."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError


def each(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return the same with every tensor changed."""
    if torch.is_tensor(value):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each(one, change) for key, one in value.items()}
    return tuple(each(one, change) for one in value) if isinstance(value, (tuple, list)) else value


def at(value: Any, index: Tensor) -> Any:
    """Return the entries of every tensor that ``index`` names."""
    return each(value, lambda tensor: tensor[index.to(tensor.device)])


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors(one)


def length(value: Any) -> int:
    """Return how many examples there are: entries of the first tensor. BenchError where it has none."""
    first = next(tensors(value), None)
    if first is None or not first.ndim:
        raise BenchError(f"data must be tensors with one entry for each example, and {value!r:.60} is none")
    return len(first)


def joined(parts: list[Any]) -> Any:
    """Return outputs or targets of several batches as one; of objects such as transformers' outputs, every tensor."""
    first = parts[0]
    if torch.is_tensor(first):
        return torch.cat(parts)
    if isinstance(first, Mapping):
        entries = {key: joined([part[key] for part in parts]) for key in first if any(True for _ in tensors(first[key]))}
        return type(first)(**entries)
    return type(first)(joined(list(column)) for column in zip(*parts, strict=True)) if isinstance(first, (tuple, list)) else first
