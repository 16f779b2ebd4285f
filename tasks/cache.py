"""What takes long to make and can be made again, kept on this machine as safetensors files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.task import BenchError

Content = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and facts about them that JSON can hold."""


def home() -> Path:
    """The folder it is kept in: $BENCH_CACHE, or one in the user's cache."""
    return Path(os.environ.get("BENCH_CACHE") or "~/.cache/ticket-bench").expanduser()


def kept(name: str, make: Callable[[], Content]) -> Content:
    """What ``make`` returns, made once: read from the file ``name``, or made where that is missing or damaged.

    ``name`` must change with whatever changes the content. The facts gain ``sha256``, the tensors' ``digest``. Raises
    BenchError where the folder cannot be written.
    """
    path = home() / f"{name}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            try:
                return _read(path)
            except (FileNotFoundError, SafetensorError, KeyError, ValueError):
                tensors, facts = make()
                facts |= {"sha256": digest(tensors)}
                partial = path.with_suffix(".partial")
                partial.write_bytes(save(tensors, {key: json.dumps(value) for key, value in facts.items()}))
                partial.replace(path)
                return tensors, facts
    except OSError as error:
        raise BenchError(f"cannot keep {path} ({error.strerror or error}): set BENCH_CACHE to a folder that can be "
                         "written, with space left") from None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, types and content."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(json.dumps([name, list(tensors[name].shape), str(tensors[name].dtype)]).encode())
        sha.update(tensors[name].contiguous().numpy())
    return sha.hexdigest()


def _read(path: Path) -> Content:
    """Raises one of the errors above unless the content is what was written."""
    with safe_open(path, framework="pt") as file:
        facts = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    if digest(tensors) != facts["sha256"]:
        raise ValueError(f"{path} is damaged")
    return tensors, facts
