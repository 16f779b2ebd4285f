"""What the verbs share that run what is missing: their flags, the plan, and running it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.verbs.arguments import add_overrides
from bench.verbs.printing import table
from bench.verbs.run_jobs import load_runner, report

if TYPE_CHECKING:
    from bench.runner.missing import MissingRun


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how gaps in what was measured are filled."""
    parser.add_argument("--run", action="store_true", help="run what is missing; what fills most gaps an hour comes first")
    parser.add_argument("--dry-run", action="store_true", help="--run: train nothing, print the plan with hours")
    parser.add_argument("--within", metavar="TIME", help="--run: only what fits into 8h, 90m or 2d")
    add_overrides(parser, "--run: where to run: jobs, store, runs, executor, ...")


def run(find: Callable[[list[str]], list[MissingRun]], given: argparse.Namespace, then: str) -> int:
    """Plan the runs that are missing, and run them or print the plan.

    find  finds them; it is given what the command line says of where and how to run
    then  the command that uses the records
    """
    load_runner()
    from bench.runner import missing
    from bench.runner.grid import run_jobs

    limit = missing.parse_hours(given.within) if given.within else math.inf
    wanted = find(missing.local_only(given.overrides))
    if not wanted:
        print("nothing is missing")
        return 0
    spread = missing.workers(wanted)
    steps = missing.order(wanted, missing.estimate(wanted), limit * spread)
    total = sum(step.hours for step in steps) / spread
    if given.dry_run:
        table([step.row() for step in steps], given.json)
        if not given.json:
            print(f"{sum(not step.impossible for step in steps)} commands, {total:,.2g} hours on {spread} workers")
        return 0
    jobs = missing.jobs(steps)
    if not jobs:
        raise BenchError(f"nothing that is missing can be run here{' in that time' if given.within else ''}: see --dry-run")
    print(f"{len(jobs)} jobs, about {total:,.2g} hours", file=sys.stderr)
    code = report(run_jobs(jobs))
    print(f"then: {then.replace('RUNS', jobs[0].setting.config['runs'])}")
    return code
