"""Run a record's command again and compare."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import BenchError
from bench.verbs.consent import add_trust, consent


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("record", type=Path)
    add_trust(parser)
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest difference of a metric that still counts as equal")


def run(given: argparse.Namespace) -> None:
    """Run a record's command again in an empty store and compare."""
    from bench.runner.publish import verify as compare

    differences = compare(given.record, given.tolerance, consent(given))
    for line in differences:
        print(line)
    if differences:
        raise BenchError(f"{given.record} was not reproduced: {len(differences)} values differ")
    print(f"{given.record}: reproduced")
