"""Measure something of networks or tickets beside their test metric.

Run an analysis on a task: one file of rows for every seed, published and shown on the leaderboards like records.

  bench list analyses                                               what there is
  bench analyse NAME tasks/cnn_cifar protocol=desk seeds=[0,1,2]
  bench analyse NAME tasks/cnn_cifar densities=[0.2] analysis.KEY=VALUE     its options, see its docstring
  bench analyse mine.py:function tasks/gcn_planetoid --dry-run      trainings it needs that are not stored

What it trains is stored and shared with `bench run`. docs/new_method.md says how to write one.
"""

import argparse

from bench.verbs.printing import report, table, tell_disk


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("analysis", help="its name (`bench list analyses`), or path/to/file.py:function")
    parser.add_argument("task", help="tasks/NAME, or the folder of a task of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration, and analysis.KEY=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="train nothing: say what would be trained, in what time and space")
    parser.add_argument("--json", action="store_true", help="the dry run as JSON")


def run(given: argparse.Namespace) -> int:
    """Run an analysis."""
    from rich.console import Console

    from bench.config import settings
    from bench.leaderboard.terminal import analysis_summary
    from bench.runner.analyses import requested
    from bench.runner.grid import disk, plan, run_grid

    analysis, overrides = requested(given.analysis, given.overrides)
    grid = settings(given.task, overrides)
    if given.dry_run:
        table(plan(grid, analysis), given.json, total=True)
        return 0
    tell_disk(disk(grid, analysis), grid[0].config["store"])
    return report(run_grid(grid, Console(stderr=True), analysis), analysis_summary, grid[0].config["runs"])
