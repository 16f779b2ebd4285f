"""The machine and the versions that made a record, as the record states them."""

import ctypes
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.errors import UsageError
from bench.machine import installed
from bench.training.distributed import processes
from bench.training.kernels import isa_limit

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>

PACKAGES = (
    "ticket-bench",
    "torch",
    "torchvision",
    "transformers",
    "huggingface-hub",
    "pyarrow",
    "torch-geometric",
    "numpy",
    "scipy",
)


@cache
def _fixed() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": {p: installed(p) for p in PACKAGES},
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": bool(git("status", "--porcelain", "--", "bench", "pruning", "tasks")),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else _cpu(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "onednn_limit": isa_limit() or None,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def environment() -> dict[str, Any]:
    """Return versions, device, the thread count of this process, and how many processes trained together if there were
    several."""
    several = {"processes": processes()} if processes() > 1 else {}
    return {**_fixed(), "threads": torch.get_num_threads(), **several}


def now() -> str:
    """Return the time as records state it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def device(asked: str) -> torch.device:
    """Return the device to compute on: ``auto`` is the GPU if there is one."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=asked).device
    except (RuntimeError, AssertionError):
        raise UsageError(f"device={asked} is not to be had here: use auto, cpu or cuda") from None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def keep_freed_memory() -> None:
    """Make glibc keep memory that is freed. By default it returns large blocks at once although every step needs the same again:
    page faults took 4 to 9 % of a training of ResNet-20."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # other C libraries need no such setting, or have none
        for option, size in {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**30, TOP_PAD: 2**28}.items():
            mallopt(option, size)
