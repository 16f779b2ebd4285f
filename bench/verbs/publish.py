"""Validate a run's records and put them under leaderboards/records."""

import argparse
from pathlib import Path

from bench.verbs.arguments import add_root


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("run", type=Path, help="a runs folder, or one record")
    add_root(parser)


def run(given: argparse.Namespace) -> None:
    """Put a run's records under the leaderboards."""
    from bench.runner.publish import publish as put

    paths = put(given.run, given.root / "records")
    print(f"{len(paths)} records published below {given.root / 'records'}; now run: bench leaderboard")
