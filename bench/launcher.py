"""What a launcher such as ``torchrun`` says of the processes it started, without loading PyTorch."""

from __future__ import annotations

import os


def launched() -> int:
    """How many processes a launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local() -> int:
    """How many of them on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def first() -> bool:
    """Whether this is the one that writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0
