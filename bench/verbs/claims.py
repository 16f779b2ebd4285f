"""Judge what papers claim by the records, regenerate leaderboards/claims.md, run what it lacks.

bench claims                                             the verdicts, and the page
bench claims --run --dry-run --protocol desk             what would be run, in which order, and how many hours it takes here
bench claims --run --paper renda --within 8h jobs=2      run it: what judges most claims an hour comes first
bench claims --run executor=slurm store=DIR runs=DIR     on any executor; the same command goes on where it stopped
"""

import argparse

from bench.errors import BenchError
from bench.verbs import missing
from bench.verbs.arguments import add_root
from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the ledger is not what the records give")
    parser.add_argument("--json", action="store_true", help="verdicts with numbers and commands; the dry run as JSON")
    parser.add_argument("--paper", help="--run: claims of one paper only, by a part of its name or of a claim's id")
    parser.add_argument("--protocol", help="--run: claims at one protocol only")
    missing.arguments(parser)
    add_root(parser)


def run(given: argparse.Namespace) -> int | None:
    """Rewrite the ledger, compare it, or run what it lacks."""
    from bench.claims import page
    from bench.leaderboard.boards import boards
    from bench.storage.record_cache import load_records

    judged = page.verdicts(given.root, boards(load_records(given.root / "records")))
    if given.run:
        from bench.claims.missing import missing_runs

        return missing.run(
            lambda local: missing_runs(judged, given.paper, given.protocol, local),
            given,
            "bench publish RUNS && bench leaderboard && bench claims",
        )
    if given.check:
        differences = page.check(given.root, judged)
        if differences:
            print("\n".join(differences))
            raise BenchError("the ledger is not what claims and records give: run `bench claims` and commit the result")
        print("the ledger matches its claims and records")
        return None
    page.write(given.root, judged)
    rows = [v.row() for v in judged]
    shown = ("id", "where", "test", "verdict", "seeds")
    table(rows if given.json else [{key: row[key] for key in shown} for row in rows], given.json)
    return None
