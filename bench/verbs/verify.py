"""Run a record's command again and compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.errors import BenchError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("record", type=Path)
    parser.add_argument("--trust", action="store_true", help="run code from outside this repository without asking")
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest difference of a metric that still counts as equal")


def run(given: argparse.Namespace) -> None:
    """Run a record's command again in an empty store and compare."""
    from bench.runner.publish import verify as compare

    def trusted(what: str) -> bool:
        if given.trust or not sys.stdin.isatty():
            return bool(given.trust)
        return input(f"The record's command runs code from outside this repository: {what}\nRun it? [y/N] ").lower() == "y"

    differences = compare(given.record, given.tolerance, trusted)
    for line in differences:
        print(line)
    if differences:
        raise BenchError(f"{given.record} was not reproduced: {len(differences)} values differ")
    print(f"{given.record}: reproduced")
