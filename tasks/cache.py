"""Results that take long to compute, cached on this machine as sealed safetensors files."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from filelock import FileLock
from torch import Tensor

from bench.storage.files import cache as home
from bench.task import BenchError, Damaged, read_tensors, write_tensors

Content = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and facts about them that JSON can hold."""


def kept(name: str, make: Callable[[], Content]) -> Content:
    """Return the result of ``make``, computed once: read from the file ``name``, or computed where that is missing or damaged.
    ``name`` must change with everything that changes the content. The facts gain ``sha256``, the tensors' ``digest``. BenchError
    where the folder cannot be written."""
    path = home() / f"{name}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            try:
                tensors, info = read_tensors(path)
                return tensors, {key: json.loads(text) for key, text in info.items()}
            except (FileNotFoundError, Damaged):
                tensors, facts = make()
                facts |= {"sha256": digest(tensors)}
                write_tensors(path, tensors, {key: json.dumps(value) for key, value in facts.items()})
                return tensors, facts
    except OSError as error:
        raise BenchError(
            f"cannot keep {path} ({error.strerror or error}): set BENCH_CACHE to a folder that can be written, with space left"
        ) from None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, shapes, types and content."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(json.dumps([name, list(tensors[name].shape), str(tensors[name].dtype)]).encode())
        sha.update(tensors[name].contiguous().numpy())
    return sha.hexdigest()
