"""How many processes a launcher such as ``torchrun`` started, known without loading PyTorch."""

import os


def launched() -> int:
    """Return how many processes a launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local() -> int:
    """Return how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def first() -> bool:
    """Return whether this is the process that writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0
