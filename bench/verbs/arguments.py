"""Arguments that several verbs take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.export.ticket import TrainedTicket


def add_root(parser: argparse.ArgumentParser, about: str = "default: leaderboards") -> None:
    """Declare where the leaderboards are."""
    parser.add_argument("--root", type=Path, default=Path("leaderboards"), help=about)


def add_overrides(
    parser: argparse.ArgumentParser, about: str = "where things are on this machine: store=DIR, data.root=DIR"
) -> None:
    """Declare words of the configuration, ``key=value``, that follow what else stands without a flag."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=about)


def add_ticket(parser: argparse.ArgumentParser) -> None:
    """Declare the record whose ticket ``ticket`` opens."""
    parser.add_argument("record", type=Path, help="a record of a run")
    add_trust(parser)


def ticket(given: argparse.Namespace, *local: str) -> TrainedTicket:
    """Return the trained ticket that is asked for, and limit this process to its threads. ``local``: more overrides."""
    from bench.export.ticket import limit_threads, trained_ticket

    found = trained_ticket(given.record, [*given.overrides, *local], consent(given))
    limit_threads(found)
    return found


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare the option that answers yes to what ``consent`` asks."""
    parser.add_argument("--trust", action="store_true", help="run code from outside this repository without asking")


def consent(given: argparse.Namespace) -> Callable[[str], bool]:
    """Return the function that is told which code from outside a record's command runs, and says whether it may: the one at the
    keyboard decides."""

    def trusted(what: str) -> bool:
        if given.trust or not sys.stdin.isatty():
            return bool(given.trust)
        return input(f"The record's command runs code from outside this repository: {what}\nRun it? [y/N] ").lower() == "y"

    return trusted
