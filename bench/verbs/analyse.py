"""Measure something of networks or tickets beside their test metric.

Run an analysis on a task: one file of rows for every seed, published and shown on the leaderboards like records.

  bench list analyses                                               what there is
  bench analyse NAME tasks/cnn_cifar protocol=desk seeds=[0,1,2]
  bench analyse NAME tasks/cnn_cifar densities=[0.2] analysis.KEY=VALUE     its options, see its docstring
  bench analyse mine.py:function tasks/gcn_planetoid --dry-run      trainings it needs that are not stored

What it trains is stored and shared with `bench run`. docs/new_method.md says how to write one.
"""

import argparse

from bench.verbs.arguments import add_overrides
from bench.verbs.run_jobs import load_runner, run_or_plan


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("analysis", help="its name (`bench list analyses`), or path/to/file.py:function")
    parser.add_argument("task", help="tasks/NAME, or the folder of a task of your own")
    add_overrides(parser, "configuration, and analysis.KEY=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="train nothing: say what would be trained, in what time and space")
    parser.add_argument("--json", action="store_true", help="the dry run as JSON")


def run(given: argparse.Namespace) -> int:
    """Run an analysis."""
    load_runner()
    from bench.config import settings
    from bench.runner.analyses import requested
    from bench.runner.jobs import jobs_of

    analysis, overrides = requested(given.analysis, given.overrides)
    return run_or_plan(jobs_of(settings(given.task, overrides), analysis), given)
