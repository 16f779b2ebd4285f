"""The verbs of ``bench``, one file for each.

A verb's module is called like the verb. Its docstring is the verb's help, whose first line is shown by ``bench --help``.
``arguments`` declares what it takes, and ``run`` does it and returns the exit status. Nothing heavy is imported before
``run`` needs it.
"""

from __future__ import annotations

import argparse
from typing import Protocol

from bench.verbs import analyse, claims, doctor, export, leaderboard, list, publish, push, run, store, test, ticket, verify


class Verb(Protocol):
    """What a verb's module has."""

    __name__: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the verb takes."""

    def run(self, given: argparse.Namespace) -> int | None:
        """Do it; None and 0 mean that all went well."""


VERBS: tuple[Verb, ...] = (run, analyse, list, leaderboard, claims, publish, verify, ticket, export, push, store, doctor, test)
"""In the order of ``bench --help``."""
