"""The runner: joins tasks and pruning, stores every training, derives every table."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.experiment import Experiment as Experiment
    from bench.export.pretrained import from_pretrained as from_pretrained
    from bench.notebook import records as records
    from bench.notebook import run as run
    from bench.notebook import suite as suite

OFFERED = {
    "Experiment": "bench.experiment",
    "from_pretrained": "bench.export.pretrained",
    **dict.fromkeys(("records", "run", "suite"), "bench.notebook"),
}
"""What ``import bench`` offers -> the module that has it, which is loaded when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in OFFERED:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(importlib.import_module(OFFERED[name]), name)
