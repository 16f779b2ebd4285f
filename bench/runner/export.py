"""A finished ticket: looked into, or taken out as one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import BenchError
from bench.storage.records import read_record
from bench.storage.stages import Store
from pruning import Masks
from pruning.sealed import read_tensors, write_tensors


def show(path: Path) -> list[dict[str, Any]]:
    """One row a tensor: entries kept, entries there are, density."""
    record = read_record(path)
    if record.status != "ok":
        raise BenchError(f"record {record.id} holds no ticket: {record.status}, {record.reason}")
    return [
        {"tensor": name, "kept": t.kept, "total": t.total, "density": t.kept / max(1, t.total)}
        for name, t in record.tensors.items()
    ]


def export(path: Path, to: Path, store: Path) -> tuple[Path, int, int]:
    """Write the trained ticket: for a masked tensor ``<name>.bits`` (packed mask) and ``<name>.kept`` (values of the kept
    entries in row order), any other tensor whole. A slim ticket's tensors are whole as they are, small, and its masks say what
    was cut. Returns the path, bytes of the parameters as trained, bytes of the file."""
    record = read_record(path)
    if record.status != "ok" or record.ticket is None:
        raise BenchError(f"record {record.id} holds no ticket: {record.status}, {record.reason}")
    masks = Masks.load(path.with_suffix(".masks.safetensors"), record.ticket.masks)
    key, _, step = record.ticket.stages[-1].partition("/")
    stage = Store(store).get(key, int(step))
    if stage is None:
        raise BenchError(
            f"the trained weights are not in the store {store}: give its store with --store, or run `{record.command}` again"
        )
    state = {n.removeprefix("model/"): t for n, t in stage.tensors().items() if n.startswith("model/")}
    tensors, shapes = {}, {}
    for name, value in state.items():
        mask = masks.get(name)
        if mask is not None:
            tensors[f"{name}.bits"] = torch.from_numpy(np.packbits(mask.numpy().reshape(-1)))
            shapes[name] = list(mask.shape)
        if mask is not None and mask.shape == value.shape:
            tensors[f"{name}.kept"] = value[mask].contiguous()
        else:
            tensors[name] = value.contiguous()
    to.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(to, tensors, {"shapes": json.dumps(shapes), "record": record.id})
    return to, sum(t.numel() * t.element_size() for t in state.values()), to.stat().st_size


def load_exported(path: Path) -> dict[str, torch.Tensor]:
    """The state dict that ``export`` wrote, zeros in place of what was pruned; of a slim ticket the small network's."""
    try:
        tensors, facts = read_tensors(path)
        shapes = json.loads(facts["shapes"])
    except FileNotFoundError:
        raise BenchError(f"no exported ticket at {path}") from None
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{path} is no exported ticket, or damaged ({error}): export it again") from None
    state = {n: t for n, t in tensors.items() if not n.endswith((".bits", ".kept"))}
    for name, shape in shapes.items():
        if name in state:
            continue
        values = tensors[f"{name}.kept"]
        bits = np.unpackbits(tensors[f"{name}.bits"].numpy(), count=int(np.prod(shape))).astype(bool)
        whole = torch.zeros(bits.size, dtype=values.dtype)
        whole[torch.from_numpy(bits)] = values
        state[name] = whole.reshape(shape)
    return state
