"""Judge what papers claim by the records, regenerate leaderboards/claims.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import BenchError
from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the ledger is not what the records give")
    parser.add_argument("--json", action="store_true", help="verdicts with numbers and commands")
    parser.add_argument("--root", type=Path, default=Path("leaderboards"), help="default: leaderboards")


def run(given: argparse.Namespace) -> None:
    """Rewrite the ledger, or compare it."""
    from bench.claims import page

    judged = page.verdicts(given.root)
    if given.check:
        differences = page.check(given.root, judged)
        if differences:
            print("\n".join(differences))
            raise BenchError("the ledger is not what claims and records give: run `bench claims` and commit the result")
        print("the ledger matches its claims and records")
        return
    page.write(given.root, judged)
    rows = [v.row() for v in judged]
    shown = ("id", "where", "test", "verdict", "seeds")
    table(rows if given.json else [{key: row[key] for key in shown} for row in rows], given.json)
