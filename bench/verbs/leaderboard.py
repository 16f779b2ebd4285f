"""Regenerate leaderboards/*.md and plots from the records, or run what the boards lack.

bench leaderboard                                   the pages and plots
bench leaderboard --run --dry-run                   cells without a record whose method has other densities or seeds there
bench leaderboard --run --within 8h jobs=2          run them: what fills most cells an hour comes first
"""

import argparse

from bench.errors import BenchError
from bench.verbs import missing
from bench.verbs.arguments import add_root


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is not what the records give")
    add_root(parser)
    parser.add_argument("--json", action="store_true", help="the dry run as JSON")
    missing.arguments(parser)


def run(given: argparse.Namespace) -> int | None:
    """Regenerate the leaderboards, compare them with their records, or run what they lack."""
    from bench.leaderboard import pages

    if given.run:
        from bench.leaderboard.boards import boards
        from bench.leaderboard.missing import missing_runs
        from bench.storage.record_cache import load_records

        found = boards(load_records(given.root / "records"))
        return missing.run(lambda local: missing_runs(found, local), given, "bench publish RUNS && bench leaderboard")

    if not given.check:
        written = pages.write(given.root)
        print(f"{len(written)} files written from the records below {given.root}")
        return None
    differences = pages.check(given.root)
    if differences:
        print("\n".join(differences))
        raise BenchError("the leaderboards are not what their records give: run `bench leaderboard` and commit the result")
    print("the leaderboards match their records")
    return None
