"""What the verbs share that run jobs: the dry run, the room on disk, and what came of the jobs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from bench import launcher
from bench.verbs.printing import size, table

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome

WORTH_A_LINE = 1e6
"""Bytes below which nobody asks how much disk a grid takes."""


def load_runner() -> None:
    """Import what every run needs, PyTorch among it, while Ctrl-C waits."""
    with launcher.ctrl_c_waits():
        from bench.runner import grid, plan  # noqa: F401 (they import all of it)


def run_or_plan(jobs: list[Job], given: argparse.Namespace) -> int:
    """Run jobs and report, or with ``--dry-run`` print what they would train; return the exit status."""
    from bench.runner.grid import run_jobs
    from bench.runner.plan import disk, plan

    if given.dry_run:
        table(list(plan(jobs)), given.json, total=True)
        return 0
    takes, free = disk(jobs)
    if takes >= WORTH_A_LINE:
        warning = ": give another store=DIR, or see `bench store clean`" if takes > free else ""
        store = jobs[0].setting.config["store"]
        print(f"this will store about {size(takes)} in {store}, where {size(free)} are free{warning}", file=sys.stderr)
    return report(run_jobs(jobs))


def report(outcomes: list[Outcome]) -> int:
    """Print what jobs produced and what failed; return the exit status."""
    from bench.leaderboard.terminal import analysis_summary, summary
    from bench.storage.records import Record

    made = {record.id: record for outcome in outcomes for record in outcome.records}.values()
    if records := [record for record in made if isinstance(record, Record)]:
        print(summary(records))
    if analyses := [record for record in made if not isinstance(record, Record)]:
        print(analysis_summary(analyses))
    if made:
        runs = outcomes[0].job.setting.config["runs"]
        print(f"records: {len(made)} under {runs}; to put them on a leaderboard: bench publish {runs} && bench leaderboard")
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed and len(outcomes) == 1:  # failures were printed when they happened
        print(f"bench: nothing was lost. To try again: {launcher.command_line()}", file=sys.stderr)
    elif failed:
        print(
            f"bench: {len(failed)} of {len(outcomes)} jobs failed; the others are kept. First: {failed[0].error}. "
            f"To try the failed ones again: {launcher.command_line()}",
            file=sys.stderr,
        )
    return 1 if failed else 0
