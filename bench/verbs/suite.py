"""Run a method at every event of a suite, or show the suites' rankings.

A suite is a list of events in several domains; its score ranks the methods that were run at all of them.

  bench suite show                                    the rankings of all suites
  bench suite show weights --runs runs                with records of your own that are not published yet
  bench suite run weights method=imp --dry-run        trainings stored and missing, MACs, hours
  bench suite run weights method=mine.py:f runs=runs  all events; run it again to go on

The options of `bench run` that say where and how fast (runs, store, jobs, threads, device, data.root, model.root) and those of
the method (method.KEY=VALUE) may follow; the suite fixes everything else.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, UsageError
from bench.verbs.arguments import add_overrides, add_root
from bench.verbs.printing import table
from bench.verbs.run_jobs import load_runner, report

if TYPE_CHECKING:
    from bench.suites.schema import Suite


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("action", choices=("run", "show"))
    parser.add_argument("suite", nargs="?", help="its name; of show, all if left out")
    add_overrides(parser, "the method, its options, and where to run")
    parser.add_argument("--dry-run", action="store_true", help="train nothing: say what would be trained and how long it takes")
    parser.add_argument("--runs", type=Path, help="of show: a folder of records to be ranked with those of the leaderboards")
    add_root(parser)
    parser.add_argument("--json", action="store_true", help="the dry run or the ranking as JSON")


def run(given: argparse.Namespace) -> int | None:
    """Run a row of a suite, or show rankings."""
    from bench.suites import schema

    if given.action == "show":
        if given.overrides:
            raise UsageError(f"bench suite show takes no {given.overrides[0]}: --runs DIR adds records of your own")
        _show(given, [schema.named(given.root, given.suite)] if given.suite else schema.read_all(given.root))
        return None
    if not given.suite or "=" in given.suite:
        raise UsageError("bench suite run needs the name of a suite: bench suite run weights method=imp")
    suite = schema.named(given.root, given.suite)
    if not any(word.startswith("method=") for word in given.overrides):
        raise UsageError(f"say which method: bench suite run {suite.name} method=imp")
    load_runner()
    from bench.suites import entry

    if given.dry_run:
        table(entry.plan(suite, given.overrides), given.json, total=True)
        return 0
    return report(entry.run(suite, given.overrides))


def _show(given: argparse.Namespace, suites: list[Suite]) -> None:
    from bench.leaderboard.boards import boards
    from bench.leaderboard.terminal import table as text
    from bench.storage.record_cache import load_records
    from bench.suites import page
    from bench.suites.ranking import ranking

    if not suites:
        raise BenchError(f"no suites: {given.root / 'suites'} holds no *.yaml")
    records = {record.id: record for folder in (given.root / "records", given.runs) if folder for record in load_records(folder)}
    grouped = boards(records.values())
    rankings = [ranking(suite, grouped) for suite in suites]
    if given.json:
        table([row for each in rankings for row in page.rows(each)], True)
        return
    for each in rankings:
        print(f"suite {each.suite.name}, version {each.suite.version}: {each.suite.about}\n")
        print(text(page.ranking_table(each)) if each.ranked else "no method is whole yet")
        if each.unranked:
            print(f"\nnot ranked:\n{text(page.missing_table(each))}")
        print()
