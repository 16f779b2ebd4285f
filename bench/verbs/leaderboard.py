"""Regenerate leaderboards/*.md and plots from the records."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import BenchError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is not what the records give")
    parser.add_argument("--root", type=Path, default=Path("leaderboards"), help="default: leaderboards")


def run(given: argparse.Namespace) -> None:
    """Regenerate the leaderboards, or compare them with their records."""
    from bench.leaderboard import site

    if not given.check:
        written = site.write(given.root)
        print(f"{len(written)} files written from the records below {given.root}")
        return
    differences = site.check(given.root)
    if differences:
        print("\n".join(differences))
        raise BenchError("the leaderboards are not what their records give: run `bench leaderboard` and commit the result")
    print("the leaderboards match their records")
    return
