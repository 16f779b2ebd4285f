"""Whether a record's command may run code from outside this repository: the one at the keyboard says so."""

import argparse
import sys
from collections.abc import Callable


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare the option that answers yes."""
    parser.add_argument("--trust", action="store_true", help="run code from outside this repository without asking")


def consent(given: argparse.Namespace) -> Callable[[str], bool]:
    """Return the function that is told what would be run and says whether it may be."""

    def trusted(what: str) -> bool:
        if given.trust or not sys.stdin.isatty():
            return bool(given.trust)
        return input(f"The record's command runs code from outside this repository: {what}\nRun it? [y/N] ").lower() == "y"

    return trusted
