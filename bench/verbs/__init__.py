"""The verbs of ``bench``, one file for each.

A verb's module is called like the verb. Its docstring is the verb's help, whose first line is shown by ``bench --help``.
``arguments`` declares what it takes, and ``run`` does it and returns the exit status. Nothing heavy is imported before
``run`` needs it. ``arguments.py``, ``printing.py``, ``run_jobs.py`` and ``missing.py`` have what verbs share.
"""

import argparse
from importlib import import_module
from typing import Protocol, cast


class Verb(Protocol):
    """The members of a verb's module."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the verb takes."""

    def run(self, given: argparse.Namespace) -> int | None:
        """Run the verb. None and 0 mean success."""


NAMES = (
    *("run", "suite", "analyse", "status", "list", "leaderboard", "claims", "site", "records", "publish"),
    *("review", "verify", "ticket", "export", "push", "speed", "store", "doctor", "test"),
)
"""The verbs in the order of ``bench --help``."""
VERBS = {name: cast(Verb, import_module(f"{__name__}.{name}")) for name in NAMES}
