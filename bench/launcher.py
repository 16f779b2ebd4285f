"""How this process was started: its command, and how many of it a launcher such as ``torchrun`` started. Nothing is loaded."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block. For imports that cannot be interrupted: NumPy takes it for a failure of its own
    and then fails at every other try."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(signal.SIGINT, None)
