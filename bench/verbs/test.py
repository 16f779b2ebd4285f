"""Run the conformance suite on a task folder."""

import argparse

from bench.verbs.arguments import add_overrides
from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("task")
    add_overrides(parser, "default: protocol=smoke")
    parser.add_argument("--json", action="store_true")


def run(given: argparse.Namespace) -> int:
    """Examine the task, one row for every check."""
    from bench.checks.conformance import examine
    from bench.config import settings

    rows = examine(settings(given.task, given.overrides or ["protocol=smoke"])[0])
    table(rows, given.json)
    return 1 if any(row["result"] != "ok" for row in rows) else 0
