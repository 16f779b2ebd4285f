"""Interruptions that a cluster announces: the training that runs stores a checkpoint at the end of its step, and then ends.
Between trainings everything that counts is stored, and an interruption ends the work at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_training = False
_announced = False


class Interrupted(BaseException):
    """The work ends because the cluster takes the machine back. What is stored is enough to go on."""


def due() -> bool:
    """Whether the training that runs shall store a checkpoint and raise Interrupted."""
    return _announced


def defer(training: bool) -> None:
    """While a training runs, an interruption is only noted; see ``due``."""
    global _training
    _training = training


@contextmanager
def on(*signals: int) -> Iterator[list[int]]:
    """Take these signals as announcements; yields those that came. They are their former handlers' again afterwards."""
    came: list[int] = []

    def announce(number: int, frame: object) -> None:
        global _announced
        _announced = True
        came.append(number)
        if not _training:
            raise Interrupted

    former = {number: signal.signal(number, announce) for number in signals}
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
