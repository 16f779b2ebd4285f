"""Run a record's command again and compare."""

import argparse
from pathlib import Path

from bench.errors import BenchError
from bench.verbs.arguments import add_root, add_trust, consent


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("record", type=Path)
    add_trust(parser)
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest difference of a metric that still counts as equal")
    parser.add_argument("--keep", action="store_true", help="keep what comes of it below the leaderboards, where pages show it")
    add_root(parser, "where to keep it; default: leaderboards")


def run(given: argparse.Namespace) -> None:
    """Run a record's command again in an empty store and compare."""
    from bench.runner import verify
    from bench.storage import reruns

    if given.keep:
        made = verify.rerun(given.record, given.root, "elsewhere", consent(given))
        print(f"{given.record}: {made.outcome}, {reruns.OUTCOMES[made.outcome]}; kept as {reruns.write(made, given.root)}")
        return
    differences = verify.verify(given.record, given.tolerance, consent(given))
    for line in differences:
        print(line)
    if differences:
        raise BenchError(f"{given.record} was not reproduced: {len(differences)} values differ")
    print(f"{given.record}: reproduced")
