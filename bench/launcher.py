"""How this process was started: its command, and how many of it a launcher such as ``torchrun`` started. Nothing is loaded."""

import os
import shlex
import sys


def command_line() -> str:
    """Return the command of this process, for messages that say how to continue."""
    return shlex.join(["bench", *sys.argv[1:]])


def launched() -> int:
    """Return how many processes a launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local() -> int:
    """Return how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def first() -> bool:
    """Return whether this is the process that writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0
