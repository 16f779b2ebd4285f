"""The verbs of ``bench``, one file for each.

A verb's module is called like the verb. Its docstring is the verb's help, whose first line is shown by ``bench --help``.
``arguments`` declares what it takes, and ``run`` does it and returns the exit status. Nothing heavy is imported before
``run`` needs it.
"""

import argparse
from typing import Protocol

from bench.verbs import (
    analyse,
    claims,
    doctor,
    export,
    leaderboard,
    list,
    publish,
    push,
    records,
    review,
    run,
    site,
    speed,
    status,
    store,
    suite,
    test,
    ticket,
    verify,
)


class Verb(Protocol):
    """The members of a verb's module."""

    __name__: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the verb takes."""

    def run(self, given: argparse.Namespace) -> int | None:
        """Run the verb. None and 0 mean success."""


VERBS: tuple[Verb, ...] = (
    run,
    suite,
    analyse,
    status,
    list,
    leaderboard,
    claims,
    site,
    records,
    publish,
    review,
    verify,
    ticket,
    export,
    push,
    speed,
    store,
    doctor,
    test,
)
"""The verbs in the order of ``bench --help``."""
